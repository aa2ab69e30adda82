package lock

import (
	"context"
	"math/rand/v2"
	"time"
)

// slot is one lock as this process sees it: the goroutines that wait for it, and
// the one ticket that stands for all of them in Redis. Callers with different
// owner labels have different slots, as if they were different processes. All
// fields but the first group are guarded by Locker.mu, and all methods are called
// with it held.
//
//	none      no ticket, and no call open
//	calling   acquire was sent
//	inLine    acquire was refused; a grant, the timer or a new subscription goes on
//	held      a section of this process is inside
//	releasing release was sent
type slot struct {
	l    *Locker
	id   slotID
	keys keys

	state state
	fifo  []*waiter
	room  [1]*waiter // for the first of them
	tk    *ticket    // nil in state none
	mail  *mailbox
	timer *time.Timer // in line: when to ask again
	block int64       // fences to reserve for the next turn

	refused  bool // by Redis, as the fields below say
	holder   string
	left     time.Duration
	lookedAt time.Time
}

type slotID struct{ name, owner string }

type state uint8

const (
	none state = iota
	calling
	inLine
	held
	releasing
)

// ticket is a lease that stands in line and is passed on inside the process.
type ticket struct {
	lease
	slot  *slot
	block int64

	anchored bool      // the two fields below are from one answered acquire
	sent     time.Time // when it was sent
	server   int64     // the server's time in its answer

	resubscribed bool   // while calling: ask again, whatever the answer
	pending      *grant // came while calling: judged after the answer
	splits       int    // how often in a row nobody had a majority
	had          bool   // granted before, with a lease too short for who waits now

	next int64 // the next fence of the block
	last int64 // the last one
	turn time.Time
}

// waiter is one call of Acquire or Do.
type waiter struct {
	plain bool // wants a lease that lasts, and confirms a grant
	ttl   time.Duration
	look  chan struct{} // one token: refused, so ask the backoff; nil: has none

	done chan struct{} // closed when one of the fields below is set
	lock *Lock
	err  error
}

// call is one acquire of a ticket.
type call struct {
	tk   *ticket
	args acquireArgs
	sent time.Time
}

func (c *call) run(ctx context.Context) {
	l := c.tk.l
	c.sent = time.Now()
	r, err := l.node.acquire(ctx, &c.tk.keys, &c.args)
	l.mu.Lock()
	c.tk.slot.answered(c, r, err)
	l.unlock()
}

// slotFor returns the slot of a name, new if need be.
func (l *Locker) slotFor(id slotID) *slot {
	s := l.slots[id]
	if s == nil {
		s = &slot{l: l, id: id, keys: keysOf(l.cfg.Prefix, id.name)}
		s.fifo = s.room[:0]
		l.slots[id] = s
	}
	return s
}

// want puts a waiter in the process's own line. The call returned is to be made,
// if there is one.
func (s *slot) want(w *waiter) *call {
	s.fifo = append(s.fifo, w)
	switch s.state {
	case none:
		return s.newTicket()
	case held:
		s.tk.arm()
		w.ask()
	case inLine:
		w.ask()
	}
	return nil
}

func (s *slot) newTicket() *call {
	tk := &ticket{slot: s, block: min(max(s.block, firstBlock), int64(s.l.cfg.TurnSections))}
	tk.lease = lease{l: s.l, keys: s.keys, tk: tk, value: s.l.newValue(s.id.owner), watch: watch{index: -1}}
	s.l.track(&tk.lease)
	s.tk = tk
	return s.acquire()
}

// acquire prepares a try, join, re-check or confirm for the first in the
// process's own line: all the same script.
func (s *slot) acquire() *call {
	tk := s.tk
	s.state = calling
	if s.timer != nil {
		s.timer.Stop()
	}
	ttl := s.fifo[0].ttl
	claim := s.l.cfg.claim(ttl)
	if tk.entry == "" {
		if m := s.listening(); m != nil {
			tk.entry = entryOf(claim+s.l.cfg.LapseDelay, tk.block, m.channel, tk.value)
		}
	}
	return &call{tk: tk, args: acquireArgs{
		value: &tk.value, entry: tk.entry, lease: ttl, claim: claim,
		block: tk.block, margin: s.l.cfg.FenceMargin,
	}}
}

// again makes a call that no caller waits for.
func (s *slot) again(c *call) {
	s.l.spawn(func() { c.run(context.Background()) })
}

