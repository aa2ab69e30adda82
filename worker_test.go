package sidestep_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
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

// perValue is a key function: each payload below 0 needs no lock, the others one
// of their own.
func perValue(v int) string {
	if v < 0 {
		return ""
	}
	return fmt.Sprint("k", v)
}

// deaths is a Hooks.Dead that records.
type deaths struct {
	mu  sync.Mutex
	all []sidestep.DeadEvent
}

func (d *deaths) hooks() sidestep.Hooks {
	return sidestep.Hooks{Dead: func(_ context.Context, e sidestep.DeadEvent) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all = append(d.all, e)
	}}
}

func (d *deaths) list() []sidestep.DeadEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// want waits for one death and checks it.
func (d *deaths) want(t *testing.T, queue, id, reason string) {
	t.Helper()
	eventually(t, "a death", func() bool { return len(d.list()) > 0 })
	if all := d.list(); len(all) != 1 || all[0].Queue != queue || all[0].ID != id || !strings.Contains(all[0].Reason, reason) {
		t.Errorf("deaths %+v, want %s of %s, because of %q", all, id, queue, reason)
	}
}

func TestEnqueueIsOneCommand(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		mine := another(t, rdb)
		d := newDeferring(t, mine, "q")
		count := redistest.Count(mine)
		for range 3 {
			count.Reset()
			r := enqueue(t, d.task, 1)
			if count.Commands() != 1 {
				t.Errorf("Enqueue sent %v, want 1 command", count.Names())
			}
			if r.ID == "" || r != (sidestep.Receipt{ID: r.ID, Queue: "q", Task: "t", Key: "k"}) {
				t.Errorf("Enqueue = %+v", r)
			}
		}
	})
}

func TestWorkersNeverBlockOnAHeldLock(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 1})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", perValue, ran.handler())
		held := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k0")
		for range 5 {
			enqueue(t, task, 0)
		}
		for v := 1; v <= 20; v++ {
			enqueue(t, task, v)
		}
		enqueue(t, task, -1)
		start(t, q)
		ran.wait(t, 21)
		if got := ran.values(); slices.Contains(got, 0) {
			t.Errorf("ran %v while k0 was held", got)
		}
		held.leave(t)
		all := ran.wait(t, 26)
		deferrals, deliveries := 0, 0
		for _, r := range all[21:] {
			deferrals += r.request.Deferrals
			deliveries += r.request.Deliveries
		}
		// The gate keeps the four others from even meeting the lock.
		if deferrals > 1 || deliveries > 6 {
			t.Errorf("5 requests took %d deferrals and %d deliveries, want at most 1 and 6", deferrals, deliveries)
		}
		wantEmpty(t, rdb, "q")
	})
}

// A worker's acknowledgement promotes the next in line, so its release need not
// tell its own queue: a request costs its worker four commands, and a token at
// times, also while others join its line; and three if the line passes its lock on.
func TestWorkerTellsItsOwnQueueOnce(t *testing.T) {
	const n = 50
	for name, c := range map[string]struct {
		policy sidestep.Policy
		most   int
	}{
		"released":  {sidestep.RetryFor(time.Second), 5*n - n/10},
		"passed on": {sidestep.Defer(time.Second), 3*n + n/4},
	} {
		t.Run(name, func(t *testing.T) { testCommandsOfAWorker(t, n, c.policy, c.most) })
	}
}

func testCommandsOfAWorker(t *testing.T, n int, p sidestep.Policy, most int) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		client := another(t, rdb)
		acq := newAcquirer(t, client, sidestep.Config{})
		q := sidestep.NewQueue(acq, client, "q", sidestep.QueueConfig{})
		elsewhere := newDeferring(t, rdb, "q")
		ran := newRuns()
		sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			if v < n {
				deferred(t, elsewhere.task, v+1, sidestep.Defer(time.Hour))
			}
			ran.add(ctx, lk, v)
			return nil
		}, sidestep.WhenLocked(p))
		count := redistest.Count(client)
		enqueue(t, elsewhere.task, 1)
		start(t, q)
		ran.wait(t, n)
		synctest.Wait()
		t.Logf("%d commands for %d requests", count.Commands(), n)
		if got := count.Commands(); got > most {
			t.Errorf("%d commands for %d requests, want at most %d: %v", got, n, most, count.Names()[:20])
		}
	})
}

func TestWhenLockedFailIsAFailedAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler(), sidestep.WhenLocked(sidestep.Fail()),
			sidestep.Backoff(retry.Constant(time.Second)), sidestep.MaxAttempts(3))
		held := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		r := enqueue(t, task, 1)
		start(t, q)
		dead.want(t, "q", r.ID, "attempts: ")
		s, _ := peek(t, rdb, "q", r.ID)
		if s.Attempts != 3 || s.Deferrals != 0 || s.Deliveries != 3 || !strings.Contains(s.Note, "held by") {
			t.Errorf("state %+v, want 3 attempts, no deferrals, and who held it", s)
		}
		held.leave(t)
		if len(ran.list()) != 0 {
			t.Errorf("ran %v", ran.values())
		}
	})
}

