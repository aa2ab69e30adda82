// Package queuemodel checks the rules of docs/queue.md by going through every
// state that a few workers and callers can reach with a few requests.
//
// The scripts of internal/script run at once and whole, under the same names;
// everything else interleaves: the steps of workers and callers, the token, what
// becomes due, deaths, pauses, commands that are sent again and run at any later
// time. There is no clock: whatever waits for a time may become due at any step.
// Lease tokens are numbered anew in each state, and so are the places in line, so
// that the states are finite.
//
// A rule that is switched off yields a counterexample: a shortest list of steps.
// How a Clock decides who wakes in time for what is due is a model of its own.
package queuemodel

import "fmt"

// Rules switches rules off, each in favour of what one would try first. The zero
// value is docs/queue.md.
type Rules struct {
	GateForgetsItself bool // the gate parks whoever names a lock that has a turn, even if it is its own
	TurnFromClaim     bool // a request has its lock's turn only from the claim on, not from its promotion
	PromoteRegardless bool // promote does not look at whose turn it is
	GateIgnoresTurn   bool // the gate looks at the line only
	ExpiryClearsTurn  bool // a request whose lease ended, or that was requeued, loses its turn
	ParkKeepsTurn     bool // a parked request keeps its turn
	ParkPromotes      bool // park gives the turn to the next in line
	CancelKeepsTurn   bool // cancel leaves the turn as it is
	PromotesNobody    bool // nack and bury free the turn and promote nobody
	NoLook            bool // who has parked a request goes away
	LookOnly          bool // the look after parking does not register the queue
	StaleTellsNobody  bool // a worker whose settlement was stale goes away, though its release was told of the queue
	AckFirst          bool // the request is acknowledged before its lock is released
	AnyToken          bool // the lease token is not looked at
	ForgetsFinished   bool // a finished request is not remembered
	ClaimUnrecorded   bool // a claim that is sent again takes other requests
	ClaimByBody       bool // claim takes every id that has a body, wherever the request is
	ClaimEatsToken    bool // a claim leaves no token behind
	PromoteSilently   bool // promote pushes no token
	NoPoll            bool // nobody looks without a token
	WakerNeverPauses  bool // the waker pops the token while no slot is free
	HandIgnoresTurn   bool // a request is handed over without passing the gate
	HandOvertakes     bool // a request is handed over while others stand in ready
	HandIsToken       bool // nobody says that there is more while a request stands in wake
	OfferForgotten    bool // a request that was offered and is done before it is stored is not remembered
	OfferPushed       bool // a request whose offer may not have come is pushed like any other
}

// The sizes of the model.
const (
	maxIDs    = 4 // requests are 1 to 4, so that 0 is none; so are locks
	maxLocks  = 2
	workers   = 2
	callers   = 2
	readySize = 8
	wakeSize  = 2    // requests in wake
	offers    = 0x80 // tokens from here on are those of offers
)

// Origin is how a request comes into the queue.
type Origin uint8

// The origins.
const (
	Pushed    Origin = iota // Enqueue
	Scheduled               // EnqueueIn
	Deferred                // by the caller whose Request it is, if that meets a held lock
)

// Request is one request of a case.
type Request struct {
	Lock   uint8 // 1 or 2, 0 for none
	Origin Origin
	Poison bool // it cannot be decoded
}

// Caller is somebody who takes a lock for himself.
type Caller struct {
	Lock    uint8 // 1 or 2
	Request uint8 // what it defers if the lock is held; 0: nothing, it fails
	InLine  bool  // it waits in the lock's line instead
	Again   uint8 // how often it comes back
}

// Faults is how often something may happen, in all.
type Faults struct {
	Deaths     uint8 // of a worker or caller
	Leases     uint8 // leases that end while their worker is paused
	TTLs       uint8 // locks that expire while their holder is paused
	Resends    uint8 // commands whose reply is lost: they run again, now or much later
	Claims     uint8 // the same, of claims
	Hints      uint8 // lost on their way from who released the lock to the queue
	Tokens     uint8 // popped by somebody who then dies; or a request that was handed over
	Failures   uint8 // of handlers
	Cancels    uint8
	Overdue    uint8 // the oldest in line is over its max wait, or a lease's request over its deliveries
	Drains     uint8 // a worker stops before it begins with what it claimed
	Operations uint8 // reschedule and revive
}

