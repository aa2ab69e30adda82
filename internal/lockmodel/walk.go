package lockmodel

import "math/rand/v2"

// Event is a script that ran on the server, or the end of a lease there.
type Event struct {
	// Script is "acquire", with the token's entry in the line; "try", which is
	// acquire without; "extend"; "release", which also leaves the line; or "expire".
	Script string
	Token  uint8 // 1 and up; 0 of expire
	// Listening tells of which processes a subscription is counted.
	Listening [processes]bool
	// Granted, InLine and OK are the answer: of acquire and try, and of extend.
	Granted, InLine, OK bool
}

// Keys is what the server's keys then hold.
type Keys struct {
	Lock    uint8   // a token, 0 if it is free
	Line    []uint8 // tokens, the first in line first
	Fence   uint8   // the last one minted, in no unit but that it grows
	Claimed bool    // the lock has a claim lease
}

// Process returns the number of the process that a token is of, from 0.
func Process(token uint8) int { return owner(token) }

// Walk takes random steps of a case, and shows what happens on the server. It
// ends after n steps, at a state that goes nowhere, or when visit returns false.
// It returns how many steps it took.
func Walk(c Case, rnd *rand.Rand, n int, visit func(Event, Keys) bool) int {
	m := &model{c: &c, raw: true}
	s := c.first()
	for i := range n {
		m.next(&s)
		var can []step
		for _, st := range m.steps {
			if st.wrong == "" && st.state != s {
				can = append(can, st)
			}
		}
		if len(can) == 0 {
			return i
		}
		st := can[rnd.IntN(len(can))]
		s = st.state
		if st.event.Script == "" {
			continue
		}
		k := Keys{Lock: s.lock, Fence: s.fence, Claimed: s.claimed == 1}
		for _, t := range s.line {
			if t != 0 {
				k.Line = append(k.Line, t)
			}
		}
		if !visit(st.event, k) {
			return i
		}
	}
	return n
}

// happened notes what a script did.
func (m *model) happened(s *state, o op, token uint8, a answer) {
	if !m.raw {
		return
	}
	m.event = Event{Script: o.String(), Token: token, Granted: a == granted, InLine: a == inLine, OK: a == ok}
	for i := range s.p {
		m.event.Listening[i] = s.p[i].sub != down
	}
}
