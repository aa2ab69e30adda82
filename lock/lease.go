package lock

import (
	"context"
	"time"
)

// leaseSweep is the time between two sweeps for leases that ran out unnoticed.
const leaseSweep = time.Minute

// lease is one token's hold on a key, real or hoped for. A try has one of its
// own; a ticket of a slot passes its lease from section to section. The fields
// of the first group never change; the others are guarded by Locker.mu.
type lease struct {
	l     *Locker
	keys  keys
	value string // token, space, owner label
	tk    *ticket

	entry    string        // in the line, from the first join on
	spared   []int         // nodes of a quorum that were never asked for the lease
	ttl      time.Duration // to extend by: that of the section's caller
	granted  time.Duration // length of the last lease: the TTL, or a claim lease
	since    time.Time     // from when that counts
	deadline time.Time     // until when the lock is ours
	limit    time.Time     // until when the section may hold it; zero: no limit
	cur      *Lock         // the section inside; nil: none
	given    bool          // the token was, or it was revoked from here: it may be another's by now
	over     bool          // released, lost or given up: never to be extended again
	timer    *time.Timer   // at deadline or limit, if somebody needs to know
	armed    time.Time     // for when timer runs; zero: it does not
	watch    watch
}

// drift is what a lease counts for less, because clocks run at different rates
// and Redis counts in milliseconds.
func drift(d time.Duration) time.Duration { return d/100 + 2*time.Millisecond }

// validUntil is the local deadline of a lease that was asked for at sent.
func validUntil(sent time.Time, d time.Duration) time.Time { return sent.Add(d - drift(d)) }

// until is how long it is to t, by the clock that says less: the monotonic one
// stands still while the machine sleeps, and the wall clock may be set back.
func until(t time.Time) time.Duration { return between(time.Now(), t) }

func between(now, t time.Time) time.Duration {
	return min(t.Sub(now), t.Round(0).Sub(now.Round(0)))
}

// past reports whether t has come, by either clock.
func past(t time.Time) bool { return until(t) <= 0 }

// extended takes in an answer that came in time.
func (ls *lease) extended(sent time.Time, d time.Duration) {
	if t := validUntil(sent, d); t.After(ls.deadline) {
		ls.deadline, ls.granted, ls.since = t, d, sent
		if ls.cur != nil && ls.cur.ctx != nil {
			ls.cur.ctx.lasts(t)
		}
	}
	if ls.timer != nil {
		ls.arm()
	}
}

// ends is when the section is over at the latest, and why.
func (ls *lease) ends() (at time.Time, cause error) {
	if !ls.limit.IsZero() && ls.limit.Before(ls.deadline) {
		return ls.limit, errMaxHold
	}
	return ls.deadline, ErrNotHeld
}

// arm makes sure that the end of the lease is noticed at once.
func (ls *lease) arm() {
	at, _ := ls.ends()
	switch {
	case ls.timer == nil:
		ls.timer = time.AfterFunc(until(at), ls.ring)
	case !ls.armed.Equal(at):
		ls.timer.Reset(until(at))
	}
	ls.armed = at
}

func (ls *lease) ring() {
	ls.l.mu.Lock()
	ls.armed = time.Time{}
	ls.check(time.Now())
	ls.l.unlock()
}

// check ends the lease if its time has come.
func (ls *lease) check(now time.Time) {
	switch {
	case ls.over || ls.cur == nil:
	case !ls.limit.IsZero() && between(now, ls.limit) <= 0:
		ls.lapse(errMaxHold)
	case between(now, ls.deadline) <= 0:
		ls.lapse(ErrNotHeld)
	case ls.timer != nil:
		ls.arm()
	}
}

// end marks the lease as one to let go of; what Redis has of it is the caller's
// to release.
func (ls *lease) end() {
	ls.over = true
	ls.l.dog.remove(ls)
	if ls.timer != nil {
		ls.timer.Stop()
		ls.armed = time.Time{}
	}
}

// lapse leaves a holder behind: its context ends, and whoever waits in this
// process gets a new ticket at once, whatever the holder does.
func (ls *lease) lapse(cause error) {
	if ls.over {
		return
	}
	if ls.l.cfg.LapseDelay == 0 {
		ls.l.giveBack(ls) // a courtesy: it may still be ours in Redis
	} // else it stays closed until the holder releases it, or the delay is over
	ls.abandon(cause)
}

// abandon is lapse, but sends nothing.
func (ls *lease) abandon(cause error) {
	ls.end()
	lk := ls.cur
	ls.cur = nil
	if lk != nil {
		lk.lose(cause)
	}
	if ls.tk != nil {
		ls.tk.slot.ended(ls.tk)
	}
}

// track makes the token known until its lease is done with. Call with mu held.
func (l *Locker) track(ls *lease) {
	l.live[ls.value] = ls
	switch {
	case l.sweeping:
		return
	case l.sweep == nil:
		l.sweep = time.AfterFunc(leaseSweep, l.sweepLeases)
	default:
		l.sweep.Reset(leaseSweep)
	}
	l.sweeping = true
}

// sweepLeases forgets the leases that nobody released, or whose token was given
// away, once Redis should have forgotten them. Those of the former kind it releases:
// Redis has them for longer if an extension was carried out whose answer was lost.
func (l *Locker) sweepLeases() {
	l.mu.Lock()
	defer l.unlock()
	now := time.Now()
	for _, ls := range l.live {
		if ls.deadline.IsZero() || between(now, ls.deadline.Add(2*drift(ls.granted)+l.cfg.LapseDelay)) > 0 {
			continue
		}
		if ls.cur != nil {
			ls.abandon(ErrNotHeld)
			l.giveBack(ls)
		} else {
			delete(l.live, ls.value)
		}
	}
	if l.sweeping = len(l.live) > 0 && !l.closed; l.sweeping {
		l.sweep.Reset(leaseSweep)
	}
}

// lose tells a section that it holds nothing any more.
func (lk *Lock) lose(cause error) {
	lk.cause = cause
	lk.expires = lk.ls.deadline
	ctx := context.Background()
	if lk.cancel != nil {
		ctx = lk.ctx
		lk.cancel(cause)
	}
	if hook := lk.ls.l.cfg.Hooks.Lost; hook != nil && lk.returned {
		e := LostEvent{Key: lk.ls.keys.lock, Fence: lk.fence, Held: time.Since(lk.began), Err: cause}
		lk.ls.l.post = append(lk.ls.l.post, func() { hook(detached(ctx), e) })
	}
}
