package lock

import "time"

const (
	maxIdle    = 16          // goroutines kept for the next call that needs one
	idleLinger = time.Second // for about how long, while none does
)

// workers are the goroutines of a Locker. They are used again: what a call of
// go-redis needs of stack is dear to grow anew each time. Locker.mu guards them.
type workers struct {
	n     int           // all of them, those of longer standing and callers as well
	idle  []chan func() // each takes one function, or its end by being closed; the last used last
	spare int           // how many were idle all the time since the last sweep
	sweep *time.Timer   // ends them, while any are idle
}

// spawn runs f on a goroutine that Close waits for. Call with mu held.
func (l *Locker) spawn(f func()) {
	w := &l.workers
	if last := len(w.idle) - 1; last >= 0 {
		w.idle[last] <- f // it has room for one
		w.idle = w.idle[:last]
		w.spare = min(w.spare, last)
		return
	}
	w.n++
	go l.work(f)
}

func (l *Locker) work(f func()) {
	var more chan func()
	for f != nil {
		f()
		if more == nil {
			more = make(chan func(), 1)
		}
		if !l.rest(more) {
			break
		}
		f = <-more
	}
	l.mu.Lock()
	l.gone()
	l.mu.Unlock()
}

// here is spawn on the caller's goroutine. Call with mu held, which it gives up meanwhile.
func (l *Locker) here(f func()) {
	if l.post != nil { // before Close has f to wait for
		l.unlock()
		l.mu.Lock()
	}
	l.workers.n++
	l.mu.Unlock()
	returned := false
	defer func() {
		l.mu.Lock()
		if l.gone(); !returned { // a hook of the client has panicked
			l.mu.Unlock()
		}
	}()
	f()
	returned = true
}

// gone tells Close that a goroutine is at work no more. Call with mu held.
func (l *Locker) gone() {
	if l.workers.n--; l.workers.n == 0 {
		l.drained.Broadcast()
	}
}

// rest makes a goroutine wait for more to do, unless there are enough that do.
func (l *Locker) rest(more chan func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.workers
	if l.closed || len(w.idle) == maxIdle {
		return false
	}
	w.idle = append(w.idle, more)
	if len(w.idle) == 1 {
		w.spare = 0
		if w.sweep == nil {
			w.sweep = time.AfterFunc(idleLinger, l.sweepWorkers)
		} else {
			w.sweep.Reset(idleLinger)
		}
	}
	return true
}

// sweepWorkers ends the goroutines that had nothing to do since the last time.
func (l *Locker) sweepWorkers() {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.workers
	w.end(w.spare)
	if w.spare = len(w.idle); w.spare > 0 {
		w.sweep.Reset(idleLinger)
	}
}

// end ends so many of the idle goroutines, those first that were used longest ago.
func (w *workers) end(n int) {
	for _, c := range w.idle[:n] {
		close(c)
	}
	w.idle = append(w.idle[:0], w.idle[n:]...)
	w.spare = 0
}
