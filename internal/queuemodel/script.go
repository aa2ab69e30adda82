package queuemodel

// script is one of the scripts of internal/script.
type script uint8

// The scripts that are modelled. rearm moves a time, and there are none here;
// extend is a lease that has not ended; yield is in the clock's model.
const (
	noScript script = iota
	push
	offered
	schedule
	parknew
	claim
	ack
	nack
	park
	bury
	requeue
	promote
	cancel
	reschedule
	revive
	offer // a plain command
)

var scripts = [...]string{
	"", "push", "offered", "schedule", "parknew", "claim", "ack", "nack", "park", "bury", "requeue", "promote", "cancel", "reschedule", "revive", "offer",
}

// String returns the name of the script's file, without .lua.
func (x script) String() string { return scripts[x] }

// Scripts returns the names of the scripts that are modelled.
func Scripts() []string { return scripts[1:offer] }

// The stamps of the operator's calls: of each kind one for a request.
const (
	rescheduled = iota + 1
	revived
)

// The words that the scripts share have the names of prelude.lua.

func (m *model) sayToken(s *state) {
	if s.over[0].id == 0 || !m.c.Off.HandIsToken {
		s.wake = 1
	}
}

func (m *model) rpush(s *state, id uint8) {
	for i := range s.list {
		if s.list[i] == 0 {
			s.list[i] = id
			return
		}
	}
	m.wrong = "bound: ready"
}

func (m *model) lpush(s *state, id uint8) {
	if s.list[readySize-1] != 0 {
		m.wrong = "bound: ready"
	}
	copy(s.list[1:], s.list[:readySize-1])
	s.list[0] = id
}

func (s *state) lpop() uint8 {
	id := s.list[0]
	copy(s.list[:], s.list[1:])
	s.list[readySize-1] = 0
	return id
}

func (m *model) mint(s *state, id uint8) {
	if m.lock(id) != 0 && s.seq[id] == 0 {
		most := uint8(0)
		for _, q := range s.seq {
			most = max(most, q)
		}
		s.seq[id] = most + 1
	}
}

// oldest is who of those parked on a lock has stood in line longest; 0: nobody.
func (m *model) oldest(s *state, k uint8) uint8 {
	first := uint8(0)
	for i := uint8(1); i <= m.ids(); i++ {
		if s.inParked.has(i) && m.lock(i) == k && (first == 0 || s.seq[i] < s.seq[first]) {
			first = i
		}
	}
	return first
}

func (m *model) unprobe(s *state, k uint8) {
	if m.oldest(s, k) == 0 {
		s.probe.drop(k)
	}
}

func (s *state) bury(id uint8) {
	s.place[id] = dead
	s.inDead.add(id)
}

// promote. quiet: within a claim, which looks itself.
func (m *model) promote(s *state, k uint8, quiet bool) {
	if s.held[k] != 0 && !m.c.Off.PromoteRegardless {
		return
	}
	for {
		id := m.oldest(s, k)
		if id == 0 {
			s.probe.drop(k)
			return
		}
		s.inParked.drop(id)
		m.unprobe(s, k)
		if m.overdue {
			m.overdue = false
			s.bury(id)
			continue
		}
		s.place[id] = ready
		m.lpush(s, id)
		if !m.c.Off.TurnFromClaim {
			s.held[k] = id
		}
		if !quiet && !m.c.Off.PromoteSilently {
			m.sayToken(s)
		}
		return
	}
}

func (m *model) leave(s *state, id uint8, quiet bool) {
	if k := m.lock(id); k != 0 && s.held[k] == id {
		s.held[k] = 0
		m.promote(s, k, quiet)
	}
}

// line. Within a claim nobody is told.
func (m *model) line(s *state, id uint8, quiet bool) {
	s.place[id] = parked
	s.inParked.add(id)
	s.probe.add(m.lock(id))
	if !quiet {
		m.sayToken(s)
	}
}

