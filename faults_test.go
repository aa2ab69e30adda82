package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Each test here is a row of the table "Bad input and faults" in docs/design.md.
// That of the process that is killed anywhere is in kill_test.go, as is that of
// the paused holder.

func TestFaultBadNamesAndArguments(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
	ran := newRuns()
	count := redistest.Count(rdb)
	ctx := t.Context()
	want := func(what string, err error, names string) {
		t.Helper()
		if !errors.Is(err, sidestep.ErrInvalid) || !strings.Contains(err.Error(), names) {
			t.Errorf("%s = %v, want ErrInvalid that names the %s", what, err, names)
		}
		for _, other := range []error{sidestep.ErrLocked, sidestep.ErrUnavailable, sidestep.ErrNotHeld} {
			if errors.Is(err, other) {
				t.Errorf("%s = %v, which is not %v", what, err, other)
			}
		}
	}
	enter := func(context.Context, *lock.Lock) error {
		t.Error("entered")
		return nil
	}
	want("an empty key", acq.Do(ctx, "", sidestep.Fail(), enter), "key")
	want("a nil function", acq.Do(ctx, "k", sidestep.Fail(), nil), "function")
	for _, key := range []string{strings.Repeat("k", 1025), "a\x00b"} {
		for _, p := range []sidestep.InlinePolicy{sidestep.Fail(), sidestep.RetryFor(time.Second)} {
			want(fmt.Sprintf("Do(%.5q)", key), acq.Do(ctx, key, p, enter), "name")
		}
		task := sidestep.NewTask(q, key[:3], one(key), ran.handler())
		_, err := task.Do(ctx, 1, sidestep.Defer(time.Second))
		want("Task.Do", err, "name")
		_, err = task.Enqueue(ctx, 1)
		want("Enqueue", err, "name")
	}
	task := sidestep.NewTask(q, "t", one("k"), ran.handler())
	for _, id := range []string{"", strings.Repeat("i", 256), "a\nb", "a\x7f"} {
		_, err := task.Do(ctx, 1, sidestep.Defer(time.Second), sidestep.WithID(id))
		want("Task.Do with a bad ID", err, "id")
		_, err = task.Enqueue(ctx, 1, sidestep.WithID(id))
		want("Enqueue with a bad ID", err, "id")
	}
	if n := count.Commands(); n != 0 || len(ran.list()) != 0 {
		t.Errorf("%d commands were sent (%v), %d handlers ran, want none", n, count.Names(), len(ran.list()))
	}
	if s := acq.Stats(); s != (sidestep.Stats{}) {
		t.Errorf("Stats = %+v, want none", s)
	}
}

func TestFaultPayloadCannotBeStored(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	hold(t, rdb, "k")
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Storage: listq.Config{MaxPayload: 100}})
	number := sidestep.NewTask(q, "number", func(float64) string { return "k" }, func(context.Context, *lock.Lock, float64) error { return nil })
	text := sidestep.NewTask(q, "text", func(string) string { return "k" }, func(context.Context, *lock.Lock, string) error { return nil })
	count := redistest.Count(rdb)
	ctx := t.Context()
	for name, err := range map[string]error{
		"encode, Do":      func() error { _, err := number.Do(ctx, math.NaN(), sidestep.Defer(time.Second)); return err }(),
		"encode, Enqueue": func() error { _, err := number.Enqueue(ctx, math.Inf(1)); return err }(),
		"size, Do":        func() error { _, err := text.Do(ctx, strings.Repeat("x", 99), sidestep.Defer(0)); return err }(),
		"size, Enqueue":   func() error { _, err := text.Enqueue(ctx, strings.Repeat("x", 99)); return err }(),
		"size, EnqueueIn": func() error { _, err := text.EnqueueIn(ctx, 1, strings.Repeat("x", 99)); return err }(),
	} {
		if !errors.Is(err, sidestep.ErrInvalid) || !strings.Contains(err.Error(), "payload") {
			t.Errorf("%s: %v, want ErrInvalid that names the payload", name, err)
		}
	}
	if n := count.Commands(); n != 0 {
		t.Errorf("%d commands were sent (%v), want none", n, count.Names())
	}
	if _, err := text.Enqueue(ctx, strings.Repeat("x", 98)); err != nil {
		t.Errorf("a payload of MaxPayload: %v, want nil", err)
	}
}

