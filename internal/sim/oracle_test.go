package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/lock"
)

// oracle sees what all processes do, and says what must not be. It uses nothing
// of what the library believes but what it tells its callers: returned errors,
// contexts, fences, and times.
type oracle struct {
	s *simulation

	// Guarded by simulation.mu.
	problems []string
	inside   map[string][]*section  // by lock: those that may still be inside
	highest  map[string]int64       // by lock: the largest fence that entered
	writes   map[string]int         // by lock: accepted
	value    map[string]int         // by lock: what the resource holds, one more for each write
	excused  time.Time              // until when two may be inside: the server lost data, or its clock went ahead
	lostAt   []time.Time            // when the server lost its data
	faulty   map[*process]time.Time // until when something was wrong for it; nil: for everybody

	waiting map[string][]*waiter // by lock: direct calls that stand in line
	silent  map[string]bool      // by lock: it ran out, which nobody announces

	register fence.Memory
	tally    tally
}

// tally counts what happened, over all seeds.
type tally struct {
	seeds, requests, sections, runs, duplicates, deaths int
	refusedWrites, excused, ambiguous, locked           int
	virtual                                             time.Duration
	faults                                              map[string]int
}

func (t *tally) add(o tally) {
	t.seeds += o.seeds
	t.requests += o.requests
	t.sections += o.sections
	t.runs += o.runs
	t.duplicates += o.duplicates
	t.deaths += o.deaths
	t.refusedWrites += o.refusedWrites
	t.excused += o.excused
	t.ambiguous += o.ambiguous
	t.locked += o.locked
	t.virtual += o.virtual
	if t.faults == nil {
		t.faults = make(map[string]int)
	}
	for k, n := range o.faults {
		t.faults[k] += n
	}
}

// section is one stay inside a lock.
type section struct {
	p     *process
	key   string
	fence int64
	live  func() bool // whether it is certainly the only one inside, as far as it was told
	read  int         // what the resource held when it began
}

// waiter is a direct call that waits for a lock.
type waiter struct {
	p        *process
	id       string
	called   time.Time
	may, was int // how often others that came later may enter before it, and did
}

// wait puts a call in line. Within its process it is behind those that came
// before it; each turn of its process serves so many, and the others have as many
// turns meanwhile.
func (o *oracle) wait(p *process, q *request) *waiter {
	ahead := 0
	for _, w := range o.waiting[q.lock] {
		if w.p == p {
			ahead++
		}
	}
	c := o.s.plan
	w := &waiter{p: p, id: q.id, called: time.Now(), may: (ahead + 1) * (c.processes - 1) * c.lock.TurnSections}
	o.waiting[q.lock] = append(o.waiting[q.lock], w)
	return w
}

// gone takes a call out of line.
func (o *oracle) gone(key string, w *waiter) {
	o.waiting[key] = slices.DeleteFunc(o.waiting[key], func(x *waiter) bool { return x == w })
}

// overtaken counts those that the one that called then, and enters now, leaves
// behind. Commands take a while, so who came just before may be just behind.
func (o *oracle) overtaken(p *process, key string, called time.Time) {
	if called.IsZero() || !o.s.plan.faultless() {
		return
	}
	for _, w := range o.waiting[key] {
		if w.p == p || w.called.Add(100*time.Millisecond).After(called) {
			continue
		}
		if w.was++; w.was == w.may+1 {
			o.problem("%v has waited for %q since %v before, and %d that came later have entered", w.id, key, time.Since(w.called), w.was)
		}
	}
}

// ledgered is what is known of a request.
type ledgered struct {
	sent      time.Time // true time at which it was first sent to be stored; zero: never
	accepted  verdict
	cancelled verdict
	gone      time.Time // when that was known
	moved     bool      // somebody has asked to reschedule it, so that it may run at any time
	notBefore time.Time // by the server's clock: its first run comes no earlier
	runs      []*run
	done      *run // the first that succeeded
}

type verdict int

