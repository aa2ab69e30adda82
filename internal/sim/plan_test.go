package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
)

// The streams of random numbers that come from one seed.
const (
	streamPlan = 1 + iota
	streamFaults
	streamWire
)

// plan is what a seed decides beforehand: who there is, what they do, and what
// happens to them. Only what a connection does to its commands is decided later.
type plan struct {
	seed uint64
	opts options

	processes, workers int
	locks              []string
	span               time.Duration // in which requests are made and faults happen
	long               bool          // hours, without blocking commands; else minutes

	lock    lock.Config
	storage listq.Config
	drain   time.Duration
	proto   int
	ctxEnds bool // go-redis heeds contexts
	tasks   []taskPlan

	requests []*request
	actions  []action
	rates    rates
	faults   []planned

	longestDelay time.Duration
	back         time.Duration // largest step back of the server's clock
}

// options change a plan, or break something, for the tests of the simulation.
type options struct {
	faultless bool
	crowd     bool                            // all want one lock, at about the same time, and wait in line
	tap       func(w *wire, unit []byte) bool // sees what arrives at the server; true swallows it

	unfenced   bool // the register takes every write
	trespass   bool // direct callers that are refused enter all the same
	ackFirst   bool // workers acknowledge before they run the handler
	resurrect  bool // what is finished comes back
	forgetful  bool // the server loses its data, and nobody is told
	litter     bool // somebody leaves keys behind
	orphan     bool // somebody leaves half a request behind
	rejuvenate bool // the fences, and the clock, go back
	hasty      bool // what is delayed becomes due
}

type taskPlan struct {
	locked                    sidestep.Policy
	backoff                   time.Duration
	maxAttempts, maxDeferrals int
	maxWait                   time.Duration
	strict                    bool
}

// request is what a call asks for, and what its handler does.
type request struct {
	id       string
	n        int
	task     int
	lock     string // "" for none
	takes    time.Duration
	fails    int    // the first so many runs fail; -1: all do
	panics   bool   // they fail by a panic
	deaf     bool   // the handler does not look at its context
	ledgered        // what became of it
	body     string // of a control that brings it back
}

type kind int

const (
	enqueue kind = iota
	enqueueIn
	taskDo
	inline
	tryAcquire
	acquire
	cancel
	reschedule
	promote
	restart
)

// action is one call that a process makes.
type action struct {
	at       time.Duration
	kind     kind
	process  int
	req      *request
	policy   sidestep.Policy
	delay    time.Duration
	patience time.Duration // when the caller's context ends; 0: it does not
}

// planned is one fault.
type planned struct {
	at       time.Duration
	kind     string // kill, pause, cut, restart, lose, step
	process  int
	takes    time.Duration // of the pause, or until the server is back; of the step
	halfOpen bool          // the dead process's connections stay open at the server
}

func newPlan(seed uint64, o options) *plan {
	r := rand.New(rand.NewPCG(seed, streamPlan))
	p := &plan{seed: seed, opts: o}
	// A draw between two bounds, in whole milliseconds.
	between := func(lo, hi time.Duration) time.Duration {
		return (lo + time.Duration(r.Int64N(int64(hi-lo)+1))).Truncate(time.Millisecond)
	}
	chance := func(f float64) bool { return r.Float64() < f }

	p.processes, p.workers = one(r, 2, 2, 2, 3, 3, 4), one(r, 1, 1, 2, 3)
	for i := range 1 + r.IntN(3) {
		p.locks = append(p.locks, string(rune('a'+i)))
	}
	p.long = chance(0.5)
	second, minute := time.Second, time.Minute
	p.lock = lock.Config{TurnSections: one(r, 1, 2, 16), TurnTime: one(r, 0, 100*time.Millisecond, second)}
	p.storage = listq.Config{MaxDeliveries: one(r, 0, 0, 3)}
	var unit time.Duration // a usual handler takes no longer
	if p.long {
		p.span = between(20*minute, 150*minute)
		p.lock.TTL, p.lock.ClaimLease = one(r, 30*second, 5*minute, 20*minute), one(r, 10*second, minute)
		p.storage.Lease, p.storage.Poll, p.storage.PollOnly = one(r, minute, 10*minute), one(r, 8*minute, 20*minute), true
		unit = one(r, second, 30*second, 3*minute)
	} else {
		p.span = between(20*second, 4*minute)
		p.lock.TTL, p.lock.ClaimLease = one(r, second, 5*second, 30*second), one(r, 200*time.Millisecond, second)
		p.storage.Lease, p.storage.Poll = one(r, 2*second, 5*second, 30*second), one(r, 20*second, 2*minute)
		unit = one(r, 10*time.Millisecond, 300*time.Millisecond, 3*second)
	}
	p.drain = one(r, -1, 0, unit)
	p.proto, p.ctxEnds = one(r, 2, 3), chance(0.5)
	delay := func() time.Duration { return between(0, p.span/4) }
	policy := func() sidestep.Policy {
		switch r.IntN(6) {
		case 0:
			return sidestep.Fail()
		case 1:
			return sidestep.RetryFor(between(0, 4*unit))
		case 2:
			return sidestep.Defer(delay()).NotBefore()
		case 3:
			return sidestep.RetryFor(between(0, unit)).Then(sidestep.Defer(delay()))
		default:
			return sidestep.Defer(delay())
		}
	}
	for range 2 {
		t := taskPlan{
			locked: policy(), backoff: between(0, 4*unit), maxAttempts: one(r, 0, 0, 3, 8), maxDeferrals: one(r, 0, 0, 0, 10),
			strict: chance(0.3),
		}
		if chance(0.2) {
			t.maxWait = p.span/2 + delay()
		}
		p.tasks = append(p.tasks, t)
	}

	weights := []int{enqueue: 30, enqueueIn: 10, taskDo: 30, inline: 12, tryAcquire: 3, acquire: 5, cancel: 4, reschedule: 4, promote: 2, restart: 3}
	for range 5 + one(r, 5, 15, 25)*r.IntN(100)/100 {
		a := action{
			at: between(0, p.span), kind: kind(weighted(r, weights)), process: r.IntN(p.processes),
			policy: policy(), delay: delay(),
		}
		if chance(0.15) {
			a.patience = between(0, 2*unit)
		}
		q := &request{
			n: len(p.requests), task: r.IntN(len(p.tasks)), takes: between(0, unit),
			deaf: chance(0.15), panics: chance(0.3),
		}
		q.id = fmt.Sprint("r", q.n)
		if chance(0.85) {
			q.lock = p.locks[r.IntN(len(p.locks))]
		}
		if chance(0.25) {
			q.fails = 1 + r.IntN(3)
		}
		if chance(0.02) && p.tasks[q.task].maxAttempts > 0 {
			q.fails = -1
		}
		if chance(0.1) {
			q.takes *= 4
		}
		if q.deaf && chance(0.5) {
			q.takes += p.lock.TTL * 3 / 2
		}
		switch a.kind {
		case enqueue, enqueueIn:
			a.req = q
		case taskDo:
			a.req = q
		case inline, tryAcquire, acquire:
			q.lock = p.locks[r.IntN(len(p.locks))]
			q.fails, q.panics = 0, false
			if _, ok := a.policy.(sidestep.InlinePolicy); !ok {
				a.policy = sidestep.RetryFor(p.span)
			}
			a.req = q
		case cancel, reschedule, promote:
			if len(p.requests) == 0 {
				continue
			}
			a.req = p.requests[r.IntN(len(p.requests))]
			q = nil
		case restart:
			q = nil
		}
		if q != nil {
			p.requests = append(p.requests, q)
		}
		p.actions = append(p.actions, a)
		p.longestDelay = max(p.longestDelay, a.delay)
	}
	if chance(0.4) { // a burst: everything happens close together
		first := p.actions[0].at
		for i := range p.actions {
			p.actions[i].at = first + between(0, 4*unit)
		}
	}
	if o.crowd && len(p.requests) > 0 {
		q := p.requests[0]
		q.lock, q.fails = p.locks[0], 0
		p.lock.TurnSections = 1
		for i := range p.actions {
			a := &p.actions[i]
			*a = action{at: between(0, 2*unit), kind: inline, process: a.process, policy: sidestep.RetryFor(p.span), req: q}
		}
	}
	slices.SortStableFunc(p.actions, func(a, b action) int { return int(a.at - b.at) })
	if !o.faultless {
		p.addFaults()
	}
	return p
}

