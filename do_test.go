package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

func nothing(context.Context, *lock.Lock) error { return nil }

func TestDoUncontendedIsTwoCommands(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		mine := another(t, rdb)
		acq := newAcquirer(t, mine, sidestep.Config{})
		task := sidestep.NewTask(sidestep.NewQueue(acq, mine, "q", sidestep.QueueConfig{}), "t", one("k"),
			func(context.Context, *lock.Lock, int) error { return nil })
		count := redistest.Count(mine)
		for _, p := range []sidestep.Policy{
			sidestep.Fail(), sidestep.RetryFor(time.Second), sidestep.Defer(time.Second),
			sidestep.Defer(time.Second).NotBefore(), sidestep.RetryFor(time.Second).Then(sidestep.Defer(0)),
		} {
			count.Reset()
			out, err := task.Do(t.Context(), 1, p)
			if err != nil || out.Deferred != nil || out.Fence == 0 {
				t.Errorf("Task.Do(%v) = %+v, %v, want a run", p, out, err)
			}
			if count.Commands() != 2 {
				t.Errorf("Task.Do(%v) sent %v, want 2 commands", p, count.Names())
			}
		}
		count.Reset()
		if err := acq.Do(t.Context(), "k", sidestep.Fail(), nothing); err != nil || count.Commands() != 2 {
			t.Errorf("Do = %v, sent %v, want nil and 2 commands", err, count.Names())
		}
	})
}

func TestFailSaysWhoAndWhen(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		lk := hold(t, rdb, "k", lock.WithTTL(20*time.Second), lock.WithOwner("ann@desk"))
		mine := another(t, rdb)
		acq := newAcquirer(t, mine, sidestep.Config{})
		count := redistest.Count(mine)
		err := acq.Do(t.Context(), "k", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			t.Error("entered a held lock")
			return nil
		})
		if count.RoundTrips() != 1 || count.Commands() != 1 {
			t.Errorf("a refusal sent %v, want 1 command", count.Names())
		}
		held, ok := errors.AsType[*sidestep.LockedError](err)
		if !ok || !errors.Is(err, sidestep.ErrLocked) {
			t.Fatalf("Do = %v, want a *LockedError", err)
		}
		if held.Key != "k" || held.Owner != "ann@desk" || held.RetryAfter <= 0 || held.RetryAfter > 20*time.Second {
			t.Errorf("Do = %+v, want key k, owner ann@desk, at most 20s", held)
		}
		release(t, lk)
	})
}

func TestRetryIsWokenByTheRelease(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		for name, policy := range map[string]sidestep.InlinePolicy{
			"RetryFor": sidestep.RetryFor(time.Hour),
			"Retry":    sidestep.Retry(retry.Constant(30 * time.Minute)),
		} {
			s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), name)
			began := time.Now()
			time.AfterFunc(100*time.Millisecond, s.end)
			err := newAcquirer(t, rdb, sidestep.Config{}).Do(t.Context(), name, policy, nothing)
			if took := time.Since(began); err != nil || took < 100*time.Millisecond || took > 150*time.Millisecond {
				t.Errorf("%s: Do = %v after %v, want nil as soon as the lock is released after 100ms", name, err, took)
			}
			<-s.done
		}
	})
}

func TestRetryGivesUpWithItsBackoff(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		hold(t, rdb, "k", lock.WithTTL(time.Hour))
		acq := newAcquirer(t, rdb, sidestep.Config{})
		for _, tt := range []struct {
			policy   sidestep.InlinePolicy
			min, max time.Duration
		}{
			{sidestep.RetryFor(3 * time.Second), 3 * time.Second, 3*time.Second + 50*time.Millisecond},
			{sidestep.Retry(retry.Limit(retry.Constant(time.Second), 3)), 2 * time.Second, 2*time.Second + 50*time.Millisecond},
		} {
			began := time.Now()
			err := acq.Do(t.Context(), "k", tt.policy, nothing)
			held, ok := errors.AsType[*sidestep.LockedError](err)
			if took := time.Since(began); !ok || held.Owner != "somebody" || took < tt.min || took > tt.max {
				t.Errorf("Do(%v) = %v after %v, want a *LockedError after %v", tt.policy, err, took, tt.min)
			}
		}
	})
}

func TestWaitEndedByTheContextIsBothErrors(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		hold(t, rdb, "k", lock.WithTTL(time.Hour))
		acq := newAcquirer(t, rdb, sidestep.Config{})
		cause := errors.New("the user went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		err := acq.Do(ctx, "k", sidestep.RetryFor(time.Minute), nothing)
		if !errors.Is(err, sidestep.ErrLocked) || !errors.Is(err, cause) || errors.Is(err, sidestep.ErrUnavailable) {
			t.Errorf("Do = %v, want ErrLocked and the cause", err)
		}
		if held, ok := errors.AsType[*sidestep.LockedError](err); !ok || held.Owner != "somebody" {
			t.Errorf("Do = %v, want a *LockedError with the owner", err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := acq.Do(ctx, "k", sidestep.RetryFor(time.Minute), nothing); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, sidestep.ErrLocked) {
			t.Errorf("Do = %v, want ErrLocked and DeadlineExceeded", err)
		}
		synctest.Wait() // it leaves the line in the background
		if st, err := acq.Locker().Inspect(t.Context(), "k"); err != nil || st.Waiters != 0 {
			t.Errorf("Inspect = %+v, %v, want nobody in line", st, err)
		}
	})
}

