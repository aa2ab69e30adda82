package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// Requests that stand in one line cost two commands each: the queue's, which ends one
// and brings the next, and the lock's, which passes it on. When the line is at its end
// the lock is free.
func TestLineTakesTwoCommandsARequest(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		const n = 20
		lk := hold(t, rdb, "k")
		own := another(t, rdb)
		d := newDeferring(t, own, "q")
		for i := range n {
			deferred(t, d.task, i, sidestep.Defer(time.Minute))
		}
		start(t, d.queue)
		time.Sleep(100 * time.Millisecond)
		count := redistest.Count(own)
		release(t, lk)
		for _, q := range lk.Reported() {
			if err := delayq.HintKey(t.Context(), rdb, q, "k"); err != nil {
				t.Fatal(err)
			}
		}
		all := d.ran.wait(t, n)
		synctest.Wait()
		if st, err := newLocker(t, rdb, lock.Config{}).Inspect(t.Context(), "k"); err != nil || st.Held {
			t.Errorf("Inspect after the line = %+v, %v, want a free lock", st, err)
		}
		wantEmpty(t, rdb, "q")
		for i, r := range all {
			if r.v != i || i > 0 && r.fence <= all[i-1].fence {
				t.Errorf("run %d: request %d with fence %d, want them in order, with fences that grow", i, r.v, r.fence)
			}
		}
		if got := count.Commands(); got > 2*n+6 {
			t.Errorf("%d requests took %d commands %v, want 2 each, and a few at the ends of the line", n, got, count.Names())
		}
		if err := d.acq.Do(t.Context(), "k", sidestep.Fail(), func(context.Context, *lock.Lock) error { return nil }); err != nil {
			t.Errorf("Do after the line = %v, want the lock to be free", err)
		}
	})
}

// If the answer to the command that would have passed the lock on is lost, and with it
// that another queue waits for the lock, that one is told all the same.
func TestLostRelayTellsTheQueues(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		own := another(t, rdb)
		var lose atomic.Bool
		own.AddHook(onCommand{after: func(cmd redis.Cmder) {
			if lose.CompareAndSwap(true, false) {
				_ = rdb.Process(context.Background(), cmd) // sent again: its answer is that of the repetition
			}
		}})
		acq := newAcquirer(t, own, sidestep.Config{})
		waits := sidestep.NewQueue(acq, rdb, "waits", sidestep.QueueConfig{})
		ran := newRuns()
		waiting := sidestep.NewTask(waits, "t", one("k"), ran.handler())
		line := sidestep.NewQueue(acq, rdb, "line", sidestep.QueueConfig{})
		task := sidestep.NewTask(line, "t", one("k"), func(_ context.Context, _ *lock.Lock, v int) error {
			if v == 3 {
				deferred(t, waiting, 1, sidestep.Defer(time.Hour))
				lose.Store(true) // the next command passes the lock on
			}
			return nil
		})
		for i := range 5 {
			enqueue(t, task, i)
		}
		start(t, waits)
		start(t, line)
		ran.within(t, 1, 10*time.Second) // the probe is due in an hour
		if lose.Load() {
			t.Error("no answer was lost")
		}
	})
}

// A direct caller that waits for the lock gets it after the next section of the line.
func TestLineLetsWaitersIn(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		other := newAcquirer(t, rdb, sidestep.Config{})
		ran := newRuns()
		queue := sidestep.NewQueue(d.acq, rdb, "slow", sidestep.QueueConfig{})
		task := sidestep.NewTask(queue, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		for i := range 10 {
			enqueue(t, task, i)
		}
		start(t, queue)
		time.Sleep(450 * time.Millisecond)
		if err := other.Do(t.Context(), "k", sidestep.RetryFor(time.Minute), func(context.Context, *lock.Lock) error {
			if got := ran.values(); len(got) != 5 {
				t.Errorf("%v ran before who had waited for half a section, want 5", got)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		ran.wait(t, 10)
		wantEmpty(t, rdb, "slow")
	})
}

// A request that fails lets go of the lock before it waits for its next attempt, and
// the line goes on.
func TestLineGoesOnAfterAFailure(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(queue, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			switch v {
			case 2:
				return errors.New("no")
			case 3:
				panic("no")
			}
			return nil
		}, sidestep.MaxAttempts(1))
		for i := range 6 {
			enqueue(t, task, i)
		}
		start(t, queue)
		for i, r := range ran.wait(t, 6) {
			if r.v != i || r.at > time.Second {
				t.Errorf("run %d: request %d after %v, want them in order and at once", i, r.v, r.at)
			}
		}
	})
}