// addFaults decides what goes wrong: in one seed of eight nothing, in three of
// eight one thing, else a little of all.
func (p *plan) addFaults() {
	r := rand.New(rand.NewPCG(p.seed, streamFaults))
	between := func(lo, hi time.Duration) time.Duration {
		return (lo + time.Duration(r.Int64N(int64(hi-lo)+1))).Truncate(time.Millisecond)
	}
	lossy := r.Float64() < 0.3 // the server may lose its data; then its clock is not set back
	// The window of Config.Resend has to cover what is under way.
	p.rates.late = min(20*time.Second, 2*max(p.lock.TTL, time.Second))
	mix := r.IntN(8)
	if mix == 0 {
		return
	}
	kinds := []string{"wire", "kill", "pause", "cut", "restart", "step"}
	if mix <= 3 {
		kinds = []string{kinds[r.IntN(len(kinds))]}
	}
	longest := max(p.lock.TTL, p.storage.Lease)
	for _, k := range kinds {
		if k == "wire" {
			f := one(r, 0.01, 0.05, 0.15)
			p.rates.lostRequest, p.rates.lostReply = f*r.Float64(), f*r.Float64()
			p.rates.lateReply, p.rates.lateRequest = f*r.Float64(), f*r.Float64()
			continue
		}
		for range 1 + r.IntN(3) {
			f := planned{at: between(0, p.span), kind: k, process: r.IntN(p.processes), halfOpen: r.Float64() < 0.3}
			switch k {
			case "pause":
				f.takes = between(longest/4, 2*longest)
			case "restart":
				f.takes = between(10*time.Millisecond, min(longest, 20*time.Second))
				if lossy {
					f.kind = "lose"
				}
			case "step":
				switch {
				case r.Float64() < 0.5:
					f.takes = one(r, time.Millisecond, longest/2, 2*longest, time.Hour)
				case !lossy:
					f.takes = -one(r, time.Millisecond, 5*time.Second, 50*time.Second)
					p.back = max(p.back, -f.takes)
				}
			}
			p.faults = append(p.faults, f)
		}
	}
	if p.back > 0 { // all steps together stay within the margin of the fences
		back := time.Duration(0)
		for i, f := range p.faults {
			if f.kind == "step" && f.takes < 0 {
				if back -= f.takes; back > 50*time.Second {
					back += f.takes
					p.faults[i].takes = 0
				}
			}
		}
		p.back = back
	}
	slices.SortStableFunc(p.faults, func(a, b planned) int { return int(a.at - b.at) })
}

// faultless tells whether nothing goes wrong: then promises of promptness and
// order hold that faults would excuse.
func (p *plan) faultless() bool { return len(p.faults) == 0 && p.rates == rates{late: p.rates.late} }

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func weighted(r *rand.Rand, weights []int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := r.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	panic("unreachable")
}
