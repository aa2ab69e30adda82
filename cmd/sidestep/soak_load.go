package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

const (
	soakQueue   = "soak"
	soakParties = 3
	soakCallers = 12
	soakHot     = 8 // names that everybody wants
	soakMaxDead = 40
)

// load is the mixed load of a soak.
type load struct {
	srv    *server
	prefix string
	opt    soakOptions
	lease  time.Duration
	memory time.Duration // of fences and of finished ids
	churn  time.Duration // between the ends of two parties

	parties [soakParties]atomic.Pointer[party]
	fresh   atomic.Int64 // names that were used once
	leaks   leaks
	counts  tally

	mu     sync.Mutex          // guards the fields below
	open   map[string]doom     // accepted, as far as is known, and not done
	inside map[string]occupant // by hot name
	told   []string            // what should not have happened
}

// doom is how an accepted request is meant to end.
type doom int

const (
	toRun doom = iota
	toDie
	toCancel
)

// occupant is a handler that runs under a hot lock.
type occupant struct {
	ctx   context.Context
	fence int64
}

// party is what a process would be: clients, locks and workers of its own.
type party struct {
	rdb    *redis.Client
	locker *lock.Locker
	acq    *sidestep.Acquirer
	queue  *sidestep.Queue
	task   *sidestep.Task[errand]
	stop   context.CancelFunc
	done   chan struct{}
	over   atomic.Bool // ending, or ended: its calls may be cut off
}

// errand is a payload.
type errand struct {
	Name  string `json:"name"`
	Work  int    `json:"work"`  // µs
	Fails int    `json:"fails"` // so many times
	Panic bool   `json:"panic"` // on the first of them
}

func newLoad(srv *server, prefix string, opt soakOptions) *load {
	clamp := func(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }
	return &load{
		srv: srv, prefix: prefix, opt: opt,
		lease:  clamp(opt.duration/20, time.Second, 5*time.Second),
		memory: clamp(opt.duration/20, time.Second, time.Minute),
		churn:  clamp(opt.duration/20, time.Second, 20*time.Second),
		open:   make(map[string]doom),
		inside: make(map[string]occupant),
		counts: tally{n: make(map[string]int64)},
	}
}

// longest is how long after the end of a load something of it may be there: a
// fence, which is kept until the end of the period after its own, and a line, which
// its last visitor keeps for twenty claim leases.
func (l *load) longest() time.Duration {
	return 2*l.memory + 2*l.lease + 20*l.claim() + 5*time.Second
}

func (l *load) claim() time.Duration { return l.lease / 5 }

// start starts a party.
func (l *load) start() (*party, error) {
	rdb, err := l.srv.client(24)
	if err != nil {
		return nil, err
	}
	p := &party{rdb: rdb, done: make(chan struct{})}
	p.locker = lock.New(rdb, lock.Config{
		Prefix: l.prefix, TTL: l.lease, ClaimLease: l.claim(), FenceMargin: l.memory,
	})
	p.acq = sidestep.New(p.locker, sidestep.Config{Hooks: sidestep.Hooks{
		Dead: func(_ context.Context, e sidestep.DeadEvent) { l.over(e.ID, "dead") },
	}})
	p.queue = sidestep.NewQueue(p.acq, rdb, soakQueue, sidestep.QueueConfig{
		Workers: 6, DrainTimeout: l.lease,
		Storage: listq.Config{
			Prefix: l.prefix, Lease: l.lease, Resend: l.memory, MaxDead: soakMaxDead, Poll: l.lease / 2,
		},
	})
	p.task = sidestep.NewTask(p.queue, "errand", func(e errand) string { return e.Name }, l.handle,
		sidestep.WhenLocked(sidestep.Defer(l.lease/4)),
		sidestep.Backoff(retry.FullJitter(5*time.Millisecond, 50*time.Millisecond)),
		sidestep.MaxAttempts(3),
	)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.done)
		if err := p.queue.Run(ctx); err != nil {
			l.fault("Run: %v", err)
		}
	}()
	l.counts.add("party")
	return p, nil
}

// end ends a party: in order, or as if its process had died, which leaves its
// locks and leases to run out.
func (p *party) end(crash bool) {
	p.over.Store(true)
	if crash {
		p.rdb.Close()
	}
	p.stop()
	<-p.done
	_ = p.locker.Close() // its error is always nil
	if !crash {
		p.rdb.Close()
	}
}

