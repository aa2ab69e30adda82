package queuemodel

// Call is what a step does on the servers: one script, or something that happens
// to them. Steps have at most one.
type Call struct {
	// Script is the name of a script of the queue, or "try", "look" or "release"
	// of the lock, or "pop" of the token by a waker, "lose" of the token, "expire"
	// of a lock.
	Script    string
	ID, Token uint8 // of the request and its lease; ID of a worker's claim is what it acknowledges
	Lock      uint8
	Actor     uint8 // 1 and up: workers, then callers; 0: others
	N         int   // claim: for how many slots
	Due       due   // claim: what is due
	Overdue   bool  // the oldest in line is over its max wait, or the request whose lease ended over its deliveries
	Hand      bool  // push: somebody listens. pop: a request is popped
	Keep      bool  // it will run once more
	Again     bool  // this is when
	// What came of it: the script was applied, the lock taken, held or reported;
	// what was claimed, and the lock to look at.
	OK   bool
	Got  uint8
	Look uint8
}

// Whose steps they are. A cycle in which somebody could always go on and never
// does is not fair.
const (
	byWorker   = 1                                  // and up, by worker
	byFeeder   = byWorker + workers                 // its claims on a token or a kick
	byProbe    = byFeeder + workers                 // its answer to a probe
	byWaker    = byProbe + workers                  // popping the token
	byPoll     = byWaker + 1                        // a claim without a reason
	byCaller   = byPoll + 1                         // and up, by caller
	byProducer = byCaller + callers                 // and up, by request from 1
	byDue      = byProducer + maxIDs                // the same
	byLease    = byDue + maxIDs                     // the same
	byTimer    = byLease + maxIDs                   // a probe, by lock from 1
	byTTL      = byTimer + maxLocks + 1             // of a dead holder
	byLate     = byTTL + 1                          // a late copy
	byFault    = byLate + 1                         // all else
	looping    = uint64(1)<<byCaller - 1 - inProbes // those who need no timer
	inProbes   = uint64(1)<<byWaker - uint64(1)<<byProbe
)

// next makes all steps that s leads to.
func (m *model) next(s *state) {
	m.steps = m.steps[:0]
	m.wrong = ""
	m.producers(s)
	busy := workers // the first worker that is: it does what is due meanwhile
	for i := range s.w {
		if s.w[i].alive == 1 && s.w[i].phase != idle {
			busy = i
			break
		}
	}
	for i := range s.w {
		if s.w[i].alive == 1 {
			m.feeder(s, i, busy)
			m.prober(s, i)
			m.worker(s, i)
			m.death(s, i)
		}
	}
	for i := range s.c {
		if s.c[i].phase != gone {
			m.caller(s, i)
		}
	}
	m.servers(s)
	m.operator(s)
	m.resent(s)
}

// note records a call.
func (m *model) note(c Call) {
	if m.record {
		m.calls = append(m.calls, c)
	}
}

// call makes the steps of a client that runs a script, and then does what then
// says. The script may meet somebody overdue, or run once more later.
func (m *model) call(s *state, x script, id, token, actor uint8, fault bool, then func(n *state, ok bool), format string, args ...any) {
	run := func(n state, fault, keep bool, more string) {
		c := Call{Script: x.String(), ID: id, Token: token, Overdue: m.overdue, Hand: m.hand, Keep: keep}
		if x == promote {
			c.ID, c.Lock = 0, id
		}
		c.OK = m.run(&n, x, id, token)
		m.overdue = false
		m.note(c)
		then(&n, c.OK)
		if m.record && !c.OK {
			more += ": refused"
		}
		m.emit(&n, actor, fault, format+"%s", append(args, more)...)
	}
	run(*s, fault, false, "")
	if s.left.Overdue > 0 && (x == ack || x == nack || x == promote || x == bury || x == cancel) {
		n := *s
		n.left.Overdue--
		m.overdue = true
		run(n, true, false, ", the oldest in line is over its max wait")
	}
	if s.left.Resends > 0 && s.late.script == noScript {
		n := *s
		n.left.Resends--
		n.late = lateCopy{script: x, id: id, token: token}
		run(n, true, true, ", the reply is lost: it will run again")
	}
}