func (m *model) unplace(s *state, id uint8) {
	switch s.place[id] {
	case delayed:
		s.inDelayed.drop(id)
	case leased:
		s.inLeased.drop(id)
	case dead:
		s.inDead.drop(id)
	case parked:
		s.inParked.drop(id)
		m.unprobe(s, m.lock(id))
	}
}

func (s *state) forget(id uint8) {
	s.msg.drop(id)
	s.place[id], s.seq[id], s.token[id], s.stamp[id] = nowhere, 0, 0, 0
	s.gone.add(id)
	s.finished.add(id)
}

// mine reports whether a worker may settle a request.
func (m *model) mine(s *state, id, token uint8) bool {
	if m.c.Off.AnyToken {
		return s.place[id] != nowhere
	}
	return s.place[id] == leased && s.token[id] == token
}

// run runs a script other than claim. It reports whether it was applied.
func (m *model) run(s *state, x script, id, token uint8) (stored bool) {
	off := &m.c.Off
	switch x {
	case push, schedule, parknew:
		if s.place[id] != nowhere || s.gone.has(id) && !off.ForgetsFinished {
			if x == push && s.list[0] != 0 {
				m.sayToken(s)
			}
			return false
		}
		if s.finished.has(id) {
			m.wrong = "S3: a request that was finished is accepted again"
		}
		s.msg.add(id)
		switch x {
		case push:
			m.mint(s, id)
			if m.hand && m.mayHand(s, id) {
				m.deliver(s, id)
				s.over[0] = handed{id, s.token[id]}
				break
			}
			s.place[id] = ready
			m.rpush(s, id)
			m.sayToken(s)
		case schedule:
			s.place[id] = delayed
			s.inDelayed.add(id)
			m.sayToken(s)
		case parknew:
			m.mint(s, id)
			m.line(s, id, false)
		}
	case offered:
		if stored = m.unknown(s, id); stored {
			if s.finished.has(id) {
				m.wrong = "S3: a request that was finished is accepted again"
			}
			s.msg.add(id)
			m.lease(s, id, token)
		}
		m.takeBack(s, false)
		return stored
	case ack, nack, park, bury, requeue:
		if x == ack && token >= offers && m.unknown(s, id) && !off.OfferForgotten {
			s.gone.add(id)
			s.finished.add(id)
			return true
		}
		if !m.mine(s, id, token) {
			return false
		}
		if s.place[id] != leased || s.token[id] != token {
			m.wrong = "I5: a stale lease token changes something"
		}
		m.unplace(s, id)
		s.token[id] = 0
		m.settle(s, x, id)
	case promote:
		m.promote(s, id, false)
	case cancel:
		m.takeBack(s, false)
		if s.place[id] == nowhere {
			return false
		}
		m.unplace(s, id)
		s.forget(id)
		if !off.CancelKeepsTurn {
			m.leave(s, id, false)
		}
	case reschedule:
		m.takeBack(s, false)
		if p := s.place[id]; p == nowhere || p == leased || p == dead || s.stamp[id] == rescheduled {
			return false
		}
		m.unplace(s, id)
		s.place[id], s.stamp[id] = delayed, rescheduled
		s.inDelayed.add(id)
		m.sayToken(s)
		m.leave(s, id, false)
	case revive:
		if s.place[id] != dead || s.stamp[id] == revived {
			return false
		}
		m.unplace(s, id)
		s.seq[id] = 0
		m.mint(s, id)
		s.place[id], s.stamp[id] = ready, revived
		m.rpush(s, id)
		m.sayToken(s)
	}
	return true
}

