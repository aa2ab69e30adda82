// Package lockmodel checks the rules of docs/lock.md by going through every
// state that a few processes on one lock can reach.
//
// Scripts run at once and whole; everything else interleaves: requests and
// replies on their way, copies of requests that run at any later time, messages,
// timers, deaths, cuts, and the clock, which ticks whenever it likes. All clocks
// are countdowns or ages that stop at a bound, and tokens and fences are numbered
// anew in each state, so that the states are finite.
//
// A rule that is switched off yields a counterexample: a shortest list of steps.
package lockmodel

import "fmt"

// Rules switches rules off, each in favour of what one would try first. The zero
// value is docs/lock.md.
type Rules struct {
	CountFromReceipt  bool // a grant counts from its receipt, not by the anchor rule
	AnchorAtArrival   bool // the anchor is the arrival of a reply, not the sending of its request
	ConfirmByExtend   bool // a grant is confirmed by extend, and the fence is the message's
	ReleaseHeldGrant  bool // a grant for the token that is held is given back
	NewLeaseAtHandOff bool // a hand-over inside the process does not look at the deadline
	TimerFromPTTL     bool // the fallback timer is what is left of the lease, however long
	DropEarlyGrants   bool // a grant that overtakes the reply is thrown away
	IgnoreUnknown     bool // a grant that nobody waits for is not given back
	LineIsList        bool // joining twice makes two entries
	StayBehindLapsed  bool // waiters wait for a holder of their process that has lost the lock
}

// Case is what may happen in one check.
type Case struct {
	TTL, Claim, Block uint8 // in ticks and fences

	Goroutines [processes]uint8 // of each process; at most 2
	OnlyTries  [processes]bool  // it does not stand in line
	Rounds     uint8            // sections that each goroutine wants; 0 means 1

	// How often it may happen, in all.
	LateCopies, Resends, Cancels, Drops, Deaths, Extends, Pauses uint8

	// Ticks bounds the time; steps may be late at will. Prompt has no bound
	// instead, and steps of processes that are awake take no time: for bounds on
	// waiting.
	Ticks   uint8
	Prompt  bool
	MaxIdle uint8 // Prompt: for how many ticks nobody may be inside while somebody waits; 0: any

	Off Rules
}

// Result is what a check found.
type Result struct {
	States    int
	Violation string   // "": none
	Trace     []string // the steps to it
	Complete  bool     // all states were seen
	MaxIdle   uint8    // the longest that nobody was inside while somebody waited; Prompt only
}

const (
	processes  = 3
	goroutines = 2
	mailSize   = 3 // messages in flight to one process; more are lost
	lineSize   = 6
	copies     = 2
	maxToken   = 16 // of one process, at the same time
	maxIdle    = 40
)

type op uint8

const (
	nothing op = iota
	acquire
	extend
	release
	try
)

func (o op) String() string { return [...]string{"-", "acquire", "extend", "release", "try"}[o] }

type answer uint8

const (
	noAnswer answer = iota
	granted
	inLine
	refused
	ok
	notHeld
)

func (a answer) String() string {
	return [...]string{"-", "granted", "in line", "refused", "ok", "not held"}[a]
}

// The states of a subscription, of a process's ticket, of a goroutine, and of a
// request.
const (
	down = iota
	up
	halfOpen
)

const (
	none = iota
	calling
	waitsInLine
	holds
)

const (
	idle = iota
	waits
	inside
)

const (
	sent = iota + 1
	answered
)

// message is a grant.
type message struct{ token, last, age, lease uint8 }

// request is a command of a process, from when it is sent until its answer is
// read. lag is how long it took from the sending to the script.
type request struct {
	op         op
	answer     answer
	phase      uint8
	token, age uint8
	last       uint8 // fence of the answer
	lag, pttl  uint8
	confirms   uint8
}

// process is one process, with its ticket, in the words of docs/lock.md.
type process struct {
	alive, paused, sub, onlyTries uint8

	token, state, lag, timer uint8
	next, last               uint8 // fence of the section, and of the block
	valid                    uint8 // ticks to the deadline
	entered, tickets         uint8
	told, late               uint8 // by a message: its fence; of an anchor taken wrong: how late

	fifo, goroutine, rounds [goroutines]uint8

	call, janitor, watchdog request
	mail                    [mailSize]message
}

// state is the server, the network and all processes. All of its fields are
// bytes, so that hashing it is one pass over its memory.
type state struct {
	lock, ttl, fence, highest uint8 // highest: fence of those who entered
	claimed                   uint8 // the lease is a waiter's that has not spoken up
	idle                      uint8
	line                      [lineSize]uint8
	copies                    [copies]struct {
		op    op
		token uint8
	}
	p    [processes]process
	left struct{ copies, resends, cancels, drops, deaths, extends, pauses, ticks uint8 }
}

// step is a state that another leads to.
type step struct {
	state state
	label string
	wrong string // what it breaks
	event Event  // in a Walk
}

// model makes the steps.
type model struct {
	c      *Case
	labels bool // whether to write labels, which is slow
	steps  []step
	wrong  string // what the step under way breaks
	raw    bool   // in a Walk: nothing is numbered anew
	event  Event
}

func (m *model) emit(s state, format string, args ...any) {
	st := step{wrong: m.wrong, event: m.event}
	m.wrong, m.event = "", Event{}
	m.canon(&s)
	st.state = s
	if m.labels {
		st.label = fmt.Sprintf(format, args...)
	}
	m.steps = append(m.steps, st)
}

func (p *process) requests() [3]*request { return [3]*request{&p.call, &p.janitor, &p.watchdog} }

func (p *process) waiting() bool { return p.fifo[0] != 0 }

func minus(a, b uint8) uint8 { return a - min(a, b) }

// first is the state in which all goroutines are about to want the lock.
func (c *Case) first() state {
	var s state
	for i := range s.p {
		if c.Goroutines[i] == 0 {
			continue
		}
		p := &s.p[i]
		p.alive, p.sub = 1, up
		if c.OnlyTries[i] {
			p.onlyTries = 1
		}
		for g := range c.Goroutines[i] {
			p.rounds[g] = max(c.Rounds, 1)
		}
	}
	l := &s.left
	l.copies, l.resends, l.cancels, l.drops = c.LateCopies, c.Resends, c.Cancels, c.Drops
	l.deaths, l.extends, l.pauses = c.Deaths, c.Extends, c.Pauses
	if !c.Prompt {
		l.ticks = c.Ticks
	}
	return s
}
