package lock

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// sectionContext is the context of a section in Hold. A timer ends it with the
// lease; but a process that was stopped runs on for a moment before its overdue
// timers do, so Err looks at the clock itself.
type sectionContext struct {
	context.Context
	cancel context.CancelCauseFunc
	end    atomic.Pointer[time.Time] // of the lease
}

func (c *sectionContext) lasts(until time.Time) { c.end.Store(&until) }

// Err implements context.Context.
func (c *sectionContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if past(*c.end.Load()) {
		c.cancel(ErrNotHeld)
	}
	return c.Context.Err()
}

// inHold reports whether there was a Hold of the lock.
func (lk *Lock) inHold() bool {
	lk.ls.l.mu.Lock()
	defer lk.ls.l.mu.Unlock()
	return lk.cancel != nil
}

// Hold runs fn while a watchdog extends the lease, every third of it, and then
// releases the lock; also if fn panics, or if ctx has ended.
//
// The context given to fn ends when ctx does, and, with the cause [ErrNotHeld],
// when the lock is lost: at the latest when the lease runs out by the local
// clock, which needs no answer from Redis and is before anyone else can have the
// lock. Its Err looks at that clock itself: it tells even a process that was
// stopped meanwhile and whose timers have not caught up yet; one derived from it learns
// of the end a moment later. fn has to heed it;
// nothing else stops a function that has lost its lock.
// It ends as well, with that cause, when Config.MaxHold is over, and when the lock is
// released before fn has returned.
//
// Hold returns fn's error. If the lock was lost before fn returned, the error
// matches ErrNotHeld too, also if fn's was nil. That Redis did not answer to the
// release is no error: what fn did was covered. If ctx has ended before, or the
// lock is lost, fn is not called. Nor is it in a second Hold of the lock, such as one
// inside Do: that returns ErrNotHeld, or the cause of a ctx that has ended, and the
// lock goes on. If fn is nil the error matches [ErrInvalid], and the lock stays held.
func (lk *Lock) Hold(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	if fn == nil {
		return invalid("fn is nil")
	}
	ls, l := lk.ls, lk.ls.l
	if ctx.Err() != nil {
		if !lk.inHold() {
			_ = lk.Release(ctx) // what it cannot release it has released in the background
		}
		return cutOff(ctx, "hold", &ls.keys)
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	held := &sectionContext{Context: inner, cancel: cancel}

	l.mu.Lock()
	if ls.cur == lk && past(ls.deadline) {
		ls.lapse(ErrNotHeld)
	}
	if ls.cur != lk || lk.cancel != nil {
		err := lk.notHeld("hold")
		l.unlock()
		return err
	}
	held.lasts(ls.deadline)
	lk.ctx, lk.cancel = held, cancel
	if l.cfg.MaxHold > 0 {
		ls.limit = time.Now().Add(l.cfg.MaxHold)
	}
	ls.arm()
	l.dog.add(ls)
	l.unlock()

	returned := false
	defer func() {
		switch lost, rel := lk.release(ctx, true, returned && err == nil); {
		case lost != nil:
			err = errors.Join(err, lost)
		case errors.Is(rel, ErrNotHeld):
			err = errors.Join(err, rel)
		case rel != nil:
			l.cfg.Logger.Warn("lock: release got no answer", "key", ls.keys.lock, "error", rel)
		}
	}()
	err = fn(held)
	returned = true
	return err
}