func TestWhenLockedRetriesThenDefers(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q", sidestep.WhenLocked(sidestep.RetryFor(time.Second).Then(sidestep.Defer(time.Minute))))
		began := time.Now()
		s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		r := enqueue(t, d.task, 1)
		start(t, d.queue)
		time.Sleep(500 * time.Millisecond)
		if st, _ := peek(t, rdb, "q", r.ID); st.Place != "leased" {
			t.Errorf("after 0.5s it is %s, want leased: a worker waits", st.Place)
		}
		time.Sleep(time.Second)
		if st, _ := peek(t, rdb, "q", r.ID); st.Place != "parked" || st.Deferrals != 1 || st.Attempts != 0 {
			t.Errorf("after 1.5s it is %+v, want parked with one deferral", st)
		}
		s.leave(t)
		wantAt(t, d.ran, time.Since(began), time.Since(began)+20*time.Millisecond)

		// A retry that succeeds costs no deferral.
		s = enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		enqueue(t, d.task, 2)
		time.Sleep(300 * time.Millisecond)
		s.leave(t)
		if r := d.ran.wait(t, 2)[1].request; r.Deferrals != 0 || r.Deliveries != 1 {
			t.Errorf("request %+v, want 1 delivery", r)
		}
	})
}

// I8: deliveries, attempts and deferrals count three different things.
func TestThreeCounters(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		var fail atomic.Bool
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			if fail.Load() {
				return errors.New("no")
			}
			return nil
		}, sidestep.Backoff(retry.Constant(time.Minute)))
		r := enqueue(t, task, 1)
		want := func(place string, deliveries, attempts, deferrals int) {
			t.Helper()
			if s, _ := peek(t, rdb, "q", r.ID); s.Place != place || s.Deliveries != deliveries || s.Attempts != attempts || s.Deferrals != deferrals {
				t.Errorf("it is %s with %d deliveries, %d attempts, %d deferrals, want %s, %d, %d, %d",
					s.Place, s.Deliveries, s.Attempts, s.Deferrals, place, deliveries, attempts, deferrals)
			}
		}
		want("ready", 0, 0, 0)
		other := newAcquirer(t, another(t, rdb), sidestep.Config{})
		s := enter(t, other, "k")
		start(t, q)
		time.Sleep(time.Second)
		want("parked", 1, 0, 1)
		fail.Store(true)
		s.leave(t)
		ran.wait(t, 1)
		synctest.Wait()
		want("delayed", 2, 1, 1)
		s = enter(t, other, "k")
		time.Sleep(61 * time.Second)
		want("parked", 3, 1, 2)
		fail.Store(false)
		s.leave(t)
		got := ran.wait(t, 2)[1].request
		if got.Deliveries != 4 || got.Attempts != 1 || got.Deferrals != 2 || got.ID != r.ID || got.Accepted.IsZero() {
			t.Errorf("the last run saw %+v, want 4 deliveries, 1 attempt, 2 deferrals", got)
		}
	})
}

func TestMaxAttempts(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			return errors.New("the bank is closed")
		}, sidestep.MaxAttempts(3), sidestep.Backoff(retry.Constant(time.Second)))
		r := enqueue(t, task, 1)
		start(t, q)
		dead.want(t, "q", r.ID, "attempts: the bank is closed")
		if all := ran.list(); len(all) != 3 || all[2].request.Attempts != 2 || all[2].at < 2*time.Second || all[2].at > 2100*time.Millisecond {
			t.Errorf("runs %+v, want 3, a second apart", all)
		}

		// Revived, it has all its attempts again.
		if ok, err := q.Revive(t.Context(), r.ID); !ok || err != nil {
			t.Errorf("Revive = %v, %v, want true", ok, err)
		}
		all := ran.wait(t, 6)
		if got := all[3].request; got.Attempts != 0 || got.Deliveries != 1 || got.ID != r.ID {
			t.Errorf("revived, it ran as %+v, want all counters anew", got)
		}
		eventually(t, "the second death", func() bool { return len(dead.list()) == 2 })
		for _, id := range []string{"unknown", enqueue(t, task, 2, sidestep.WithID("alive")).ID} {
			if ok, err := q.Revive(t.Context(), id); ok || err != nil {
				t.Errorf("Revive(%s) = %v, %v, want false", id, ok, err)
			}
		}
	})
}

