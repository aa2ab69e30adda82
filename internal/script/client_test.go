package script_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// The simulated run: workers and direct callers take their steps one at a time,
// in random order, over the real scripts and a simulated lock.

// mutex is a lock's side: who has it, and whether the queue is registered on it.
type mutex struct {
	holder     string
	registered bool
}

// actor is a worker with its feeder, or a direct caller.
type actor struct {
	name   string
	worker bool
	at     func() // the next step; nil: idle, or a caller that is done
	phase  string
	lock   string // that it is busy with
	rounds int    // of a caller

	dead  bool
	token bool  // has a wake token in hand
	freed bool  // its slot was freed: it looks at once
	claim int64 // of its feeder
	look  []string
	sleep int64 // when its timer fires; 0: never
	id    string
	lease script.Lease
}

type sim struct {
	t     *testing.T
	q     *script.Queue
	rdb   *redis.Client
	rng   *rand.Rand
	pass  func(time.Duration)
	seed  uint64
	cfg   simConfig
	locks map[string]*mutex
	all   []*actor
	log   []string
	next  int

	delivered map[string]int
	order     map[string][]int // per lock: ids as they were delivered
	finished  map[string]bool
	accepted  int
	faults    int // left to happen
	faulty    bool
	w         *world
}

type simConfig struct {
	requests int
	locks    int
	callers  int  // direct callers that run inline
	defers   int  // direct callers that Defer
	fails    int  // per cent of runs that fail
	faults   int  // crashes, expired leases, lost hints and tokens
	strict   bool // nack keeps the turn
}

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("-seed %d: %s\nlast steps:\n%s", s.seed, fmt.Sprintf(format, args...), strings.Join(s.log[max(0, len(s.log)-40):], "\n"))
}

func (s *sim) note(a *actor, format string, args ...any) {
	s.log = append(s.log, a.name+" "+fmt.Sprintf(format, args...))
}

func must[T any](s *sim) func(T, error) T {
	return func(v T, err error) T {
		s.t.Helper()
		if err != nil {
			s.fail("%v", err)
		}
		return v
	}
}

func (s *sim) feed(a *actor) *script.Feed {
	return &script.Feed{
		Feeder: a.name, Lease: time.Hour, Slack: 5 * time.Second, ProbeAgain: 20 * time.Second,
	}
}

func (s *sim) try(a *actor, lock string) bool {
	m := s.locks[lock]
	if m.holder != "" {
		return false
	}
	m.holder = a.name
	return true
}

// release tells whether the lock had the queue registered.
func (s *sim) release(a *actor, lock string) bool {
	m := s.locks[lock]
	if m.holder != a.name {
		return false
	}
	reported := m.registered
	*m = mutex{}
	return reported
}

func (s *sim) promote(a *actor, lock string, then func()) {
	a.phase, a.lock = "promote", lock
	a.at = func() {
		if s.fault(15) {
			s.note(a, "loses the hint for %s", lock)
		} else if _, _, err := s.q.Promote(context.Background(), lock); err != nil {
			s.fail("promote: %v", err)
		}
		s.note(a, "promotes %s", lock)
		then()
	}
}

// check looks at the lock and registers, or promotes: the step after a park, and
// of a probe.
func (s *sim) check(a *actor, lock string, then func()) {
	a.phase, a.lock = "look", lock
	a.at = func() {
		m := s.locks[lock]
		if m.holder == "" {
			s.note(a, "looks at %s: free", lock)
			s.promote(a, lock, then)
			return
		}
		m.registered = true
		s.note(a, "looks at %s: taken, registered", lock)
		then()
	}
}

func (s *sim) idle(a *actor) {
	a.at, a.phase, a.lock, a.id, a.freed = nil, "", "", "", true
}

// fault decides that a fault happens, with a chance of one in n.
func (s *sim) fault(n int) bool {
	if s.faults == 0 || s.rng.IntN(n) > 0 {
		return false
	}
	s.faults--
	return true
}

// feederStep is one claim of an idle worker, or the look for a probe.
func (s *sim) feederStep(a *actor) {
	if len(a.look) > 0 {
		lock := a.look[0]
		s.check(a, lock, func() {
			a.look = a.look[1:]
			s.idle(a)
		})
		return
	}
	a.claim++
	a.token, a.freed = false, false
	c := must[script.Claimed](s)(s.q.Claim(context.Background(), s.feed(a), a.claim, 1))
	s.note(a, "claims: %s", showClaim(c))
	a.look = c.Probes
	a.sleep = 0
	if c.Wait >= 0 {
		a.sleep = serverTime(s.t, s.rdb) + c.Wait.Milliseconds()
	}
	if len(c.Items) == 0 {
		return
	}
	item := c.Items[0]
	s.deliver(item.ID)
	a.id, a.lease = item.ID, script.Lease{ID: item.ID, Token: s.feed(a).Token(a.claim)}
	s.work(a)
}

