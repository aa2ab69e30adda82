package lockmodel

import "fmt"

// next makes all steps that s leads to.
func (m *model) next(s *state) {
	m.steps = m.steps[:0]
	m.wrong = ""
	prompt := m.server(s) // something happens that takes no time
	for i := range s.p {
		if s.p[i].sub == halfOpen { // somebody's keepalive notices
			n := *s
			n.p[i].sub = down
			m.emit(n, "p%d: half-open subscription noticed", i)
		}
		switch {
		case s.p[i].alive == 0:
		case s.p[i].paused == 1:
			n := *s
			n.p[i].paused = 0
			m.emit(n, "p%d: resumes", i)
		default:
			prompt = m.answers(s, i) || prompt
			prompt = m.messages(s, i) || prompt
			for g := range goroutines {
				m.goroutine(s, i, uint8(g))
			}
			prompt = m.alone(s, i) || prompt
			m.misfortune(s, i)
		}
	}
	m.tick(s, prompt)
}

// server runs the requests that have arrived, and late copies.
func (m *model) server(s *state) (prompt bool) {
	for i := range s.p {
		for k, r := range s.p[i].requests() {
			if r.phase != sent {
				continue
			}
			prompt = true
			n := *s
			nr := n.p[i].requests()[k]
			m.run(&n, r.op, r.token, nr)
			wrong, event := m.wrong, m.event
			m.emit(n, "p%d: %v(%d) runs: %v; lock=%d ttl=%d line=%v fence=%d", i, r.op, r.token, nr.answer, n.lock, n.ttl, n.line, n.fence)
			if s.left.copies == 0 {
				continue
			}
			for c := range n.copies {
				if n.copies[c].op == nothing {
					n.left.copies--
					n.copies[c].op, n.copies[c].token = r.op, r.token
					m.wrong, m.event = wrong, event
					m.emit(n, "p%d: %v(%d) runs: %v, and a copy of it stays under way", i, r.op, r.token, nr.answer)
					break
				}
			}
		}
	}
	for c, late := range s.copies {
		if late.op != nothing {
			n := *s
			n.copies[c].op, n.copies[c].token = nothing, 0
			m.run(&n, late.op, late.token, nil)
			m.emit(n, "a copy of %v(%d) runs; lock=%d ttl=%d line=%v fence=%d", late.op, late.token, n.lock, n.ttl, n.line, n.fence)
		}
	}
	return prompt
}

func (p *process) send(o op, token uint8) { p.call = request{op: o, token: token, phase: sent} }

func (m *model) newTicket(s *state, i int) {
	p := &s.p[i]
	p.tickets++
	if p.tickets >= maxToken {
		m.wrong = "bound: tickets"
	}
	p.token, p.state, p.entered = uint8(i*maxToken)+p.tickets, calling, 0
	if p.onlyTries == 1 {
		p.send(try, p.token)
	} else {
		p.send(acquire, p.token)
	}
}

// giveBack releases the ticket. Who waits gets a new one when the answer is in.
func (p *process) giveBack() {
	token := p.token
	p.token, p.state, p.lag, p.timer, p.next, p.last, p.valid, p.entered, p.told, p.late = 0, none, 0, 0, 0, 0, 0, 0, 0, 0
	p.send(release, token)
}

// enter lets the first of the process's own line in.
func (m *model) enter(s *state, i int, fence, last, valid uint8) {
	p := &s.p[i]
	g := p.fifo[0] - 1
	p.fifo[0], p.fifo[1] = p.fifo[1], 0
	p.goroutine[g] = inside
	p.state, p.next, p.last, p.valid, p.timer, p.entered = holds, fence, last, valid, 0, 1
	p.told, p.lag, p.late = 0, 0, 0
	s.idle = 0
	if valid == 0 {
		return
	}
	if fence <= s.highest {
		m.wrong = fmt.Sprintf("fences: process %d enters with %d after %d", i, fence, s.highest)
	}
	s.highest = fence
}

// answers reads what the server answered.
func (m *model) answers(s *state, i int) (prompt bool) {
	p := &s.p[i]
	if p.call.phase == answered {
		prompt = true
		if s.left.resends > 0 {
			n := *s
			n.left.resends--
			r := &n.p[i].call
			*r = request{op: r.op, token: r.token, age: r.age, confirms: r.confirms, phase: sent}
			m.emit(n, "p%d: the answer to %v is lost; it is sent again", i, r.op)
		}
		n := *s
		m.read(&n, i)
		m.emit(n, "p%d: reads %v", i, p.call.answer)
	}
	if p.janitor.phase == answered {
		prompt = true
		n := *s
		n.p[i].janitor = request{}
		m.emit(n, "p%d: a grant was given back", i)
	}
	if p.watchdog.phase == answered {
		prompt = true
		n := *s
		np := &n.p[i]
		r := np.watchdog
		np.watchdog = request{}
		if r.token == np.token && np.state == holds && np.valid > 0 {
			if np.valid = max(np.valid, minus(m.c.TTL, r.age)); r.answer != ok {
				np.valid = 0
			}
		}
		m.emit(n, "p%d: extend: %v, valid for %d", i, r.answer, np.valid)
	}
	return prompt
}