func TestDoPassesTheHandlersErrorOn(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	acq := newAcquirer(t, rdb, sidestep.Config{})
	want := errors.New("no such account")
	err := acq.Do(t.Context(), "k", sidestep.Fail(), func(context.Context, *lock.Lock) error { return want })
	if !errors.Is(err, want) || errors.Is(err, sidestep.ErrLocked) || errors.Is(err, sidestep.ErrNotHeld) {
		t.Errorf("Do = %v, want %v alone", err, want)
	}
	wantFree(t, acq, "k")
}

func wantFree(t *testing.T, acq *sidestep.Acquirer, key string) {
	t.Helper()
	if st, err := acq.Locker().Inspect(context.Background(), key); err != nil || st.Held {
		t.Errorf("Inspect(%q) = %+v, %v, want a free lock", key, st, err)
	}
}

func TestPanicReleasesAndGoesOn(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	var ran []sidestep.RanEvent
	acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{Ran: func(_ context.Context, e sidestep.RanEvent) { ran = append(ran, e) }}})
	task := sidestep.NewTask(sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{}), "t", one("k"),
		func(context.Context, *lock.Lock, int) error { panic("task") })
	for want, do := range map[string]func(){
		"section": func() {
			_ = acq.Do(t.Context(), "k", sidestep.Fail(), func(context.Context, *lock.Lock) error { panic("section") })
		},
		"task": func() { _, _ = task.Do(t.Context(), 1, sidestep.Defer(0)) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("recovered %v, want %q", got, want)
				}
			}()
			do()
		}()
		wantFree(t, acq, "k")
	}
	if s := acq.Stats(); s.Failed != 2 || s.Ran != 0 || len(ran) != 2 || ran[0].Err == nil {
		t.Errorf("Stats = %+v, hook told %+v, want 2 failures", s, ran)
	}
}

func TestLostLockEndsTheContextFirst(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		const ttl = 3 * time.Second
		mine, cut := severed(t, rdb)
		acq := sidestep.New(newLocker(t, mine, lock.Config{TTL: ttl}), sidestep.Config{})
		other := newAcquirer(t, another(t, rdb), sidestep.Config{})
		var ended, entered time.Time
		var wg sync.WaitGroup
		in := make(chan struct{})
		wg.Go(func() {
			err := acq.Do(t.Context(), "k", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
				cut.Store(true)
				close(in)
				<-ctx.Done()
				ended = time.Now()
				if cause := context.Cause(ctx); !errors.Is(cause, sidestep.ErrNotHeld) {
					t.Errorf("the context's cause is %v, want ErrNotHeld", cause)
				}
				return nil
			})
			if !errors.Is(err, sidestep.ErrNotHeld) || errors.Is(err, sidestep.ErrLocked) {
				t.Errorf("Do = %v, want ErrNotHeld", err)
			}
		})
		<-in
		err := other.Do(t.Context(), "k", sidestep.Retry(retry.Constant(50*time.Millisecond)), func(context.Context, *lock.Lock) error {
			entered = time.Now()
			return nil
		})
		if err != nil {
			t.Errorf("the other's Do = %v, want nil", err)
		}
		wg.Wait()
		if !ended.Before(entered) {
			t.Errorf("the context ended at %v, another entered at %v", ended, entered)
		}
		if s := acq.Stats(); s.Lost != 1 || s.Failed != 1 || s.Ran != 0 {
			t.Errorf("Stats = %+v, want one lost", s)
		}
	})
}

func TestRevokedLockIsNotHeld(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		failed := errors.New("interrupted")
		err := acq.Do(t.Context(), "k", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
			if ok, err := acq.Locker().Revoke(ctx, "k"); !ok || err != nil {
				t.Errorf("Revoke = %v, %v", ok, err)
			}
			<-ctx.Done()
			return failed
		})
		if !errors.Is(err, sidestep.ErrNotHeld) || !errors.Is(err, failed) {
			t.Errorf("Do = %v, want ErrNotHeld and the handler's error", err)
		}
	})
}

// A section is lost with its own lock, not with that of one inside it or around it.
func TestLostIsTheSectionsOwnLock(t *testing.T) {
	for _, gone := range []string{"outer", "inner"} {
		t.Run(gone, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				acq := newAcquirer(t, rdb, sidestep.Config{})
				err := acq.Do(t.Context(), "outer", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
					return acq.Do(ctx, "inner", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
						rdb.Del(t.Context(), gone)
						<-ctx.Done()
						return context.Cause(ctx)
					})
				})
				if s := acq.Stats(); !errors.Is(err, sidestep.ErrNotHeld) || s.Lost != 1 || s.Failed != 2 {
					t.Errorf("Do = %v, Stats = %+v, want two failures and one lost", err, s)
				}
			})
		})
	}
}

