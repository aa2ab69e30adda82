package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
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
		passes bool
	}{
		{sidestep.Defer(time.Minute), true},
		{sidestep.Defer(time.Minute).NotBefore(), false},
		{sidestep.Fail(), false},
		{sidestep.RetryFor(time.Minute), false},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
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
				task := sidestep.NewTask(queue, "t", one("k"), ran.handler(), sidestep.WhenLocked(c.policy))
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

// A request of another policy behind one that passed its lock on takes it over, too.
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