func TestFaultPayloadCannotBeDecoded(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		// The producer is of an older version: its payload was a string.
		old := sidestep.NewTask(sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{}), "t",
			func(string) string { return "k" }, func(context.Context, *lock.Lock, string) error { return nil })
		r, err := old.Enqueue(t.Context(), "seven")
		if err != nil {
			t.Fatal(err)
		}
		d := newDeferring(t, rdb, "q")
		d.queue = sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		sidestep.NewTask(d.queue, "t", one("k"), d.ran.handler())
		enqueue(t, d.task, 1)
		stop := start(t, d.queue)
		dead.want(t, "q", r.ID, "undecodable payload")
		d.ran.wait(t, 1) // the loop goes on, and the lock's turn passed on
		stop()

		// A version that knows both is deployed.
		fixed := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		got := make(chan any, 1)
		sidestep.NewTask(fixed, "t", func(any) string { return "k" }, func(_ context.Context, _ *lock.Lock, v any) error {
			got <- v
			return nil
		})
		start(t, fixed)
		if ok, err := fixed.Revive(t.Context(), r.ID); !ok || err != nil {
			t.Errorf("Revive = %v, %v, want true", ok, err)
		}
		if v := <-got; v != "seven" {
			t.Errorf("revived, it ran with %v, want seven", v)
		}
	})
}

func TestFaultUnknownTask(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		d := newDeferring(t, rdb, "q")
		r := enqueue(t, d.task, 1)
		other := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		stop := start(t, other)
		dead.want(t, "q", r.ID, `unknown task "t"`)
		if s, _ := peek(t, rdb, "q", r.ID); s.Attempts != 0 {
			t.Errorf("state %+v, want no attempt", s)
		}
		stop()
		start(t, d.queue)
		if ok, err := d.queue.Revive(t.Context(), r.ID); !ok || err != nil {
			t.Errorf("Revive = %v, %v, want true", ok, err)
		}
		d.ran.wait(t, 1)
	})
}

func TestFaultHandlerPanics(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		var stacks []string
		var events []sidestep.RanEvent
		hooks := dead.hooks()
		hooks.Ran = func(_ context.Context, e sidestep.RanEvent) { events = append(events, e) }
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: hooks})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 1, Storage: listq.Config{Hooks: listq.Hooks{
			Panic: func(_ context.Context, d *listq.Delivery, v any, stack []byte) {
				stacks = append(stacks, fmt.Sprint(d.ID, v, string(stack)))
			},
		}}})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			if v == 1 {
				explode()
			}
			ran.add(ctx, lk, v)
			return nil
		}, sidestep.MaxAttempts(2), sidestep.Backoff(retry.Constant(time.Second)))
		bad := enqueue(t, task, 1)
		enqueue(t, task, 2)
		start(t, q)
		dead.want(t, "q", bad.ID, "attempts: panic: at the disco")
		if all := ran.wait(t, 1); all[0].v != 2 {
			t.Errorf("ran %v, want 2: the loop goes on", ran.values())
		}
		synctest.Wait()
		if s, _ := peek(t, rdb, "q", bad.ID); s.Attempts != 2 || s.Deliveries != 2 {
			t.Errorf("state %+v, want 2 failed attempts, the task's limit", s)
		}
		if len(stacks) != 2 || !strings.Contains(stacks[0], bad.ID+"at the disco") || !strings.Contains(stacks[0], "explode") {
			t.Errorf("the hook was told %q, want twice the id, the value and the stack", stacks)
		}
		if len(events) != 3 || events[0].Err == nil {
			t.Errorf("Ran was told %+v, want 3 with an error first", events)
		}
		wantFree(t, acq, "k")
	})
}

//go:noinline
func explode() { panic("at the disco") }

// The seven states of a Redis that does not work are the next tests.

func TestFaultRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t, "--appendonly", "yes", "--appendfsync", "always")
	opt := *srv.Client(t).Options()
	opt.MaxRetries, opt.DialerRetries = 1, 1 // a server that is down is down
	rdb := redis.NewClient(&opt)
	t.Cleanup(func() { rdb.Close() })
	const ttl = time.Second
	acq := sidestep.New(newLocker(t, rdb, lock.Config{TTL: ttl}), sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 4, Storage: listq.Config{Lease: time.Second, Poll: 200 * time.Millisecond}})
	const n = 300
	var mu sync.Mutex
	done := make(map[int]int)
	all := make(chan struct{})
	task := sidestep.NewTask(q, "t", func(v int) string { return fmt.Sprint("k", v%10) }, func(_ context.Context, _ *lock.Lock, v int) error {
		<-time.After(3 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		if done[v]++; done[v] == 1 && len(done) == n {
			close(all)
		}
		return nil
	})
	start(t, q)
	accepted := 0
	for v := range n {
		if v%100 == 50 {
			srv.Kill()
			// While it is down: a typed error, and the worker goes on.
			err := acq.Do(t.Context(), "down", sidestep.Fail(), nothing)
			if !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrLocked) {
				t.Errorf("Do = %v, want ErrUnavailable", err)
			}
			if _, err := task.Enqueue(t.Context(), v); !errors.Is(err, sidestep.ErrUnavailable) {
				t.Errorf("Enqueue = %v, want ErrUnavailable", err)
			}
			if err := srv.Start(); err != nil {
				t.Fatal(err)
			}
		}
		// Sent again until it is accepted, under its ID.
		eventually(t, "Enqueue succeeds", func() bool {
			_, err := task.Enqueue(t.Context(), v, sidestep.WithID(fmt.Sprint("id", v)))
			return err == nil
		})
		accepted++
	}
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("%d of %d accepted requests ran", len(done), accepted)
	}
	eventually(t, "the queue is empty", func() bool {
		s, err := scripts(rdb, "q").Sizes(context.Background())
		return err == nil && s.Requests == 0
	})
}

func TestFaultRedisPausedBeyondLeaseAndTTL(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	acq := sidestep.New(newLocker(t, rdb, lock.Config{TTL: 300 * time.Millisecond}), sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 2, Storage: listq.Config{Lease: 300 * time.Millisecond, Poll: 200 * time.Millisecond}})
	entered, ended := make(chan struct{}), make(chan error, 1)
	ran := newRuns()
	var first atomic.Bool
	task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
		if first.CompareAndSwap(false, true) {
			close(entered)
			<-ctx.Done() // Redis says nothing: the local clock ends it
			ended <- context.Cause(ctx)
			return context.Cause(ctx)
		}
		ran.add(ctx, lk, v)
		return nil
	}, sidestep.Backoff(retry.Constant(0)))
	enqueue(t, task, 1)
	start(t, q)
	<-entered
	srv.Pause()
	cause := <-ended
	if !errors.Is(cause, sidestep.ErrNotHeld) && !errors.Is(cause, sidestep.ErrStale) {
		t.Errorf("the context ended with %v, want ErrNotHeld or ErrStale", cause)
	}
	<-time.After(400 * time.Millisecond)
	srv.Resume()
	ran.within(t, 1, 30*time.Second)
	eventually(t, "the queue is empty", func() bool {
		s, err := scripts(rdb, "q").Sizes(context.Background())
		return err == nil && s.Requests == 0
	})
}

func TestFaultScriptCacheFlushed(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	d := newDeferring(t, rdb, "q")
	start(t, d.queue)
	for v := range 20 {
		s := enter(t, d.acq, "k")
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		deferred(t, d.task, v, sidestep.Defer(time.Minute))
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		s.leave(t)
		enqueue(t, d.task, v)
		d.ran.within(t, 2*v+2, 30*time.Second)
	}
}

func TestFaultConnectionsKilled(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb, operator := srv.Client(t), srv.Client(t)
	d := newDeferring(t, rdb, "q")
	start(t, d.queue)
	for v := range 10 {
		r := enqueue(t, d.task, v, sidestep.WithID(fmt.Sprint(v)))
		for _, kind := range []string{"normal", "pubsub"} {
			// It says OK or how many, by the form; what matters is that they are gone.
			if err := operator.Do(t.Context(), "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes").Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, x := range d.ran.within(t, v+1, 30*time.Second)[v:] {
			if x.request.ID != r.ID || x.request.Attempts != 0 {
				t.Errorf("ran %+v, want %s and no attempt", x, r.ID)
			}
		}
	}
	// A request may run again if the answer to its acknowledgement was lost for
	// longer than its lease, which it was not.
	if n := len(d.ran.list()); n != 10 {
		t.Errorf("%d ran, want 10", n)
	}
}

// fickle is miniredis in a bubble, whose replies can be errors.
func fickle(t *testing.T, fn func(t *testing.T, srv *sidesteptest.Server, rdb *redis.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		rdb := srv.Client()
		t.Cleanup(func() {
			rdb.Close()
			srv.Close()
		})
		fn(t, srv, rdb)
	})
}