// A worker that would not park a request which meets a held lock has released its own
// before the queue can give the next of the line to anybody.
func TestLineOfRefusedIsNotInItsOwnWay(t *testing.T) {
	for _, c := range []struct {
		policy sidestep.Policy
		opts   []sidestep.TaskOption
		passes bool
	}{
		{sidestep.Defer(time.Minute), nil, true},
		{sidestep.Defer(time.Minute), []sidestep.TaskOption{sidestep.MaxDeferrals(3)}, false},
		{sidestep.Defer(time.Minute).NotBefore(), nil, false},
		{sidestep.Fail(), nil, false},
		{sidestep.RetryFor(time.Minute), nil, false},
	} {
		t.Run(fmt.Sprint(c.policy, len(c.opts)), func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				const n = 10
				other := newLocker(t, rdb, lock.Config{})
				held := 0
				acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{Ran: func(context.Context, sidestep.RanEvent) {
					if st, err := other.Inspect(context.Background(), "k"); err != nil {
						t.Error(err)
					} else if st.Held {
						held++
					}
				}}})
				queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(queue, "t", one("k"), ran.handler(), append(c.opts, sidestep.WhenLocked(c.policy))...)
				for i := range n {
					enqueue(t, task, i)
				}
				start(t, queue)
				ran.wait(t, n)
				wantEmpty(t, rdb, "q")
				if passes := held > 0; passes != c.passes {
					t.Errorf("the lock was held after %d of %d sections", held, n)
				}
			})
		})
	}
}

// Requests of several policies that stand in one line run in order and at once, and none
// meets the lock of the one before.
func TestLineOfSeveralPolicies(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		conflicts := 0
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
			Conflict: func(context.Context, sidestep.ConflictEvent) { conflicts++ },
		}})
		queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		var tasks []*sidestep.Task[int]
		for i, p := range []sidestep.Policy{sidestep.Defer(time.Minute), sidestep.Fail(), sidestep.Defer(time.Minute).NotBefore(), sidestep.RetryFor(time.Minute)} {
			tasks = append(tasks, sidestep.NewTask(queue, fmt.Sprint(i), one("k"), ran.handler(), sidestep.WhenLocked(p)))
		}
		const n = 40
		for i := range n {
			enqueue(t, tasks[[]int{0, 0, 1, 0, 2, 0, 3}[i%7]], i)
		}
		start(t, queue)
		for i, r := range ran.wait(t, n) {
			if r.v != i || r.at > time.Millisecond {
				t.Errorf("run %d: request %d after %v, want them in order and at once", i, r.v, r.at)
			}
		}
		if conflicts > 0 {
			t.Errorf("%d of %d met a held lock, and nobody else took it", conflicts, n)
		}
	})
}

// When Run has returned, no lock of the queue's is on its way to a section that will
// not come: the process may end.
func TestLineEndsWithRun(t *testing.T) {
	for _, left := range []int{0, 1, 5} {
		t.Run(fmt.Sprint(left, " left"), func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				other := newLocker(t, rdb, lock.Config{})
				slow := another(t, rdb)
				slow.AddHook(onCommand{before: func(redis.Cmder) error {
					time.Sleep(20 * time.Millisecond)
					return nil
				}})
				queue := sidestep.NewQueue(newAcquirer(t, slow, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(queue, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					time.Sleep(100 * time.Millisecond)
					return nil
				})
				const n = 3
				for i := range n + left {
					enqueue(t, task, i)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- queue.Run(ctx) }()
				ran.wait(t, n)
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if st, err := other.Inspect(t.Context(), "k"); err != nil || st.Held {
					t.Errorf("Inspect after Run = %+v, %v, want a free lock", st, err)
				}
			})
		})
	}
}

// A worker that retries for no time at all takes over what its own process passed on.
func TestShortRetryIsNotInItsOwnWay(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		own := another(t, rdb)
		own.AddHook(onCommand{before: func(redis.Cmder) error { time.Sleep(time.Millisecond); return nil }})
		conflicts := 0
		acq := newAcquirer(t, own, sidestep.Config{Hooks: sidestep.Hooks{
			Conflict: func(context.Context, sidestep.ConflictEvent) { conflicts++ },
		}})
		queue := sidestep.NewQueue(acq, own, "q", sidestep.QueueConfig{})
		ran := newRuns()
		var tasks []*sidestep.Task[int]
		for i, p := range []sidestep.Policy{sidestep.Defer(time.Minute), sidestep.RetryFor(0).Then(sidestep.Defer(time.Minute))} {
			tasks = append(tasks, sidestep.NewTask(queue, fmt.Sprint(i), one("k"), ran.handler(), sidestep.WhenLocked(p)))
		}
		const n = 12
		for i := range n {
			enqueue(t, tasks[[]int{0, 0, 1}[i%3]], i)
		}
		start(t, queue)
		for i, r := range ran.wait(t, n) {
			if r.v != i || r.request.Deferrals > 0 {
				t.Errorf("run %d: request %d, deferrals %d, after %v", i, r.v, r.request.Deferrals, r.at)
			}
		}
		if conflicts > 0 {
			t.Errorf("%d conflicts, and nobody else took the lock", conflicts)
		}
	})
}