func (m *model) producers(s *state) {
	for i := uint8(1); i <= m.ids(); i++ {
		if !s.toSend.has(i) || i > 1 && s.toSend.has(i-1) && s.offer[i-1] == 0 {
			continue // in order of their numbers, which says nothing
		}
		if s.offer[i] != 0 {
			m.store(s, i)
			continue
		}
		x := push
		if m.c.Requests[i-1].Origin == Scheduled {
			x = schedule
		}
		sent := func(n *state, _ bool) { n.toSend.drop(i) }
		m.call(s, x, i, 0, byProducer+i-1, false, sent, "%v(%d)", x, i)
		if m.c.Hands && x == push {
			m.hand = true
			m.call(s, x, i, 0, byProducer+i-1, false, sent, "%v(%d), somebody listens", x, i)
			m.hand = false
		}
		if m.c.Offers && x == push && m.lock(i) == 0 {
			m.offers(s, i)
		}
	}
}

// offers makes the steps of who offers a request.
func (m *model) offers(s *state, id uint8) {
	n := *s
	n.offer[id] = m.freshToken(s, id, offers)
	c := Call{Script: offer.String(), ID: id, Token: n.offer[id]}
	if n.put(handed{id, n.offer[id]}) {
		m.note(c)
		m.emit(&n, byProducer+id-1, true, "offer(%d)", id)
	}
	if s.left.Resends > 0 && s.late.script == noScript {
		n := *s
		n.left.Resends--
		n.offer[id] = m.freshToken(s, id, offers)
		n.late = lateCopy{script: offer, id: id, token: n.offer[id]}
		c.Keep = true
		m.note(c)
		m.emit(&n, byProducer+id-1, true, "offer(%d), of which nothing is heard", id)
	}
}

// store makes the steps of who has offered a request.
func (m *model) store(s *state, id uint8) {
	x := offered
	if m.c.Off.OfferPushed && s.late.script == offer && s.late.id == id {
		x = push
	}
	m.call(s, x, id, s.offer[id], byProducer+id-1, false, func(n *state, _ bool) {
		if m.unknown(n, id) {
			m.wrong = "S1: a request was accepted, and is nowhere"
		}
		n.toSend.drop(id)
		n.offer[id] = 0
	}, "%v(%d)", x, id)
	if s.left.Deaths > 0 {
		n := *s
		n.left.Deaths--
		n.hurt = 1
		n.toSend.drop(id)
		n.offer[id] = 0
		m.emit(&n, byFault, true, "who has offered %d dies", id)
	}
}

// claims makes the steps of a worker's feeder that claims for n slots.
func (m *model) claims(s *state, i, n int, d due, actor uint8, fault bool, why string) {
	run := func(t state, fault, keep bool, more string) {
		c := Call{Script: claim.String(), Actor: uint8(1 + i), N: n, Due: d, Overdue: m.overdue, Keep: keep}
		w := &t.w[i]
		if n > 0 && t.late.worker == uint8(1+i) && !keep {
			t.late.old = 1
		}
		w.token, w.kick = 0, 0
		c.Got, c.Look = m.claim(&t, n, d)
		m.overdue = false
		if c.Look != 0 {
			w.probe = c.Look
		}
		if c.Got != 0 {
			w.phase, w.id, w.lease = claimed, c.Got, t.token[c.Got]
		}
		m.note(c)
		m.emit(&t, actor, fault, "w%d: claim(%d), %s: %d%s", i+1, n, why, c.Got, more)
	}
	run(*s, fault, false, "")
	if s.left.Overdue > 0 && (d.probe != 0 || d.lease != 0) {
		t := *s
		t.left.Overdue--
		m.overdue = true
		run(t, true, false, ", and the request is dead: it waited, or came back, too often")
	}
	if s.left.Claims > 0 && s.late.script == noScript {
		t := *s
		t.left.Claims--
		t.late = lateCopy{script: claim, worker: uint8(1 + i), one: uint8(n)}
		run(t, true, true, ", the reply is lost: it will run again")
	}
}