func TestFaultRedisAnswersWithAnError(t *testing.T) {
	for name, reply := range map[string]string{
		"loading":           "LOADING Redis is loading the dataset in memory",
		"read-only replica": "READONLY You can't write against a read only replica.",
		"failing over":      "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
		"out of memory":     "OOM command not allowed when used memory > 'maxmemory'.",
		"not persisting":    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
	} {
		t.Run(name, func(t *testing.T) {
			fickle(t, func(t *testing.T, srv *sidesteptest.Server, rdb *redis.Client) {
				acq := newAcquirer(t, rdb, sidestep.Config{})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				entered := make(chan struct{}, 1)
				task := sidestep.NewTask(q, "t", perValue, func(ctx context.Context, lk *lock.Lock, v int) error {
					if v == 1 {
						entered <- struct{}{}
						time.Sleep(3 * time.Second) // returns while Redis refuses
					}
					ran.add(ctx, lk, v)
					return nil
				})
				enqueue(t, task, 1)
				if _, err := task.EnqueueIn(t.Context(), 5*time.Second, 2); err != nil {
					t.Fatal(err)
				}
				start(t, q)
				<-entered
				srv.SetError(reply)
				for _, p := range []sidestep.Policy{sidestep.Fail(), sidestep.RetryFor(time.Second), sidestep.Defer(time.Second)} {
					out, err := task.Do(t.Context(), 3, p)
					if !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrLocked) || out.Deferred != nil {
						t.Errorf("Do(%v) = %+v, %v, want ErrUnavailable", p, out, err)
					}
				}
				// go-redis repeats what is refused for a while, and tells of the last attempt only.
				repeated := name == "loading" || name == "read-only replica" || name == "failing over"
				if _, err := task.Enqueue(t.Context(), 3); !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrAmbiguous) != repeated || !strings.Contains(err.Error(), strings.Fields(reply)[0]) {
					t.Errorf("Enqueue = %v, want ErrUnavailable and the server's words", err)
				}
				time.Sleep(10 * time.Second)
				srv.SetError("")
				ran.wait(t, 2)
				time.Sleep(2 * time.Minute) // more than leases and TTLs
				if got := fmt.Sprint(ran.values()); got != "[1 2]" {
					t.Errorf("ran %s, want 1 and 2 once each: the acknowledgement was sent until it was accepted", got)
				}
				wantEmpty(t, rdb, "q")
				wantFree(t, acq, "k1")
			})
		})
	}
}

// Redis comes back with nothing: the worker goes on with what comes then.
func TestFaultRedisForgetsEverything(t *testing.T) {
	fickle(t, func(t *testing.T, srv *sidesteptest.Server, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		start(t, d.queue)
		enqueue(t, d.task, 1)
		d.ran.wait(t, 1)
		held := enter(t, d.acq, "k")
		deferred(t, d.task, 2, sidestep.Defer(time.Minute))
		synctest.Wait() // it is in line, and no worker is about to try the lock
		srv.FlushAll()
		time.Sleep(15 * time.Second) // the next extension finds out
		held.end()
		if err := <-held.done; !errors.Is(err, sidestep.ErrNotHeld) {
			t.Errorf("Do = %v, want ErrNotHeld: the lock is gone", err)
		}
		enqueue(t, d.task, 3)
		if all := d.ran.wait(t, 2); all[1].v != 3 || all[1].fence <= all[0].fence {
			t.Errorf("ran %+v, want 1 and 3 with growing fences", all)
		}
		time.Sleep(5 * time.Minute)
		wantEmpty(t, rdb, "q")
	})
}

