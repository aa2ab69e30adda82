package sidestep_test

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/lock"
)

// TestMain runs the tests, or, in a process that a test has started from this
// very program, what the test wants of it.
func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childEnv)]; ok {
		child(os.Getenv(childEnv + "_SOCKET"))
		os.Exit(0)
	}
	redis.SetLogger(silent{}) // servers are killed here, and go-redis tells of each dial that fails
	redistest.Main(m)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// bubble runs fn on miniredis in virtual time.
func bubble(t *testing.T, fn func(t *testing.T, rdb *redis.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, redistest.Mini(t)) })
}

// both runs fn on miniredis in virtual time and on a real server in real time.
func both(t *testing.T, fn func(t *testing.T, rdb *redis.Client)) {
	t.Helper()
	t.Run("mini", func(t *testing.T) { bubble(t, fn) })
	t.Run("real", func(t *testing.T) { fn(t, redistest.Real(t)) })
}

// another returns a further client of rdb's server.
func another(t *testing.T, rdb *redis.Client) *redis.Client {
	t.Helper()
	opt := *rdb.Options()
	c := redis.NewClient(&opt)
	t.Cleanup(func() { c.Close() })
	return c
}

// unreachable returns a client of a server that is not there.
func unreachable(t *testing.T) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{
		MaxRetries: -1, DialerRetries: 1,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: os.ErrNotExist}
		},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func newLocker(t *testing.T, rdb *redis.Client, cfg lock.Config) *lock.Locker {
	t.Helper()
	l := lock.New(rdb, cfg)
	t.Cleanup(func() { l.Close() })
	return l
}

// newAcquirer returns an Acquirer with a locker of its own, as another process
// has it.
func newAcquirer(t *testing.T, rdb *redis.Client, cfg sidestep.Config) *sidestep.Acquirer {
	t.Helper()
	return sidestep.New(newLocker(t, rdb, lock.Config{}), cfg)
}

// hold takes a lock for somebody else, who is no Acquirer: releasing it tells
// nobody.
func hold(t *testing.T, rdb *redis.Client, name string, opts ...lock.Option) *lock.Lock {
	t.Helper()
	lk, err := newLocker(t, rdb, lock.Config{Owner: "somebody"}).TryAcquire(t.Context(), name, opts...)
	if err != nil {
		t.Fatalf("TryAcquire(%q) = %v, want the lock", name, err)
	}
	return lk
}

func release(t *testing.T, lk *lock.Lock) {
	t.Helper()
	if err := lk.Release(context.Background()); err != nil {
		t.Errorf("Release(%q) = %v, want nil", lk.Name(), err)
	}
}

// section is the lock of an Acquirer that keeps it until told otherwise.
type section struct {
	end  func()
	done chan error
}

// enter has an Acquirer run a section in a goroutine and returns once it runs. It
// waits a little for the lock, since handlers tell of their runs while they hold
// it.
func enter(t *testing.T, acq *sidestep.Acquirer, key string) *section {
	t.Helper()
	ended := make(chan struct{})
	s := &section{end: sync.OnceFunc(func() { close(ended) }), done: make(chan error, 1)}
	t.Cleanup(s.end) // of a test that fails half-way
	entered := make(chan struct{})
	go func() {
		s.done <- acq.Do(context.Background(), key, sidestep.RetryFor(10*time.Second), func(context.Context, *lock.Lock) error {
			close(entered)
			<-ended
			return nil
		})
	}()
	select {
	case <-entered:
	case err := <-s.done:
		t.Fatalf("Do(%q) = %v, want to enter", key, err)
	}
	return s
}

// leave ends the section.
func (s *section) leave(t *testing.T) {
	t.Helper()
	s.end()
	if err := <-s.done; err != nil {
		t.Errorf("Do = %v, want nil", err)
	}
}

// start runs a queue until stop is called or the test ends.
func start(t *testing.T, q *sidestep.Queue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	var once sync.Once
	stop = func() {
		cancel()
		once.Do(func() {
			if err := <-done; err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// runs records what handlers do.
type runs struct {
	began time.Time

	mu   sync.Mutex // guards the fields below
	all  []run
	more chan struct{}
}

type run struct {
	v       int
	at      time.Duration // since the record began
	request sidestep.Request
	fence   int64
}

func newRuns() *runs { return &runs{began: time.Now(), more: make(chan struct{}, 1)} }

func (r *runs) add(ctx context.Context, lk *lock.Lock, v int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, run{v: v, at: time.Since(r.began), request: *sidestep.RequestFrom(ctx), fence: lk.Fence()})
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *runs) list() []run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]run(nil), r.all...)
}

// wait returns once n handlers have run, or fails the test after a minute, which
// in a bubble is a virtual one.
func (r *runs) wait(t *testing.T, n int) []run {
	t.Helper()
	return r.within(t, n, time.Minute)
}

