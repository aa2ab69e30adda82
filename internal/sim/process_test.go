package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

var (
	errKilled = errors.New("sim: the process was killed")
	errFailed = errors.New("sim: the handler failed")
)

// boom is what handlers panic with.
type boom struct{}

// process is one process: a client, a locker and a queue of its own, with
// workers. When it is killed, what it still does has no effect on anybody: its
// connections are dead, and nobody listens to its handlers.
type process struct {
	s      *simulation
	id     int // among all that ever were
	seat   int // of the plan's processes
	ctx    context.Context
	cancel context.CancelCauseFunc
	died   chan struct{}

	rdb    *redis.Client
	locker *lock.Locker
	acq    *sidestep.Acquirer
	queue  *sidestep.Queue
	tasks  []*sidestep.Task[payload]

	// Guarded by simulation.mu.
	dead   bool
	frozen time.Time // until when nothing travels from and to it
	dials  int

	mu      sync.Mutex // guards the fields below
	stop    context.CancelFunc
	ended   chan struct{}
	drain   time.Time // when the workers were last told to stop
	resting bool      // they are not to run now
	closed  bool      // nor ever again
}

type payload struct{ N int }

func (p *process) String() string { return fmt.Sprint("p", p.id) }

// newProcess starts a process in a seat.
func (s *simulation) newProcess(seat int) *process {
	s.mu.Lock()
	s.processes++
	p := &process{s: s, id: s.processes, seat: seat, died: make(chan struct{})}
	s.note("%v starts", p)
	s.mu.Unlock()
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	c := s.plan
	p.rdb = redis.NewClient(&redis.Options{
		// go-redis takes the timers of those who wait for a connection from a pool that
		// all bubbles would share, which is fatal: so nobody ever waits.
		PoolSize: 100, ReadBufferSize: 4096, WriteBufferSize: 4096,
		Addr: "sim", Dialer: p.dial, Protocol: c.proto, ContextTimeoutEnabled: c.ctxEnds,
		DisableIdentity: true, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	cfg := c.lock
	cfg.Owner = p.String()
	p.locker = lock.New(p.rdb, cfg)
	p.acq = sidestep.New(p.locker, sidestep.Config{})
	p.queue = sidestep.NewQueue(p.acq, p.rdb, "q", sidestep.QueueConfig{
		Workers: c.workers, Storage: c.storage, DrainTimeout: c.drain,
	})
	for i, t := range c.tasks {
		opts := []sidestep.TaskOption{
			sidestep.WhenLocked(t.locked), sidestep.Backoff(retry.Constant(t.backoff)),
			sidestep.MaxAttempts(t.maxAttempts), sidestep.MaxDeferrals(t.maxDeferrals), sidestep.MaxWait(t.maxWait),
		}
		if t.strict {
			opts = append(opts, sidestep.StrictOrder())
		}
		p.tasks = append(p.tasks, sidestep.NewTask(p.queue, fmt.Sprint("t", i),
			func(v payload) string { return c.requests[v.N].lock }, p.handle, opts...))
	}
	p.work()
	return p
}

// work starts the workers.
func (p *process) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resting = false; p.closed {
		return
	}
	ctx, stop := context.WithCancel(p.ctx)
	ended := make(chan struct{})
	p.stop, p.ended = stop, ended
	go func() {
		defer close(ended)
		if err := p.queue.Run(ctx); err != nil {
			p.s.mu.Lock()
			defer p.s.mu.Unlock()
			p.s.oracle.problem("%v: Run = %v", p, err)
		}
	}()
}

// working tells whether the workers run.
func (p *process) working() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.resting
}

// rest ends the workers, which drain. It reports false if somebody else has told
// them to already.
func (p *process) rest() bool {
	p.mu.Lock()
	already := p.resting
	p.drain, p.resting = time.Now(), true
	stop, ended := p.stop, p.ended
	p.mu.Unlock()
	stop()
	<-ended
	return !already
}

// drained tells whether the workers were told to stop since then: what the
// handlers had not finished when the drain was over runs again.
func (p *process) drained(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.drain.Before(since)
}

// close ends the process in order.
func (p *process) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.rest()
	_ = p.locker.Close() // never fails
	_ = p.rdb.Close()
}

// kill ends the process at once. At the server its connections end soon, or, if
// they are half-open, after a while.
func (p *process) kill(halfOpen time.Duration) {
	s := p.s
	s.mu.Lock()
	p.dead = true
	close(p.died)
	for _, w := range s.net.of(p) {
		w.closed = true
		w.signal()
		w.hangUp(halfOpen)
	}
	s.mu.Unlock()
	p.cancel(errKilled)
	s.graves.Go(p.close)
}