// A backoff that gives up makes the request dead, whatever MaxAttempts.
func TestBackoffGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		var n atomic.Int64
		task := sidestep.NewTask(q, "t", one(""), func(context.Context, *lock.Lock, int) error {
			n.Add(1)
			return errors.New("no")
		}, sidestep.MaxAttempts(0), sidestep.Backoff(retry.Limit(retry.Constant(time.Second), 4)))
		r := enqueue(t, task, 1)
		start(t, q)
		dead.want(t, "q", r.ID, "attempts: no")
		if n.Load() != 4 {
			t.Errorf("ran %d times, want 4", n.Load())
		}
	})
}

// The worker's clock and the server's need not agree on how old a request is.
func TestBackoffCountsByTheServersClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"same": 0, "behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			fickle(t, func(t *testing.T, srv *sidesteptest.Server, rdb *redis.Client) {
				srv.SetTime(time.Now().Add(ahead))
				var clock sync.WaitGroup
				ctx, stop := context.WithCancel(t.Context())
				clock.Go(func() {
					for tick := time.Tick(200 * time.Millisecond); ctx.Err() == nil; {
						select {
						case now := <-tick:
							srv.SetTime(now.Add(ahead))
						case <-ctx.Done():
						}
					}
				})
				t.Cleanup(func() { stop(); clock.Wait() })
				q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one(""), func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					return errors.New("no")
				}, sidestep.Backoff(retry.Within(retry.Constant(time.Minute), 10*time.Minute)))
				enqueue(t, task, 1)
				start(t, q)
				time.Sleep(30 * time.Minute)
				if n := len(ran.list()); n < 10 || n > 12 {
					t.Errorf("ran %d times within 10m, with a minute in between", n)
				}
			})
		})
	}
}

func TestMaxDeferrals(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler(),
			sidestep.MaxDeferrals(3), sidestep.WhenLocked(sidestep.Defer(time.Second).NotBefore()))
		hold(t, rdb, "k", lock.WithTTL(time.Hour))
		r := enqueue(t, task, 1)
		start(t, q)
		dead.want(t, "q", r.ID, "deferrals")
		if s, _ := peek(t, rdb, "q", r.ID); s.Deferrals != 4 || s.Attempts != 0 {
			t.Errorf("state %+v, want 4 deferrals and no attempt", s)
		}
		if s := acq.Stats(); s.Deferred != 3 || s.Conflicts != 4 {
			t.Errorf("Stats = %+v, want 3 deferred and 4 conflicts: the last one made it dead", s)
		}
	})
}

func TestMaxWait(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler(), sidestep.MaxWait(time.Minute))
		held := hold(t, rdb, "k", lock.WithTTL(time.Hour))
		r := deferred(t, task, 1, sidestep.Defer(10*time.Minute))
		began := time.Now()
		start(t, q)
		dead.want(t, "q", r.ID, "max wait")
		if took := time.Since(began); took < time.Minute || took > 63*time.Second {
			t.Errorf("dead after %v, want a minute", took)
		}
		release(t, held)
		time.Sleep(time.Hour / 4)
		if len(ran.list()) != 0 {
			t.Errorf("a dead request ran: %v", ran.values())
		}
	})
}

func TestHandlerTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			if sidestep.RequestFrom(ctx).Attempts > 0 {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			if took := time.Since(began); took != 5*time.Minute || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				t.Errorf("the context ended after %v with %v, want 5m and DeadlineExceeded", took, context.Cause(ctx))
			}
			return context.Cause(ctx)
		}, sidestep.Timeout(5*time.Minute), sidestep.Backoff(retry.Constant(time.Second)))
		enqueue(t, task, 1)
		start(t, q)
		if r := ran.within(t, 2, 10*time.Minute)[1].request; r.Attempts != 1 || r.Deliveries != 2 {
			t.Errorf("the second run saw %+v, want one attempt", r)
		}
	})
}

// The ways in which a handler fails.
func fails() error  { return errors.New("no") }
func panics() error { panic("no") }
func exits() error  { runtime.Goexit(); return nil }

// However a handler fails, and though the task's backoff panics, the request is dead
// after so many attempts; and until then the default backoff stands in for that one.
func TestMaxAttemptsHoldsHoweverItFails(t *testing.T) {
	broken := sidestep.Backoff(retry.BackoffFunc(func(int, time.Duration) (time.Duration, bool) { panic("backoff") }))
	for name, tt := range map[string]struct {
		fail func() error
		opts []sidestep.TaskOption
	}{
		"error":                  {fails, nil},
		"panic":                  {panics, nil},
		"goexit":                 {exits, nil},
		"error, broken backoff":  {fails, []sidestep.TaskOption{broken}},
		"panic, broken backoff":  {panics, []sidestep.TaskOption{broken}},
		"goexit, broken backoff": {exits, []sidestep.TaskOption{broken, sidestep.StrictOrder()}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				dead := &deaths{}
				acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					return tt.fail()
				}, append(tt.opts, sidestep.MaxAttempts(3))...)
				r := enqueue(t, task, 1)
				start(t, q)
				dead.want(t, "q", r.ID, "attempts")
				time.Sleep(time.Minute)
				if all := ran.list(); len(all) != 3 || all[2].at > 4*time.Second {
					t.Errorf("ran %+v, want 3 times, with waits of 1 s and 2 s at most", all)
				}
			})
		})
	}
}

