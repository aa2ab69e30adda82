package lock

import (
	"context"
	"fmt"
	"time"
)

// try is one TryAcquire or Adopt, or a part of a TryAcquireAll: the lock it may
// become, and the call for it.
type try struct {
	lock  Lock
	lease lease
	args  *acquireArgs // until it was sent
	adopt *adoptArgs   // instead of args, if set
	reply acquireReply
	err   error
	done  chan struct{} // nil: the caller makes the call itself

	// Guarded by Locker.mu.
	answered  bool
	abandoned bool
}

// TryAcquire takes a lock if nobody holds it, and never waits: it is one round
// trip, refused or not. The error is
//   - a [*LockedError] if another holds the lock,
//   - an [*UnavailableError] if Redis could not be asked or did not answer,
//   - the cause of ctx if that ended before the answer came; what the answer then
//     grants is given back in the background,
//   - [ErrClosed], or one that matches [ErrInvalid].
//
// The lock lasts for its TTL and no longer, unless the caller extends it or
// calls [Lock.Hold]. A try does not stand in line: it takes a lock that expired
// even if others wait for it.
func (l *Locker) TryAcquire(ctx context.Context, name string, opts ...Option) (*Lock, error) {
	s, err := l.settings(name, opts)
	if err != nil {
		return nil, err
	}
	return l.try(ctx, name, s, nil)
}

// try makes one call that takes the lock or does not: an acquire, or adopt if that is set.
func (l *Locker) try(ctx context.Context, name string, s settings, adopt *adoptArgs) (*Lock, error) {
	if ctx.Err() != nil {
		k := keysOf(l.cfg.Prefix, name)
		return nil, cutOff(ctx, adopt.op(), &k)
	}
	t := l.newTry(name, s)
	if adopt != nil {
		adopt.value = t.lease.value
		t.adopt = adopt
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	l.track(&t.lease)
	t.lease.since = time.Now()
	if ctx.Done() == nil {
		l.here(func() { t.ask(ctx) })
		t.answer()
		return t.result(ctx, t.lease.since)
	}
	t.done = make(chan struct{})
	l.spawn(func() { t.call(detached(ctx)); close(t.done) })
	l.mu.Unlock()
	select {
	case <-t.done:
	case <-ctx.Done():
	}
	l.mu.Lock()
	return t.result(ctx, t.lease.since)
}

// newTry returns a try with a new token.
func (l *Locker) newTry(name string, s settings) *try {
	t := &try{}
	t.lock.ls, t.lock.name, t.lock.ttl = &t.lease, name, s.ttl
	t.lease.l, t.lease.keys, t.lease.ttl, t.lease.watch.index = l, keysOf(l.cfg.Prefix, name), s.ttl, -1
	t.lease.value = l.newValue(s.owner)
	t.args = newAcquireArgs()
	t.args.value, t.args.lease, t.args.block, t.args.margin = &t.lease.value, s.ttl, 1, l.cfg.FenceMargin
	return t
}

// call asks Redis, and takes in the answer.
func (t *try) call(ctx context.Context) {
	t.ask(ctx)
	t.lease.l.mu.Lock()
	t.answer()
	t.lease.l.mu.Unlock()
}

func (t *try) ask(ctx context.Context) {
	ls := &t.lease
	if t.adopt != nil {
		t.reply, t.err = t.adopt.call(ctx, ls.l.node, &ls.keys)
	} else {
		t.reply, t.err = ls.l.node.acquire(ctx, &ls.keys, t.args)
		t.args.free()
	}
	t.args = nil
}

// answer says that the answer is there. Call with mu held.
func (t *try) answer() {
	t.answered = true
	if t.abandoned {
		t.clean()
	}
}

// clean forgets a try that did not become a lock.
func (t *try) clean() {
	ls := &t.lease
	ls.over = true
	switch {
	case t.err == nil && !t.reply.granted:
		delete(ls.l.live, ls.value)
		ls.l.refusedBy(&ls.keys, t.reply.holder)
	case t.err != nil && !mayHold(t.err):
		delete(ls.l.live, ls.value)
	default:
		ls.l.giveBack(ls)
	}
}

// result makes a lock of the try, or the error that says why not. Call with mu held, which
// it gives up.
func (t *try) result(ctx context.Context, began time.Time) (*Lock, error) {
	ls, l := &t.lease, t.lease.l
	defer l.unlock()
	if !t.answered {
		t.abandoned = true
		return nil, cutOff(ctx, t.adopt.op(), &ls.keys)
	}
	switch {
	case t.err != nil:
		t.clean()
		return nil, unavailable(t.adopt.op(), ls.keys.lock, t.err)
	case !t.reply.granted:
		t.clean()
		if t.adopt != nil {
			return nil, fmt.Errorf("lock: adopt %q: %w", ls.keys.lock, ErrNotHeld)
		}
		_, owner := splitValue(t.reply.holder)
		held := &LockedError{Key: ls.keys.lock, Owner: owner, RetryAfter: max(t.reply.left, 0)}
		l.hookRefused(ctx, held, began)
		if ctx.Err() != nil {
			return nil, cutShort(ctx, ls.keys.lock, held)
		}
		return nil, held
	case ctx.Err() != nil:
		t.clean()
		return nil, cutOff(ctx, t.adopt.op(), &ls.keys)
	}
	now := time.Now()
	ls.granted, ls.deadline = ls.ttl, validUntil(ls.since, ls.ttl)
	if between(now, ls.deadline) <= 0 {
		t.clean()
		return nil, &UnavailableError{Op: t.adopt.op(), Key: ls.keys.lock, Sent: true, Err: errLate}
	}
	t.lock.fence, t.lock.began, ls.cur, ls.spared = t.reply.fence, now, &t.lock, t.reply.spared
	l.hookAcquired(ctx, &t.lock, began)
	return &t.lock, nil
}

func (l *Locker) hookAcquired(ctx context.Context, lk *Lock, began time.Time) {
	lk.returned = true
	if hook := l.cfg.Hooks.Acquired; hook != nil {
		e := AcquiredEvent{Key: lk.ls.keys.lock, Fence: lk.fence, Waited: time.Since(began)}
		l.post = append(l.post, func() { hook(ctx, e) })
	}
}

func (l *Locker) hookRefused(ctx context.Context, held *LockedError, began time.Time) {
	if hook := l.cfg.Hooks.Refused; hook != nil {
		e := RefusedEvent{Key: held.Key, Owner: held.Owner, Waited: time.Since(began)}
		l.post = append(l.post, func() { hook(ctx, e) })
	}
}