// run makes calls until ctx ends, and then lets all that was accepted come to its
// end.
func (l *load) run(ctx context.Context) {
	for i := range l.parties {
		p, err := l.start()
		if err != nil {
			l.fault("start: %v", err)
			return
		}
		l.parties[i].Store(p)
	}
	var all sync.WaitGroup
	for i := range soakCallers {
		all.Go(func() { l.call(ctx, rand.New(rand.NewPCG(l.opt.seed, uint64(i)))) })
	}
	all.Go(func() { l.replace(ctx) })
	all.Wait()
	l.finish()
	for i := range l.parties {
		l.parties[i].Load().end(false)
	}
	l.leaks.end()
}

// replace ends one party after another, every second one without a word, and
// puts a new one in its place.
func (l *load) replace(ctx context.Context) {
	t := time.NewTicker(l.churn)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		p, err := l.start()
		if err != nil {
			l.fault("start: %v", err)
			continue
		}
		old := l.parties[n%soakParties].Swap(p)
		old.end(n%2 == 1)
		if n%2 == 1 {
			l.counts.add("party crashed")
		}
	}
}

// call makes one call after another, at the caller's share of the rate.
func (l *load) call(ctx context.Context, r *rand.Rand) {
	t := time.NewTicker(time.Duration(soakCallers / l.opt.rate * float64(time.Second)))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		l.counts.add("call")
		p := l.parties[r.IntN(soakParties)].Load()
		what, err := l.one(context.WithoutCancel(ctx), p, r)
		if l.opt.leak != "" {
			l.leaks.leak(l.prefix, p.rdb)
		}
		switch {
		case err == nil:
			l.counts.add(what)
		case errors.Is(err, sidestep.ErrLocked):
			l.counts.add(what + ", locked")
		case p.over.Load() || errors.Is(err, context.DeadlineExceeded):
			l.counts.add(what + ", cut off")
		case errors.Is(err, sidestep.ErrNotHeld) || errors.Is(err, sidestep.ErrAmbiguous):
			l.counts.add(what + ", late") // the machine stood still for longer than a lease
		default:
			l.fault("%s: %v", what, err)
		}
	}
}

// one makes one call, and says which.
func (l *load) one(ctx context.Context, p *party, r *rand.Rand) (string, error) {
	hot := fmt.Sprintf("hot:%d", r.IntN(soakHot))
	once := fmt.Sprintf("once:%d", l.fresh.Add(1))
	body := func(name string) errand {
		e := errand{Name: name, Work: r.IntN(3000)}
		switch r.IntN(40) {
		case 0:
			e.Fails = 3 // its end
		case 1, 2:
			e.Fails = 1
		case 3:
			e.Fails, e.Panic = 1, true
		}
		return e
	}
	inline := func(name string, policy sidestep.InlinePolicy) error {
		return p.acq.Do(ctx, name, policy, func(ctx context.Context, lk *lock.Lock) error {
			defer l.enter(ctx, name, lk)()
			return pause(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
		})
	}
	switch n := r.IntN(100); {
	case n < 16:
		return "inline fail", inline(hot, sidestep.Fail())
	case n < 30:
		return "inline retry", inline(hot, sidestep.RetryFor(300*time.Millisecond))
	case n < 35:
		return "inline fail, new name", inline(once, sidestep.Fail())
	case n < 40:
		ctx, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(10_000))*time.Microsecond)
		defer cancel()
		return "gave up in line", p.acq.Do(ctx, hot, sidestep.RetryFor(time.Second), func(ctx context.Context, lk *lock.Lock) error {
			defer l.enter(ctx, hot, lk)()
			return nil
		})
	case n < 56:
		return "defer", l.do(ctx, p, body(hot), sidestep.Defer(l.lease/4))
	case n < 62:
		return "retry then defer", l.do(ctx, p, body(hot), sidestep.RetryFor(30*time.Millisecond).Then(sidestep.Defer(l.lease/4)))
	case n < 66:
		return "defer not before", l.do(ctx, p, body(hot), sidestep.Defer(200*time.Millisecond).NotBefore())
	case n < 74:
		return "enqueue", l.enqueue(ctx, p, body(hot), toRun)
	case n < 82:
		return "enqueue, new name", l.enqueue(ctx, p, body(once), toRun)
	case n < 84:
		return "enqueue, no lock", l.enqueue(ctx, p, body(""), toRun)
	case n < 88:
		return "enqueue in", l.enqueueIn(ctx, p, time.Duration(r.IntN(500))*time.Millisecond, body(once), toRun)
	case n < 90:
		return "cancel", l.enqueueIn(ctx, p, time.Hour, body(once), toCancel)
	case n < 91:
		return "cancel in line", l.enqueue(ctx, p, body(hot), toCancel)
	case n < 92:
		_, err := p.locker.TryAcquire(ctx, hot, lock.WithTTL(150*time.Millisecond))
		return "never released", err
	case n < 93:
		err := p.rdb.SetArgs(ctx, l.prefix+hot, "not ours", redis.SetArgs{Mode: "NX", TTL: 100 * time.Millisecond}).Err()
		if errors.Is(err, redis.Nil) {
			err = sidestep.ErrLocked
		}
		return "foreign holder", err
	case n < 95:
		return "several at once", l.several(ctx, p, once)
	case n < 96:
		return "handed over", l.handOver(ctx, p, once)
	case n < 97:
		return "revive", l.revive(ctx, p)
	case n < 98:
		return "revoke", l.revoke(ctx, p, once)
	}
	return "look around", l.look(ctx, p, hot)
}

