package lock

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	mailCheck      = time.Second           // silence after which a subscription is pinged, and then given up
	mailLinger     = 30 * time.Second      // how long one is kept that nobody waits for
	mailLingerEach = 2 * time.Second       // the same, of a mailbox for one lock
	mailPause      = 50 * time.Millisecond // before subscribing anew; doubles
	maxPause       = 2 * time.Second       // up to this
)

// mailbox is a subscription on which releases tell waiters that the lock is
// theirs: one per process, or, with several servers, one per process and lock,
// at the server that has the lock's slot. In a quorum it is one such at each
// node. Locker.mu guards the fields of the second group.
//
// It looks after its connection itself: go-redis sends pings on a silent one but
// never misses the answer, so that it would not notice a path cut without a FIN.
type mailbox struct {
	l       *Locker
	channel string
	ctx     context.Context
	stop    context.CancelFunc

	nodes  int // at how many it is subscribed
	slots  map[*slot]struct{}
	closed bool
}

// up reports whether a release will be heard of.
func (m *mailbox) up() bool { return m.nodes > len(m.l.clients)/2 }

func (s *slot) channel() string {
	if s.l.sharded {
		return s.keys.mail(s.l.process)
	}
	return "sidestep:mail:" + s.l.process
}

// listening returns the slot's mailbox if that is up.
func (s *slot) listening() *mailbox {
	if s.mail == nil && len(s.l.mails) > 0 {
		if m := s.l.mails[s.channel()]; m != nil && m.up() {
			m.join(s)
		}
	}
	if s.mail != nil && s.mail.up() {
		return s.mail
	}
	return nil
}

// subscribe gives the slot a mailbox, which will be up soon.
func (s *slot) subscribe() {
	if s.mail != nil {
		return
	}
	channel := s.channel()
	m := s.l.mails[channel]
	if m == nil {
		m = &mailbox{l: s.l, channel: channel, slots: make(map[*slot]struct{})}
		m.ctx, m.stop = context.WithCancel(s.l.ctx)
		s.l.mails[channel] = m
		for _, rdb := range s.l.clients {
			s.l.spawn(func() { m.run(rdb) })
		}
	}
	m.join(s)
}

func (m *mailbox) join(s *slot) {
	m.slots[s] = struct{}{}
	s.mail = m
}

func (m *mailbox) leave(s *slot) {
	delete(m.slots, s)
	s.mail = nil
}

// forget makes the next waiter subscribe anew.
func (m *mailbox) forget() {
	m.close()
	if m.l.mails[m.channel] == m {
		delete(m.l.mails, m.channel)
	}
}

// close ends all runs.
func (m *mailbox) close() {
	m.closed = true
	m.stop()
}

// run keeps the subscription at one node until it is closed, or nobody needs it: for a
// while, or, if no node can be subscribed to, at the next attempt.
func (m *mailbox) run(rdb redis.UniversalClient) {
	l := m.l
	defer m.stop()
	for pause := mailPause; ; {
		l.mu.Lock()
		if pause > mailPause && len(m.slots)+m.nodes == 0 {
			m.forget() // it failed, and nobody waits
		}
		if m.closed {
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()

		ps := rdb.Subscribe(m.ctx) // no channel yet: nothing is sent
		// Close ends a read that goes on. It may have to wait for a dial, so
		// never call it with mu held.
		unhook := context.AfterFunc(m.ctx, func() { _ = ps.Close() })
		heard, err := m.receive(ps)
		unhook()
		_ = ps.Close() // it is of no use any more
		if heard {
			pause = mailPause
		}

		l.mu.Lock()
		if heard {
			m.nodes--
		}
		if m.closed || err == nil {
			m.forget()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.cfg.Logger.Info("lock: subscription lost", "channel", m.channel, "error", err)
		if !l.sleep(pause) {
			continue
		}
		pause = min(2*pause, maxPause)
	}
}

// receive reads until the connection fails. It returns nil if nobody has needed
// the mailbox for a while, and whether it was ever up.
func (m *mailbox) receive(ps *redis.PubSub) (heard bool, err error) {
	if err := ps.Subscribe(m.ctx, m.channel); err != nil {
		return false, err
	}
	pinged, idle := false, time.Duration(0)
	for {
		msg, err := ps.ReceiveTimeout(m.ctx, mailCheck)
		if err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() || m.ctx.Err() != nil {
				return heard, err
			}
			m.l.mu.Lock()
			needed := len(m.slots) > 0
			if !needed && (idle >= mailLinger || m.l.sharded && idle >= mailLingerEach) {
				m.forget() // in the critical section that found it unneeded
				m.l.mu.Unlock()
				return heard, nil
			}
			m.l.mu.Unlock()
			switch {
			case !needed && heard:
				idle += mailCheck
				pinged = false
			case pinged || !heard:
				return heard, err
			default:
				if err := ps.Ping(m.ctx); err != nil {
					return heard, err
				}
				pinged, idle = true, 0
			}
			continue
		}
		pinged, idle = false, 0
		switch msg := msg.(type) {
		case *redis.Subscription:
			if msg.Kind == "subscribe" {
				m.subscribed(!heard)
				heard = true
			}
		case *redis.Message:
			m.message(msg.Payload)
		}
	}
}

// subscribed makes every ticket in line ask again: what was published while the
// mailbox was down is lost, and the server may be another one, with another
// clock.
func (m *mailbox) subscribed(anew bool) {
	m.l.mu.Lock()
	defer m.l.unlock()
	if anew {
		m.nodes++
	}
	if !m.up() {
		return
	}
	for s := range m.slots {
		switch s.state {
		case inLine:
			s.tk.anchored = false
			s.again(s.acquire())
		case calling:
			s.tk.resubscribed = true
		}
	}
}

// message takes a grant. One for a ticket that this process does not have any
// more, such as that of a join which ran late, is given back.
func (m *mailbox) message(payload string) {
	l := m.l
	g, err := parseGrant(payload)
	if err != nil {
		l.cfg.Logger.Warn("lock: unknown message", "channel", m.channel)
		return
	}
	g.received = time.Now()
	g.lease -= l.cfg.LapseDelay
	l.mu.Lock()
	defer l.unlock()
	ls := l.live[g.value]
	switch {
	case ls == nil:
		ls = &lease{l: l, keys: keysOf("", g.key), value: g.value}
		l.live[g.value] = ls
		l.giveBack(ls)
	case ls.tk != nil && ls.tk.slot.tk == ls.tk:
		ls.tk.slot.granted(&g)
	}
}