// start gets a ticket for those who wait, or forgets the slot.
func (s *slot) start() {
	switch {
	case s.state != none:
	case len(s.fifo) > 0:
		s.again(s.newTicket())
	default:
		if s.timer != nil {
			s.timer.Stop()
		}
		if s.mail != nil {
			s.mail.leave(s)
		}
		delete(s.l.slots, s.id)
	}
}

// ended says that a ticket is done with, and the call that released it as well.
func (s *slot) ended(tk *ticket) {
	if s.tk != tk {
		return
	}
	if tk.last > 0 { // it had a turn; the next may have twice as many sections
		s.block = 2 * (tk.block - (tk.last + 1 - tk.next))
	}
	s.tk, s.state = nil, none
	s.start()
}

// answered goes on after the answer to an acquire.
func (s *slot) answered(c *call, r acquireReply, err error) {
	tk := c.tk
	if err != nil {
		s.fail(unavailable("acquire", s.keys.lock, err))
		tk.end()
		if mayHold(err) || tk.entry != "" || tk.had {
			s.l.giveBack(&tk.lease)
		} else {
			delete(s.l.live, tk.value)
		}
		s.ended(tk)
		return
	}
	if r.granted {
		tk.pending, tk.resubscribed = nil, false
		if len(s.fifo) == 0 {
			s.giveUp()
			return
		}
		deadline := validUntil(c.sent, c.args.lease)
		if past(deadline) {
			s.fail(&UnavailableError{Op: "acquire", Key: s.keys.lock, Sent: true, Err: errLate})
			s.giveUp()
			return
		}
		if w := s.fifo[0]; w.plain && c.args.lease < w.ttl && until(deadline) < w.ttl/2 {
			tk.had = true // the lease is that of another, who has left
			s.again(s.acquire())
			return
		}
		tk.granted, tk.since, tk.deadline = c.args.lease, c.sent, deadline
		if tk.entry == "" && !tk.had { // else an earlier acquire may have been sent to them
			tk.spared = r.spared
		}
		s.enter(r.fence)
		return
	}
	s.refused, s.left, s.lookedAt = true, r.left, time.Now()
	if tk.splits++; !r.split {
		tk.splits = 0
	}
	_, s.holder = splitValue(r.holder)
	s.l.refusedBy(&s.keys, r.holder)
	if len(s.fifo) == 0 {
		s.giveUp()
		return
	}
	for _, w := range s.fifo {
		w.ask()
	}
	s.subscribe()
	if tk.resubscribed || tk.entry == "" && s.mail.up() {
		tk.pending, tk.resubscribed = nil, false
		s.again(s.acquire())
		return
	}
	s.state = inLine
	tk.anchored, tk.sent, tk.server = r.server != 0, c.sent, r.server
	if g := tk.pending; g != nil {
		tk.pending = nil
		s.judge(g)
		return
	}
	s.setTimer()
}

// setTimer sets when to ask again if no grant comes: after what is left of the
// holder's lease, and after a claim lease at the latest, since whoever is handed
// the lock next may be dead.
func (s *slot) setTimer() {
	claim := s.l.cfg.claim(s.fifo[0].ttl)
	d := claim
	switch {
	case s.tk.splits > 0: // whoever looks first finds nobody
		d = rand.N(min(claim, time.Millisecond<<min(s.tk.splits, 10)))
	case s.left >= 0:
		d = min(d, s.left)
	}
	d += time.Millisecond + rand.N(claim/50+time.Millisecond)
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.ring)
		return
	}
	s.timer.Reset(d)
}

func (s *slot) ring() {
	s.l.mu.Lock()
	if s.state == inLine {
		s.again(s.acquire())
	}
	s.l.unlock()
}

// granted takes a grant for the slot's ticket from the mailbox.
func (s *slot) granted(g *grant) {
	switch s.state {
	case calling:
		s.tk.pending = g
	case inLine:
		s.judge(g)
	}
	// held: the answer to the acquire came first. releasing: it is given back.
}