// A failed request steps out of its lock's line, unless its task is in strict
// order.
func TestOrderAfterAFailure(t *testing.T) {
	for name, tt := range map[string]struct {
		opts []sidestep.TaskOption
		fail func() error
		want []int
	}{
		"default":        {nil, fails, []int{1, 2, 3, 1}},
		"strict":         {[]sidestep.TaskOption{sidestep.StrictOrder()}, fails, []int{1, 1, 2, 3}},
		"panic":          {nil, panics, []int{1, 2, 3, 1}},
		"strict, panic":  {[]sidestep.TaskOption{sidestep.StrictOrder()}, panics, []int{1, 1, 2, 3}},
		"goexit":         {nil, exits, []int{1, 2, 3, 1}},
		"strict, goexit": {[]sidestep.TaskOption{sidestep.StrictOrder()}, exits, []int{1, 1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				acq := newAcquirer(t, rdb, sidestep.Config{})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					if v == 1 && sidestep.RequestFrom(ctx).Attempts == 0 {
						return tt.fail()
					}
					return nil
				}, append(tt.opts, sidestep.Backoff(retry.Constant(20*time.Second)))...)
				for v := 1; v <= 3; v++ {
					enqueue(t, task, v)
				}
				start(t, q)
				all := ran.wait(t, 4)
				if got := ran.values(); !slices.Equal(got, tt.want) {
					t.Errorf("ran %v, want %v", got, tt.want)
				}
				if at := all[slices.IndexFunc(all, func(r run) bool { return r.request.Attempts == 1 })].at; at < 20*time.Second || at > 21*time.Second {
					t.Errorf("the second attempt came after %v, want the task's backoff, 20s", at)
				}
			})
		})
	}
}

func TestRequestFromHeadersAndContext(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		type traceKey struct{}
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{
			Headers: func(ctx context.Context) map[string]string {
				trace, _ := ctx.Value(traceKey{}).(string)
				return map[string]string{"trace": trace, "both": "config"}
			},
			Context: func(ctx context.Context, h map[string]string) context.Context {
				return context.WithValue(ctx, traceKey{}, h["trace"]+", continued")
			},
		})
		var mu sync.Mutex
		var traces []any
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			mu.Lock()
			traces = append(traces, ctx.Value(traceKey{}))
			mu.Unlock()
			ran.add(ctx, lk, v)
			return nil
		})
		ctx := context.WithValue(t.Context(), traceKey{}, "abc")
		own := sidestep.WithHeaders(map[string]string{"tenant": "7", "both": "call"})
		want := map[string]string{"trace": "abc", "tenant": "7", "both": "call"}
		if sidestep.RequestFrom(ctx) != nil {
			t.Error("RequestFrom outside of a handler is not nil")
		}
		if _, err := task.Do(ctx, 0, sidestep.Fail(), own, sidestep.WithID("direct")); err != nil {
			t.Fatal(err)
		}
		if _, err := task.Enqueue(ctx, 1, own); err != nil {
			t.Fatal(err)
		}
		if _, err := task.EnqueueIn(ctx, time.Minute, 2, own); err != nil {
			t.Fatal(err)
		}
		s := enter(t, acq, "k")
		if out, err := task.Do(ctx, 3, sidestep.Defer(time.Minute), own); err != nil || out.Deferred == nil {
			t.Fatalf("Do = %+v, %v, want a receipt", out, err)
		}
		s.leave(t)
		start(t, q)
		for _, r := range ran.within(t, 4, 2*time.Minute) {
			if !maps.Equal(r.request.Headers, want) || r.request.Queue != "q" || r.request.Task != "t" || r.request.Key != "k" {
				t.Errorf("payload %d: request %+v, want headers %v", r.v, r.request, want)
			}
			if direct := r.v == 0; direct != (r.request.ID == "direct") || direct != (r.request.Deliveries == 0) || direct != r.request.Accepted.IsZero() {
				t.Errorf("payload %d: request %+v", r.v, r.request)
			}
		}
		if got := fmt.Sprint(traces); got != "[abc abc, continued abc, continued abc, continued]" {
			t.Errorf("traces %s", got)
		}
	})
}

// gobCodec is a codec that is not JSON.
type gobCodec struct{}