// handle is the handler of all tasks.
func (p *process) handle(ctx context.Context, lk *lock.Lock, v payload) error {
	s, q := p.s, p.s.plan.requests[v.N]
	s.mu.Lock()
	if p.dead {
		s.mu.Unlock()
		return errKilled
	}
	info := sidestep.RequestFrom(ctx)
	r := s.oracle.begin(ctx, p, q, info.Deliveries == 0)
	nth := len(q.runs)
	var sec *section
	if lk != nil {
		sec = s.oracle.enter(p, lk.Name(), lk.Fence(), q.asked(s.plan, info), func() bool { return ctx.Err() == nil })
	}
	s.note("%v: %s begins, run %d, delivery %d", p, q.id, nth, info.Deliveries)
	s.mu.Unlock()
	if info.Deliveries > 0 {
		s.sabotageDelivery(q)
	}

	fails := q.fails < 0 || nth <= q.fails
	err := q.work(ctx)
	if err == nil && fails {
		err = errFailed
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	r.ended = true
	if p.dead {
		return errKilled
	}
	if sec != nil {
		if err == nil {
			s.oracle.write(sec)
		}
		s.oracle.leave(sec)
	}
	if err == nil && q.done == nil {
		q.done = r
	}
	r.success = err == nil
	s.note("%v: %s ends: %v, context %v", p, q.id, err, context.Cause(ctx))
	if errors.Is(err, errFailed) && q.panics {
		panic(boom{})
	}
	return err
}

// asked is when a request's handler asked for its lock, as far as that is known:
// a worker that does not wait in line asked just now.
func (q *request) asked(p *plan, info *sidestep.Request) time.Time {
	if q.waits(p) {
		return time.Time{}
	}
	if info.Deliveries == 0 {
		return q.sent
	}
	return time.Now()
}

// waits tells whether a worker waits in line for the request's lock.
func (q *request) waits(p *plan) bool {
	switch p.tasks[q.task].locked.(type) {
	case sidestep.RetryPolicy, sidestep.ThenPolicy:
		return true
	}
	return false
}

// work takes its time. A deaf request goes on when its context has ended, and on
// for longer than any lease.
func (q *request) work(ctx context.Context) error {
	if q.deaf {
		time.Sleep(q.takes)
		return nil
	}
	timer := time.NewTimer(q.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inside is a section of a direct call.
func (p *process) inside(ctx context.Context, lk *lock.Lock, q *request, called time.Time, live func() bool) error {
	s := p.s
	s.mu.Lock()
	if p.dead {
		s.mu.Unlock()
		return errKilled
	}
	sec := s.oracle.enter(p, lk.Name(), lk.Fence(), called, live)
	s.note("%v: %s is inside %s", p, q.id, lk.Name())
	s.mu.Unlock()
	err := q.work(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead {
		return errKilled
	}
	if err == nil {
		s.oracle.write(sec)
	}
	s.oracle.leave(sec)
	s.note("%v: %s leaves %s: %v", p, q.id, lk.Name(), err)
	return err
}

// do makes one of the plan's calls.
func (p *process) do(a action) {
	s, o, q := p.s, &p.s.oracle, a.req
	ctx := p.ctx
	if a.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.patience)
		defer cancel()
	}
	// Whatever the call does, it is sent from now on.
	sends := func(due time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		q.sent, q.accepted, q.notBefore = time.Now(), maybe, s.net.now().Add(due)
		s.note("%v: %s of %s on %q", p, a.kind, q.id, q.lock)
	}
	var err error
	switch a.kind {
	case enqueue:
		sends(0)
		if q.lock != "" {
			_, err = p.tasks[q.task].Enqueue(ctx, payload{q.n}, sidestep.WithID(q.id))
			p.told(func() { o.stored(q, err) })
			break
		}
		var r sidestep.Receipt
		r, err = p.tasks[q.task].Enqueue(ctx, payload{q.n}) // a new ID, so that it may be offered
		p.told(func() {
			o.stored(q, err)
			q.id = cmp.Or(r.ID, q.id)
		})
	case enqueueIn:
		sends(a.delay)
		_, err = p.tasks[q.task].EnqueueIn(ctx, a.delay, payload{q.n}, sidestep.WithID(q.id))
		p.told(func() { o.stored(q, err) })
	case taskDo:
		sends(0)
		var out sidestep.Outcome
		out, err = p.taskDo(ctx, a)
		p.told(func() {
			switch {
			case err == nil && out.Deferred == nil, errors.Is(err, errFailed), errors.Is(err, sidestep.ErrNotHeld):
				q.accepted = no // it ran here and now
				q.sent = time.Time{}
			default:
				o.stored(q, err)
			}
		})
	case inline:
		w, entered := p.stand(q, a.policy)
		err = p.acq.Do(ctx, q.lock, a.policy.(sidestep.InlinePolicy), func(ctx context.Context, lk *lock.Lock) error {
			entered()
			return p.inside(ctx, lk, q, w.called, func() bool { return ctx.Err() == nil })
		})
		entered()
		if errors.Is(err, sidestep.ErrLocked) {
			p.trespass(q)
		}
	case tryAcquire, acquire:
		var lk *lock.Lock
		w, entered := p.stand(q, map[kind]sidestep.Policy{tryAcquire: sidestep.Fail(), acquire: sidestep.RetryFor(0)}[a.kind])
		if a.kind == tryAcquire {
			lk, err = p.locker.TryAcquire(ctx, q.lock)
		} else {
			lk, err = p.locker.Acquire(ctx, q.lock, retry.Within(retry.Constant(time.Second), s.plan.span))
		}
		entered()
		if err == nil {
			// Nobody extends it: it may run out, which nobody announces.
			p.told(func() { o.silent[q.lock] = o.silent[q.lock] || q.takes >= s.plan.lock.TTL/2 })
			var released atomic.Bool
			err = p.inside(p.ctx, lk, q, w.called, func() bool { return !released.Load() && time.Now().Before(lk.Expires()) })
			released.Store(true)
			err = errors.Join(err, lk.Release(ctx))
			for _, queue := range lk.Reported() { // an Acquirer does this by itself
				err = errors.Join(err, p.unanswered(delayq.HintKey(context.WithoutCancel(ctx), p.rdb, queue, q.lock)))
			}
		}
	case cancel:
		s.mu.Lock()
		was, began, id := q.cancelled, time.Now(), q.id
		q.cancelled = max(q.cancelled, maybe)
		s.mu.Unlock()
		var ok bool
		ok, err = p.queue.Cancel(ctx, id)
		p.told(func() {
			switch {
			case err == nil && ok:
				q.cancelled, q.gone = yes, time.Now()
			case err != nil:
				q.cancelled = max(q.cancelled, maybe)
			case was == no && q.cancelled == maybe && !o.explained(began, p):
				q.cancelled = no // it was not there, and this was not a command sent again
			}
		})
	case reschedule, promote:
		if a.kind == promote {
			a.delay = 0
		}
		s.mu.Lock()
		q.moved = true
		id := q.id
		s.mu.Unlock()
		_, err = p.queue.Reschedule(ctx, id, a.delay)
	case restart:
		s.mu.Lock()
		s.note("%v: drains", p)
		s.mu.Unlock()
		if p.rest() {
			select {
			case <-time.After(a.delay / 4):
			case <-p.died:
			}
			p.work()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead {
		return
	}
	s.note("%v: %s of %s returns %v", p, a.kind, q.id, err)
	o.expected(p, a.kind.String(), err)
}

// unanswered is err in the words that oracle.expected knows, if the network is to
// blame for it.
func (p *process) unanswered(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", sidestep.ErrUnavailable, err)
}

// stand notes that a call asks for a lock, and, if it waits, that it stands in
// line, until the function returned is called.
func (p *process) stand(q *request, policy sidestep.Policy) (*waiter, func()) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("%v: %v asks for %q, %v", p, q.id, q.lock, policy)
	if _, waits := policy.(sidestep.RetryPolicy); !waits {
		return &waiter{called: time.Now()}, func() {}
	}
	w := s.oracle.wait(p, q)
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.oracle.gone(q.lock, w)
	}
}

// told takes in what a call returned, unless the process is dead by then.
func (p *process) told(f func()) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if !p.dead && f != nil {
		f()
	}
}

// taskDo is Task.Do with the handler's own panic taken as a failure.
func (p *process) taskDo(ctx context.Context, a action) (out sidestep.Outcome, err error) {
	defer func() {
		switch v := recover(); v.(type) {
		case nil:
		case boom:
			err = errFailed
		default:
			panic(v)
		}
	}()
	return p.tasks[a.req.task].Do(ctx, payload{a.req.n}, a.policy, sidestep.WithID(a.req.id))
}

func (k kind) String() string {
	return [...]string{
		enqueue: "enqueue", enqueueIn: "enqueue in", taskDo: "do", inline: "inline do", tryAcquire: "try", acquire: "acquire",
		cancel: "cancel", reschedule: "reschedule", promote: "promote", restart: "restart",
	}[k]
}
