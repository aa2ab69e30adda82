package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// simulation is one seed's run, inside a bubble.
type simulation struct {
	plan  *plan
	srv   *sidesteptest.Server
	admin *redis.Client // has no network, and takes no time
	net   *network
	began time.Time

	calls  sync.WaitGroup // the plan's calls
	graves sync.WaitGroup // killed processes that come to rest

	mu        sync.Mutex // guards the fields below, the network, and what they point to
	oracle    oracle
	processes int // that ever were
	seats     []*process
	open      int // calls that have not returned
	trace     []event
}

type event struct {
	at     time.Duration
	format string
	args   []any
}

// note adds to the trace. Call with mu held.
func (s *simulation) note(format string, args ...any) {
	s.trace = append(s.trace, event{time.Since(s.began), format, args})
}

func (s *simulation) log() string {
	var b strings.Builder
	for _, e := range s.trace {
		fmt.Fprintf(&b, "%14v  %s\n", e.at.Round(time.Microsecond), fmt.Sprintf(e.format, e.args...))
	}
	return b.String()
}

// result is what came of a seed.
type result struct {
	problems []string
	tally    tally
	log      func() string
}

// hash is of what happened, in order, without the instants.
func (r result) hash() uint64 {
	h := fnv.New64a()
	for line := range strings.Lines(r.log()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
		_, _ = h.Write([]byte(text))
	}
	return h.Sum64()
}

// simulate runs a seed in a bubble of its own.
func simulate(t *testing.T, seed uint64, o options) (res result) {
	t.Helper()
	hangs := time.AfterFunc(2*time.Minute, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("seed %d hangs", seed))
	})
	defer hangs.Stop()
	ok := false
	defer func() {
		if !ok {
			fmt.Printf("seed %d did not come to an end\n", seed) // a bubble that hangs panics
		}
	}()
	synctest.Test(t, func(t *testing.T) { res = play(t.Context(), newPlan(seed, o)) })
	ok = true
	return res
}

