package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"
	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/history"
	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// MemberEnv marks a process as a member of a run: its main function is [Main].
const MemberEnv = "SIDESTEP_CHAOS_MEMBER"

// job is what a member has to know. It gets it over standard input, whose end
// tells it to finish.
type job struct {
	Name     string  `json:"name"`
	Number   int     `json:"number"` // of the process, among all of the run
	Worker   bool    `json:"worker"` // else a client
	Notebook string  `json:"notebook"`
	Way      way     `json:"way"`
	Handlers int     `json:"handlers"`
	Rate     float64 `json:"rate"` // requests per second of a client
	Seed     uint64  `json:"seed"`
	Break    string  `json:"break,omitempty"`
}

// The ways to break a promise on purpose. A run must report each.
const (
	BreakAck     = "ack-first"      // workers acknowledge a request, and then run it
	BreakContext = "ignore-context" // sections take themselves for valid, whatever their contexts say
	BreakFence   = "no-fence"       // the register does not look at fences
)

// Breaks are all of them.
var Breaks = []string{BreakAck, BreakContext, BreakFence}

// The locks of a run. Some are for requests, some for the history.
const (
	requestKeys = 4
	historyKeys = 2
	probers     = 2 // goroutines of each member that make the history
)

// request is the payload.
type request struct {
	Key string `json:"key"`
}

// member is a process of a run, as itself.
type member struct {
	job
	book     *notebook
	task     *sidestep.Task[request]
	queue    *sidestep.Queue
	locker   *lock.Locker
	register *register
	numbers  atomic.Int64
	after    sync.WaitGroup // sections that BreakAck runs behind the queue's back
}

// Main is the main function of a member. It returns the exit status.
func Main(in io.Reader) int {
	logging.Disable()
	signal.Ignore(os.Interrupt) // it is for the parent, which then ends the input
	dec := json.NewDecoder(in)
	var j job
	if err := dec.Decode(&j); err != nil {
		fmt.Fprintln(os.Stderr, "no job:", err)
		return 2
	}
	book, err := openNotebook(j.Notebook)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	queue, locks := j.Way.clients()
	m := newMember(j, book, queue, locks)
	m.run(ctx)
	return 0
}

func newMember(j job, book *notebook, queue redis.UniversalClient, locks []redis.UniversalClient) *member {
	m := &member{job: j, book: book, register: newRegister(j.Way.Register, j.Break == BreakFence)}
	log := slog.New(logged{m})
	m.locker = j.Way.locker(locks, lock.Config{
		Prefix: "lock:", Owner: j.Name, TTL: lockTTL, ClaimLease: lockTTL / 3, NodeTimeout: lockTTL / 4, Logger: log,
	})
	acq := sidestep.New(m.locker, sidestep.Config{Logger: log, Queues: queue, Hooks: sidestep.Hooks{
		Dead: func(_ context.Context, e sidestep.DeadEvent) {
			m.book.write(record{What: died, At: clock.Now(), ID: e.ID, Text: e.Reason})
		},
	}})
	m.queue = newQueue(acq, queue, j.Way.Kind, j.Handlers)
	m.task = sidestep.NewTask(m.queue, "chaos", func(r request) string { return r.Key }, m.handle,
		sidestep.WhenLocked(sidestep.Defer(time.Second)),
		sidestep.Backoff(retry.FullJitter(10*time.Millisecond, 200*time.Millisecond)),
		sidestep.MaxAttempts(0),
	)
	return m
}

// newQueue returns the queue of a run, as all its processes have it.
func newQueue(acq *sidestep.Acquirer, rdb redis.UniversalClient, kind string, handlers int) *sidestep.Queue {
	cfg := sidestep.QueueConfig{
		Workers: handlers, DrainTimeout: 5 * time.Second,
		Storage: listq.Config{Prefix: "q:", Lease: queueLease, Poll: queuePoll, MaxDeliveries: -1},
	}
	switch kind {
	case Cluster:
		cfg.Partitions = partitions
	case Sentinel:
		cfg.Storage.Wait = listq.Wait{Replicas: 1, Timeout: replicaWait}
	}
	return sidestep.NewQueue(acq, rdb, queueName, cfg)
}

