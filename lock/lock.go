package lock

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/reports"
)

// Lock is one section under a lock: from an acquiring call until Release, or
// until it is lost. It is safe for concurrent use. The zero value is not usable;
// on a nil *Lock, Fence returns 0 and Release does nothing.
type Lock struct {
	ls    *lease
	name  string
	fence int64
	ttl   time.Duration
	began time.Time

	// Guarded by Locker.mu.
	cause    error                   // why it was lost; nil: it was not
	expires  time.Time               // once the section is over
	ctx      *sectionContext         // of Hold
	cancel   context.CancelCauseFunc // of Hold
	disowned bool                    // another may hold it now
	leg      *leg                    // of a relay, or nil
	returned bool                    // by an acquiring call; else nobody was told of it

	releasing sync.Mutex // held during Release; guards the fields below
	released  bool
	covered   bool // it was held when Release was called first
	outcome   error
	reported  []string
	unsure    bool // what there was to report went with a lost answer
	taken     bool // what there is to report is told by who asked for that, and by nobody else
}

// Name returns the lock's name, as it was given to the acquiring call.
func (lk *Lock) Name() string { return lk.name }

// Fence returns the fencing token: a number that is larger for each later holder
// of the lock. It never changes. See the package comment for what it is good
// for. A nil Lock has fence 0, which is no holder's.
func (lk *Lock) Fence() int64 {
	if lk == nil {
		return 0
	}
	return lk.fence
}

// TTL returns how long the lease lasts that Extend asks for.
func (lk *Lock) TTL() time.Duration { return lk.ttl }

// Expires returns until when the lock is certainly held if nobody extends it:
// what Redis promised, counted from when it was asked, less 1 % and 2 ms for the
// difference of clocks. Extend and the watchdog of Hold move it. Once the
// section is over, it stays.
func (lk *Lock) Expires() time.Time {
	lk.ls.l.mu.Lock()
	defer lk.ls.l.mu.Unlock()
	if lk.ls.cur == lk {
		return lk.ls.deadline
	}
	return lk.expires
}

// Extend asks for a full lease again, counted from now; one that lasts longer, for it
// was a section's with a longer TTL, stays. It never takes a lock that is gone: the error then matches [ErrNotHeld], as it does, without a round
// trip, when the lease ran out by the local clock or the lock was released.
// Other errors, [*UnavailableError] and that of ctx, leave the lock held until
// [Lock.Expires].
func (lk *Lock) Extend(ctx context.Context) error {
	ls, l := lk.ls, lk.ls.l
	l.mu.Lock()
	if ls.cur == lk && past(ls.deadline) {
		ls.lapse(ErrNotHeld)
	}
	if ls.cur != lk {
		err := lk.notHeld("extend")
		l.unlock()
		return err
	}
	a := &extendArgs{value: ls.value, lease: ls.ttl}
	l.unlock()

	sent := time.Now()
	var failed error // written before ask returns nil, and not looked at otherwise
	err := l.ask(ctx, "extend", &ls.keys, func(ctx context.Context) error {
		held, err := l.node.extend(ctx, &ls.keys, a)
		if err != nil {
			return err
		}
		l.mu.Lock()
		failed = lk.answered(ctx, sent, a.lease, held)
		l.unlock()
		return nil
	})
	if err != nil {
		return err
	}
	return failed
}

// answered takes in the answer to an extend.
func (lk *Lock) answered(ctx context.Context, sent time.Time, d time.Duration, held bool) error {
	ls := lk.ls
	if ls.cur == lk && (!held || past(ls.deadline)) {
		ls.lapse(ErrNotHeld)
	}
	if ls.cur != lk {
		return lk.notHeld("extend")
	}
	if hook := ls.l.cfg.Hooks.Extended; hook != nil {
		e := ExtendedEvent{Key: ls.keys.lock, Slack: until(ls.deadline)}
		ls.l.post = append(ls.l.post, func() { hook(ctx, e) })
	}
	ls.extended(sent, d)
	return nil
}

// notHeld is the error of a section that is over.
func (lk *Lock) notHeld(op string) error {
	cause := lk.cause
	if cause == nil {
		cause = ErrNotHeld
	}
	return fmt.Errorf("lock: %s %q: %w", op, lk.ls.keys.lock, cause)
}

// Release gives the lock up: to the next goroutine of this process that waits
// for it, without a round trip, or else to the first process in line, or it
// frees it. After [Lock.Token] it always asks Redis. It does so even if ctx has
// ended, within 6 s; ctx only carries values. In Hold it ends the context given
// to the function. Calls after the first return what the first did, except that
// after an [*UnavailableError] they try again; what could not be released in the
// foreground is released in the background, and ends with its lease at the
// latest.
//
// The error matches [ErrNotHeld] if the lock was lost before Release was called, as far as
// this process knew, or by its lease's end: then someone else may have held it at the same
// time. A lock that Redis lost before, or an operator revoked, cannot be told from one
// that this very call released and whose answer was lost: that is no error.
func (lk *Lock) Release(ctx context.Context) error {
	if lk == nil {
		return nil
	}
	_, err := lk.release(ctx, false, false)
	return err
}