func (m *model) read(s *state, i int) {
	p := &s.p[i]
	r := p.call
	p.call = request{}
	left := minus(m.c.TTL, r.age) // counted from the sending
	switch {
	case r.op == release:
		if p.waiting() && p.state == none {
			m.newTicket(s, i)
		}
	case r.confirms == 1:
		if r.answer == ok && left > 0 && p.waiting() {
			m.enter(s, i, p.told-m.c.Block+1, p.told, left)
		} else {
			p.giveBack()
		}
	case r.answer == granted:
		if p.waiting() && left > 0 {
			m.enter(s, i, r.last-m.c.Block+1, r.last, left)
		} else {
			p.giveBack()
		}
	case r.answer == inLine && !p.waiting():
		p.giveBack()
	case r.answer == inLine:
		p.state, p.timer, p.lag = waitsInLine, r.pttl+1, r.lag
		if m.c.Off.AnchorAtArrival {
			p.late = r.age - r.lag
		}
		if !m.c.Off.TimerFromPTTL {
			p.timer = min(p.timer, m.c.Claim+1)
		}
	case r.answer == refused:
		if g := p.fifo[0]; g > 0 {
			p.goroutine[g-1] = idle
		}
		p.fifo[0], p.fifo[1] = p.fifo[1], 0
		p.token, p.state, p.entered = 0, none, 0
	}
}

// messages takes the first grant from the mailbox.
func (m *model) messages(s *state, i int) (prompt bool) {
	msg := s.p[i].mail[0]
	if msg.token == 0 {
		return false
	}
	n := *s
	p := &n.p[i]
	copy(p.mail[:], p.mail[1:])
	p.mail[mailSize-1] = message{}
	mine := msg.token == p.token
	switch {
	case mine && p.state == waitsInLine && p.call.op == nothing:
		m.judge(&n, i, msg)
	case mine && p.state == calling:
		if !m.c.Off.DropEarlyGrants {
			return false // it is kept until the answer has been read
		}
	case mine && p.state == holds:
		if m.c.Off.ReleaseHeldGrant && p.janitor.op == nothing {
			p.janitor = request{op: release, token: msg.token, phase: sent}
		}
	case m.c.Off.IgnoreUnknown:
	case p.janitor.op != nothing:
		return false // one after another
	default:
		p.janitor = request{op: release, token: msg.token, phase: sent}
	}
	m.emit(n, "p%d: takes a grant for %d, %d old; valid for %d", i, msg.token, msg.age, p.valid)
	return true
}

// judge decides whether a grant is fresh enough to enter at once.
func (m *model) judge(s *state, i int, msg message) {
	p := &s.p[i]
	var valid uint8
	switch {
	case !p.waiting():
		p.giveBack()
		return
	case m.c.Off.ConfirmByExtend:
		p.state, p.told = calling, msg.last
		p.send(extend, p.token)
		p.call.confirms = 1
		return
	case m.c.Off.CountFromReceipt:
		valid = msg.lease
	case m.c.Off.AnchorAtArrival:
		valid = minus(msg.lease+p.late, msg.age)
	default: // sent + (g - s) + lease: it loses only the acquire's way there
		valid = minus(minus(msg.lease, msg.age), p.lag)
	}
	if valid > 0 {
		m.enter(s, i, msg.last-m.c.Block+1, msg.last, valid)
		return
	}
	p.state = calling
	p.send(acquire, p.token)
}

// goroutine makes the steps of one goroutine: to want the lock, to leave its
// section, and to give up waiting.
func (m *model) goroutine(s *state, i int, g uint8) {
	p := &s.p[i]
	if p.goroutine[g] == idle && p.rounds[g] > 0 && (p.onlyTries == 0 || p.state == none) {
		n := *s
		np := &n.p[i]
		np.goroutine[g] = waits
		np.rounds[g]--
		np.fifo[min(1, np.fifo[0])] = g + 1
		free := np.state == none && np.call.op == nothing
		if free && np.sub != down {
			m.newTicket(&n, i)
		}
		if !free || np.sub != down { // else it subscribes first
			m.emit(n, "p%d.%d: wants", i, g)
		}
	}
	if p.goroutine[g] == inside {
		if p.call.op == nothing {
			n := *s
			n.p[i].goroutine[g] = idle
			n.p[i].giveBack()
			m.emit(n, "p%d.%d: leaves", i, g)
		}
		if p.waiting() && p.next < p.last && (p.valid > 0 || m.c.Off.NewLeaseAtHandOff) {
			n := *s
			n.p[i].goroutine[g] = idle
			valid := p.valid
			if m.c.Off.NewLeaseAtHandOff {
				valid = m.c.TTL // a new holder, a new lease
			}
			m.enter(&n, i, p.next+1, p.last, valid)
			m.emit(n, "p%d.%d: hands over within the process; valid for %d", i, g, valid)
		}
	}
	if p.goroutine[g] == waits && s.left.cancels > 0 && p.onlyTries == 0 {
		n := *s
		n.left.cancels--
		np := &n.p[i]
		np.goroutine[g] = idle
		if np.fifo[0] == g+1 {
			np.fifo[0] = np.fifo[1]
		}
		np.fifo[1] = 0
		if !np.waiting() && np.state == waitsInLine && np.call.op == nothing {
			np.giveBack()
		}
		m.emit(n, "p%d.%d: is cancelled", i, g)
	}
}

