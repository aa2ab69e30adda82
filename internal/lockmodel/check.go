package lockmodel

import (
	"hash/maphash"
	"slices"
)

// Check goes through the states of a case, nearest first, until it finds one
// that is wrong, has seen all, or has seen limit of them.
func Check(c Case, limit int) Result {
	m := &model{c: &c}
	seed := maphash.MakeSeed()
	seen := make(map[uint64]struct{})
	from := []origin{{}}
	first := c.first()
	seen[maphash.Comparable(seed, first)] = struct{}{}
	level := []node{{first, 0}}
	r := Result{Complete: true}
	for len(level) > 0 && r.Complete {
		var next []node
		for _, at := range level {
			m.next(&at.state)
			if c.Prompt && m.stuck(&at.state) {
				r.Violation = "a waiter waits for ever"
				return r.with(m, first, from, at.id)
			}
			for k := range m.steps {
				st := &m.steps[k]
				h := maphash.Comparable(seed, st.state)
				if _, old := seen[h]; old && st.wrong == "" {
					continue
				}
				seen[h] = struct{}{}
				id := uint32(len(from))
				from = append(from, origin{at.id, uint8(k)})
				r.States = len(seen)
				r.MaxIdle = max(r.MaxIdle, st.state.idle)
				if r.Violation = m.violation(st); r.Violation != "" {
					return r.with(m, first, from, id)
				}
				next = append(next, node{st.state, id})
			}
			if len(seen) >= limit {
				r.Complete = false
				break
			}
		}
		level = next
	}
	return r
}

// node is a state to go on from.
type node struct {
	state state
	id    uint32
}

// origin is the state that one was first reached from, and by which of its steps.
type origin struct {
	id   uint32
	step uint8
}

// violation says what is wrong with a step.
func (m *model) violation(st *step) string {
	n := 0
	for i := range st.state.p {
		p := &st.state.p[i]
		for _, g := range p.goroutine {
			if p.alive == 1 && g == inside && p.valid > 0 {
				n++
			}
		}
	}
	switch {
	case st.wrong != "":
		return st.wrong
	case n > 1:
		return "exclusion: two inside, both before their deadlines"
	case m.c.MaxIdle > 0 && st.state.idle > m.c.MaxIdle:
		return "waiting: nobody is inside for too long"
	}
	return ""
}

// stuck reports whether nothing but time goes on, for ever, while somebody waits.
func (m *model) stuck(s *state) bool {
	for k := range m.steps {
		if m.steps[k].state != *s {
			return false
		}
	}
	return slices.ContainsFunc(s.p[:], func(p process) bool { return p.alive == 1 && p.waiting() })
}

// with adds the steps that lead to a state.
func (r Result) with(m *model, first state, from []origin, id uint32) Result {
	var path []uint8
	for ; id != 0; id = from[id].id {
		path = append(path, from[id].step)
	}
	m.labels = true
	s := first
	for _, k := range slices.Backward(path) {
		m.next(&s)
		r.Trace = append(r.Trace, m.steps[k].label)
		s = m.steps[k].state
	}
	r.Complete = false
	return r
}