func (m *model) feeder(s *state, i, busy int) {
	w := s.w[i]
	if s.over[0].id != 0 && w.phase == idle {
		m.taken(s, i)
	}
	if s.over[0].id == 0 && s.wake == 1 && w.token == 0 && (w.phase == idle || m.c.Off.WakerNeverPauses) {
		n := *s
		n.wake, n.w[i].token = 0, 1
		m.note(Call{Script: "pop"})
		m.emit(&n, byWaker, false, "w%d: takes the token", i+1)
	}
	slots := 0
	if w.phase == idle {
		slots = 1
	}
	switch {
	case slots == 1 && w.token+w.kick > 0:
		m.claims(s, i, 1, due{}, byFeeder+uint8(i), false, "there is a token or a slot")
	case w.token == 1:
		m.claims(s, i, 0, due{}, byFeeder+uint8(i), false, "there is a token and no slot")
	}
	if slots == 1 && w.token+w.kick == 0 && s.wake == 0 && s.list[0] != 0 && !m.c.Off.NoPoll {
		m.claims(s, i, 1, due{}, byPoll, false, "by the poll")
	}
	if slots == 0 && i != busy {
		return
	}
	for id := uint8(1); id <= m.ids(); id++ {
		if s.inDelayed.has(id) {
			m.claims(s, i, slots, due{id: id}, byDue+id-1, false, "a request is due")
		}
		if !s.inLeased.has(id) || s.stands(id) { // a claim takes it before its lease can end
			continue
		}
		if !m.atWork(s, id) {
			m.claims(s, i, slots, due{lease: id}, byLease+id-1, false, "a lease has ended")
		} else if s.left.Leases > 0 {
			n := *s
			n.left.Leases--
			m.claims(&n, i, slots, due{lease: id}, byFault, true, "a lease has ended, its worker is paused")
		}
	}
	for k := uint8(1); k <= maxLocks; k++ {
		if s.probe.has(k) && w.probe == 0 {
			m.claims(s, i, slots, due{probe: k}, byTimer+k, false, "a probe is due")
		}
	}
}

// taken makes the steps of a worker's waker that takes a request out of wake. If that
// is known otherwise by now, its lease has ended, as the worker can tell by the time; if nothing is known of it
// and whoever offered it is dead, it may have.
func (m *model) taken(s *state, i int) {
	n := *s
	h := n.take()
	w := &n.w[i]
	w.id, w.lease = h.id, h.token
	to := func(phase uint8, how string) {
		w.phase = phase
		m.note(Call{Script: "pop", ID: h.id, Hand: true})
		m.emit(&n, byWaker, false, "w%d: takes %d, which is handed over%s", i+1, h.id, how)
	}
	known, its := !m.unknown(s, h.id), s.place[h.id] == leased && s.token[h.id] == h.token
	if h.token < offers || its || !known || m.c.Off.OfferPushed {
		to(claimed, "")
	}
	if h.token >= offers && (known && !its || !known && s.offer[h.id] != h.token) {
		to(giving, " too late")
	}
}

// unstored reports whether what a worker has was offered, and may not be stored.
func (w *worker) unstored() bool { return w.lease >= offers && w.stored == 0 }

// atWork reports whether some worker will still settle a leased request.
func (m *model) atWork(s *state, id uint8) bool {
	for _, w := range s.w {
		if w.alive == 1 && w.id == id && w.lease == s.token[id] && w.phase >= claimed && w.phase <= met {
			return true
		}
	}
	return false
}

// prober answers a probe: it looks at the lock, and then promotes or not.
func (m *model) prober(s *state, i int) {
	k := s.w[i].probe
	if k == 0 {
		return
	}
	if s.w[i].free == 1 {
		m.call(s, promote, k, 0, byProbe+uint8(i), false, func(n *state, _ bool) { n.w[i].probe, n.w[i].free = 0, 0 },
			"w%d: promote(%s) for its probe", i+1, name(k))
		return
	}
	n := *s
	held := m.look(&n, k, true)
	if held {
		n.w[i].probe = 0
	} else {
		n.w[i].free = 1
	}
	m.note(Call{Script: "look", Lock: k, OK: held})
	m.emit(&n, byProbe+uint8(i), false, "w%d: looks at %s for its probe: held=%v", i+1, name(k), held)
}

// rest is a worker whose slot has become free.
func (w *worker) rest() {
	*w = worker{alive: w.alive, token: w.token, kick: 1, probe: w.probe, free: w.free}
}

