package lockmodel

// canon merges states that nobody can tell apart any more: it forgets what will
// not be read, and numbers tokens and fences anew.
func (m *model) canon(s *state) {
	for i := range s.p {
		m.forget(&s.p[i])
	}
	if m.raw {
		return
	}
	for i := range s.p {
		s.renumberTokens(i)
	}
	m.renumberFences(s)
}

func (m *model) forget(p *process) {
	for k := range p.mail {
		if msg := &p.mail[k]; msg.token != p.token {
			*msg = message{token: msg.token}
		} else {
			msg.age = min(msg.age, msg.lease)
		}
	}
	for _, r := range p.requests() {
		switch {
		case r.op == release:
			r.age, r.lag = 0, 0
		case r.phase == answered && r.answer == inLine && !m.c.Off.AnchorAtArrival:
			r.age = 0
		}
	}
	if p.state != waitsInLine {
		p.timer = 0
		if p.state != calling {
			p.lag = 0
		}
	}
	if p.watchdog.phase == answered && (p.watchdog.token != p.token || p.valid == 0) {
		p.watchdog = request{op: extend, phase: answered, token: p.token}
	}
	if p.state == holds && p.valid == 0 {
		p.next, p.last = 0, 0
	}
	if p.alive == 0 { // only what it had sent goes on
		dead := process{token: p.token, sub: p.sub, entered: p.entered}
		for k, r := range p.requests() {
			if r.phase == sent {
				*dead.requests()[k] = *r
				dead.requests()[k].age = 0
			}
		}
		*p = dead
	}
}

func (s *state) renumberTokens(i int) {
	low := uint8(i * maxToken)
	var seen [maxToken]bool
	s.tokens(i, func(t *uint8) {
		if *t > low && *t < low+maxToken {
			seen[*t-low] = true
		}
	})
	var to [maxToken]uint8
	n := uint8(0)
	for k := range seen {
		if seen[k] {
			n++
			to[k] = n
		}
	}
	s.tokens(i, func(t *uint8) {
		if *t > low && *t < low+maxToken {
			*t = low + to[*t-low]
		}
	})
	s.p[i].tickets = n
}

// tokens visits all places where a token of process i may be.
func (s *state) tokens(i int, visit func(*uint8)) {
	visit(&s.lock)
	for k := range s.line {
		visit(&s.line[k])
	}
	for k := range s.copies {
		visit(&s.copies[k].token)
	}
	p := &s.p[i]
	visit(&p.token)
	for _, r := range p.requests() {
		visit(&r.token)
	}
	for k := range p.mail {
		visit(&p.mail[k].token)
	}
}

func (m *model) renumberFences(s *state) {
	if s.fence < m.c.Block {
		return
	}
	least := s.fence - m.c.Block + 1 // of the present holder's block
	lower := func(f *uint8, block uint8) {
		if *f != 0 {
			least = min(least, minus(*f+1, block))
		}
	}
	m.fences(s, lower)
	if s.highest != 0 {
		least = min(least, s.highest)
	}
	if least <= 1 {
		return
	}
	shift := least - 1
	m.fences(s, func(f *uint8, _ uint8) {
		if *f != 0 {
			*f -= shift
		}
	})
	s.fence -= shift
	s.highest = minus(s.highest, shift)
}

// fences visits all places where a fence may be; block is by how many fences
// that one can be the last.
func (m *model) fences(s *state, visit func(f *uint8, block uint8)) {
	for i := range s.p {
		p := &s.p[i]
		visit(&p.next, 1)
		visit(&p.last, 1)
		visit(&p.told, m.c.Block)
		for _, r := range p.requests() {
			visit(&r.last, m.c.Block)
		}
		for k := range p.mail {
			visit(&p.mail[k].last, m.c.Block)
		}
	}
}