// settle is what ack, nack, park, bury and requeue do with a request that they
// have taken out of its place.
func (m *model) settle(s *state, x script, id uint8) {
	off := &m.c.Off
	k := m.lock(id)
	clearTurn := func() {
		if k != 0 && s.held[k] == id {
			s.held[k] = 0
		}
	}
	switch x {
	case ack:
		s.forget(id)
		m.leave(s, id, false)
	case nack:
		s.place[id] = delayed
		s.inDelayed.add(id)
		m.sayToken(s)
		switch {
		case m.c.Strict:
		case off.PromotesNobody:
			clearTurn()
		default:
			m.leave(s, id, false)
		}
	case park:
		m.line(s, id, false)
		switch {
		case off.ParkKeepsTurn:
		case off.ParkPromotes:
			m.leave(s, id, false)
		default:
			clearTurn()
		}
	case bury:
		s.bury(id)
		if off.PromotesNobody {
			clearTurn()
		} else {
			m.leave(s, id, false)
		}
	case requeue:
		s.place[id] = ready
		m.lpush(s, id)
		m.sayToken(s)
		if off.ExpiryClearsTurn {
			clearTurn()
		}
	}
}

// mayHand reports whether a request that is pushed may be handed over to somebody
// who listens.
func (m *model) mayHand(s *state, id uint8) bool {
	if s.wake != 0 || s.over[0].id != 0 {
		return false
	}
	return (s.list[0] == 0 || m.c.Off.HandOvertakes) && (m.passes(s, id) || m.c.Off.HandIgnoresTurn)
}

// stands reports whether a request's lease is that of a hand-over in wake.
func (s *state) stands(id uint8) bool {
	for _, h := range s.over {
		if id != 0 && h.id == id && s.place[id] == leased && s.token[id] == h.token {
			return true
		}
	}
	return false
}

// unknown reports whether nothing is known of a request.
func (m *model) unknown(s *state, id uint8) bool {
	return s.place[id] == nowhere && (!s.gone.has(id) || m.c.Off.ForgetsFinished)
}

// put puts an offer into wake. It reports false if there is no room in the model.
func (s *state) put(h handed) bool {
	if s.over[wakeSize-1].id != 0 {
		return false
	}
	copy(s.over[1:], s.over[:wakeSize-1])
	s.over[0] = h
	return true
}

// take takes the first request out of wake.
func (s *state) take() handed {
	h := s.over[0]
	copy(s.over[:], s.over[1:])
	s.over[wakeSize-1] = handed{}
	return h
}

// takeBack is what claim, cancel, reschedule and offered do with the requests that stand in
// wake. quiet: within a claim, which looks itself.
func (m *model) takeBack(s *state, quiet bool) {
	for s.over[0].id != 0 {
		id := s.over[0].id
		switch {
		case s.stands(id):
			s.inLeased.drop(id)
			s.token[id] = 0
			if m.c.Once {
				s.delivered[id]--
			}
		case s.over[0].token >= offers && m.unknown(s, id):
			s.msg.add(id)
		default:
			s.take()
			continue
		}
		s.take()
		s.place[id] = ready
		m.lpush(s, id)
		if !quiet {
			m.sayToken(s)
		}
	}
}

// due is what has become due when a claim runs.
type due struct {
	id    uint8 // a request in delayed
	probe uint8 // a lock's probe
	lease uint8 // a request whose lease has ended
}