func (gobCodec) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func (gobCodec) Unmarshal(data []byte, v any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

func TestCodec(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		type payload struct {
			Name string
			Due  time.Time
			Blob []byte
		}
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Codec: gobCodec{}})
		got := make(chan payload, 1)
		task := sidestep.NewTask(q, "t", func(payload) string { return "" }, func(_ context.Context, lk *lock.Lock, v payload) error {
			if lk != nil {
				t.Errorf("lock %v, want none", lk)
			}
			got <- v
			return nil
		})
		want := payload{"zoë\x00", time.Unix(1, 2).UTC(), []byte{0, 255, '\n'}}
		if _, err := task.Enqueue(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		start(t, q)
		if v := <-got; v.Name != want.Name || !v.Due.Equal(want.Due) || !bytes.Equal(v.Blob, want.Blob) {
			t.Errorf("got %+v, want %+v", v, want)
		}
	})
}

func TestEnqueueInAndAt(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		start(t, q)
		began := time.Now()
		for v, in := range []time.Duration{30 * time.Second, 10 * time.Second} {
			r, err := task.EnqueueIn(t.Context(), in, v)
			if err != nil || r.Due.Before(began.Add(in)) || r.Due.After(began.Add(in+time.Millisecond)) {
				t.Errorf("EnqueueIn(%v) = %+v, %v", in, r, err)
			}
		}
		if _, err := task.EnqueueAt(t.Context(), began.Add(20*time.Second), 2); err != nil {
			t.Error(err)
		}
		if _, err := task.EnqueueAt(t.Context(), began.Add(-time.Hour), 3); err != nil {
			t.Error(err)
		}
		if _, err := task.EnqueueIn(t.Context(), -1, 4); !errors.Is(err, sidestep.ErrInvalid) {
			t.Errorf("EnqueueIn(-1) = %v, want ErrInvalid", err)
		}
		all := ran.wait(t, 4)
		if got := ran.values(); !slices.Equal(got, []int{3, 1, 2, 0}) {
			t.Errorf("ran %v, want 3 1 2 0", got)
		}
		for i, r := range all {
			if due := time.Duration(i) * 10 * time.Second; r.at < due || r.at > due+300*time.Millisecond {
				t.Errorf("%d ran after %v, want %v and never earlier", r.v, r.at, due)
			}
		}
	})
}

func TestCancelReschedulePromote(t *testing.T) {
	for _, parts := range []int{1, 4} {
		t.Run(fmt.Sprint(parts, " partitions"), func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				acq := newAcquirer(t, rdb, sidestep.Config{})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Partitions: parts})
				ran := newRuns()
				entered, stale := make(chan struct{}, 1), make(chan error, 1)
				task := sidestep.NewTask(q, "t", perValue, func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					if v == 99 {
						entered <- struct{}{}
						<-ctx.Done()
						stale <- context.Cause(ctx)
						return context.Cause(ctx)
					}
					return nil
				})
				ctx := t.Context()
				in := func(d time.Duration, v int) string {
					t.Helper()
					r, err := task.EnqueueIn(ctx, d, v)
					if err != nil {
						t.Fatal(err)
					}
					return r.ID
				}
				for _, id := range []string{in(time.Minute, 1), enqueue(t, task, 2).ID} {
					for i, want := range []bool{true, false} {
						if ok, err := q.Cancel(ctx, id); ok != want || err != nil {
							t.Errorf("Cancel %d = %v, %v, want %v", i, ok, err, want)
						}
					}
					if _, err := q.Reschedule(ctx, id, 0); !errors.Is(err, sidestep.ErrUnknown) {
						t.Errorf("Reschedule of a cancelled request = %v, want ErrUnknown", err)
					}
				}
				s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k3")
				parked := deferred(t, task, 3, sidestep.Defer(time.Hour))
				if ok, err := q.Cancel(ctx, parked.ID); !ok || err != nil {
					t.Errorf("Cancel of a parked request = %v, %v, want true", ok, err)
				}
				s.leave(t)

				start(t, q)
				sooner, later := in(time.Hour, 4), in(time.Second, 5)
				r, err := q.Promote(ctx, sooner)
				if err != nil || r.ID != sooner || r.Queue != "q" {
					t.Errorf("Promote = %+v, %v", r, err)
				}
				r, err = q.Reschedule(ctx, later, time.Minute)
				if in := time.Until(r.Due); err != nil || in < time.Minute-time.Millisecond || in > time.Minute+time.Millisecond {
					t.Errorf("Reschedule = %+v, %v, due in %v, want a minute", r, err, in)
				}
				all := ran.within(t, 2, 2*time.Minute)
				if all[0].v != 4 || all[0].at > time.Second || all[1].v != 5 || all[1].at < time.Minute {
					t.Errorf("ran %+v, want 4 at once and 5 after a minute", all)
				}

				running := enqueue(t, task, 99).ID
				<-entered
				if _, err := q.Reschedule(ctx, running, 0); !errors.Is(err, sidestep.ErrRunning) {
					t.Errorf("Reschedule of a running request = %v, want ErrRunning", err)
				}
				if ok, err := q.Cancel(ctx, running); !ok || err != nil {
					t.Errorf("Cancel of a running request = %v, %v, want true", ok, err)
				}
				if cause := <-stale; !errors.Is(cause, sidestep.ErrStale) {
					t.Errorf("a cancelled handler's context ended with %v, want ErrStale", cause)
				}
				time.Sleep(time.Minute)
				if n := len(ran.list()); n != 3 {
					t.Errorf("%d runs (%v), want 3", n, ran.values())
				}
				for _, err := range []error{
					func() error { _, err := q.Cancel(ctx, ""); return err }(),
					func() error { _, err := q.Promote(ctx, "a\nb"); return err }(),
					func() error { _, err := q.Reschedule(ctx, "a", -1); return err }(),
					func() error { _, err := q.Revive(ctx, ""); return err }(),
				} {
					if !errors.Is(err, sidestep.ErrInvalid) {
						t.Errorf("bad argument: %v, want ErrInvalid", err)
					}
				}
			})
		})
	}
}

