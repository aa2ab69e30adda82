package lock

import (
	"context"
	"time"
)

// Backoff decides how long a wait goes on. It is asked when a try was refused:
// attempt is the number of tries so far, 1 the first time, and elapsed the time
// since the call began. It returns when to look again at the latest, or false to
// give up. The backoffs of package retry are Backoffs.
//
// A waiter learns of a release without looking. Delays under a millisecond count
// as one.
type Backoff interface {
	Next(attempt int, elapsed time.Duration) (delay time.Duration, ok bool)
}

// minDelay bounds how often a backoff can make a waiter look.
const minDelay = time.Millisecond

// Acquire takes a lock, and waits in line for it if another holds it. A nil
// backoff waits until ctx ends; another one also says when to give up, and the
// error is then a [*LockedError].
//
// If ctx ends first, the error matches both its cause and, if the lock was seen
// held by another, [ErrLocked]; nothing is left behind in line. The other errors
// are those of [Locker.TryAcquire]; one that matches [ErrUnavailable] ends the
// wait.
//
// The lock returned lasts for its TTL, or at least for half of it if it came from
// another goroutine of this process, and no longer, unless the caller extends it
// or calls [Lock.Hold].
//
// Acquire takes one round trip if the lock is free. The first wait of a Locker
// opens a subscription, on which others tell it that the lock is its own; without
// Pub/Sub it asks again every second or so.
func (l *Locker) Acquire(ctx context.Context, name string, b Backoff, opts ...Option) (*Lock, error) {
	return l.acquire(ctx, name, b, true, opts)
}

func (l *Locker) acquire(ctx context.Context, name string, b Backoff, plain bool, opts []Option) (*Lock, error) {
	set, err := l.settings(name, opts)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		k := keysOf(l.cfg.Prefix, name)
		return nil, cutOff(ctx, "acquire", &k)
	}
	began := time.Now()
	w := &waiter{plain: plain, ttl: set.ttl, done: make(chan struct{})}
	if b != nil {
		w.look = make(chan struct{}, 1)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	s := l.slotFor(slotID{name, set.owner})
	switch c := s.want(w); {
	case c == nil:
		l.unlock()
	case ctx.Done() == nil:
		l.here(func() { c.run(ctx) })
		l.unlock()
	default:
		l.spawn(func() { c.run(detached(ctx)) })
		l.unlock()
	}

	gaveUp := !l.wait(ctx, s, w, b, began)

	l.mu.Lock()
	defer l.unlock()
	if gaveUp || ctx.Err() != nil {
		held := s.lockedError() // before cancel, which may change who waits
		switch {
		case !s.cancel(w) && w.lock != nil:
			if !gaveUp || ctx.Err() != nil {
				l.spawn(func() { _ = w.lock.Release(ctx) }) // what it cannot release it has released in the background
				return nil, cutOff(ctx, "acquire", &s.keys)
			}
		case w.err != nil:
			return nil, w.err
		default:
			if held == nil && gaveUp { // the holder it was told of, in this process, has just left
				held = &LockedError{Key: s.keys.lock, Owner: s.id.owner}
			}
			if held != nil {
				l.hookRefused(ctx, held, began)
			}
			if ctx.Err() != nil {
				return nil, cutShort(ctx, s.keys.lock, held)
			}
			return nil, held
		}
	}
	if w.err != nil {
		return nil, w.err
	}
	l.hookAcquired(ctx, w.lock, began)
	return w.lock, nil
}

// wait returns when the wait has ended, or ctx has, or, with false, when the
// backoff gave up.
func (l *Locker) wait(ctx context.Context, s *slot, w *waiter, b Backoff, began time.Time) bool {
	select {
	case <-w.done:
		return true
	default:
	}
	if b == nil {
		select {
		case <-w.done:
		case <-ctx.Done():
		}
		return true
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	armed := false
	for attempt := 1; ; {
		select {
		case <-w.done:
			return true
		case <-ctx.Done():
			return true
		case <-w.look:
			if armed {
				continue // the answer to somebody else's look
			}
			d, ok := l.next(s, w, b, attempt, time.Since(began))
			if !ok {
				return false
			}
			attempt++
			timer.Reset(max(d, minDelay))
			armed = true
		case <-timer.C:
			armed = false
			l.mu.Lock()
			s.recheck(w)
			l.unlock()
		}
	}
}

// next asks the backoff. If that panics, nobody waits any more.
func (l *Locker) next(s *slot, w *waiter, b Backoff, attempt int, elapsed time.Duration) (d time.Duration, ok bool) {
	answered := false
	defer func() {
		if answered {
			return
		}
		l.mu.Lock()
		defer l.unlock()
		if !s.cancel(w) && w.lock != nil {
			l.spawn(func() { _ = w.lock.Release(context.Background()) }) // what it cannot release it has released in the background
		}
	}()
	d, ok = b.Next(attempt, elapsed)
	answered = true
	return d, ok
}

// Do acquires a lock as [Locker.Acquire] does and runs fn under it as
// [Lock.Hold] does. It enters as soon as the lock is handed to it, without
// another round trip.
func (l *Locker) Do(ctx context.Context, name string, b Backoff, fn func(ctx context.Context, lk *Lock) error, opts ...Option) error {
	if fn == nil {
		return invalid("fn is nil")
	}
	lk, err := l.passedOn(ctx, name, opts), error(nil)
	if lk == nil {
		lk, err = l.acquire(ctx, name, b, false, opts)
	}
	if err != nil {
		return err
	}
	return lk.Hold(ctx, func(ctx context.Context) error { return fn(ctx, lk) })
}

// TryDo takes a lock as [Locker.TryAcquire] does and runs fn under it as
// [Lock.Hold] does.
func (l *Locker) TryDo(ctx context.Context, name string, fn func(ctx context.Context, lk *Lock) error, opts ...Option) error {
	if fn == nil {
		return invalid("fn is nil")
	}
	s, err := l.settings(name, opts)
	if err != nil {
		return err
	}
	var lk *Lock
	if s.relay.queue == "" {
		lk, err = l.try(ctx, name, s, nil)
	} else {
		lk, err = l.tryRelay(ctx, name, s)
	}
	if err != nil {
		return err
	}
	return lk.Hold(ctx, func(ctx context.Context) error { return fn(ctx, lk) })
}
