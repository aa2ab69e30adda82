package lock

import (
	"context"
	"fmt"
	"time"
)

// Relay makes a section of [Locker.TryDo] part of a relay: the sections that a worker
// of a delay queue runs one after the other under one lock, because the queue brings
// the next request of that lock with the answer that the last one is done. If a
// section ends without an error, and nobody else waits for the lock, no process in
// line and no queue but this one, then the lock goes to the next section with the
// same name, owner, TTL and queue, with a fence and a lease of its own. Neither
// TryDo waits for that, as a rule: it is one round trip, beside those of the queue.
//
// A lock that no section comes for is released after 10 ms, or by [Locker.EndRelay];
// a worker that stops waits for that by [Locker.EndRelays]. Meanwhile it is held: if
// the queue gives the request to another process, that one meets it. Sections whose
// requests do not bear that, because a conflict costs them more than a round trip,
// take [LastOfRelay].
//
// After 16 sections in a row the lock is released in any case, for those who do not
// stand in line but try again and again. Of a queue that all this frees the lock for,
// [Locker.OnFreed] tells, not [Lock.Reported].
//
// queue is the name by which the queue registers ([Locker.Look]); an empty one is an
// error that matches [ErrInvalid]. [Locker.Do] takes either option for LastOfRelay;
// other calls, and a quorum, ignore them.
func Relay(queue string) Option { return relayOption{queue: queue, passes: true} }

// LastOfRelay is [Relay] for a section that takes a lock that was passed on to it, but
// releases it at its end, before TryDo returns.
func LastOfRelay(queue string) Option { return relayOption{queue: queue} }

type relayOption struct {
	queue  string
	passes bool
}

func (o relayOption) String() string {
	if o.passes {
		return fmt.Sprintf("Relay(%q)", o.queue)
	}
	return fmt.Sprintf("LastOfRelay(%q)", o.queue)
}

func (o relayOption) apply(s *settings) error {
	if o.queue == "" {
		return fmt.Errorf("%w: relay without a queue", ErrInvalid)
	}
	s.relay = o
	return nil
}

const (
	relayTime     = 10 * time.Millisecond // for which a lock waits for its next section
	relaySections = 16                    // in a row
)

type relayID struct {
	name, owner, queue string
	ttl                time.Duration
}

// leg is a section's place in its relay.
type leg struct {
	relayID
	n int // 1 for the first
}

// baton is a lock on its way from one section of a relay to the next. Locker.mu
// guards the fields of the second group.
type baton struct {
	next leg
	from *lease // of the section that has ended
	ls   *lease // of the next one; its fields are set once the lock is kept

	state    batonState
	fence    int64
	awaited  bool // a section has come for it
	unwanted bool // none is coming
	timer    *time.Timer
	answered chan struct{} // closed when state is passing no more
	gone     chan struct{} // closed when the lock is not ours any more
}

type batonState uint8

const (
	passing  batonState = iota // Redis is asked to give the lock to the next section
	kept                       // it did
	dropping                   // it did not, or the lock is given back
)

// pass ends a section by passing its lock on to the next one of its relay, if it
// may. Call with mu held.
func (lk *Lock) pass(now time.Time) bool {
	ls, l := lk.ls, lk.ls.l
	n, one := l.node.(*single)
	if lk.leg == nil || lk.leg.n >= relaySections || ls.given || !one || l.closed || between(now, ls.deadline) <= 0 {
		return false
	}
	ls.cur = nil
	ls.end()
	next := &lease{l: l, keys: ls.keys, ttl: ls.ttl, value: l.newValue(lk.leg.owner), watch: watch{index: -1}}
	l.live[next.value] = next
	b := &baton{next: leg{lk.leg.relayID, lk.leg.n + 1}, from: ls, ls: next, answered: make(chan struct{}), gone: make(chan struct{})}
	l.batons[b.next.relayID] = b
	l.spawn(func() { b.ask(n) })
	return true
}

// ask asks Redis to give the lock to the next section.
func (b *baton) ask(n *single) {
	ls, l := b.ls, b.ls.l
	ls.since = time.Now()
	r, err := n.relay(context.Background(), &ls.keys, &relayArgs{
		value: b.from.value, next: ls.value, queue: b.next.queue, lease: ls.ttl, margin: l.cfg.FenceMargin,
	})
	l.mu.Lock()
	lost := false
	switch {
	case err != nil:
		b.drop()
	case !r.kept:
		b.state = dropping
		b.end()
		lost = !r.released // but by a copy whose answer did not come: the lease was not over
	default:
		b.state, b.fence = kept, r.fence
		ls.granted, ls.deadline = ls.ttl, validUntil(ls.since, ls.ttl)
		b.timer = time.AfterFunc(relayTime, b.ring)
		if b.unwanted || l.closed {
			b.drop()
		}
	}
	close(b.answered)
	l.unlock()
	l.report(&ls.keys, r.queues)
	if lost {
		l.reportLost(&ls.keys)
	}
}

func (b *baton) ring() {
	b.ls.l.mu.Lock()
	b.unwant()
	b.ls.l.unlock()
}