// run works until ctx ends, and then lets what is running end.
func (m *member) run(ctx context.Context) {
	var all sync.WaitGroup
	if m.Worker {
		all.Go(func() { _ = m.queue.Run(ctx) }) // nil, always
	} else {
		all.Go(func() { m.ask(ctx) })
	}
	for i := range probers {
		all.Go(func() { m.probe(ctx, rand.New(rand.NewPCG(m.Seed, uint64(i+1)))) })
	}
	all.Wait()
	m.after.Wait()
	_ = m.locker.Close() // nil, always
}

// ask makes requests, at the client's rate, until ctx ends.
func (m *member) ask(ctx context.Context) {
	rng := rand.New(rand.NewPCG(m.Seed, 0))
	tick := time.NewTicker(time.Duration(float64(time.Second) / m.Rate))
	defer tick.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	places := make(chan struct{}, 16) // a client that is cut off does not pile up calls
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return
		case places <- struct{}{}:
		}
		id := fmt.Sprintf("%s/%d/%d", m.Name, m.Number, n)
		r := request{Key: fmt.Sprint("k", rng.IntN(requestKeys))}
		how := rng.IntN(100)
		again := rng.IntN(2) == 0
		calls.Go(func() {
			defer func() { <-places }()
			m.call(ctx, id, r, how, again)
		})
	}
}

// call makes one request. If again is set, an answer that does not say that it
// was stored is followed by the same call, with the same ID, which is safe.
func (m *member) call(ctx context.Context, id string, r request, how int, again bool) {
	out := context.WithoutCancel(ctx) // the end of the run lets calls end
	m.book.write(record{What: offered, At: clock.Now(), ID: id, Key: r.Key})
	for try := 0; ; try++ {
		var stored bool
		var err error
		switch {
		case how < 55:
			_, err = m.task.Enqueue(out, r, sidestep.WithID(id))
			stored = err == nil
		case how < 70:
			_, err = m.task.EnqueueIn(out, time.Duration(how)*5*time.Millisecond, r, sidestep.WithID(id))
			stored = err == nil
		default:
			var o sidestep.Outcome
			o, err = m.task.Do(out, r, sidestep.RetryFor(20*time.Millisecond).Then(sidestep.Defer(500*time.Millisecond)), sidestep.WithID(id))
			stored = o.Deferred != nil
			again = false // it may have run: to say it again would be to run it again
		}
		switch {
		case stored:
			m.book.write(record{What: accepted, At: clock.Now(), ID: id, Key: r.Key})
			return
		case err == nil:
			m.book.write(record{What: ran, At: clock.Now(), ID: id, Key: r.Key})
			return
		case !again || ctx.Err() != nil || try > 50:
			m.book.write(record{What: failed, At: clock.Now(), ID: id, Key: r.Key, Text: err.Error()})
			return
		}
		pause(ctx, 50*time.Millisecond+rand.N(150*time.Millisecond))
	}
}

// handle is the handler of the task.
func (m *member) handle(ctx context.Context, lk *lock.Lock, r request) error {
	if m.Break == BreakAck && m.Worker {
		m.after.Go(func() {
			pause(context.Background(), 50*time.Millisecond)
			_ = m.section(context.WithoutCancel(ctx), lk, r)
		})
		return nil
	}
	return m.section(ctx, lk, r)
}

// section is the work of a request. It does the worst that a handler can do: it
// writes without a look at its context, which only the register's fence can then
// refuse. What it writes down is a lower bound: times are taken before it is
// looked whether the section is still valid.
func (m *member) section(ctx context.Context, lk *lock.Lock, r request) error {
	in := record{What: entered, At: clock.Now(), ID: sidestep.RequestFrom(ctx).ID, Key: r.Key, Number: m.numbers.Add(1), Fence: lk.Fence()}
	m.look(ctx, lk, &in)
	m.book.write(in)
	out := in
	out.What = left
	err := m.register.enter(r.Key, lk.Fence())
	if err == nil {
		select {
		case <-time.After(workTime()):
		case <-ctx.Done():
		}
		m.look(ctx, lk, &out)
		err = m.register.write(r.Key, lk.Fence(), in.ID)
	}
	switch {
	case err == nil:
		out.Wrote = "ok"
	case errors.Is(err, fence.ErrStale):
		out.Wrote = "stale"
	default:
		out.Wrote = err.Error()
	}
	if cause := context.Cause(ctx); err == nil && cause != nil {
		err = cause
	}
	m.look(ctx, lk, &out)
	out.At = clock.Now()
	if err != nil {
		out.Text = err.Error()
	}
	m.book.write(out)
	return err
}