// release is Release. Of a section in Hold it first sees to the end of the lease,
// whose timer may be late; and if it went well, the next of its relay may follow. lost
// is why the lock was lost before; nil: it was not.
func (lk *Lock) release(ctx context.Context, held, well bool) (lost, err error) {
	lk.releasing.Lock()
	defer lk.releasing.Unlock()
	ls, l := lk.ls, lk.ls.l
	l.mu.Lock()
	now := time.Now()
	if held && ls.cur == lk {
		ls.check(now)
	}
	lost = lk.cause
	if lk.released {
		l.unlock()
		return lost, lk.outcome
	}
	if ls.cur == lk {
		lk.expires = ls.deadline
		lk.covered = between(now, ls.deadline) > 0
		lk.hookReleased(ctx)
		if lk.cancel != nil {
			cause := ErrNotHeld
			if held {
				cause = nil // its function has returned
			}
			lk.cancel(cause) // before anyone else can hold it
		}
		if ls.tk != nil && ls.tk.slot.handOn(ls.tk, now) || well && lk.pass(now) {
			lk.released = true
			l.unlock()
			return lost, nil
		}
		ls.cur = nil
		ls.end()
		if ls.tk != nil {
			ls.tk.slot.state = releasing
		}
	} else if lk.disowned {
		lk.released = true
		l.unlock()
		return lost, nil
	} else if lk.cause != nil {
		if l.cfg.LapseDelay > 0 {
			l.giveBack(ls) // its holder has come to an end after all
		}
		lk.released, lk.outcome = true, lk.notHeld("release")
		l.unlock()
		return lost, lk.outcome
	} // else an earlier Release got no answer
	d := departure{ls: ls}
	if !d.leave(ctx, now) {
		return lost, &UnavailableError{Op: "release", Key: ls.keys.lock, Sent: true, Err: context.DeadlineExceeded}
	}
	if d.err != nil {
		return lost, unavailable("release", ls.keys.lock, d.err)
	}
	lk.released = true
	lk.reported = d.reply.queues
	lk.unsure = !d.reply.released && lk.covered
	if !held {
		lk.taken = false // who asked for that is still busy under it, and may be so for long
	}
	if !lk.taken {
		l.tell(&ls.keys, lk.reported, lk.unsure)
	}
	if !d.reply.released && !lk.covered {
		l.mu.Lock()
		lk.lose(ErrNotHeld)
		lk.outcome = lk.notHeld("release")
		l.unlock()
	}
	return lost, lk.outcome
}

// departure is the release of a section that its holder waits for.
type departure struct {
	ls    *lease
	reply releaseReply
	err   error
}

// leave releases, and reports whether that ended within releaseTimeout from now. It makes
// the first attempt itself if that is sure to end by then. Call with mu held, which it gives up.
func (d *departure) leave(ctx context.Context, now time.Time) bool {
	l := d.ls.l
	left := releaseTimeout
	if n, ok := l.node.(*single); ok && n.prompt() {
		l.here(func() { d.send(l.limits.limit(ctx, now), true) })
		if d.err != nil {
			left -= time.Since(now)
		}
		if d.err == nil || left <= 0 || !n.repeats {
			d.settle()
			l.unlock()
			return true
		}
	}
	there, first := departure{ls: d.ls}, d.err // d is the caller's
	done := make(chan struct{})
	var over atomic.Bool // for the caller: done, or too late
	l.spawn(func() {
		there.send(detached(ctx), false)
		if first != nil && maybeRan(first) {
			there.err = attempts.Again(there.err)
		}
		l.mu.Lock()
		there.settle()
		l.unlock()
		if !over.CompareAndSwap(false, true) {
			l.report(&there.ls.keys, there.reply.queues)
		}
		close(done)
	})
	l.unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		if over.CompareAndSwap(false, true) {
			return false
		}
		<-done // now
	}
	*d = there
	return true
}

func (d *departure) send(ctx context.Context, once bool) {
	ls, l := d.ls, d.ls.l
	a := newReleaseArgs()
	a.value, a.entry, a.margin, a.report, a.once, a.spared = &ls.value, ls.entry, l.cfg.FenceMargin, true, once, ls.spared
	d.reply, d.err = l.node.release(ctx, &ls.keys, a)
	a.free()
}

// settle takes in the answer, or that there was none. Call with mu held.
func (d *departure) settle() {
	ls, l := d.ls, d.ls.l
	if d.err != nil {
		l.giveBack(ls)
	} else {
		delete(l.live, ls.value)
	}
	if ls.tk != nil {
		ls.tk.slot.ended(ls.tk)
	}
}

func (lk *Lock) hookReleased(ctx context.Context) {
	if hook := lk.ls.l.cfg.Hooks.Released; hook != nil && lk.returned {
		e := ReleasedEvent{Key: lk.ls.keys.lock, Fence: lk.fence, Held: time.Since(lk.began)}
		lk.ls.l.post = append(lk.ls.l.post, func() { hook(detached(ctx), e) })
	}
}

// Reported returns, after Release, the names of the delay queues that had
// registered with [Locker.Look] and that this release took out of the set. Without
// [Locker.OnFreed] the caller tells them that the lock is free. It is empty if the lock
// went to someone in line, and until Release has succeeded.
func (lk *Lock) Reported() []string {
	if lk == nil {
		return nil
	}
	lk.releasing.Lock()
	defer lk.releasing.Unlock()
	return lk.reported
}

// ReportLost tells whether the names that [Lock.Reported] should have may have been
// lost: Release found that the lock was not held any more though its lease was not over,
// most likely because the answer to its first command did not come.
func (lk *Lock) ReportLost() bool {
	if lk == nil {
		return false
	}
	lk.releasing.Lock()
	defer lk.releasing.Unlock()
	return lk.unsure
}

func init() {
	reports.Take = func(lk any) {
		if lk, ok := lk.(*Lock); ok {
			lk.releasing.Lock()
			defer lk.releasing.Unlock()
			lk.taken = true
		}
	}
	reports.Taken = func(lk any) bool {
		l, ok := lk.(*Lock)
		if !ok || l == nil {
			return false
		}
		l.releasing.Lock()
		defer l.releasing.Unlock()
		return l.taken
	}
}