const (
	no verdict = iota
	maybe
	yes
)

// run is one run of a request's handler.
type run struct {
	p       *process
	ctx     context.Context
	began   time.Time
	ended   bool
	success bool
}

func (o *oracle) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	o.problems = append(o.problems, text)
	o.s.note("PROBLEM: %s", text)
}

// fault records that something goes wrong for p, or for everybody if p is nil,
// and that it may do so for a while. Call with mu held.
func (s *simulation) fault(p *process, kind string, lasts time.Duration, format string, args ...any) {
	o := &s.oracle
	o.tally.faults[kind]++
	if until := time.Now().Add(lasts); until.After(o.faulty[p]) {
		o.faulty[p] = until
	}
	who := "all"
	if p != nil {
		who = p.String()
	}
	s.note("%s: fault: %s (%v): "+format, append([]any{who, kind, lasts}, args...)...)
}

// explained tells whether something went wrong for one of them since then.
func (o *oracle) explained(since time.Time, who ...*process) bool {
	for _, p := range append(who, nil) {
		if until, ok := o.faulty[p]; ok && !until.Before(since) {
			return true
		}
	}
	return false
}

// excuse lets two be inside one lock for as long as an old lease can last.
func (o *oracle) excuse() {
	c := o.s.plan
	o.excused = time.Now().Add(max(c.lock.TTL, c.storage.Lease) + time.Minute)
}

// enter records that a section begins, and checks that it may. called is when it
// was asked for; zero: not known.
func (o *oracle) enter(p *process, key string, f int64, called time.Time, live func() bool) *section {
	o.overtaken(p, key, called)
	sec := &section{p: p, key: key, fence: f, live: live}
	excused := time.Now().Before(o.excused)
	still := o.inside[key][:0]
	for _, other := range o.inside[key] {
		if other.p.dead || !other.live() {
			continue
		}
		still = append(still, other)
		if excused {
			o.tally.excused++
			continue
		}
		o.problem("L1: %v entered %q with fence %d while %v was inside with %d", p, key, f, other.p, other.fence)
	}
	o.inside[key] = append(still, sec)
	o.tally.sections++
	if f <= o.highest[key] && !excused {
		o.problem("L2: %v entered %q with fence %d after %d", p, key, f, o.highest[key])
	}
	err := o.register.Enter(key, f)
	if err == nil || o.s.plan.opts.unfenced {
		o.highest[key] = max(o.highest[key], f)
	} else if !excused {
		o.problem("L2: the register did not let %v into %q: %v", p, key, err)
	}
	sec.read = o.value[key]
	return sec
}

// write is what a section does to its resource, at its end.
func (o *oracle) write(sec *section) {
	accept := func() error {
		o.writes[sec.key]++
		o.value[sec.key] = sec.read + 1
		return nil
	}
	var err error
	if o.s.plan.opts.unfenced {
		err = accept()
	} else {
		err = o.register.Do(sec.key, sec.fence, accept)
	}
	switch {
	case errors.Is(err, fence.ErrStale):
		o.tally.refusedWrites++
		o.s.note("%v: stale write to %q refused", sec.p, sec.key)
		if sec.live() && !time.Now().Before(o.excused) {
			o.problem("L2: a write of %v to %q was refused though it was inside: %v", sec.p, sec.key, err)
		}
	case err != nil:
		o.problem("the register: %v", err)
	case sec.fence < o.highest[sec.key]:
		o.problem("L2: a stale write of %v to %q was accepted: fence %d after %d", sec.p, sec.key, sec.fence, o.highest[sec.key])
	case o.value[sec.key] != o.writes[sec.key]:
		o.problem("L2: an update of %q was lost: %d writes, value %d", sec.key, o.writes[sec.key], o.value[sec.key])
	}
}

// leave records that a section is over.
func (o *oracle) leave(sec *section) {
	all := o.inside[sec.key]
	for i, other := range all {
		if other == sec {
			o.inside[sec.key] = append(all[:i:i], all[i+1:]...)
			return
		}
	}
}