// judge decides whether a grant is fresh enough to enter at once. What counts is
// the time since the acquire was sent that the anchor is from; receipt only caps
// it, against steps of the server's clock.
func (s *slot) judge(g *grant) {
	tk := s.tk
	if len(s.fifo) == 0 {
		s.giveUp()
		return
	}
	if tk.anchored && !s.fifo[0].plain {
		since := time.Duration(g.server-tk.server) * time.Microsecond
		deadline := tk.sent.Add(since + g.lease - drift(g.lease+max(since, 0)))
		if limit := g.received.Add(g.lease); limit.Before(deadline) || s.l.fromReceipt {
			deadline = limit
		}
		if until(deadline) >= g.lease/2 {
			tk.granted, tk.since, tk.deadline = g.lease, deadline.Add(-g.lease), deadline
			s.enter(g.fence)
			return
		}
	}
	s.again(s.acquire())
}

// enter begins a turn, with the block of fences that ends with last.
func (s *slot) enter(last int64) {
	tk := s.tk
	if s.timer != nil {
		s.timer.Stop()
	}
	now := time.Now()
	tk.next, tk.last, tk.turn = last-tk.block+1, last, now
	s.state = held
	s.refused, s.holder, s.left = false, "", 0 // whoever it was has left
	s.admit(now)
	for _, w := range s.fifo {
		w.ask()
	}
}

// admit lets the first of the process's own line in.
func (s *slot) admit(now time.Time) {
	tk, w := s.tk, s.fifo[0]
	s.fifo[0] = nil
	s.fifo = s.fifo[1:]
	lk := &Lock{ls: &tk.lease, name: s.id.name, fence: tk.next, ttl: w.ttl, began: now}
	tk.next++
	tk.cur, tk.ttl, tk.limit = lk, w.ttl, time.Time{}
	if len(s.fifo) > 0 || tk.timer != nil {
		tk.arm()
	}
	w.lock = lk
	close(w.done)
}

// handOn ends a section by letting the next one in, if the turn's bounds and the
// lease allow it.
func (s *slot) handOn(tk *ticket, now time.Time) bool {
	if s.tk != tk || s.state != held || len(s.fifo) == 0 || tk.given || tk.next > tk.last || s.l.closed {
		return false
	}
	if now.Sub(tk.turn) >= s.l.cfg.TurnTime || between(now, tk.deadline) <= 0 {
		return false
	}
	if w := s.fifo[0]; w.plain && between(now, tk.deadline) < w.ttl/2 {
		return false
	}
	s.l.dog.remove(&tk.lease)
	s.admit(now)
	return true
}

// giveUp releases the ticket, or leaves the line, because nobody wants it; if
// somebody does by then, a new ticket is drawn.
func (s *slot) giveUp() {
	tk := s.tk
	tk.end()
	s.state = releasing
	if s.timer != nil {
		s.timer.Stop()
	}
	s.l.spawn(func() {
		s.l.undo(tk.keys, tk.value, tk.entry)
		s.l.mu.Lock()
		delete(s.l.live, tk.value)
		s.ended(tk)
		s.l.unlock()
	})
}

// abandoned leaves the line if nobody of this process waits any more. A call
// that is open is waited for first.
func (s *slot) abandoned() {
	if len(s.fifo) == 0 && s.state == inLine {
		s.giveUp()
	}
}

// fail ends all waits of the slot.
func (s *slot) fail(err error) {
	for _, w := range s.fifo {
		w.err = err
		close(w.done)
	}
	s.fifo = nil
}

// cancel takes a waiter out of the process's line. It reports false if the wait
// had ended already.
func (s *slot) cancel(w *waiter) bool {
	for i, x := range s.fifo {
		if x == w {
			s.fifo = append(s.fifo[:i:i], s.fifo[i+1:]...)
			s.abandoned()
			return true
		}
	}
	return false
}

// recheck is what a backoff asked for.
func (s *slot) recheck(w *waiter) {
	switch s.state {
	case inLine:
		s.again(s.acquire())
	case held:
		w.ask() // the holder is in this process: there is nothing to send
	}
}

// ask makes a waiter ask its backoff.
func (w *waiter) ask() {
	if w.look == nil {
		return
	}
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// lockedError says who holds the lock as far as this process knows; nil if it
// does not.
func (s *slot) lockedError() *LockedError {
	switch {
	case s.state == held:
		return &LockedError{Key: s.keys.lock, Owner: s.id.owner, RetryAfter: max(until(s.tk.deadline), 0)}
	case s.refused:
		return &LockedError{Key: s.keys.lock, Owner: s.holder, RetryAfter: max(s.left-time.Since(s.lookedAt), 0)}
	}
	return nil
}