// The Redis of the locks answers, that of the queue does not: what cannot be
// stored is neither run nor said to be stored.
func TestFaultQueueUnavailable(t *testing.T) {
	bubble(t, func(t *testing.T, locks *redis.Client) {
		queues, cut := severed(t, redistest.Mini(t))
		acq := newAcquirer(t, locks, sidestep.Config{})
		q := sidestep.NewQueue(acq, queues, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		hold(t, locks, "k")
		cut.Store(true)
		ctx := t.Context()
		for name, call := range map[string]func(context.Context) (any, error){
			"Do":               func(ctx context.Context) (any, error) { return task.Do(ctx, 1, sidestep.Defer(time.Second)) },
			"Do, NotBefore":    func(ctx context.Context) (any, error) { return task.Do(ctx, 1, sidestep.Defer(1).NotBefore()) },
			"Enqueue":          func(ctx context.Context) (any, error) { return task.Enqueue(ctx, 1) },
			"EnqueueIn":        func(ctx context.Context) (any, error) { return task.EnqueueIn(ctx, time.Second, 1) },
			"EnqueueAt":        func(ctx context.Context) (any, error) { return task.EnqueueAt(ctx, time.Now(), 1) },
			"Queue.Cancel":     func(ctx context.Context) (any, error) { return q.Cancel(ctx, "id") },
			"Queue.Reschedule": func(ctx context.Context) (any, error) { return q.Reschedule(ctx, "id", 0) },
			"Queue.Revive":     func(ctx context.Context) (any, error) { return q.Revive(ctx, "id") },
		} {
			got, err := call(ctx)
			if !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrLocked) {
				t.Errorf("%s = %+v, %v, want ErrUnavailable", name, got, err)
			}
			if out, ok := got.(sidestep.Outcome); ok && out.Deferred != nil {
				t.Errorf("%s = %+v, want no receipt", name, out)
			}
		}
		if s := acq.Stats(); s.Deferred != 0 || s.Conflicts != 2 {
			t.Errorf("Stats = %+v, want 2 conflicts and none deferred", s)
		}
		cut.Store(false)
		gone := errors.New("the user went away")
		ended, cancel := context.WithCancelCause(ctx)
		cancel(gone)
		if _, err := task.Enqueue(ended, 1); !errors.Is(err, gone) || errors.Is(err, sidestep.ErrUnavailable) {
			t.Errorf("Enqueue with an ended context = %v, want its cause", err)
		}
	})
}

// Redis is away when Run is to end: it does not wait for it.
func TestFaultRedisAwayAtShutdown(t *testing.T) {
	for name, fails := range map[string]bool{"handler returns": false, "handler fails": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				mine, cut := severed(t, rdb)
				acq := newAcquirer(t, mine, sidestep.Config{})
				q := sidestep.NewQueue(acq, mine, "q", sidestep.QueueConfig{
					DrainTimeout: 5 * time.Second, Storage: listq.Config{Lease: 10 * time.Minute},
				})
				entered := make(chan struct{})
				task := sidestep.NewTask(q, "t", one("k"), func(context.Context, *lock.Lock, int) error {
					close(entered)
					time.Sleep(time.Second)
					if fails {
						return errors.New("no")
					}
					return nil
				})
				enqueue(t, task, 1)
				stop := start(t, q)
				<-entered
				cut.Store(true)
				began := time.Now()
				stop()
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("Run took %v to end, want the drain timeout, 5s, and little more", took)
				} else {
					t.Logf("Run took %v to end", took)
				}
			})
		})
	}
}

// records is a slog.Handler that keeps messages.
type records struct {
	mu  sync.Mutex
	all []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := rec.Level.String() + " " + rec.Message
	rec.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	r.all = append(r.all, text)
	return nil
}
func (r *records) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r *records) WithGroup(string) slog.Handler      { return r }

func (r *records) matching(substring string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.all {
		if strings.Contains(s, substring) {
			n++
		}
	}
	return n
}

func TestFaultMaxmemoryPolicyEvicts(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int{"allkeys-lru": 1, "volatile-ttl": 1, "noeviction": 0} {
		srv := redistest.NewServer(t, "--maxmemory-policy", policy)
		rdb := srv.Client(t)
		log := &records{}
		acq := newAcquirer(t, rdb, sidestep.Config{Logger: slog.New(log)})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		stop := start(t, q)
		enqueue(t, task, 1)
		ran.wait(t, 1)
		if want > 0 {
			eventually(t, "a warning", func() bool { return log.matching("evict") > 0 })
		}
		stop()
		if got := log.matching("WARN Redis may evict"); got != want || want > 0 && log.matching(policy) != want {
			t.Errorf("%s: %d warnings, want %d: %q", policy, got, want, log.all)
		}
	}
}

// Contention is normal: nothing of it is logged.
func TestContentionIsNotLogged(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		log := &records{}
		acq := sidestep.New(newLocker(t, rdb, lock.Config{Logger: slog.New(log)}), sidestep.Config{Logger: slog.New(log)})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		s := enter(t, acq, "k")
		_ = acq.Do(t.Context(), "k", sidestep.RetryFor(time.Second), nothing)
		deferred(t, task, 1, sidestep.Defer(time.Minute))
		start(t, q)
		enqueue(t, task, 2)
		time.Sleep(time.Second)
		s.leave(t)
		ran.wait(t, 2)
		if len(log.all) != 0 {
			t.Errorf("logged %q, want nothing", log.all)
		}
	})
}