func play(ctx context.Context, p *plan) result {
	s := &simulation{plan: p, srv: sidesteptest.New(), began: time.Now()}
	defer s.srv.Close()
	s.admin = s.srv.Client()
	defer s.admin.Close()
	s.net = &network{s: s, unplugged: make(chan struct{}), wires: make(map[*wire]struct{}), taken: make(map[int64]struct{}), rates: p.rates}
	s.oracle = oracle{
		s: s, inside: make(map[string][]*section), highest: make(map[string]int64), writes: make(map[string]int),
		value: make(map[string]int), waiting: make(map[string][]*waiter), silent: make(map[string]bool), faulty: make(map[*process]time.Time), tally: tally{faults: make(map[string]int)},
	}
	s.note("%d processes with %d workers, locks %v of %v, leases of %v, poll %v, span %v", p.processes, p.workers, p.locks, p.lock.TTL, p.storage.Lease, p.storage.Poll, p.span)
	for i := range p.processes {
		s.seats = append(s.seats, s.newProcess(i))
		time.Sleep(time.Millisecond + time.Duration(i)*time.Microsecond)
	}
	s.act(ctx)
	s.heal(ctx)
	active := time.Since(s.began)
	for _, q := range s.seats {
		q.rest()
	}
	s.net.unplug()
	for _, q := range s.seats {
		q.close()
	}
	s.calls.Wait()
	s.graves.Wait()
	s.leftovers(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oracle.tally.seeds, s.oracle.tally.virtual = 1, active
	return result{problems: s.oracle.problems, tally: s.oracle.tally, log: s.log}
}

// act makes the plan's calls and faults at their times.
func (s *simulation) act(ctx context.Context) {
	actions, faults := s.plan.actions, s.plan.faults
	check := s.plan.span / 5
	if s.plan.faultless() {
		check = s.plan.span / 25
	}
	next := check
	for len(actions)+len(faults) > 0 {
		at := next
		if len(actions) > 0 {
			at = min(at, actions[0].at)
		}
		if len(faults) > 0 {
			at = min(at, faults[0].at)
		}
		time.Sleep(at - time.Since(s.began))
		switch {
		case len(actions) > 0 && actions[0].at == at:
			s.call(actions[0])
			actions = actions[1:]
		case len(faults) > 0 && faults[0].at == at:
			s.strike(ctx, faults[0])
			faults = faults[1:]
		default:
			next += check
			s.sabotage(ctx)
			s.invariants(ctx)
			if s.plan.faultless() {
				s.calls.Go(func() { s.prompt(ctx) })
			}
		}
	}
}

func (s *simulation) call(a action) {
	s.mu.Lock()
	p := s.seats[a.process]
	s.open++
	s.mu.Unlock()
	s.calls.Go(func() {
		p.do(a)
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	})
}

// strike makes something go wrong.
func (s *simulation) strike(ctx context.Context, f planned) {
	s.mu.Lock()
	p := s.seats[f.process]
	who := p
	if f.kind == "restart" || f.kind == "lose" || f.kind == "step" {
		who = nil
	}
	s.fault(who, f.kind, f.takes, "")
	n := s.net
	switch f.kind {
	case "pause":
		p.frozen = later(p.frozen, time.Now().Add(f.takes))
		s.mu.Unlock()
	case "kill":
		s.mu.Unlock()
		halfOpen := time.Millisecond
		if f.halfOpen {
			halfOpen = 10 * s.plan.lock.TTL
		}
		p.kill(halfOpen)
		q := s.newProcess(f.process)
		s.mu.Lock()
		s.seats[f.process] = q
		s.mu.Unlock()
	case "cut":
		s.mu.Unlock()
		n.cutAll(p)
	case "restart", "lose":
		n.down = true
		n.at(time.Now().Add(f.takes), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			n.down = false
			s.note("the server is back")
		})
		s.mu.Unlock()
		n.cutAll(nil)
		s.admin.ScriptFlush(ctx)
		if f.kind == "lose" {
			s.srv.FlushAll()
			s.mu.Lock()
			s.oracle.lostAt = append(s.oracle.lostAt, time.Now())
			s.oracle.excuse()
			s.mu.Unlock()
		}
	case "step":
		n.offset += f.takes
		n.stepped = true
		if f.takes > time.Millisecond {
			s.oracle.excuse()
		}
		s.mu.Unlock()
		s.setClock()
		if f.takes < 0 {
			s.lengthen(ctx, -f.takes)
		}
	}
}

// setClock brings the server's clock to where it should be.
func (s *simulation) setClock() {
	s.mu.Lock()
	stepped, now := s.net.stepped, s.net.now()
	s.mu.Unlock()
	if stepped {
		s.srv.SetTime(now)
	}
}

// lengthen does what a step back does to keys in Redis, where a TTL is a time.
func (s *simulation) lengthen(ctx context.Context, d time.Duration) {
	for _, key := range s.admin.Keys(ctx, "*").Val() {
		if ttl := s.admin.PTTL(ctx, key).Val(); ttl > 0 {
			s.admin.PExpire(ctx, key, ttl+d)
		}
	}
}