// Case is what may happen in one check.
type Case struct {
	Requests []Request // at most 4
	Callers  []Caller  // at most 2
	Faults   Faults
	Strict   bool // StrictOrder: a failed request keeps its lock's turn
	Hands    bool // consumers may have said that they listen: a request may be handed over as it is pushed
	Offers   bool // requests without a lock may be offered before they are pushed
	Exchange bool // a worker may acknowledge and claim in one command

	Ordered bool // requests of one lock are delivered in the order of their places in line
	Once    bool // no request is delivered twice

	// Only is what to look for, such as "L1"; others are passed over. "": all.
	Only string

	Off Rules
}

// Result is what a check found.
type Result struct {
	States, Edges int
	Violation     string   // "": none
	Trace         []string // the steps to it
	Complete      bool     // all states were seen, and liveness was checked
}

type place uint8

const (
	nowhere place = iota
	ready
	delayed
	parked
	leased
	dead
)

func (p place) String() string {
	return [...]string{"-", "ready", "delayed", "parked", "leased", "dead"}[p]
}

// set is a set of requests or locks.
type set uint8

func one(i uint8) set          { return 1 << i }
func (s set) has(i uint8) bool { return s&one(i) != 0 }
func (s *set) add(i uint8)     { *s |= one(i) }
func (s *set) drop(i uint8)    { *s &^= one(i) }

// What a worker is at.
const (
	idle    = iota
	claimed // has a request
	running // and its lock, if it needs one
	ran     // the handler has returned
	freed   // and the lock is released
	met     // a held lock
	waiting // its request is parked; to look at the lock
	telling // to promote
	giving  // back what came too late, or as it stops
)

// worker is a worker with one slot, and its feeder and waker.
type worker struct {
	alive, token, kick uint8 // token: its waker has one; kick: its slot has become free
	phase              uint8
	id, lease          uint8 // what it claimed, and the lease's token
	failed, told       uint8 // told: the release named the queue
	probe, free        uint8 // a lock to look at because its probe was due; it was free
	stored             uint8 // what was offered is known to be stored
}

// What a caller is at.
const (
	calling = iota
	holding
	hinting // its release named the queue
	refused // to park its request
	looking // to look at the lock
	inLine
	gone
)

type caller struct{ phase, again uint8 }

// Holders of a lock, besides worker w (1+w) and caller c (1+workers+c): one who
// is dead or lost it.
const ghost = 1 + workers + callers

// handed is a request that stands in wake, leased with this token. No id: there is none.
type handed struct{ id, token uint8 }

// lateCopy is a command that will run once more.
type lateCopy struct {
	script    script
	id, token uint8
	worker    uint8 // of a claim: 1 and up
	one       uint8 // of a claim: for a slot, which it records
	old       uint8 // of a claim: its worker has claimed since
}

// state is the queue's and the locks' keys and all clients. All of its fields
// are bytes, so that hashing it is one pass over its memory.
type state struct {
	// The queue's keys. place, seq, token and stamp are what state[id] holds; the
	// sets are the ZSETs.
	list                                       [readySize]uint8
	place                                      [maxIDs + 1]place
	seq, token, stamp                          [maxIDs + 1]uint8
	inDelayed, inParked, inLeased, inDead, msg set
	gone, probe                                set
	held                                       [maxLocks + 1]uint8
	wake                                       uint8             // tokens
	over                                       [wakeSize]handed  // in front of it, the last to come first
	offer                                      [maxIDs + 1]uint8 // the token with which its producer has offered it, who will store it

	// The locks' keys.
	holder     [maxLocks + 1]uint8
	registered set

	w    [workers]worker
	c    [callers]caller
	late lateCopy

	toSend, finished set               // by whom it was pushed; acknowledged or cancelled
	delivered        [maxIDs + 1]uint8 // Once only
	left             Faults
	hurt             uint8 // something happened after which only the probe and the poll promise anything
}