// Nobody has told the queue that the lock is free.
func TestPromoteInLine(t *testing.T) {
	for name, c := range map[string]struct{ all, promoted int }{
		"alone": {1, 1}, "the first": {3, 1}, "the last": {3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				d := newDeferring(t, rdb, "q")
				start(t, d.queue)
				if err := rdb.Set(t.Context(), "k", "another program", 0).Err(); err != nil {
					t.Fatal(err)
				}
				ids := make(map[int]string)
				for v := 1; v <= c.all; v++ {
					ids[v] = deferred(t, d.task, v, sidestep.Defer(time.Hour)).ID
				}
				promote := func() {
					t.Helper()
					if r, err := d.queue.Promote(t.Context(), ids[c.promoted]); err != nil || r.ID != ids[c.promoted] {
						t.Fatalf("Promote = %+v, %v", r, err)
					}
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute)
				promote()
				if n := len(d.ran.list()); n != 0 {
					t.Fatalf("%d ran while the lock was held", n)
				}
				if err := rdb.Del(t.Context(), "k").Err(); err != nil {
					t.Fatal(err)
				}
				promote()
				if got := d.ran.values(); len(got) != c.all || !slices.IsSorted(got) {
					t.Errorf("ran %v within a second, want all %d in order", got, c.all)
				}
			})
		})
	}
}

// The failed request at the head of a strict line is tried again now, and none behind
// it passes.
func TestPromoteKeepsStrictOrder(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		var failed atomic.Bool
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			if v == 1 && !failed.Swap(true) {
				return errors.New("once")
			}
			return nil
		}, sidestep.StrictOrder(), sidestep.Backoff(retry.Constant(time.Hour)))
		first := enqueue(t, task, 1)
		enqueue(t, task, 2)
		start(t, q)
		ran.wait(t, 1)
		time.Sleep(10 * time.Second)
		if _, err := q.Promote(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		ran.wait(t, 3)
		if got := ran.values(); !slices.Equal(got, []int{1, 1, 2}) {
			t.Errorf("ran %v, want 1, 1, 2", got)
		}
	})
}

// Who has the turn, and waits for a worker, keeps it.
func TestPromoteOfOneThatHasTheTurn(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		s := enter(t, d.acq, "k")
		first := deferred(t, d.task, 1, sidestep.Defer(time.Hour))
		deferred(t, d.task, 2, sidestep.Defer(time.Hour))
		s.leave(t) // tells: the first is ready
		if _, err := d.queue.Promote(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		start(t, d.queue)
		d.ran.wait(t, 2)
		if got := d.ran.values(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("ran %v, want 1, 2", got)
		}
	})
}

