package lock

import (
	"container/heap"
	"context"
	"time"
)

const (
	dogBatch = 250         // leases in one command
	dogDoze  = time.Second // longest sleep, so that a clock that jumped is noticed
	dogRetry = 10 * time.Millisecond
)

// watchdog extends the leases of the sections in Hold: one goroutine per
// Locker, while there are any, and one for each command under way. Locker.mu guards it.
type watchdog struct {
	leases  leaseHeap
	running bool
	sleeps  time.Time     // until when the goroutine sleeps
	wake    chan struct{} // one token: it has to look again
}

// watch is the watchdog's part of a lease.
type watch struct {
	index int       // in the heap; -1: not watched
	next  time.Time // when to extend
}

// leaseHeap has the lease on top that is to be extended next.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].watch.next.Before(h[j].watch.next) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].watch.index, h[j].watch.index = i, j
}

// Push implements heap.Interface.
func (h *leaseHeap) Push(x any) {
	ls := x.(*lease)
	ls.watch.index = len(*h)
	*h = append(*h, ls)
}

// Pop implements heap.Interface.
func (h *leaseHeap) Pop() any {
	old := *h
	n := len(old) - 1
	ls := old[n]
	old[n] = nil
	*h = old[:n]
	ls.watch.index = -1
	return ls
}

// poke makes the goroutine look again.
func (d *watchdog) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// add watches a lease. The first tick comes after a third of what was granted,
// which may be a claim lease.
func (d *watchdog) add(ls *lease) {
	if ls.watch.index >= 0 || ls.l.closed {
		return
	}
	ls.watch.next = ls.since.Add(ls.granted / 3)
	heap.Push(&d.leases, ls)
	switch {
	case !d.running:
		d.running = true
		ls.l.spawn(func() { d.run(ls.l) })
	case ls.watch.next.Before(d.sleeps):
		d.poke()
	}
}

// remove stops watching.
func (d *watchdog) remove(ls *lease) {
	if ls.watch.index >= 0 {
		heap.Remove(&d.leases, ls.watch.index)
	}
}

// run ticks until nothing is left to watch when it wakes.
func (d *watchdog) run(l *Locker) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Now()
	for {
		l.mu.Lock()
		now := time.Now()
		// A wall clock that went ahead of the monotonic one means that the
		// machine slept: leases may have run out without their timers.
		if now.Round(0).Sub(last.Round(0))-now.Sub(last) > 50*time.Millisecond {
			for _, ls := range append([]*lease(nil), d.leases...) {
				ls.armed = time.Time{} // its timer counts by the clock that stood still
				ls.check(now)
			}
		}
		last = now
		if len(d.leases) == 0 || l.closed {
			d.running = false
			l.unlock()
			return
		}
		d.tick(l, now)
		sleep := dogDoze
		if len(d.leases) > 0 {
			sleep = min(max(d.leases[0].watch.next.Sub(now), time.Millisecond), dogDoze)
		}
		d.sleeps = now.Add(sleep)
		l.unlock()

		timer.Reset(sleep)
		select {
		case <-timer.C:
		case <-d.wake:
		}
	}
}

// tick sends what is due, and what will be soon, in batches. Each lease stays
// in the heap at the time of its next attempt, should no answer come.
func (d *watchdog) tick(l *Locker, now time.Time) {
	var batch []extendItem
	for len(d.leases) > 0 {
		ls := d.leases[0]
		soon := min(ls.ttl, ls.granted) / 24
		if ls.watch.next.Sub(now) > soon {
			break
		}
		batch = append(batch, extendItem{ls: ls, keys: ls.keys, args: extendArgs{value: ls.value, lease: ls.ttl}})
		ls.watch.next = now.Add(max(min(until(ls.deadline)/4, ls.ttl/3), dogRetry) + soon)
		heap.Fix(&d.leases, 0)
		if len(batch) == dogBatch {
			d.send(l, batch)
			batch = nil
		}
	}
	if len(batch) > 0 {
		d.send(l, batch)
	}
}

// send extends a batch on a goroutine of its own, so that a server that does not
// answer holds up nobody else's lease and no later attempt.
func (d *watchdog) send(l *Locker, batch []extendItem) {
	l.spawn(func() {
		sent := time.Now()
		ctx := context.Background()
		l.node.extendAll(ctx, batch)
		l.mu.Lock()
		defer l.unlock()
		for i := range batch {
			it := &batch[i]
			ls := it.ls
			switch {
			case ls.over || ls.cur == nil:
			case it.err != nil:
				// The next attempt is set already.
			default:
				// The answer may be for an earlier section of the same turn:
				// the lease is the same.
				if ls.cur.answered(ctx, sent, it.args.lease, it.held) == nil && ls.watch.index >= 0 {
					ls.watch.next = sent.Add(ls.ttl / 3)
					heap.Fix(&d.leases, ls.watch.index)
				}
			}
		}
	})
}