// step is a state that another leads to.
type step struct {
	state state
	actor uint8 // whose step it is, for fairness
	fault bool  // it need not happen
	wrong string
	label string
	calls []Call
}

// model makes the steps.
type model struct {
	c       *Case
	record  bool // whether to write labels and calls, which is slow
	steps   []step
	wrong   string // what the step under way breaks
	overdue bool   // in the script under way, the oldest in line is over its max wait
	hand    bool   // in the script under way, somebody is known to listen
	calls   []Call
}

// lock is the lock that a request needs.
func (m *model) lock(id uint8) uint8 {
	if id == 0 {
		return 0
	}
	return m.c.Requests[id-1].Lock
}

func (m *model) ids() uint8 { return uint8(len(m.c.Requests)) }

func (m *model) emit(s *state, actor uint8, fault bool, format string, args ...any) {
	st := step{state: *s, actor: actor, fault: fault, wrong: m.wrong}
	m.wrong = ""
	m.canon(&st.state)
	if m.record {
		st.label = fmt.Sprintf(format, args...) + "; " + m.show(&st.state)
		st.calls = m.calls
		m.calls = nil
	}
	m.steps = append(m.steps, st)
}

// canon merges states that nobody can tell apart: places in line are ranks.
func (m *model) canon(s *state) {
	var rank [maxIDs + 1]uint8
	for i := range s.seq {
		if s.seq[i] == 0 {
			continue
		}
		for _, q := range s.seq {
			if q != 0 && q <= s.seq[i] {
				rank[i]++
			}
		}
	}
	s.seq = rank
}

// first is the state in which nothing has happened.
func (m *model) first() state {
	var s state
	for i := range s.w {
		s.w[i].alive = 1
	}
	for i, r := range m.c.Requests {
		if r.Origin != Deferred {
			s.toSend.add(uint8(i + 1))
		}
	}
	for i := range s.c {
		if s.c[i].phase = gone; i < len(m.c.Callers) {
			s.c[i] = caller{again: m.c.Callers[i].Again}
		}
	}
	s.left = m.c.Faults
	return s
}

// settled reports whether nothing is left to do.
func (m *model) settled(s *state) bool {
	if s.toSend != 0 || s.inDelayed|s.inParked|s.inLeased != 0 {
		return false
	}
	for i := uint8(1); i <= m.ids(); i++ {
		if s.place[i] == ready {
			return false
		}
	}
	for _, c := range s.c {
		if c.phase != gone {
			return false
		}
	}
	return true
}

// show writes the keys for people.
func (m *model) show(s *state) string {
	text := func(x set) string {
		out := ""
		for i := uint8(1); i <= maxIDs; i++ {
			if x.has(i) {
				out += fmt.Sprint(i)
			}
		}
		return out
	}
	n := 0
	for n < readySize && s.list[n] != 0 {
		n++
	}
	out := fmt.Sprintf("ready=%v", s.list[:n])
	for _, z := range []struct {
		name string
		set  set
	}{{"delayed", s.inDelayed}, {"parked", s.inParked}, {"leased", s.inLeased}, {"dead", s.inDead}} {
		if z.set != 0 {
			out += " " + z.name + "=" + text(z.set)
		}
	}
	for k := uint8(1); k <= maxLocks; k++ {
		if s.held[k] != 0 {
			out += fmt.Sprintf(" turn(%s)=%d", name(k), s.held[k])
		}
		if s.holder[k] != 0 {
			out += fmt.Sprintf(" lock(%s)=%s", name(k), who(s.holder[k]))
		}
		if s.registered.has(k) {
			out += " registered(" + name(k) + ")"
		}
	}
	for _, h := range s.over {
		if h.id != 0 {
			out += fmt.Sprintf(" over=%d", h.id)
		}
	}
	if s.wake != 0 {
		out += " wake"
	}
	return out
}

// name is a lock's.
func name(k uint8) string { return string(rune('A' + k - 1)) }

// who is a holder's name.
func who(h uint8) string {
	switch {
	case h == ghost:
		return "nobody"
	case h > workers:
		return fmt.Sprintf("d%d", h-workers)
	}
	return fmt.Sprintf("w%d", h)
}