func TestPartitions(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		const locks, each = 20, 10
		var workers []*sidestep.Queue
		ran := newRuns()
		var task *sidestep.Task[int]
		for range 2 { // processes
			c := another(t, rdb)
			q := sidestep.NewQueue(newAcquirer(t, c, sidestep.Config{}), c, "q", sidestep.QueueConfig{Partitions: 4, Workers: 4})
			task = sidestep.NewTask(q, "t", func(v int) string { return fmt.Sprint("k", v%locks) }, ran.handler())
			workers = append(workers, q)
		}
		var ids []string
		for v := range locks * each {
			ids = append(ids, enqueue(t, task, v, sidestep.WithID(fmt.Sprint("id", v))).ID)
		}
		used := 0
		for i := range 4 {
			s, err := scripts(rdb, fmt.Sprint("q:", i)).Sizes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Requests > 0 {
				used++
			}
		}
		if used < 2 {
			t.Errorf("%d partitions are in use, want more than one", used)
		}
		cancelled := map[int]bool{13: true, 77: true, 140: true}
		for v := range cancelled {
			if ok, err := workers[0].Cancel(t.Context(), ids[v]); !ok || err != nil {
				t.Errorf("Cancel(%s) = %v, %v, want true", ids[v], ok, err)
			}
		}
		for _, q := range workers {
			start(t, q)
		}
		ran.wait(t, locks*each-len(cancelled))
		last := make(map[int]int)
		seen := make(map[int]bool)
		for _, r := range ran.list() {
			if seen[r.v] || cancelled[r.v] {
				t.Errorf("%d ran again, or though it was cancelled", r.v)
			}
			seen[r.v] = true
			if before, ok := last[r.v%locks]; ok && before > r.v {
				t.Errorf("lock k%d: %d ran after %d", r.v%locks, r.v, before)
			}
			last[r.v%locks] = r.v
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{DrainTimeout: 7 * time.Second, Workers: 2})
		began := time.Now()
		entered := make(chan struct{}, 2)
		task := sidestep.NewTask(q, "t", perValue, func(ctx context.Context, _ *lock.Lock, v int) error {
			entered <- struct{}{}
			select {
			case <-time.After(time.Duration(v) * time.Second):
				return nil
			case <-ctx.Done():
				if cause := context.Cause(ctx); !errors.Is(cause, sidestep.ErrDraining) || time.Since(began) != 7*time.Second {
					t.Errorf("%d: the context ended after %v with %v, want 7s and ErrDraining", v, time.Since(began), cause)
				}
				return context.Cause(ctx)
			}
		})
		short, long, waiting := enqueue(t, task, 5), enqueue(t, task, 3600), enqueue(t, task, 1)
		stop := start(t, q)
		<-entered
		<-entered
		began = time.Now()
		stop()
		if took := time.Since(began); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("Run took %v to end, want the drain timeout, 7s", took)
		}
		if _, ok := peek(t, rdb, "q", short.ID); ok {
			t.Error("what finished during the drain is still there")
		}
		for _, tt := range []sidestep.Receipt{long, waiting} {
			if s, _ := peek(t, rdb, "q", tt.ID); s.Place != "ready" || s.Attempts != 0 || s.Deliveries != 0 || s.Deferrals != 0 {
				t.Errorf("state %+v, want ready and uncounted", s)
			}
		}
		wantFree(t, acq, "k3600")
	})
}

// The queue's Redis answers, that of the locks does not: no fault of the request.
func TestLocksUnavailableBurnsNoAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, queues *redis.Client) {
		locks, cut := severed(t, redistest.Mini(t))
		dead := &deaths{}
		acq := newAcquirer(t, locks, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, queues, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", perValue, ran.handler(), sidestep.MaxAttempts(1))
		cut.Store(true)
		r := enqueue(t, task, 1)
		enqueue(t, task, -1)
		start(t, q)
		ran.wait(t, 1)
		if got := ran.values(); !slices.Equal(got, []int{-1}) {
			t.Errorf("ran %v, want what needs no lock", got)
		}
		time.Sleep(time.Minute)
		if s, ok := peek(t, queues, "q", r.ID); !ok || s.Attempts != 0 || s.Deferrals != 0 || s.Place == "dead" || s.Deliveries > 1 {
			t.Errorf("state %+v, want nothing counted", s)
		}
		if s := acq.Stats(); s.Conflicts != 0 || s.Deferred != 0 || s.Failed != 0 {
			t.Errorf("Stats = %+v, want no conflict and no failure", s)
		}
		cut.Store(false)
		all := ran.wait(t, 2)
		if all[1].v != 1 || all[1].request.Attempts != 0 {
			t.Errorf("ran %+v, want 1 with no attempt", all[1])
		}
		if d := dead.list(); len(d) != 0 {
			t.Errorf("deaths %+v", d)
		}
	})
}

// A context that QueueConfig.Context ends is not that of the request.
func TestContextOfHeadersEnds(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := &deaths{}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: dead.hooks()})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{
			Context: func(ctx context.Context, _ map[string]string) context.Context {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				_ = cancel
				return ctx
			},
		})
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, _ *lock.Lock, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}, sidestep.MaxAttempts(2), sidestep.Backoff(retry.Constant(time.Second)))
		r := enqueue(t, task, 1)
		start(t, q)
		dead.want(t, "q", r.ID, "attempts: "+context.DeadlineExceeded.Error())
		if s, _ := peek(t, rdb, "q", r.ID); s.Attempts != 2 {
			t.Errorf("state %+v, want 2 attempts, the task's limit", s)
		}
	})
}