// heal ends the faults and waits until all that was accepted has run.
func (s *simulation) heal(ctx context.Context) {
	s.net.quiet()
	s.mu.Lock()
	s.note("the faults end")
	c := s.plan
	limit := c.longestDelay + 2*c.span + 20*(c.storage.Poll+c.storage.Lease+c.lock.TTL+c.lock.ClaimLease)
	for _, f := range c.faults {
		if f.kind == "pause" {
			limit += f.takes
		}
	}
	for _, q := range c.requests {
		runs := time.Duration(max(q.fails, 1) + 1)
		if q.fails < 0 {
			runs = time.Duration(c.tasks[q.task].maxAttempts)
		}
		limit += runs * (q.takes + c.tasks[q.task].backoff)
	}
	s.mu.Unlock()
	step := max(limit/400, 100*time.Millisecond)
	q := keys.Of(keys.Base("sidestep:", "q"))
	for deadline := time.Now().Add(limit); ; time.Sleep(step) {
		s.setClock()
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		left := s.admin.HLen(ctx, q.State()).Val() - s.admin.ZCard(ctx, q.Dead()).Val()
		if open == 0 && left == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.mu.Lock()
			s.oracle.problem("not healed within %v: %d calls have not returned, %d requests are in the queue\n%s", limit, open, left, s.srv.Dump())
			s.mu.Unlock()
			break
		}
	}
	s.setClock()
	s.invariants(ctx)
	dead := make(map[string]string)
	for id, packed := range s.admin.HGetAll(ctx, q.State()).Val() {
		if st, err := script.ParseState(packed); err == nil && st.Place == "dead" {
			dead[id] = st.Note
		}
	}
	healed := s.admin.HGet(ctx, q.Meta(), "healed").Val()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oracle.settle(dead)
	if healed != "" && len(s.oracle.lostAt) == 0 {
		s.oracle.problem("the scripts repaired %s things that no script leaves behind", healed)
	}
}

// The longest TTL of any key is a day: that of a lock's parked set.
const allTTLs = 26 * time.Hour

// invariants checks what holds of the queue at every moment: docs/queue.md,
// section 4.
func (s *simulation) invariants(ctx context.Context) {
	s.setClock()
	_, bad := look(ctx, s.admin, keys.Of(keys.Base("sidestep:", "q")))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bad {
		s.oracle.problem("%s", b)
	}
}

// prompt checks what holds while nothing goes wrong: no request stays ready
// beside a free worker (I4), and nobody stands in line for a lock that is free
// (I13), for longer than it takes to notice.
func (s *simulation) prompt(ctx context.Context) {
	k := keys.Of(keys.Base("sidestep:", "q"))
	free := func(v view) int {
		n := -v.leased
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.seats {
			if p.working() {
				n += s.plan.workers
			}
		}
		return n
	}
	before, _ := look(ctx, s.admin, k)
	slots := free(before)
	time.Sleep(time.Second)
	after, _ := look(ctx, s.admin, k)
	slots = min(slots, free(after))
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range before.claimable {
		if after.claimable[id] && before.all[id].Deliveries == after.all[id].Deliveries && slots > 0 && !s.plan.storage.PollOnly {
			s.oracle.problem("I4: %s is ready, and %d workers are free", id, slots)
		}
	}
	for lock := range before.stuck {
		if after.stuck[lock] && !s.oracle.silent[lock] {
			s.oracle.problem("I13: requests stand in line for %q, which is free, and nobody has the turn", lock)
		}
	}
}

// leftovers checks what is left when all have gone and every TTL has passed.
func (s *simulation) leftovers(ctx context.Context) {
	q := keys.Of(keys.Base("sidestep:", "q"))
	// What a cancel leaves behind in ready stays until a claim meets it.
	keep := map[string]bool{q.Ready(): s.admin.HLen(ctx, q.State()).Val() == s.admin.ZCard(ctx, q.Dead()).Val(), q.Gone(): true, q.Past(): true, q.Meta(): true, q.Wake(): true, q.Dead(): true, q.Msg(): true, q.State(): true}
	all := s.admin.Keys(ctx, "*").Val()
	time.Sleep(allTTLs)
	s.setClock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range s.admin.Keys(ctx, "*").Val() {
		if !keep[key] {
			s.oracle.problem("the key %q is left for ever; there were %q", key, all)
		}
	}
	dead, bodies := s.admin.ZCard(ctx, q.Dead()).Val(), s.admin.HLen(ctx, q.Msg()).Val()
	if dead != bodies {
		s.oracle.problem("%d bodies are left, and %d dead requests", bodies, dead)
	}
}