func (m *model) worker(s *state, i int) {
	w := s.w[i]
	k := m.lock(w.id)
	me, actor := uint8(1+i), byWorker+uint8(i)
	off := &m.c.Off
	to := func(phase uint8) state {
		n := *s
		n.w[i].phase = phase
		return n
	}
	storing := func() {
		m.call(s, offered, w.id, w.lease, actor, false, func(n *state, _ bool) { n.w[i].stored = 1 }, "w%d: offered(%d)", i+1, w.id)
	}
	switch w.phase {
	case giving:
		if w.unstored() {
			storing()
			break
		}
		m.call(s, requeue, w.id, w.lease, actor, false, func(n *state, _ bool) { n.w[i].rest() }, "w%d: requeue(%d)", i+1, w.id)
	case claimed:
		if s.left.Drains > 0 && w.unstored() {
			n := to(giving)
			n.left.Drains--
			m.emit(&n, byFault, true, "w%d: stops with %d", i+1, w.id)
		} else if s.left.Drains > 0 {
			n := *s
			n.left.Drains--
			m.call(&n, requeue, w.id, w.lease, byFault, true, func(n *state, _ bool) {
				n.w[i].rest()
				n.w[i].kick = 0
			}, "w%d: requeue(%d), it stops", i+1, w.id)
		}
		switch {
		case m.c.Requests[w.id-1].Poison && w.unstored():
			storing()
		case m.c.Requests[w.id-1].Poison:
			m.call(s, bury, w.id, w.lease, actor, false, func(n *state, _ bool) { n.w[i].rest() }, "w%d: bury(%d), it cannot be decoded", i+1, w.id)
		case k == 0:
			n := to(running)
			m.emit(&n, actor, false, "w%d: runs %d, without a lock", i+1, w.id)
		default:
			n := to(met)
			ok := n.acquire(k, me)
			if ok {
				n.w[i].phase = running
			}
			m.note(Call{Script: "try", Lock: k, Actor: me, OK: ok})
			m.emit(&n, actor, false, "w%d: tries %s for %d: %v", i+1, name(k), w.id, ok)
		}
	case running:
		after := uint8(ran)
		if off.AckFirst {
			after = freed
		}
		n := to(after)
		m.emit(&n, actor, false, "w%d: handler of %d is done", i+1, w.id)
		if s.left.Failures > 0 {
			n := to(after)
			n.left.Failures--
			n.w[i].failed = 1
			m.emit(&n, actor, true, "w%d: handler of %d fails", i+1, w.id)
		}
	case ran:
		n := to(freed)
		if k != 0 {
			if m.release(&n, k, me) {
				n.w[i].told = 1
			}
			m.note(Call{Script: "release", Lock: k, Actor: me, OK: n.w[i].told == 1})
		}
		if off.AckFirst {
			n.w[i].rest()
		}
		m.emit(&n, actor, false, "w%d: releases the lock of %d, told of the queue: %d", i+1, w.id, n.w[i].told)
	case freed:
		if w.failed == 1 && w.unstored() {
			storing()
			break
		}
		m.settles(s, i, actor)
	case met:
		m.call(s, park, w.id, w.lease, actor, false, func(n *state, _ bool) {
			n.w[i].lease, n.w[i].phase = 0, waiting
			if off.NoLook {
				n.w[i].rest()
			}
		}, "w%d: park(%d)", i+1, w.id)
	case waiting:
		n := to(telling)
		held := m.look(&n, k, false)
		if held {
			n.w[i].rest()
		}
		m.note(Call{Script: "look", Lock: k, OK: held})
		m.emit(&n, actor, false, "w%d: looks at %s: held=%v", i+1, name(k), held)
	case telling:
		m.call(s, promote, k, 0, actor, false, func(n *state, _ bool) { n.w[i].rest() }, "w%d: promote(%s)", i+1, name(k))
	}
}