// unwant gives the lock back if no section has come for it. Call with mu held.
func (b *baton) unwant() {
	if b.awaited {
		return
	}
	b.refuse()
}

// refuse gives the lock back whether a section has come for it or not. Call with mu
// held.
func (b *baton) refuse() {
	b.unwanted = true
	if b.state == kept {
		b.drop()
	}
}

// drop gives back what the last section or the next may hold: in this order, since
// the command that makes one of the other may still be under way. Call with mu held.
func (b *baton) drop() {
	l, keep := b.ls.l, b.state == kept
	covered := !keep || between(time.Now(), b.ls.deadline) > 0
	b.state = dropping
	if b.timer != nil {
		b.timer.Stop()
	}
	l.spawn(func() {
		var r releaseReply
		if !keep {
			r = l.undone(b.ls.keys, b.from.value, "")
		}
		if !r.released {
			r = l.undone(b.ls.keys, b.ls.value, "")
		}
		l.mu.Lock()
		b.end()
		l.unlock()
		l.report(&b.ls.keys, r.queues)
		if covered && !r.released {
			l.reportLost(&b.ls.keys)
		}
	})
}

// end forgets the baton: nobody holds the lock by it any more. Call with mu held.
func (b *baton) end() {
	delete(b.ls.l.live, b.ls.value)
	b.leave()
	close(b.gone)
}

// leave takes the baton out of the Locker's list. Call with mu held.
func (b *baton) leave() {
	l := b.ls.l
	delete(l.live, b.from.value)
	if l.batons[b.next.relayID] == b {
		delete(l.batons, b.next.relayID)
	}
}

// tryRelay begins a section of a relay, with the lock that the last section has
// passed on, or else by a try.
func (l *Locker) tryRelay(ctx context.Context, name string, s settings) (*Lock, error) {
	id := relayID{name, s.owner, s.relay.queue, s.ttl}
	lk, err := l.takeOver(ctx, id), error(nil)
	if lk == nil {
		lk, err = l.try(ctx, name, s, nil)
	}
	switch {
	case err != nil:
		return nil, err
	case !s.relay.passes:
		lk.leg = nil
	case lk.leg == nil:
		lk.leg = &leg{id, 1}
	}
	return lk, nil
}

// passedOn returns the lock that was passed on to a section with these options, or nil.
func (l *Locker) passedOn(ctx context.Context, name string, opts []Option) *Lock {
	if len(opts) == 0 {
		return nil
	}
	s, err := l.settings(name, opts)
	if err != nil || s.relay.queue == "" {
		return nil
	}
	lk := l.takeOver(ctx, relayID{name, s.owner, s.relay.queue, s.ttl})
	if lk != nil {
		lk.leg = nil
	}
	return lk
}

// takeOver returns nil if no lock was passed on.
func (l *Locker) takeOver(ctx context.Context, id relayID) *Lock {
	began := time.Now()
	l.mu.Lock()
	defer l.unlock()
	b := l.batons[id]
	if b == nil || b.awaited {
		return nil
	}
	b.awaited = true
	b.await(ctx)
	if b.state == kept && (b.ls.given || past(b.ls.deadline)) {
		b.refuse()
		b.await(ctx)
	}
	if b.state != kept || ctx.Err() != nil || l.closed {
		b.awaited = false
		b.unwant()
		return nil
	}
	b.timer.Stop()
	b.leave()
	lk := &Lock{ls: b.ls, name: id.name, fence: b.fence, ttl: b.ls.ttl, began: time.Now(), leg: &b.next}
	b.ls.cur = lk
	l.hookAcquired(ctx, lk, began)
	return lk
}

// await waits until it is known what has become of the lock, and, if it is given back,
// until it was: a try before would be refused because of us. Called with mu held, which
// it gives up meanwhile.
func (b *baton) await(ctx context.Context) {
	l := b.ls.l
	wait := func(known <-chan struct{}) {
		l.unlock()
		select {
		case <-known:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
	if b.state == passing {
		wait(b.answered)
	}
	if b.state == dropping {
		wait(b.gone)
	}
}

// EndRelay releases the lock that a section in a [Relay] of that queue has passed on,
// or is about to, if no section has come for it: none is coming. It does not wait for
// the release, sends nothing if there is no such lock, and is safe to call at any
// time. opts are those of the sections.
func (l *Locker) EndRelay(name, queue string, opts ...Option) {
	s, err := l.settings(name, opts)
	if err != nil {
		return // nor can there have been such a section
	}
	l.mu.Lock()
	defer l.unlock()
	if b := l.batons[relayID{name, s.owner, queue, s.ttl}]; b != nil {
		b.unwant()
	}
}

// EndRelays is EndRelay for all relays of that queue, and waits until their locks are
// released, or ctx ends: for a worker that stops, and whose process may end.
func (l *Locker) EndRelays(ctx context.Context, queue string) {
	l.mu.Lock()
	var all []*baton
	for id, b := range l.batons {
		if id.queue == queue && !b.awaited {
			b.unwant()
			all = append(all, b)
		}
	}
	l.unlock()
	for _, b := range all {
		select {
		case <-b.gone:
		case <-ctx.Done():
			return
		}
	}
}