// do makes a direct call of the task.
func (l *load) do(ctx context.Context, p *party, e errand, policy sidestep.Policy) error {
	id := l.accept(e, toRun)
	out, err := p.task.Do(ctx, e, policy, sidestep.WithID(id))
	if out.Deferred == nil { // it ran here, or was not accepted for sure
		l.forget(id)
		if errors.Is(err, errFailed) {
			return nil
		}
	}
	return err
}

func (l *load) enqueue(ctx context.Context, p *party, e errand, d doom) error {
	id := l.accept(e, d)
	if _, err := p.task.Enqueue(ctx, e, sidestep.WithID(id)); err != nil {
		l.forget(id)
		return err
	}
	return l.afterwards(ctx, p, id, d)
}

func (l *load) enqueueIn(ctx context.Context, p *party, in time.Duration, e errand, d doom) error {
	id := l.accept(e, d)
	if _, err := p.task.EnqueueIn(ctx, in, e, sidestep.WithID(id)); err != nil {
		if d != toCancel { // else finish cancels it, if it is there
			l.forget(id)
		}
		return err
	}
	return l.afterwards(ctx, p, id, d)
}

// afterwards cancels what is to be cancelled, rescheduling it first.
func (l *load) afterwards(ctx context.Context, p *party, id string, d doom) error {
	if d != toCancel {
		return nil
	}
	if _, err := p.queue.Reschedule(ctx, id, time.Minute); err != nil &&
		!errors.Is(err, sidestep.ErrRunning) && !errors.Is(err, sidestep.ErrUnknown) {
		return err
	}
	if _, err := p.queue.Cancel(ctx, id); err != nil {
		return err
	}
	l.over(id, "cancelled")
	return nil
}

func (l *load) several(ctx context.Context, p *party, once string) error {
	locks, err := p.locker.TryAcquireAll(ctx, once+":a", once+":b")
	for _, lk := range locks {
		err = errors.Join(err, lk.Release(ctx))
	}
	return err
}

func (l *load) handOver(ctx context.Context, p *party, once string) error {
	lk, err := p.locker.TryAcquire(ctx, once)
	if err != nil {
		return err
	}
	token, err := lk.Disown()
	if err != nil {
		return err
	}
	other := l.parties[0].Load()
	lk, err = other.locker.Adopt(ctx, once, token)
	if err != nil {
		if other.over.Load() {
			return nil
		}
		return err
	}
	if err = lk.Release(ctx); other.over.Load() {
		return nil
	}
	return err
}

func (l *load) revive(ctx context.Context, p *party) error {
	dead, err := p.queue.Dead(ctx, 1)
	if err != nil || len(dead) == 0 {
		return err
	}
	_, err = p.queue.Revive(ctx, dead[0].ID)
	return err
}

func (l *load) revoke(ctx context.Context, p *party, once string) error {
	if _, err := p.locker.TryAcquire(ctx, once); err != nil {
		return err
	}
	_, err := p.locker.Revoke(ctx, once)
	return err
}

func (l *load) look(ctx context.Context, p *party, hot string) error {
	_, err1 := p.queue.Stats(ctx)
	_, err2 := p.queue.Line(ctx, hot, 10)
	_, err3 := p.locker.Inspect(ctx, hot)
	return errors.Join(err1, err2, err3)
}