// alone makes the steps that a process makes by itself.
func (m *model) alone(s *state, i int) (prompt bool) {
	p := &s.p[i]
	free := p.call.op == nothing
	if free && p.waiting() && p.state == none && p.sub != down {
		prompt = true
		n := *s
		m.newTicket(&n, i)
		m.emit(n, "p%d: new ticket", i)
	}
	if free && p.state == waitsInLine && p.timer == 0 {
		prompt = true
		n := *s
		n.p[i].state = calling
		n.p[i].send(acquire, p.token)
		m.emit(n, "p%d: timer", i)
	}
	if free && p.state == holds && p.valid == 0 && !m.c.Off.StayBehindLapsed {
		prompt = true
		n := *s
		for g := range n.p[i].goroutine {
			if n.p[i].goroutine[g] == inside {
				n.p[i].goroutine[g] = idle // it is on its own
			}
		}
		n.p[i].giveBack()
		m.emit(n, "p%d: deadline; the ticket is dropped", i)
	}
	if free && p.state == holds && p.valid > 0 && p.watchdog.op == nothing && s.left.extends > 0 {
		n := *s
		n.left.extends--
		n.p[i].watchdog = request{op: extend, token: p.token, phase: sent}
		m.emit(n, "p%d: extend sent", i)
	}
	if p.sub == down {
		prompt = true
		n := *s
		n.p[i].sub = up
		if free && p.state == waitsInLine {
			n.p[i].state = calling
			n.p[i].send(acquire, p.token)
		}
		m.emit(n, "p%d: subscribes again", i)
	}
	return prompt
}

// misfortune makes what may happen to a process.
func (m *model) misfortune(s *state, i int) {
	p := &s.p[i]
	if p.onlyTries == 1 {
		return
	}
	if p.sub == up && s.left.drops > 0 {
		n := *s
		n.left.drops--
		n.p[i].sub, n.p[i].mail = down, [mailSize]message{}
		m.emit(n, "p%d: its subscription drops", i)
		n.p[i].sub = halfOpen
		m.emit(n, "p%d: its subscription is half-open", i)
	}
	if s.left.deaths > 0 {
		n := *s
		n.left.deaths--
		np := &n.p[i]
		np.alive, np.mail, np.sub = 0, [mailSize]message{}, down
		for _, r := range np.requests() {
			if r.phase == answered {
				*r = request{}
			}
		}
		m.emit(n, "p%d: dies", i)
		np.sub = halfOpen
		m.emit(n, "p%d: dies with its host", i)
	}
	if s.left.pauses > 0 {
		n := *s
		n.left.pauses--
		n.p[i].paused = 1
		m.emit(n, "p%d: pauses", i)
	}
}

// tick lets time pass.
func (m *model) tick(s *state, prompt bool) {
	if m.c.Prompt && prompt || !m.c.Prompt && s.left.ticks == 0 {
		return
	}
	n := *s
	if !m.c.Prompt {
		n.left.ticks--
	}
	if n.ttl > 0 {
		if n.ttl--; n.ttl == 0 {
			n.lock, n.claimed = 0, 0
			if m.raw {
				m.event.Script = "expire"
			}
		}
	}
	wanted := false
	for i := range n.p {
		p := &n.p[i]
		p.valid, p.timer = minus(p.valid, 1), minus(p.timer, 1)
		for _, r := range p.requests() {
			if r.op != nothing {
				r.age = min(r.age+1, m.c.TTL)
			}
		}
		for k := range p.mail {
			if p.mail[k].token != 0 {
				p.mail[k].age = min(p.mail[k].age+1, m.c.TTL)
			}
		}
		wanted = wanted || p.alive == 1 && p.paused == 0 && p.waiting() && p.sub != halfOpen
	}
	if m.c.Prompt {
		owned := s.lock != 0 && s.claimed == 0
		if s.lock != 0 {
			p := &s.p[owner(s.lock)]
			owned = owned || p.token == s.lock && p.entered == 1
		}
		if n.idle = min(n.idle+1, maxIdle); !wanted || owned {
			n.idle = 0
		}
	}
	m.emit(n, "tick; lock=%d ttl=%d", n.lock, n.ttl)
}