func (r *runs) within(t *testing.T, n int, limit time.Duration) []run {
	t.Helper()
	timeout := time.After(limit)
	for {
		if all := r.list(); len(all) >= n {
			return all
		}
		select {
		case <-r.more:
		case <-timeout:
			t.Fatalf("%d handlers ran within %v, want %d", len(r.list()), limit, n)
		}
	}
}

func (r *runs) values() []int {
	var vs []int
	for _, x := range r.list() {
		vs = append(vs, x.v)
	}
	return vs
}

// handler returns a handler that records and does nothing else.
func (r *runs) handler() func(context.Context, *lock.Lock, int) error {
	return func(ctx context.Context, lk *lock.Lock, v int) error {
		r.add(ctx, lk, v)
		return nil
	}
}

// one is the key function of tasks whose payloads all need one lock.
func one(key string) func(int) string { return func(int) string { return key } }

// deferred makes a call that must be deferred and returns its receipt.
func deferred(t *testing.T, task *sidestep.Task[int], v int, p sidestep.Policy, opts ...sidestep.CallOption) sidestep.Receipt {
	t.Helper()
	out, err := task.Do(t.Context(), v, p, opts...)
	if err != nil || out.Deferred == nil {
		t.Fatalf("Do(%d, %v) = %+v, %v, want a receipt", v, p, out, err)
	}
	return *out.Deferred
}

func enqueue(t *testing.T, task *sidestep.Task[int], v int, opts ...sidestep.CallOption) sidestep.Receipt {
	t.Helper()
	r, err := task.Enqueue(t.Context(), v, opts...)
	if err != nil {
		t.Fatalf("Enqueue(%d) = %v, want nil", v, err)
	}
	return r
}

// scripts returns the scripts of a queue, or of a part of one, to look into it.
func scripts(rdb *redis.Client, queue string) *script.Queue {
	return script.New(rdb, keys.Of(keys.Base("sidestep:", queue)))
}

// peek returns what a queue keeps about a request.
func peek(t *testing.T, rdb *redis.Client, queue, id string) (script.State, bool) {
	t.Helper()
	s, _, ok, err := scripts(rdb, queue).Get(context.Background(), id)
	if err != nil {
		t.Fatalf("look at %q in %q: %v", id, queue, err)
	}
	return s, ok
}

// wantEmpty checks that a queue holds nothing any more, once what its workers
// have under way is settled.
func wantEmpty(t *testing.T, rdb *redis.Client, queue string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		s, err := scripts(rdb, queue).Sizes(context.Background())
		if err == nil && s.Requests+s.Ready+s.Parked+s.Leased+s.Dead == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("queue %q holds %+v, %v, want nothing", queue, s, err)
			return
		}
	}
}

// eventually waits for a condition that nothing announces. In a bubble this
// takes no time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// onCommand is a redis.Hook: before and after, where set, are called around each
// single command; before can refuse it.
type onCommand struct {
	before func(redis.Cmder) error
	after  func(redis.Cmder)
}

func (h onCommand) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h onCommand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.before != nil {
			if err := h.before(cmd); err != nil {
				cmd.SetErr(err)
				return err
			}
		}
		err := next(ctx, cmd)
		if h.after != nil && err == nil {
			h.after(cmd)
		}
		return err
	}
}

func (h onCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.before != nil {
			for _, cmd := range cmds {
				if err := h.before(cmd); err != nil {
					cmd.SetErr(err)
					return err
				}
			}
		}
		return next(ctx, cmds)
	}
}

// severed returns a client that can be cut off from the server.
func severed(t *testing.T, rdb *redis.Client) (*redis.Client, *atomic.Bool) {
	t.Helper()
	c := another(t, rdb)
	cut := &atomic.Bool{}
	c.AddHook(onCommand{before: func(redis.Cmder) error {
		if cut.Load() {
			return &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
		}
		return nil
	}})
	return c, cut
}

// warm makes the server know the scripts that a call of this task needs, and
// opens connections, so that counting counts the call alone.
func warm(t *testing.T, rdb *redis.Client) {
	t.Helper()
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "warm", sidestep.QueueConfig{})
	task := sidestep.NewTask(q, "t", one("warm"), newRuns().handler())
	s := enter(t, acq, "warm")
	ids := []string{
		deferred(t, task, 1, sidestep.Defer(time.Hour)).ID,
		deferred(t, task, 2, sidestep.Defer(time.Hour).NotBefore()).ID,
		enqueue(t, task, 3).ID,
	}
	s.leave(t)
	for _, id := range ids {
		if ok, err := q.Cancel(t.Context(), id); !ok || err != nil {
			t.Fatalf("Cancel = %v, %v, want true", ok, err)
		}
	}
	if err := acq.Do(t.Context(), "warm", sidestep.Fail(), func(context.Context, *lock.Lock) error { return nil }); err != nil {
		t.Fatal(err)
	}
}