func (s *sim) deliver(id string) {
	st, _, _, err := s.q.Get(context.Background(), id)
	if err != nil {
		s.fail("Get(%s): %v", id, err)
	}
	s.delivered[id]++
	if st.Lock != "" {
		s.order[st.Lock] = append(s.order[st.Lock], int(number(id)))
	}
}

// work is the worker's steps after a claim.
func (s *sim) work(a *actor) {
	st, _, ok, err := s.q.Get(context.Background(), a.id)
	if err != nil || !ok {
		s.fail("Get(%s) = %v, %v", a.id, ok, err)
	}
	a.lock, a.phase = st.Lock, "acquire"
	finish := func(reported bool) {
		failed := s.rng.IntN(100) < s.cfg.fails
		a.phase = "settle"
		if reported {
			a.phase = "settle reported"
		}
		a.at = func() {
			var code script.Code
			if failed {
				code, _, err = s.q.Nack(context.Background(), a.lease, 3*time.Second, script.Attempt, 0, s.cfg.strict, "boom")
			} else {
				var codes []script.Code
				codes, _, _, err = s.q.Ack(context.Background(), window, []script.Lease{a.lease})
				code = append(codes, 0)[0]
				s.finished[a.id] = true
			}
			if err != nil {
				s.fail("settle: %v", err)
			}
			s.note(a, "settles %s (failed=%v): %d", a.id, failed, code)
			if code != script.Done && reported {
				s.promote(a, a.lock, func() { s.idle(a) })
				return
			}
			s.idle(a)
		}
	}
	a.at = func() {
		switch {
		case a.lock == "":
			finish(false)
		case s.try(a, a.lock):
			s.note(a, "locks %s for %s", a.lock, a.id)
			a.phase = "run"
			a.at = func() {
				reported := s.release(a, a.lock)
				s.note(a, "releases %s, reported=%v", a.lock, reported)
				finish(reported)
			}
		default:
			s.note(a, "meets %s taken for %s", a.lock, a.id)
			a.phase = "park"
			a.at = func() {
				code, _, err := s.q.Park(context.Background(), a.lease, 30*time.Second, 0)
				if err != nil {
					s.fail("park: %v", err)
				}
				s.note(a, "parks %s: %d", a.id, code)
				s.check(a, a.lock, func() { s.idle(a) })
			}
		}
	}
}

// call is the steps of a direct caller; deferring, it parks what it cannot run.
func (s *sim) call(a *actor, lock string, deferring bool) {
	a.phase, a.lock = "call", lock
	again := func() {
		a.at, a.phase, a.lock = nil, "", ""
		if a.rounds--; a.rounds > 0 {
			s.call(a, lock, deferring)
		}
	}
	a.at = func() {
		if s.try(a, lock) {
			s.note(a, "locks %s", lock)
			a.phase = "run"
			a.at = func() {
				reported := s.release(a, lock)
				s.note(a, "releases %s, reported=%v", lock, reported)
				if reported {
					s.promote(a, lock, again)
				} else {
					again()
				}
			}
			return
		}
		if !deferring {
			s.note(a, "finds %s taken", lock)
			again()
			return
		}
		a.phase = "park"
		a.at = func() {
			s.next++
			s.accepted++
			e := script.Entry{ID: fmt.Sprint(s.next), Body: "x", Lock: lock}
			code, _, err := s.q.ParkNew(context.Background(), e, script.In(30*time.Second))
			if err != nil || code != script.Done {
				s.fail("parknew: %v, %v", code, err)
			}
			s.note(a, "defers %s to %s", e.ID, lock)
			s.check(a, lock, again)
		}
	}
}

// steps lists what can happen now, faults aside.
func (s *sim) steps(now int64) (out []func()) {
	for _, a := range s.all {
		switch {
		case a.dead:
		case a.at != nil:
			out = append(out, func() { a.at() })
		case a.worker && s.w.wake > 0 && !a.token:
			out = append(out, func() {
				s.rdb.LPop(context.Background(), s.q.Keys().Wake())
				s.note(a, "takes the token")
				a.token = true
			})
			fallthrough
		case a.worker && (a.token || a.freed || len(a.look) > 0 || a.sleep > 0 && a.sleep <= now):
			out = append(out, func() { s.feederStep(a) })
		}
	}
	return out
}

