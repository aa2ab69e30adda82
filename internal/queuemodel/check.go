package queuemodel

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// Check goes through the states of a case, nearest first, until it finds one
// that is wrong, or has seen limit of them. If it has seen all, it checks that
// everything can and will finish.
func Check(c Case, limit int) Result {
	m := &model{c: &c}
	seed := maphash.MakeSeed()
	first := m.first()
	seen := map[uint64]int32{maphash.Comparable(seed, first): 0}
	g := &graph{from: []origin{{}}, done: []bool{m.settled(&first)}}
	level := []state{first}
	r := Result{}
	for at := int32(0); len(level) > 0; {
		var next []state
		for i := range level {
			s := &level[i]
			m.next(s)
			g.edges = append(g.edges, int32(len(g.to)))
			for k := range m.steps {
				st := &m.steps[k]
				r.Edges++
				h := maphash.Comparable(seed, st.state)
				id, old := seen[h]
				if !old {
					id = int32(len(g.from))
					seen[h] = id
					g.from = append(g.from, origin{at, uint8(k)})
					g.done = append(g.done, m.settled(&st.state))
					next = append(next, st.state)
				}
				r.States = len(seen)
				r.Violation = m.violation(s, st)
				if r.Violation != "" && strings.HasPrefix(r.Violation, c.Only) {
					r.Trace = m.trace(first, append(g.path(at), uint8(k)))
					return r
				}
				if !st.fault {
					g.to = append(g.to, id)
					g.actor = append(g.actor, st.actor)
				}
			}
			at++
			if len(seen) >= limit {
				return r
			}
		}
		level = next
	}
	g.edges = append(g.edges, int32(len(g.to)))
	r.Complete = true
	var steps []uint8
	if r.Violation, steps = g.live(c.Only); r.Violation != "" {
		r.Trace = m.trace(first, steps)
	}
	return r
}

// trace writes the steps.
func (m *model) trace(s state, steps []uint8) (out []string) {
	m.record = true
	for _, k := range steps {
		m.next(&s)
		out = append(out, m.steps[k].label)
		s = m.steps[k].state
	}
	return out
}

// violation says what is wrong with a step.
func (m *model) violation(before *state, st *step) string {
	if st.wrong != "" {
		return st.wrong
	}
	s := &st.state
	for i := uint8(1); i <= m.ids(); i++ {
		if bad := m.misplaced(s, i); bad != "" {
			return bad
		}
		if before.place[i] != parked || s.place[i] != ready {
			continue
		}
		for j := uint8(1); j <= m.ids(); j++ {
			if before.place[j] == parked && s.place[j] == parked && m.lock(j) == m.lock(i) && before.seq[j] < before.seq[i] {
				return fmt.Sprintf("I7: %d leaves the line before %d", i, j)
			}
		}
	}
	for k := uint8(1); k <= maxLocks; k++ {
		if bad := m.turn(s, k); bad != "" {
			return bad
		}
		if s.hurt == 0 && !m.promised(s, k) {
			return fmt.Sprintf("I13: the line of %s moves only when its probe is due", name(k))
		}
	}
	if bad := m.twice(s); bad != "" {
		return bad
	}
	if s.hurt == 0 {
		return m.asleep(s)
	}
	return ""
}

// twice checks S8: two workers have one request only after a lease ended under one of them.
func (m *model) twice(s *state) string {
	if s.left.Leases < m.c.Faults.Leases {
		return ""
	}
	at := func(w *worker) bool { return w.alive == 1 && w.phase >= claimed && w.phase <= ran }
	if a, b := &s.w[0], &s.w[1]; at(a) && at(b) && a.id == b.id {
		return fmt.Sprintf("S8: two workers run %d", a.id)
	}
	return ""
}

// misplaced checks I1 and I2 for a request: it is where its place says, and
// nowhere else, and it has a body as long as it has a place.
func (m *model) misplaced(s *state, id uint8) string {
	in := func(z set, p place) bool { return z.has(id) == (s.place[id] == p) }
	switch {
	case !in(s.inDelayed, delayed) || !in(s.inParked, parked) || !in(s.inLeased, leased) || !in(s.inDead, dead):
		return fmt.Sprintf("I1: %d is %v, and somewhere else", id, s.place[id])
	case s.place[id] == ready && !slices.Contains(s.list[:], id):
		return fmt.Sprintf("I1: %d is ready, and not in the list", id)
	case s.msg.has(id) != (s.place[id] != nowhere):
		return fmt.Sprintf("I2: %d is %v, and it has a body: %v", id, s.place[id], s.msg.has(id))
	}
	return ""
}

// turn checks I3, I11 and I12 for a lock.
func (m *model) turn(s *state, k uint8) string {
	if line := m.oldest(s, k) != 0; line != s.probe.has(k) {
		return fmt.Sprintf("I3: somebody stands in line for %s: %v, it has a probe: %v", name(k), line, s.probe.has(k))
	}
	h := s.held[k]
	if h != 0 {
		p := s.place[h]
		if p != ready && p != leased && (p != delayed || !m.c.Strict) {
			return fmt.Sprintf("I11: %d has the turn of %s, and is %v", h, name(k), p)
		}
	}
	for i := uint8(1); i <= m.ids(); i++ {
		if s.inLeased.has(i) && m.lock(i) == k && h != i {
			return fmt.Sprintf("I12: %d is leased, and %d has the turn of %s", i, h, name(k))
		}
	}
	return ""
}

// promised checks I13: if somebody is parked and nobody has the turn, then the
// lock's holder will be told of the queue, or somebody is about to promote.
func (m *model) promised(s *state, k uint8) bool {
	if m.oldest(s, k) == 0 || s.held[k] != 0 || s.holder[k] != 0 && s.registered.has(k) {
		return true
	}
	for _, w := range s.w {
		if w.alive == 0 {
			continue
		}
		if w.probe == k {
			return true
		}
		if m.lock(w.id) == k && (w.phase >= met || w.phase == freed && w.told == 1 && !m.c.Off.StaleTellsNobody) {
			return true
		}
	}
	for i, c := range s.c {
		if i < len(m.c.Callers) && m.c.Callers[i].Lock == k && (c.phase == hinting || c.phase == refused || c.phase == looking) {
			return true
		}
	}
	if m.c.Off.TurnFromClaim { // who was promoted is on the way
		for i := uint8(1); i <= m.ids(); i++ {
			if s.place[i] == ready && m.lock(i) == k {
				return true
			}
		}
	}
	return false
}

// asleep checks I4: if ready holds something to claim, a token stands, a feeder is
// about to claim, or no slot is free.
func (m *model) asleep(s *state) string {
	work := false
	for i := uint8(1); i <= m.ids(); i++ {
		work = work || s.place[i] == ready
	}
	if !work || s.wake == 1 {
		return ""
	}
	free, soon := false, false
	for _, w := range s.w {
		if w.alive == 0 {
			continue
		}
		free = free || w.phase == idle
		soon = soon || w.kick == 1 || w.token == 1
	}
	if free && !soon && s.left.Drains == m.c.Faults.Drains { // who stops claims no more
		return "I4: ready is not empty, a worker is free, and there is no token"
	}
	return ""
}