// settles makes the steps of a worker whose handler has returned and whose lock
// is released.
func (m *model) settles(s *state, i int, actor uint8) {
	w := s.w[i]
	x := ack
	if w.failed == 1 {
		x = nack
	}
	m.call(s, x, w.id, w.lease, actor, false, func(n *state, ok bool) {
		switch {
		case m.c.Off.AckFirst:
			n.w[i].phase, n.w[i].lease = ran, 0
		case !ok && w.told == 1 && !m.c.Off.StaleTellsNobody:
			n.w[i].phase, n.w[i].lease = telling, 0
		default:
			n.w[i].rest()
		}
	}, "w%d: %v(%d)", i+1, x, w.id)
	if m.c.Exchange && x == ack && !m.c.Off.AckFirst && (m.mine(s, w.id, w.lease) || w.lease >= offers && m.unknown(s, w.id) && !m.c.Off.OfferForgotten) {
		n := *s
		c := Call{Script: claim.String(), Actor: uint8(1 + i), N: 1, ID: w.id, Token: w.lease, OK: true}
		n.w[i].rest()
		n.w[i].token, n.w[i].kick = 0, 0
		wake := n.wake
		m.run(&n, ack, w.id, w.lease)
		n.wake = wake // its promotion is quiet
		if n.late.worker == uint8(1+i) {
			n.late.old = 1
		}
		if c.Got, c.Look = m.claim(&n, 1, due{}); c.Got != 0 {
			n.w[i].phase, n.w[i].id, n.w[i].lease = claimed, c.Got, n.token[c.Got]
		}
		m.note(c)
		m.emit(&n, actor, false, "w%d: ack(%d) and claim(1) in one: %d", i+1, w.id, c.Got)
	}
}

// death ends a worker, unless it is the last one or holds nothing.
func (m *model) death(s *state, i int) {
	w := s.w[i]
	if s.left.Deaths == 0 || s.w[1-i].alive == 0 || w.phase == idle && w.token == 0 {
		return
	}
	n := *s
	n.left.Deaths--
	n.hurt = 1
	n.abandon(uint8(1 + i))
	n.w[i] = worker{}
	m.emit(&n, byFault, true, "w%d: dies", i+1)
}

// abandon leaves the locks of a dead holder to their TTLs.
func (s *state) abandon(who uint8) {
	for k := range s.holder {
		if s.holder[k] == who {
			s.holder[k] = ghost
		}
	}
}

func (m *model) caller(s *state, i int) {
	spec := m.c.Callers[i]
	k, id := spec.Lock, spec.Request
	me, actor := uint8(1+workers+i), byCaller+uint8(i)
	done := func(n *state) {
		if n.c[i].phase = calling; n.c[i].again == 0 {
			n.c[i].phase = gone
		} else {
			n.c[i].again--
		}
	}
	n := *s
	switch s.c[i].phase {
	case calling:
		ok := n.acquire(k, me)
		switch {
		case ok:
			n.c[i].phase = holding
		case spec.InLine:
			n.c[i].phase = inLine
		case id != 0:
			n.c[i].phase = refused
		default:
			done(&n)
		}
		m.note(Call{Script: "try", Lock: k, Actor: me, OK: ok})
		m.emit(&n, actor, false, "d%d: tries %s: %v", i+1, name(k), ok)
	case inLine: // its timer
		if n.acquire(k, me) {
			n.c[i].phase = holding
			m.note(Call{Script: "try", Lock: k, Actor: me, OK: true})
			m.emit(&n, actor, false, "d%d: finds %s free", i+1, name(k))
		}
	case holding:
		told := m.release(&n, k, me)
		if n.c[i].phase = hinting; !told {
			done(&n)
		}
		m.note(Call{Script: "release", Lock: k, Actor: me, OK: told})
		m.emit(&n, actor, false, "d%d: releases %s, told of the queue: %v", i+1, name(k), told)
	case hinting:
		m.call(s, promote, k, 0, actor, false, func(n *state, _ bool) { done(n) }, "d%d: promote(%s)", i+1, name(k))
		if s.left.Hints > 0 {
			n.left.Hints--
			n.hurt = 1
			done(&n)
			m.emit(&n, byFault, true, "d%d: its hint is lost", i+1)
		}
	case refused:
		m.call(s, parknew, id, 0, actor, false, func(n *state, _ bool) {
			if n.c[i].phase = looking; m.c.Off.NoLook {
				done(n)
			}
		}, "d%d: parknew(%d)", i+1, id)
	case looking:
		held := m.look(&n, k, false)
		if n.c[i].phase = hinting; held {
			done(&n)
		}
		m.note(Call{Script: "look", Lock: k, OK: held})
		m.emit(&n, actor, false, "d%d: looks at %s: held=%v", i+1, name(k), held)
	}
	if s.left.Deaths > 0 && s.c[i].phase != calling {
		n := *s
		n.left.Deaths--
		n.hurt = 1
		n.abandon(me)
		n.c[i].phase = gone
		m.emit(&n, byFault, true, "d%d: dies", i+1)
	}
}