// several are the errors of a section's parts: no value that can be compared.
type several []error

func (s several) Error() string   { return fmt.Sprint([]error(s)) }
func (s several) Unwrap() []error { return s }

func TestLostIsNotWhatTheSectionReturns(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		err := acq.Do(t.Context(), "x", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			return several{lock.ErrNotHeld}
		})
		if s := acq.Stats(); !errors.Is(err, lock.ErrNotHeld) || s.Lost != 0 || s.Failed != 1 {
			t.Errorf("Do = %v, Stats = %+v, want one failure and none lost", err, s)
		}
	})
}

// A handler that itself met a held lock, and says so, has run.
func TestHandlersOwnRefusalIsNoRefusal(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		hold(t, rdb, "inner")
		task := sidestep.NewTask(q, "t", one("outer"), func(ctx context.Context, _ *lock.Lock, _ int) error {
			return acq.Do(ctx, "inner", sidestep.Fail(), nothing)
		})
		out, err := task.Do(t.Context(), 1, sidestep.Defer(time.Second))
		held, ok := errors.AsType[*sidestep.LockedError](err)
		if !ok || held.Key != "inner" || out.Deferred != nil || out.Fence == 0 {
			t.Errorf("Do = %+v, %v, want the handler's error and no receipt", out, err)
		}
		wantEmpty(t, rdb, "q")
		if s := acq.Stats(); s.Conflicts != 1 || s.Failed != 1 || s.Deferred != 0 {
			t.Errorf("Stats = %+v, want one conflict (the inner one), one failure, none deferred", s)
		}
	})
}

func TestRedisDownIsUnavailableAndNeverLocked(t *testing.T) {
	t.Parallel()
	rdb := unreachable(t)
	conflicts := 0
	acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
		Conflict: func(context.Context, sidestep.ConflictEvent) { conflicts++ },
	}})
	ran := newRuns()
	task := sidestep.NewTask(sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{}), "t", one("k"), ran.handler())
	for _, p := range []sidestep.Policy{
		sidestep.Fail(), sidestep.RetryFor(time.Second), sidestep.Defer(time.Second), sidestep.RetryFor(0).Then(sidestep.Defer(0)),
	} {
		out, err := task.Do(t.Context(), 1, p)
		if !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrLocked) || out.Deferred != nil {
			t.Errorf("Do(%v) = %+v, %v, want ErrUnavailable", p, out, err)
		}
	}
	if s := acq.Stats(); s != (sidestep.Stats{}) || conflicts != 0 || len(ran.list()) != 0 {
		t.Errorf("Stats = %+v, %d conflicts, %d runs, want none", s, conflicts, len(ran.list()))
	}
}

func TestHooksAndStats(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		var log []string
		var mu sync.Mutex
		note := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, fmt.Sprintf(format, args...))
		}
		id := func(r *sidestep.Request) string {
			if r == nil {
				return "-"
			}
			return r.ID
		}
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
			Conflict: func(_ context.Context, e sidestep.ConflictEvent) {
				note("conflict %s %s %v %v %s", e.Key, e.Owner, e.RetryAfter > 0, e.Policy, id(e.Request))
			},
			Deferred: func(_ context.Context, e sidestep.DeferredEvent) {
				note("deferred %s %s %s %s", e.Receipt.Queue, e.Receipt.Task, e.Receipt.Key, id(e.Request))
			},
			Ran: func(_ context.Context, e sidestep.RanEvent) {
				note("ran %s %v %v %v %v %s", e.Key, e.Fence > 0, e.Wait, e.Took, e.Err, id(e.Request))
			},
		}})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			time.Sleep(time.Second)
			ran.add(ctx, lk, v)
			return nil
		})
		other := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		owner := func() string {
			st, err := acq.Locker().Inspect(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			return st.Owner
		}()
		_ = acq.Do(t.Context(), "k", sidestep.Fail(), nothing)
		deferred(t, task, 1, sidestep.RetryFor(0).Then(sidestep.Defer(time.Minute)), sidestep.WithID("a"))
		if r := deferred(t, task, 1, sidestep.Defer(time.Minute), sidestep.WithID("a")); !r.Duplicate {
			t.Errorf("receipt %+v, want a duplicate", r)
		}
		other.leave(t)
		start(t, q)
		ran.wait(t, 1)
		synctest.Wait()
		failed := errors.New("failed")
		_ = acq.Do(t.Context(), "free", sidestep.Fail(), func(context.Context, *lock.Lock) error { return failed })
		want := []string{
			"conflict k " + owner + " true fail -",
			"conflict k " + owner + " true retry(0s), then defer(1m0s) a",
			"deferred q t k a",
			"conflict k " + owner + " true defer(1m0s) a",
			"ran k true 0s 1s <nil> a",
			"ran free true 0s 0s failed -",
		}
		if got := strings.Join(log, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("hooks told:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
		}
		if got, want := acq.Stats(), (sidestep.Stats{Ran: 1, Failed: 1, Conflicts: 3, Deferred: 1}); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}