// begin records that a handler begins, and checks that it may.
func (o *oracle) begin(ctx context.Context, p *process, q *request, direct bool) *run {
	now, server := time.Now(), o.s.net.now()
	o.tally.runs++
	for _, other := range q.runs {
		if other.ended || other.p.dead || other.ctx.Err() != nil || now.Before(o.excused) {
			continue
		}
		o.problem("%v runs on %v while it runs on %v", q.id, p, other.p)
	}
	if !direct {
		since := q.sent
		switch {
		case q.sent.IsZero():
			o.problem("%v ran and was never sent", q.id)
		case q.accepted == no:
			o.problem("%v ran, though its caller was told that it was not stored", q.id)
		case len(q.runs) == 0 && !q.moved && server.Before(q.notBefore.Add(-o.s.plan.back)):
			o.problem("%v ran %v early", q.id, q.notBefore.Sub(server))
		}
		if q.done != nil {
			o.tally.duplicates++
			if !o.explained(since, p, q.done.p) && !q.done.p.drained(since) {
				o.problem("%v ran again on %v after %v had finished it, and nothing had gone wrong", q.id, p, q.done.p)
			}
		}
		late := time.Second // its worker had it already
		if q.waits(o.s.plan) {
			late += o.s.plan.storage.Lease / 3 // and learns of it when it extends the lease
		}
		if q.cancelled == yes && !o.explained(since, p) && now.Sub(q.gone) > late {
			o.problem("%v ran %v after it was cancelled", q.id, now.Sub(q.gone))
		}
	}
	r := &run{p: p, ctx: ctx, began: now}
	q.runs = append(q.runs, r)
	return r
}

// stored takes in what a caller was told about a request that was to be stored.
func (o *oracle) stored(q *request, err error) {
	switch {
	case err == nil:
		q.accepted = yes
	case errors.Is(err, sidestep.ErrAmbiguous), endOfContext(err):
		q.accepted = maybe
		o.tally.ambiguous++
	default:
		q.accepted = no
		if len(q.runs) > 0 && q.runs[0].p != nil {
			o.problem("%v ran, though its caller was told that it was not stored: %v", q.id, err)
		}
	}
}

func endOfContext(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errKilled)
}

// expected reports errors that no documentation speaks of.
func (o *oracle) expected(p *process, what string, err error) {
	for _, ok := range []error{
		nil, sidestep.ErrLocked, sidestep.ErrUnavailable, sidestep.ErrAmbiguous, sidestep.ErrNotHeld, sidestep.ErrUnknown,
		sidestep.ErrRunning, lock.ErrClosed, errFailed, errKilled, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, ok) {
			if errors.Is(ok, sidestep.ErrLocked) {
				o.tally.locked++
			}
			return
		}
	}
	if p.dead {
		return
	}
	o.problem("%v: %s returned an error that matches none of those documented: %v", p, what, err)
}

// reasons are what a dead request may have died of.
var reasons = []string{"attempts: ", "deferrals", "max wait", "crash loop"}

// settle checks, when all has come to rest, that nothing accepted is lost. dead
// are the notes of the dead requests.
func (o *oracle) settle(dead map[string]string) {
	for _, q := range o.s.plan.requests {
		if q.accepted == no || q.sent.IsZero() {
			continue
		}
		o.tally.requests++
		note, died := dead[q.id]
		if died {
			o.tally.deaths++
			named := false
			for _, r := range reasons {
				named = named || strings.HasPrefix(note, r)
			}
			if !named {
				o.problem("%v is dead, and the reason is %q", q.id, note)
			}
		}
		lost := false
		for _, at := range o.lostAt {
			lost = lost || !q.sent.After(at)
		}
		if q.accepted == yes && q.done == nil && !died && q.cancelled == no && !lost {
			o.problem("%v was accepted and is lost: %d runs", q.id, len(q.runs))
		}
	}
}