// claim leases up to n requests, of which n is 0 or 1. It returns the one, and a
// lock that the feeder is to look at.
func (m *model) claim(s *state, n int, d due) (got, look uint8) {
	off := &m.c.Off
	m.takeBack(s, true)
	switch {
	case d.id != 0:
		id := d.id
		s.inDelayed.drop(id)
		m.mint(s, id)
		s.place[id] = ready
		if k := m.lock(id); k != 0 && s.held[k] == id {
			m.lpush(s, id)
		} else {
			m.rpush(s, id)
		}
	case d.probe != 0:
		k := d.probe
		if m.overdue {
			m.overdue = false
			if id := m.oldest(s, k); id != 0 {
				s.inParked.drop(id)
				s.bury(id)
			}
		}
		if m.unprobe(s, k); s.probe.has(k) && s.held[k] == 0 {
			look = k
		} else if s.probe.has(k) && off.PromoteRegardless {
			look = k
		}
	case d.lease != 0:
		id := d.lease
		s.inLeased.drop(id)
		s.token[id] = 0
		if m.overdue {
			m.overdue = false
			s.bury(id)
			m.leave(s, id, true)
			break
		}
		s.place[id] = ready
		m.lpush(s, id)
		if k := m.lock(id); k != 0 && s.held[k] == id && off.ExpiryClearsTurn {
			s.held[k] = 0
		}
	}
	for n > 0 && s.list[0] != 0 {
		id := s.lpop()
		if !s.msg.has(id) || s.place[id] != ready && !off.ClaimByBody {
			continue // left behind
		}
		if !m.passes(s, id) {
			m.line(s, id, true)
			continue
		}
		m.deliver(s, id)
		got = id
		n--
	}
	if s.list[0] != 0 && !off.ClaimEatsToken {
		m.sayToken(s)
	}
	return got, look
}

// passes is the gate.
func (m *model) passes(s *state, id uint8) bool {
	k := m.lock(id)
	if k == 0 {
		return true
	}
	turn, line := s.held[k], m.oldest(s, k) != 0
	switch {
	case m.c.Off.GateForgetsItself:
		return turn == 0 && !line
	case m.c.Off.GateIgnoresTurn:
		return turn == id || !line
	}
	return turn == id || turn == 0 && !line
}

func (m *model) deliver(s *state, id uint8) {
	k := m.lock(id)
	if k != 0 {
		s.held[k] = id
		for j := uint8(1); j <= m.ids() && m.c.Ordered; j++ {
			if j != id && m.lock(j) == k && s.seq[j] != 0 && s.seq[j] < s.seq[id] && (s.place[j] == parked || s.place[j] == ready) {
				m.wrong = "S6: a request is delivered before an older one of its lock"
			}
		}
	}
	m.lease(s, id, m.freshToken(s, id, 1))
}

func (m *model) lease(s *state, id, token uint8) {
	s.place[id] = leased
	s.inLeased.add(id)
	s.token[id] = token
	if m.c.Once {
		if s.delivered[id]++; s.delivered[id] > 1 {
			m.wrong = "S7: a request is delivered twice, without a fault"
		}
	}
}

// freshToken is the least token from a first one on that nobody knows.
func (m *model) freshToken(s *state, id, from uint8) uint8 {
	for t := from; ; t++ {
		used := s.late.id == id && s.late.token == t || s.offer[id] == t || s.token[id] == t && t >= offers
		for _, h := range s.over {
			used = used || h.id == id && h.token == t
		}
		for _, w := range s.w {
			used = used || w.id == id && w.lease == t
		}
		if !used {
			return t
		}
	}
}

// The scripts on the lock's side.

// acquire is a try. It reports whether the lock is now the caller's.
func (s *state) acquire(k, me uint8) bool {
	if s.holder[k] != 0 {
		return false
	}
	s.holder[k] = me
	return true
}

// look registers the queue with a held lock. It reports whether the lock is held.
func (m *model) look(s *state, k uint8, probing bool) bool {
	if s.holder[k] == 0 {
		return false
	}
	if !m.c.Off.LookOnly || probing {
		s.registered.add(k)
	}
	return true
}

// release reports whether the queue was named.
func (m *model) release(s *state, k, me uint8) bool {
	if s.holder[k] != me {
		return false
	}
	s.holder[k] = 0
	for i := range s.c { // granted to somebody in line: nothing is reported
		if s.c[i].phase == inLine && m.c.Callers[i].Lock == k {
			s.holder[k], s.c[i].phase = uint8(1+workers+i), holding
			return false
		}
	}
	told := s.registered.has(k)
	s.registered.drop(k)
	return told
}