// prompt is I13 and I4, on a state without faults.
func (s *sim) prompt() {
	lines, live := map[string]bool{}, false
	for _, r := range s.w.reqs {
		if r.place == 'p' {
			lines[r.lock] = true
		}
		live = live || r.place == 'r'
	}
	for _, lock := range slices.Sorted(maps.Keys(lines)) {
		if m := s.locks[lock]; s.w.held[lock] != "" || m.holder != "" && m.registered {
			continue
		}
		coming := false
		for _, a := range s.all {
			if slices.Contains(a.look, lock) {
				coming = true
			}
			if a.lock == lock && (a.phase == "look" || a.phase == "promote" || a.phase == "park" || a.phase == "settle reported") {
				coming = true
			}
		}
		if !coming {
			s.fail("I13: %v wait for %s, and nobody comes: %+v", s.w.line(lock), lock, *s.locks[lock])
		}
	}
	if !live || s.w.wake > 0 {
		return
	}
	free, awake := false, false
	for _, a := range s.all {
		if !a.worker {
			continue
		}
		if a.at == nil {
			free = free || !a.token && !a.freed
			awake = awake || a.token || a.freed
		} else if a.id == "" {
			awake = true // looks for a probe, then claims again
		}
	}
	if free && !awake {
		s.fail("I4: ready is not empty, a worker sleeps, and there is no token:\n%s", s.w.text(s.w.now, 1))
	}
}

// disturb lets one fault happen.
func (s *sim) disturb() {
	a := s.all[s.rng.IntN(len(s.all))]
	s.faulty = true
	switch s.rng.IntN(3) {
	case 0: // a crash: its locks run out later, and its leases
		if others := slices.IndexFunc(s.all, func(o *actor) bool { return o.worker && !o.dead && o != a }); a.worker && others < 0 || a.dead {
			return
		}
		s.note(a, "CRASHES")
		a.dead, a.at = true, nil
		fallthrough
	case 1: // all leases run out under their workers
		for _, id := range s.w.leased() {
			s.rdb.ZAdd(context.Background(), s.q.Keys().Leased(), redis.Z{Score: float64(s.w.now - 1), Member: id})
		}
		s.log = append(s.log, "leases run out")
	case 2:
		if s.w.wake > 0 {
			s.rdb.Del(context.Background(), s.q.Keys().Wake())
			s.log = append(s.log, "the token is lost")
		}
	}
	s.faults--
}

// expire lets the locks of the dead run out: nobody reports that.
func (s *sim) expire() {
	for _, m := range s.locks {
		for _, a := range s.all {
			if a.dead && m.holder == a.name {
				m.holder = ""
			}
		}
	}
}

func (s *sim) run() {
	s.locks, s.delivered, s.finished, s.order = map[string]*mutex{}, map[string]int{}, map[string]bool{}, map[string][]int{}
	s.faults = s.cfg.faults
	var names []string
	for i := range s.cfg.locks {
		name := string(rune('A' + i))
		names = append(names, name)
		s.locks[name] = &mutex{}
	}
	for _, name := range []string{"f", "g"} {
		s.all = append(s.all, &actor{name: name, worker: true, freed: true})
	}
	for i := range s.cfg.callers + s.cfg.defers {
		a := &actor{name: fmt.Sprintf("d%d", i+1), rounds: 3}
		s.all = append(s.all, a)
		s.call(a, names[s.rng.IntN(len(names))], i >= s.cfg.callers)
	}
	toPush := s.cfg.requests
	for n := 0; ; n++ {
		var bad []string
		if s.w, bad = read(s.t, s.q); len(bad) > 0 {
			s.fail("%s", strings.Join(bad, "; "))
		}
		// I4 of check knows no feeders; prompt does.
		for _, b := range check(nil, s.w, s.cfg.strict) {
			if !strings.HasPrefix(b, "I4") {
				s.fail("%s", b)
			}
		}
		if !s.faulty {
			s.prompt()
		}
		busy := slices.ContainsFunc(s.all, func(a *actor) bool { return !a.dead && a.at != nil })
		if toPush == 0 && !busy && len(s.w.reqs) == 0 {
			break
		}
		if n > 40*(s.cfg.requests+4*s.cfg.defers+3*s.cfg.callers+20) {
			s.fail("no end:\n%s", s.w.text(s.w.now, 1))
		}
		steps := s.steps(s.w.now)
		if toPush > 0 {
			steps = append(steps, func() {
				toPush--
				s.next++
				s.accepted++
				e := script.Entry{ID: fmt.Sprint(s.next), Body: "x"}
				if i := s.rng.IntN(len(names) + 1); i > 0 || s.cfg.locks == 1 {
					e.Lock = names[max(i-1, 0)]
				}
				s.log = append(s.log, fmt.Sprintf("push %s on %s", e.ID, e.Lock))
				must[[]script.Code](s)(s.q.Push(context.Background(), []script.Entry{e}))
			})
		}
		switch {
		case s.fault(10):
			s.faults++ // disturb counts those that happen
			s.disturb()
		case len(steps) > 0:
			steps[s.rng.IntN(len(steps))]()
		default:
			s.wait()
		}
	}
	s.expire()
	if len(s.w.held) > 0 || len(s.w.probes) > 0 {
		s.fail("left behind: held %v, probes %v", s.w.held, s.w.probes)
	}
	for id := 1; id <= s.accepted; id++ {
		if !s.finished[fmt.Sprint(id)] {
			s.fail("request %d was lost", id)
		}
	}
}