func TestConstructorsPanic(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
	handler := func(context.Context, *lock.Lock, int) error { return nil }
	sidestep.NewTask(q, "taken", one("k"), handler)
	for name, fn := range map[string]func(){
		"New(nil)":          func() { sidestep.New(nil, sidestep.Config{}) },
		"NewQueue(nil acq)": func() { sidestep.NewQueue(nil, rdb, "q", sidestep.QueueConfig{}) },
		"NewQueue(nil rdb)": func() { sidestep.NewQueue(acq, nil, "q", sidestep.QueueConfig{}) },
		"NewQueue(nil *redis.Client)": func() {
			sidestep.NewQueue(acq, (*redis.Client)(nil), "q", sidestep.QueueConfig{})
		},
		"NewQueue(no name)": func() { sidestep.NewQueue(acq, rdb, "", sidestep.QueueConfig{}) },
		"NewQueue(no name, parts)": func() {
			sidestep.NewQueue(acq, rdb, "", sidestep.QueueConfig{Partitions: 2})
		},
		"NewQueue(brace)":    func() { sidestep.NewQueue(acq, rdb, "a}", sidestep.QueueConfig{}) },
		"Partitions -1":      func() { sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Partitions: -1}) },
		"Partitions 257":     func() { sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Partitions: 257}) },
		"Workers -1":         func() { sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: -1}) },
		"Lease 1ms":          func() { sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Storage: listq.Config{Lease: 1}}) },
		"NewTask(nil queue)": func() { sidestep.NewTask(nil, "t", one("k"), handler) },
		"NewTask(no name)":   func() { sidestep.NewTask(q, "", one("k"), handler) },
		"NewTask(nil key)":   func() { sidestep.NewTask(q, "t", nil, handler) },
		"NewTask(nil fn)":    func() { sidestep.NewTask[int](q, "t", one("k"), nil) },
		"NewTask(taken)":     func() { sidestep.NewTask(q, "taken", one("k"), handler) },
		"Backoff(nil)":       func() { sidestep.Backoff(nil) },
		"Backoff(nil func)":  func() { sidestep.Backoff(retry.BackoffFunc(nil)) },
		"MaxAttempts(-1)":    func() { sidestep.MaxAttempts(-1) },
		"MaxDeferrals(-1)":   func() { sidestep.MaxDeferrals(-1) },
		"MaxWait(-1)":        func() { sidestep.MaxWait(-1) },
		"Timeout(-1)":        func() { sidestep.Timeout(-1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", name)
				}
			}()
			fn()
		}()
	}
}

// What was stored and not confirmed by replicas is no success, and not nothing.
func TestEnqueueWaitsForReplicas(t *testing.T) {
	t.Parallel()
	rdb := redistest.Real(t) // which has no replica
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{
		Storage: listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: 10 * time.Millisecond}},
	})
	task := sidestep.NewTask(q, "t", func(int) string { return "" }, func(context.Context, *lock.Lock, int) error { return nil })
	r, err := task.Enqueue(t.Context(), 1)
	for _, want := range []error{sidestep.ErrNotReplicated, sidestep.ErrAmbiguous, sidestep.ErrUnavailable} {
		if !errors.Is(err, want) {
			t.Errorf("Enqueue = %v, want %v", err, want)
		}
	}
	if _, err := q.Get(t.Context(), r.ID); err != nil {
		t.Errorf("Get(%q) = %v, want the request: the master has it", r.ID, err)
	}
}

// What the master has runs when its lock is released, though no replica confirmed it.
func TestUnconfirmedDeferralIsAnnounced(t *testing.T) {
	t.Parallel()
	rdb := redistest.Real(t) // which has no replica
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{
		Storage: listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: 10 * time.Millisecond}},
	})
	ran := newRuns()
	task := sidestep.NewTask(q, "t", one("k"), ran.handler())
	s := enter(t, acq, "k")
	if _, err := task.Do(t.Context(), 1, sidestep.Defer(time.Hour)); !errors.Is(err, sidestep.ErrNotReplicated) {
		t.Fatalf("Do = %v, want ErrNotReplicated", err)
	}
	start(t, q)
	s.leave(t)
	ran.within(t, 1, 10*time.Second)
}

// Who defers to a Redis that hangs does not wait for the announcement as well.
func TestAmbiguousDeferralKeepsNobodyLonger(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		locks, queues := another(t, rdb), another(t, rdb)
		var hangs atomic.Bool
		locks.AddHook(onCommand{before: func(redis.Cmder) error {
			if hangs.Load() {
				time.Sleep(30 * time.Second)
			}
			return nil
		}})
		queues.AddHook(onCommand{before: func(redis.Cmder) error {
			hangs.Store(true)
			time.Sleep(3 * time.Second)
			return errors.New("i/o timeout")
		}})
		q := sidestep.NewQueue(newAcquirer(t, locks, sidestep.Config{}), queues, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		hold(t, rdb, "k")
		began := time.Now()
		_, err := task.Do(context.Background(), 1, sidestep.Defer(time.Hour))
		if took := time.Since(began); !errors.Is(err, sidestep.ErrAmbiguous) || took > 3*time.Second {
			t.Errorf("Do = %v after %v, want ErrAmbiguous after 3s, which the answer took not to come", err, took)
		}
		time.Sleep(time.Minute) // the announcement ends
	})
}