// What a process claimed ahead and gave back goes to another one, which is not refused
// by the lock that the first one kept for it: the request could die of that.
func TestLineOfSeveralProcessesRefusesNobody(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		var mu sync.Mutex
		var conflicts []string
		hooks := sidestep.Config{Hooks: sidestep.Hooks{
			Conflict: func(_ context.Context, e sidestep.ConflictEvent) {
				mu.Lock()
				defer mu.Unlock()
				conflicts = append(conflicts, e.Request.ID+" by "+e.Owner)
			},
		}}
		key := func(v int) string {
			if v >= 1000 {
				return "k"
			}
			return ""
		}
		stuck, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		passed := false
		ran := newRuns()
		process := func(name string, workers int, a bool) (*sidestep.Queue, *sidestep.Task[int], *sidestep.Task[int]) {
			l := newLocker(t, another(t, rdb), lock.Config{Owner: name})
			q := sidestep.NewQueue(sidestep.New(l, hooks), another(t, rdb), "q", sidestep.QueueConfig{Workers: workers})
			h := func(ctx context.Context, lk *lock.Lock, v int) error {
				if v >= 1000 {
					ran.add(ctx, lk, v)
					if v == 1001 {
						passed = true
					}
					return nil
				}
				if a && passed {
					once.Do(func() { close(stuck) })
					<-goOn
				}
				return nil
			}
			return q, sidestep.NewTask(q, "defers", key, h), sidestep.NewTask(q, "fails", key, h, sidestep.WhenLocked(sidestep.Fail()), sidestep.MaxAttempts(1))
		}
		a, defers, fails := process("A", 1, true)
		b, _, _ := process("B", 4, false)
		enqueue(t, defers, 1000)
		enqueue(t, defers, 1001)
		enqueue(t, fails, 1002, sidestep.WithID("last"))
		for i := range 600 {
			enqueue(t, defers, i)
		}
		start(t, a)
		<-stuck
		start(t, b)
		time.Sleep(10 * time.Second)
		close(goOn)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := ran.values(); len(got) != 3 || len(conflicts) > 0 {
			s, ok := peek(t, rdb, "q", "last")
			t.Errorf("ran %v; conflicts %q; state of the last: %+v %v", got, conflicts, s, ok)
		}
	})
}

// The same when the first process stops, and acknowledges without claiming.
func TestLineOfAProcessThatStopsRefusesNobody(t *testing.T) {
	for _, c := range []struct {
		name string
		last []sidestep.TaskOption
		dfr  bool
	}{
		{"fail", []sidestep.TaskOption{sidestep.WhenLocked(sidestep.Fail()), sidestep.MaxAttempts(1)}, false},
		{"max deferrals", []sidestep.TaskOption{sidestep.MaxDeferrals(1)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				var mu sync.Mutex
				var conflicts []string
				hooks := sidestep.Config{Hooks: sidestep.Hooks{
					Conflict: func(_ context.Context, e sidestep.ConflictEvent) {
						mu.Lock()
						defer mu.Unlock()
						if e.Owner == "somebody" { // of the direct calls
							return
						}
						conflicts = append(conflicts, fmt.Sprint(e.Request.ID, " by ", e.Owner))
					},
				}}
				ran := newRuns()
				inside := make(chan struct{})
				process := func(name string, slow time.Duration) (*sidestep.Queue, *sidestep.Task[int], *sidestep.Task[int]) {
					own := another(t, rdb)
					own.AddHook(onCommand{after: func(redis.Cmder) { time.Sleep(slow) }})
					l := newLocker(t, own, lock.Config{Owner: name})
					q := sidestep.NewQueue(sidestep.New(l, hooks), own, "q", sidestep.QueueConfig{Workers: 1})
					h := func(ctx context.Context, lk *lock.Lock, v int) error {
						ran.add(ctx, lk, v)
						if v == 1 {
							close(inside)
							time.Sleep(100 * time.Millisecond)
						}
						return nil
					}
					return q, sidestep.NewTask(q, "defers", one("k"), h), sidestep.NewTask(q, "last", one("k"), h, c.last...)
				}
				a, defers, last := process("A", 4*time.Millisecond) // the answers take as long to come
				b, _, _ := process("B", 0)
				lk := hold(t, rdb, "k")
				deferred(t, defers, 0, sidestep.Defer(time.Minute))
				deferred(t, defers, 1, sidestep.Defer(time.Minute))
				deferred(t, last, 2, sidestep.Defer(time.Minute), sidestep.WithID("last"))
				release(t, lk)
				stop := start(t, a)
				<-inside
				start(t, b)
				go stop()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if got := ran.values(); len(got) != 3 || len(conflicts) > 0 {
					s, ok := peek(t, rdb, "q", "last")
					t.Errorf("ran %v; conflicts %q; state of the last: %+v %v", got, conflicts, s, ok)
				}
			})
		})
	}
}