// wait lets time pass until somebody's timer fires. Without faults, somebody's
// does as soon as anything is due; with them there are safety polls.
func (s *sim) wait() {
	var next int64
	for _, a := range s.all {
		if !a.dead && a.worker && a.sleep > 0 && (next == 0 || a.sleep < next) {
			next = a.sleep
		}
	}
	if s.faulty {
		s.expire()
		for _, a := range s.all {
			a.freed = a.freed || a.worker && !a.dead
		}
		next = s.w.now + 2000
	} else if due := s.w.due(); next == 0 || len(due) == 0 {
		s.fail("nobody will ever move:\n%s", s.w.text(s.w.now, 1))
	}
	s.log = append(s.log, "time passes")
	s.pass(time.Duration(max(next-s.w.now, 1)) * time.Millisecond)
}

// inversions counts the deliveries that overtook an older request of their lock.
func (s *sim) inversions() (n int) {
	for _, got := range s.order {
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				n++
			}
		}
	}
	return n
}

func TestSimulatedRuns(t *testing.T) {
	for _, c := range []struct {
		name   string
		seeds  uint64
		cfg    simConfig
		once   bool // each request is delivered once
		sorted bool // in order of acceptance within a lock
	}{
		{"push", 6, simConfig{requests: 20, locks: 2}, true, true},
		{"callers", 8, simConfig{requests: 10, locks: 1, callers: 2}, false, true},
		{"defer", 8, simConfig{requests: 8, locks: 2, callers: 1, defers: 3}, false, false},
		{"failures", 6, simConfig{requests: 12, locks: 2, callers: 1, defers: 1, fails: 25}, false, false},
		{"strict", 6, simConfig{requests: 12, locks: 2, callers: 1, fails: 25, strict: true}, false, true},
		{"faults", 12, simConfig{requests: 12, locks: 2, callers: 1, defers: 2, fails: 10, faults: 4}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, n := range seeds(c.seeds) {
				rdb, pass := frozen(t)
				s := &sim{t: t, q: testQueue(rdb), rdb: rdb, rng: rand.New(rand.NewPCG(n, 2)), pass: pass, seed: n, cfg: c.cfg}
				s.run()
				for id, got := range s.delivered {
					if c.once && got != 1 {
						s.fail("request %s was delivered %d times, want 1 (S7)", id, got)
					}
				}
				if got := s.inversions(); c.sorted && got > 0 {
					s.fail("%d order inversions, want 0 (S6): %v", got, s.order)
				}
			}
		})
	}
	t.Run("real", func(t *testing.T) {
		rdb := redistest.Real(t)
		s := &sim{t: t, q: testQueue(rdb), rdb: rdb, seed: cmp.Or(*seed, 1), cfg: simConfig{requests: 20, locks: 2, callers: 1, defers: 2, fails: 20}}
		s.rng = rand.New(rand.NewPCG(s.seed, 2))
		s.pass = func(d time.Duration) {
			shift(t, s.q, d)
			for _, a := range s.all {
				if a.sleep > 0 {
					a.sleep = max(a.sleep-d.Milliseconds(), 1)
				}
			}
		}
		s.run()
	})
}