// workTime is mostly a few milliseconds, and now and then longer than a lease.
func workTime() time.Duration {
	if rand.N(100) == 0 {
		return lockTTL + rand.N(lockTTL/2)
	}
	return 5*time.Millisecond + rand.N(50*time.Millisecond)
}

// look notes whether the section is valid now.
func (m *member) look(ctx context.Context, lk *lock.Lock, r *record) {
	at := clock.Now()
	going := ctx.Err() == nil
	over := time.Since(lk.Expires())
	switch {
	case m.Break == BreakContext || going && over < 0:
		r.Valid = at
	case going:
		r.Late = max(r.Late, int64(over))
	}
}

// probe takes the locks of the history, and writes down what it did.
func (m *member) probe(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		m.hold(ctx, fmt.Sprint("h", rng.IntN(historyKeys)), rng)
		pause(ctx, 20*time.Millisecond+time.Duration(rng.IntN(80))*time.Millisecond)
	}
}

// hold is one hold: acquire, read, write, release. Each operation is written down
// before it is sent, without a result, and again with its answer.
func (m *member) hold(ctx context.Context, key string, rng *rand.Rand) {
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	op := history.Op{Kind: history.Acquire, Key: key, Client: m.Number, Result: history.OK, Call: clock.Now()}
	lk, err := m.locker.Acquire(wait, key, nil)
	if err != nil {
		return
	}
	op.Return, op.Fence = clock.Now(), lk.Fence()
	m.note(op, m.numbers.Add(1))

	valid := op.Call // the last time at which the lock was certain to be held
	look := func() {
		if at := clock.Now(); time.Until(lk.Expires()) > 0 {
			valid = at
		}
	}
	look()
	end, number := history.Op{Kind: history.End, Key: key, Client: m.Number, Fence: lk.Fence(), Result: history.OK, Call: valid, Return: history.Forever}, m.numbers.Add(1)
	m.note(end, number)
	m.try(history.Op{Kind: history.Read, Key: key, Fence: lk.Fence()}, func(op *history.Op) (err error) {
		op.Value, err = m.register.read(key, lk.Fence())
		return err
	})
	pause(ctx, time.Duration(rng.IntN(15))*time.Millisecond)
	value := fmt.Sprint("v", lk.Fence())
	m.try(history.Op{Kind: history.Write, Key: key, Fence: lk.Fence(), Value: value}, func(*history.Op) error {
		return m.register.write(key, lk.Fence(), value)
	})
	look()
	end.Call = valid
	if err := lk.Release(context.WithoutCancel(ctx)); err == nil {
		end.Return = clock.Now()
	}
	m.note(end, number)
}

func (m *member) note(op history.Op, number int64) {
	m.book.write(record{What: operation, At: clock.Now(), Number: number, Op: &op})
}

// try does an operation on the register.
func (m *member) try(op history.Op, fn func(*history.Op) error) {
	number := m.numbers.Add(1)
	op.Client, op.Result, op.Call, op.Return = m.Number, history.Unknown, clock.Now(), history.Forever
	m.note(op, number)
	err := fn(&op)
	switch {
	case err == nil:
		op.Result = history.OK
	case errors.Is(err, fence.ErrStale):
		op.Result = history.Refused
	default:
		return
	}
	op.Return = clock.Now()
	m.note(op, number)
}

// pause takes d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// logged is a [slog.Handler] that writes down what the library logs.
type logged struct{ m *member }

func (logged) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l logged) Handle(_ context.Context, r slog.Record) error {
	l.m.book.write(record{What: coped, At: clock.Now(), Text: r.Message})
	return nil
}

func (l logged) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l logged) WithGroup(string) slog.Handler      { return l }