var errFailed = errors.New("failed on purpose")

// handle is the task's handler.
func (l *load) handle(ctx context.Context, lk *lock.Lock, e errand) error {
	defer l.enter(ctx, e.Name, lk)()
	if err := pause(ctx, time.Duration(e.Work)*time.Microsecond); err != nil {
		return err
	}
	r := sidestep.RequestFrom(ctx)
	if r.Deliveries > 0 && r.Attempts < e.Fails { // in a direct call nobody would run it again
		if e.Panic {
			panic("on purpose")
		}
		return errFailed
	}
	l.over(r.ID, "done")
	return nil
}

// enter notes that a section begins, and checks that no other one whose context
// has not ended is inside. The function returned ends it.
func (l *load) enter(ctx context.Context, name string, lk *lock.Lock) func() {
	if len(name) < 4 || name[:4] != "hot:" {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.inside[name]; ok && s.ctx.Err() == nil && ctx.Err() == nil {
		l.counts.add("overlap")
		l.faultLocked(fmt.Sprintf("two sections of %s, fences %d and %d", name, s.fence, lk.Fence()))
	}
	l.inside[name] = occupant{ctx, lk.Fence()}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.inside[name].fence == lk.Fence() {
			delete(l.inside, name)
		}
	}
}

// accept notes a request before it is sent, and gives it an ID.
func (l *load) accept(e errand, d doom) string {
	id := fmt.Sprintf("r%d", l.counts.add("request"))
	if d == toRun && e.Fails >= 3 {
		d = toDie
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[id] = d
	return id
}

// over notes that a request has come to an end.
func (l *load) over(id, how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[id]; ok {
		delete(l.open, id)
		l.counts.add("request " + how)
	}
}

// forget strikes out a request that nobody promised to run.
func (l *load) forget(id string) { l.over(id, "not accepted, or run by its caller") }

func (l *load) underWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// finish lets what was accepted come to its end: what is to be cancelled is, and
// the workers have a while for the rest.
func (l *load) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*l.lease)
	defer cancel()
	p := l.parties[0].Load()
	l.mu.Lock()
	var ids []string
	for id, d := range l.open {
		if d == toCancel {
			ids = append(ids, id)
		}
	}
	l.mu.Unlock()
	for _, id := range ids {
		if _, err := p.queue.Cancel(ctx, id); err != nil {
			l.fault("cancel at the end: %v", err)
		}
		l.over(id, "cancelled")
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		s, err := p.queue.Stats(ctx)
		if err == nil && s.Ready+s.Delayed+s.Parked+s.Leased == 0 {
			break
		}
		<-tick.C
	}
	// A holder that never released may have left a flag for queues to be told; the
	// next release takes it away, and a name in use has one.
	for i := range soakHot {
		err := p.acq.Do(ctx, fmt.Sprintf("hot:%d", i), sidestep.RetryFor(20*l.lease), func(context.Context, *lock.Lock) error { return nil })
		if err != nil {
			l.fault("the last section: %v", err)
		}
	}
}

// lost returns the requests that were accepted, did not come to an end, and are
// not dead in Redis either.
func (l *load) lost(ctx context.Context, rdb *redis.Client) []string {
	list := listq.New(rdb, soakQueue, listq.Config{Prefix: l.prefix})
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := []string{}
	for id, d := range l.open {
		info, err := list.Get(ctx, id)
		if err == nil && info.Place == "dead" || d == toDie && errors.Is(err, listq.ErrUnknown) {
			continue // the party that buried it died before it could say so
		}
		lost = append(lost, fmt.Sprintf("%s: %s %v", id, info.Place, err))
	}
	return lost
}

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faultLocked(fmt.Sprintf(format, args...))
}

func (l *load) faultLocked(text string) {
	l.counts.add("fault")
	if len(l.told) < 20 {
		l.told = append(l.told, text)
	}
}

func (l *load) notes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

func (l *load) counted() map[string]int64 {
	l.counts.mu.Lock()
	defer l.counts.mu.Unlock()
	out := make(map[string]int64, len(l.counts.n))
	for k, v := range l.counts.n {
		out[k] = v
	}
	return out
}

// tally counts by name.
type tally struct {
	mu sync.Mutex // guards the field below
	n  map[string]int64
}

func (t *tally) add(name string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[name]++
	return t.n[name]
}

func (t *tally) get(name string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[name]
}
