package lockmodel

// run runs one script on the server. r takes the answer; it is nil for a late
// copy, whose answer nobody reads.
func (m *model) run(s *state, o op, token uint8, r *request) {
	a := request{answer: ok}
	switch o {
	case acquire:
		if s.lock == token { // sent again, or a confirm
			s.ttl, s.claimed = m.c.TTL, 0
		} else {
			m.join(s, token)
			if s.lock == 0 {
				m.serve(s, token)
			}
		}
		if a.answer = granted; s.lock != token {
			a.answer, a.pttl = inLine, s.ttl
		}
	case try:
		if s.lock == 0 {
			s.lock = token
			m.mint(s)
		}
		if a.answer = granted; s.lock == token {
			s.ttl, s.claimed = m.c.TTL, 0
		} else {
			a.answer = refused
		}
	case extend:
		if s.lock == token {
			s.ttl, s.claimed = m.c.TTL, 0
		} else {
			a.answer = notHeld
		}
	case release:
		s.leave(token)
		if s.lock == token {
			s.lock, s.ttl, s.claimed = 0, 0, 0
			m.serve(s, 0)
		}
	}
	m.happened(s, o, token, a.answer)
	if r == nil {
		return
	}
	if a.answer == granted || o == extend && a.answer == ok {
		a.last = s.fence
	}
	r.phase, r.answer, r.last, r.pttl, r.lag = answered, a.answer, a.last, a.pttl, 0
	if a.answer == inLine {
		r.lag = r.age
	}
}

// serve gives a free lock to the first in line who listens.
func (m *model) serve(s *state, me uint8) {
	for {
		e := s.line[0]
		if e == 0 {
			return
		}
		copy(s.line[:], s.line[1:])
		s.line[lineSize-1] = 0
		if e == me {
			s.lock, s.ttl, s.claimed = e, m.c.TTL, 0
			m.mint(s)
			return
		}
		if s.publish(message{token: e, last: s.fence + m.c.Block, lease: m.c.Claim}) {
			m.mint(s)
			s.lock, s.ttl, s.claimed = e, m.c.Claim, 1
			return
		}
	}
}

// mint reserves a block of fences.
func (m *model) mint(s *state) {
	if s.fence > 250-m.c.Block {
		m.wrong = "bound: fences"
	}
	s.fence += m.c.Block
}

// publish reports whether the server counts a subscriber.
func (s *state) publish(msg message) bool {
	p := &s.p[owner(msg.token)]
	switch p.sub {
	case down:
		return false
	case halfOpen:
		return true // counted, and lost
	}
	for i := range p.mail {
		if p.mail[i].token == 0 {
			p.mail[i] = msg
			return true
		}
	}
	return true // lost as well: that may happen
}

func (m *model) join(s *state, token uint8) {
	for i, t := range s.line {
		switch {
		case t == token && !m.c.Off.LineIsList:
			return
		case t == 0:
			s.line[i] = token
			return
		}
	}
	m.wrong = "the line grows without bound"
}

func (s *state) leave(token uint8) {
	j := 0
	for _, t := range s.line {
		if t != token {
			s.line[j] = t
			j++
		}
	}
	clear(s.line[j:])
}

// owner is the process that a token is of.
func owner(token uint8) int { return int(token-1) / maxToken }