// servers makes what happens to the keys by themselves.
func (m *model) servers(s *state) {
	for k := uint8(1); k <= maxLocks; k++ {
		n := *s
		switch {
		case s.holder[k] == ghost:
			n.holder[k] = 0
			m.note(Call{Script: "expire", Lock: k})
			m.emit(&n, byTTL, false, "%s expires, its holder is dead", name(k))
		case s.holder[k] != 0 && s.left.TTLs > 0:
			n.left.TTLs--
			n.holder[k], n.hurt = 0, 1
			m.note(Call{Script: "expire", Lock: k})
			m.emit(&n, byFault, true, "%s expires, its holder is paused", name(k))
		}
	}
	if s.wake+s.over[0].id > 0 && s.left.Tokens > 0 {
		n := *s
		n.left.Tokens--
		n.hurt = 1
		what := "token"
		if n.over[0].id != 0 {
			n.take()
			what = "request that is handed over"
		} else {
			n.wake = 0
		}
		m.note(Call{Script: "lose", Hand: s.over[0].id != 0})
		m.emit(&n, byFault, true, "the %s is lost", what)
	}
}

func (m *model) operator(s *state) {
	for id := uint8(1); id <= m.ids(); id++ {
		nothing := func(*state, bool) {}
		if p := s.place[id]; s.left.Cancels > 0 && p != nowhere && p != dead {
			n := *s
			n.left.Cancels--
			m.call(&n, cancel, id, 0, byFault, true, nothing, "cancel(%d)", id)
		}
		if s.left.Operations == 0 {
			continue
		}
		n := *s
		n.left.Operations--
		switch s.place[id] {
		case ready, delayed, parked:
			if s.stamp[id] != rescheduled {
				m.call(&n, reschedule, id, 0, byFault, true, nothing, "reschedule(%d)", id)
			}
		case dead:
			if s.stamp[id] != revived {
				m.call(&n, revive, id, 0, byFault, true, nothing, "revive(%d)", id)
			}
		}
	}
}

// resent runs the late copy of a command, or lets it get lost.
func (m *model) resent(s *state) {
	l := s.late
	if l.script == noScript {
		return
	}
	n := *s
	n.late = lateCopy{}
	m.emit(&n, byLate, false, "the copy of %v gets lost", l.script)
	n = *s
	n.late = lateCopy{}
	if l.script == offer {
		if n.put(handed{l.id, l.token}) {
			m.note(Call{Script: l.script.String(), ID: l.id, Token: l.token, Again: true})
			m.emit(&n, byLate, true, "the offer of %d comes", l.id)
		}
		return
	}
	before := n
	c := Call{Script: l.script.String(), ID: l.id, Token: l.token, Actor: l.worker, N: int(l.one), Again: true}
	if l.script == promote {
		c.ID, c.Lock = 0, l.id
	}
	if l.script != claim {
		c.OK = m.run(&n, l.script, l.id, l.token)
	} else if m.c.Off.ClaimUnrecorded {
		c.Got, _ = m.claim(&n, int(l.one), due{})
	} else if l.one == 0 || l.old == 0 { // what is recorded is answered again
		m.claim(&n, 0, due{})
		m.takeBack(&before, true) // as any claim does
	}
	if l.script == cancel || l.script == reschedule || l.script == offered {
		m.takeBack(&before, false) // the same
	}
	if l.script == push || l.script == claim || l.script == offered {
		before.wake = n.wake // a token too many costs a look
	}
	stamped := l.script == reschedule && s.stamp[l.id] != rescheduled || l.script == revive && s.stamp[l.id] != revived
	if l.script != promote && !stamped && n != before && m.wrong == "" {
		m.wrong = "I6: a script that runs again changes something"
	}
	m.note(c)
	m.emit(&n, byLate, true, "a copy of %v runs", l.script)
}
