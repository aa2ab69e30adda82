package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// deferring is an Acquirer with a queue and a task on the lock "k".
type deferring struct {
	acq   *sidestep.Acquirer
	queue *sidestep.Queue
	task  *sidestep.Task[int]
	ran   *runs
}

func newDeferring(t *testing.T, rdb *redis.Client, queue string, opts ...sidestep.TaskOption) *deferring {
	t.Helper()
	d := &deferring{acq: newAcquirer(t, rdb, sidestep.Config{}), ran: newRuns()}
	d.queue = sidestep.NewQueue(d.acq, rdb, queue, sidestep.QueueConfig{})
	d.task = sidestep.NewTask(d.queue, "t", one("k"), d.ran.handler(), opts...)
	return d
}

// wantAt checks when the only run was, with some room for the steps on the way.
func wantAt(t *testing.T, ran *runs, from, to time.Duration) {
	t.Helper()
	all := ran.within(t, 1, 2*time.Hour)
	if at := all[0].at; len(all) != 1 || at < from || at > to {
		t.Errorf("ran %d times, first after %v, want once from %v to %v", len(all), at, from, to)
	}
}

func TestDeferTakesThreeCommands(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		hold(t, rdb, "k")
		mine := another(t, rdb)
		d := newDeferring(t, mine, "q")
		count := redistest.Count(mine)
		for range 3 {
			count.Reset()
			deferred(t, d.task, 1, sidestep.Defer(10*time.Minute))
			if count.Commands() != 3 || count.RoundTrips() != 3 {
				t.Errorf("a deferral sent %v, want 3 commands: try, park, look", count.Names())
			}
		}
		count.Reset()
		deferred(t, d.task, 1, sidestep.Defer(10*time.Minute).NotBefore())
		if count.Commands() != 2 {
			t.Errorf("a strict deferral sent %v, want 2 commands: try, schedule", count.Names())
		}
	})
}

func TestReceipt(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		hold(t, rdb, "k")
		d := newDeferring(t, rdb, "q")
		out, err := d.task.Do(t.Context(), 1, sidestep.RetryFor(time.Second).Then(sidestep.Defer(time.Minute)), sidestep.WithID("id-1"))
		if err != nil || out.Deferred == nil {
			t.Fatalf("Do = %+v, %v, want a receipt", out, err)
		}
		want := sidestep.Receipt{ID: "id-1", Queue: "q", Task: "t", Key: "k", Due: out.Deferred.Due}
		if *out.Deferred != want || out.Fence != 0 || out.Waited < time.Second || out.Waited > time.Second+50*time.Millisecond {
			t.Errorf("Do = %+v with receipt %+v, want %+v after a second", out, *out.Deferred, want)
		}
		if in := time.Until(want.Due); in < time.Minute-50*time.Millisecond || in > time.Minute {
			t.Errorf("due in %v, want a minute", in)
		}
		r := deferred(t, d.task, 2, sidestep.Defer(time.Minute).NotBefore())
		if in := time.Until(r.Due); r.ID == "" || in < time.Minute-50*time.Millisecond || in > time.Minute {
			t.Errorf("receipt %+v, due in %v, want an id and a minute", r, in)
		}
	})
}

func TestDeferredRunsOnceWhenTheLockIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		s := enter(t, d.acq, "k")
		r := deferred(t, d.task, 7, sidestep.Defer(10*time.Minute))
		start(t, d.queue)
		time.Sleep(5 * time.Minute) // many TTLs: the holder is alive
		if n := len(d.ran.list()); n != 0 {
			t.Fatalf("%d ran while the lock was held", n)
		}
		s.leave(t)
		wantAt(t, d.ran, 5*time.Minute, 5*time.Minute+10*time.Millisecond)
		if got := d.ran.list()[0]; got.v != 7 || got.fence == 0 || got.request.ID != r.ID || got.request.Key != "k" ||
			got.request.Queue != "q" || got.request.Task != "t" || got.request.Deliveries != 1 || got.request.Attempts != 0 || got.request.Deferrals != 1 {
			t.Errorf("ran %+v, want 7, id %s, delivered and deferred once", got, r.ID)
		}
		time.Sleep(20 * time.Minute) // past its delay
		if n := len(d.ran.list()); n != 1 {
			t.Errorf("ran %d times, want once", n)
		}
		wantEmpty(t, rdb, "q")
	})
}

// Who holds the lock by the Acquirer's Locker need not know of queues.
func TestDeferredRunsWhenTheLockerReleases(t *testing.T) {
	for name, hold := range map[string]func(context.Context, *lock.Locker, func()) error{
		"Do": func(ctx context.Context, l *lock.Locker, fn func()) error {
			return l.Do(ctx, "k", nil, func(context.Context, *lock.Lock) error { fn(); return nil })
		},
		"TryDo": func(ctx context.Context, l *lock.Locker, fn func()) error {
			return l.TryDo(ctx, "k", func(context.Context, *lock.Lock) error { fn(); return nil })
		},
		"Release": func(ctx context.Context, l *lock.Locker, fn func()) error {
			lk, err := l.TryAcquire(ctx, "k")
			if err != nil {
				return err
			}
			fn()
			return lk.Release(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				d := newDeferring(t, rdb, "q")
				start(t, d.queue)
				err := hold(t.Context(), d.acq.Locker(), func() {
					deferred(t, d.task, 1, sidestep.Defer(10*time.Minute))
					time.Sleep(time.Second)
				})
				if err != nil {
					t.Fatal(err)
				}
				wantAt(t, d.ran, time.Second, time.Second+10*time.Millisecond)
			})
		})
	}
}

// A consumer elsewhere, with an Acquirer of its own, runs what was deferred here.
func TestDeferredRunsInAnotherProcess(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		here, there := newDeferring(t, another(t, rdb), "q"), newDeferring(t, another(t, rdb), "q")
		start(t, there.queue)
		s := enter(t, here.acq, "k")
		deferred(t, here.task, 1, sidestep.Defer(10*time.Minute))
		s.leave(t)
		there.ran.wait(t, 1)
		if n := len(here.ran.list()); n != 0 {
			t.Errorf("%d ran here", n)
		}
	})
}

func TestDeferredRunsWhenTheHolderDiesSilently(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		hold(t, rdb, "k", lock.WithTTL(10*time.Second))
		deferred(t, d.task, 1, sidestep.Defer(3*time.Second))
		start(t, d.queue)
		wantAt(t, d.ran, 10*time.Second, 10*time.Second+100*time.Millisecond)
	})
}

func TestDeferredRunsWhenAForeignClientFreesTheLock(t *testing.T) {
	for _, tt := range []struct {
		name            string
		ttl, freed      time.Duration
		delay, from, to time.Duration
	}{
		{"before the delay", 0, time.Second, 2 * time.Second, 2 * time.Second, 2100 * time.Millisecond},
		{"before the delay, with a TTL", time.Hour, time.Second, 2 * time.Second, 2 * time.Second, 2100 * time.Millisecond},
		{"after the delay", 0, 2500 * time.Millisecond, 2 * time.Second, 2500 * time.Millisecond, 3600 * time.Millisecond},
		{"by its TTL", 5 * time.Second, 0, 2 * time.Second, 5 * time.Second, 5100 * time.Millisecond},
		{"after the delay, with a long TTL", time.Hour, 2500 * time.Millisecond, 2 * time.Second, 2500 * time.Millisecond, 63 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				d := newDeferring(t, rdb, "q")
				if err := rdb.Set(t.Context(), "k", "a client in another language", tt.ttl).Err(); err != nil {
					t.Fatal(err)
				}
				deferred(t, d.task, 1, sidestep.Defer(tt.delay))
				start(t, d.queue)
				if tt.freed > 0 {
					time.Sleep(tt.freed)
					if err := rdb.Del(t.Context(), "k").Err(); err != nil {
						t.Fatal(err)
					}
				}
				wantAt(t, d.ran, tt.from, tt.to)
			})
		})
	}
}

func TestNotBeforeWaitsItOut(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		s := enter(t, d.acq, "k")
		deferred(t, d.task, 1, sidestep.Defer(time.Minute).NotBefore())
		s.leave(t)
		start(t, d.queue)
		wantAt(t, d.ran, time.Minute, time.Minute+300*time.Millisecond)
	})
}

func TestThenDefersOnceTheRetriesGaveUp(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		s := enter(t, d.acq, "k")
		began := time.Now()
		policy := sidestep.RetryFor(200 * time.Millisecond).Then(sidestep.Defer(10 * time.Minute))
		deferred(t, d.task, 1, policy)
		if took := time.Since(began); took < 200*time.Millisecond || took > 250*time.Millisecond {
			t.Errorf("deferred after %v, want 200ms", took)
		}
		// Released in time, the call runs here.
		time.AfterFunc(100*time.Millisecond, s.end)
		out, err := d.task.Do(t.Context(), 2, policy)
		if err != nil || out.Deferred != nil || out.Waited < 100*time.Millisecond || out.Waited > 150*time.Millisecond {
			t.Errorf("Do = %+v, %v, want a run after 100ms", out, err)
		}
		<-s.done
		start(t, d.queue)
		if got := d.ran.wait(t, 2); got[0].v != 2 || got[1].v != 1 {
			t.Errorf("ran %v, want 2, 1", d.ran.values())
		}
	})
}

func TestEndedContextDoesNotDefer(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		hold(t, rdb, "k", lock.WithTTL(time.Hour))
		gone := errors.New("the user went away")
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		out, err := d.task.Do(ended, 1, sidestep.Defer(time.Second))
		if !errors.Is(err, gone) || out.Deferred != nil {
			t.Errorf("Do with an ended context = %+v, %v, want its cause", out, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		out, err = d.task.Do(ctx, 1, sidestep.RetryFor(time.Minute).Then(sidestep.Defer(time.Second)))
		if !errors.Is(err, gone) || !errors.Is(err, sidestep.ErrLocked) || out.Deferred != nil {
			t.Errorf("Do with a context that ended = %+v, %v, want its cause and ErrLocked", out, err)
		}
		wantEmpty(t, rdb, "q")
	})
}

// The context ends between the refusal and the deferral.
func TestContextThatEndsAfterTheRefusal(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	hold(t, rdb, "k")
	gone := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
		Conflict: func(context.Context, sidestep.ConflictEvent) { cancel(gone) },
	}})
	task := sidestep.NewTask(sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{}), "t", one("k"), newRuns().handler())
	out, err := task.Do(ctx, 1, sidestep.Defer(time.Second))
	if !errors.Is(err, gone) || !errors.Is(err, sidestep.ErrLocked) || out.Deferred != nil {
		t.Errorf("Do = %+v, %v, want the context's cause and ErrLocked", out, err)
	}
	wantEmpty(t, rdb, "q")
}

func TestWithIDIsAcceptedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		s := enter(t, d.acq, "k")
		again := func(when string) {
			t.Helper()
			for _, p := range []sidestep.Policy{sidestep.Defer(10 * time.Minute), sidestep.Defer(time.Hour).NotBefore()} {
				if r := deferred(t, d.task, 1, p, sidestep.WithID("once")); !r.Duplicate || r.ID != "once" {
					t.Errorf("%s: %v gave %+v, want a duplicate", when, p, r)
				}
			}
			if r := enqueue(t, d.task, 1, sidestep.WithID("once")); !r.Duplicate {
				t.Errorf("%s: Enqueue = %+v, want a duplicate", when, r)
			}
			if r, err := d.task.EnqueueIn(t.Context(), 10*time.Minute, 1, sidestep.WithID("once")); err != nil || !r.Duplicate {
				t.Errorf("%s: EnqueueIn = %+v, %v, want a duplicate", when, r, err)
			}
		}
		if r := deferred(t, d.task, 1, sidestep.Defer(10*time.Minute), sidestep.WithID("once")); r.Duplicate {
			t.Errorf("first receipt %+v, want no duplicate", r)
		}
		again("while it waits")
		s.leave(t)
		start(t, d.queue)
		d.ran.wait(t, 1)
		synctest.Wait()
		s = enter(t, d.acq, "k")
		again("after it ran")
		s.leave(t)
		time.Sleep(20 * time.Minute)
		if n := len(d.ran.list()); n != 1 {
			t.Errorf("ran %d times, want once", n)
		}
	})
}

// The lock is released between the refused try and the parking: that release
// names no queue.
func TestLostWakeUp(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, another(t, rdb), "q")
		held := hold(t, rdb, "k", lock.WithTTL(10*time.Minute))
		storage := another(t, rdb)
		var once sync.Once
		storage.AddHook(onCommand{before: func(redis.Cmder) error {
			once.Do(func() { release(t, held) })
			return nil
		}})
		q := sidestep.NewQueue(d.acq, storage, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), d.ran.handler())
		deferred(t, task, 1, sidestep.Defer(10*time.Minute))
		start(t, d.queue)
		d.ran.within(t, 1, 10*time.Second)
	})
}

// The same, and another takes the lock before the look: a look that does not
// register would see it taken, and that other's release would tell nobody.
func TestLostWakeUpWithABargingHolder(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		locks := another(t, rdb)
		d := newDeferring(t, locks, "q")
		held := hold(t, rdb, "k", lock.WithTTL(10*time.Minute))
		other := newAcquirer(t, another(t, rdb), sidestep.Config{})
		var barging *section
		storage := another(t, rdb)
		parked := false
		storage.AddHook(onCommand{after: func(redis.Cmder) {
			if parked {
				return
			}
			parked = true
			release(t, held)
			barging = enter(t, other, "k")
		}})
		q := sidestep.NewQueue(d.acq, storage, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), d.ran.handler())
		deferred(t, task, 1, sidestep.Defer(10*time.Minute))
		start(t, d.queue)
		barging.leave(t)
		d.ran.within(t, 1, 10*time.Second)
	})
}

// A worker, too, parks a request that met a held lock and then looks.
func TestLostWakeUpOfAWorker(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		held := hold(t, rdb, "k", lock.WithTTL(10*time.Minute))
		var once sync.Once
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
			Conflict: func(context.Context, sidestep.ConflictEvent) { once.Do(func() { release(t, held) }) },
		}})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler(), sidestep.WhenLocked(sidestep.Defer(10*time.Minute)))
		enqueue(t, task, 1)
		start(t, q)
		if r := ran.within(t, 1, 10*time.Second)[0].request; r.Deferrals != 1 || r.Deliveries != 2 {
			t.Errorf("request %+v, want 1 deferral and 2 deliveries", r)
		}
	})
}

// The holder's process knows nothing of the queue but the name that the lock
// gives it at its release.
func TestReleaseTellsQueuesItDoesNotKnow(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, another(t, rdb), "q")
		s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		deferred(t, d.task, 1, sidestep.Defer(10*time.Minute))
		start(t, d.queue)
		s.leave(t)
		d.ran.within(t, 1, 10*time.Second)
	})
}

// The queue is on another Redis than the lock: Config.Queues says where.
func TestReleaseTellsQueuesOnAnotherRedis(t *testing.T) {
	bubble(t, func(t *testing.T, locks *redis.Client) {
		queues := redistest.Mini(t)
		acq := newAcquirer(t, locks, sidestep.Config{})
		q := sidestep.NewQueue(acq, queues, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		s := enter(t, newAcquirer(t, another(t, locks), sidestep.Config{Queues: queues}), "k")
		deferred(t, task, 1, sidestep.Defer(10*time.Minute))
		start(t, q)
		s.leave(t)
		ran.within(t, 1, 10*time.Second)
		if n, err := locks.Exists(t.Context(), "sidestep:{q}:state", "sidestep:{q}:wake").Result(); n != 0 || err != nil {
			t.Errorf("the queue left %d keys, %v, on the Redis of the locks", n, err)
		}
	})
}

// Two Acquirers share a Locker, and only one knows the queue, which is on another Redis
// than the locks.
func TestReleaseByAnotherAcquirerOfTheLocker(t *testing.T) {
	bubble(t, func(t *testing.T, locks *redis.Client) {
		l := newLocker(t, locks, lock.Config{})
		worker, web := sidestep.New(l, sidestep.Config{}), sidestep.New(l, sidestep.Config{})
		q := sidestep.NewQueue(worker, redistest.Mini(t), "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		s := enter(t, web, "k")
		deferred(t, task, 1, sidestep.Defer(10*time.Minute))
		start(t, q)
		s.leave(t)
		ran.within(t, 1, 10*time.Second)
	})
}

func TestTwoQueuesOnOneLockAreBothTold(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		a, b := newDeferring(t, another(t, rdb), "a"), newDeferring(t, another(t, rdb), "b")
		s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		for i := range 5 {
			deferred(t, a.task, i, sidestep.Defer(10*time.Minute))
			deferred(t, b.task, i, sidestep.Defer(10*time.Minute))
		}
		start(t, a.queue)
		start(t, b.queue)
		s.leave(t)
		a.ran.within(t, 5, 20*time.Second)
		b.ran.within(t, 5, 20*time.Second)
		for _, d := range []*deferring{a, b} {
			if got := d.ran.values(); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
				t.Errorf("ran %v, want 0 to 4 in order", got)
			}
		}
	})
}

// Both queues are known to the same Acquirer, whose worker skips its own queue
// when it tells of a release, and must not skip the other.
func TestTwoQueuesOfOneAcquirer(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		ran := newRuns()
		s := enter(t, acq, "k")
		for i, name := range []string{"a", "b"} {
			q := sidestep.NewQueue(acq, rdb, name, sidestep.QueueConfig{})
			task := sidestep.NewTask(q, "t", one("k"), ran.handler())
			for v := range 3 {
				deferred(t, task, 10*i+v, sidestep.Defer(10*time.Minute))
			}
			start(t, q)
		}
		s.leave(t)
		ran.within(t, 6, 20*time.Second)
	})
}

// Votes of a quorum that are split, such as by a process that died while it acquired,
// refuse who tries and are looked at again, but cost no further tries: those are
// counted. When they are gone, of which nobody tells, the request runs.
func TestSplitVotesAreWaitedFor(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("taken back ", gone), func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				a, b := redistest.Mini(t), redistest.Mini(t)
				c, cut := severed(t, redistest.Mini(t))
				cut.Store(true)
				l := lock.NewQuorum([]redis.UniversalClient{a, b, c}, lock.Config{})
				t.Cleanup(func() { l.Close() })
				acq := sidestep.New(l, sidestep.Config{})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one("k"), ran.handler(), sidestep.MaxDeferrals(5))
				ends := 10 * time.Second
				hold(t, a, "k", lock.WithTTL(ends))
				deferred(t, task, 1, sidestep.Defer(time.Hour))
				start(t, q)
				if gone {
					ends = time.Second
					time.Sleep(ends)
					a.Del(t.Context(), "k")
				}
				r := ran.within(t, 1, time.Minute)[0]
				if late := r.at - ends; late < 0 || late > 200*time.Millisecond {
					t.Errorf("the request ran %v after the votes were gone", late)
				}
				if r.request.Deferrals > 2 {
					t.Errorf("%d deferrals, want no more than those of the call and its first look", r.request.Deferrals)
				}
			})
		})
	}
}

// Two queues of one name, on two servers: the worker of one skips its own queue, and must
// not skip the other, which the lock calls by the same name.
func TestTwoQueuesOfOneName(t *testing.T) {
	bubble(t, func(t *testing.T, locks *redis.Client) {
		acq := newAcquirer(t, locks, sidestep.Config{})
		began, end := make(chan struct{}), make(chan struct{})
		ran := newRuns()
		a := sidestep.NewQueue(acq, redistest.Mini(t), "q", sidestep.QueueConfig{})
		b := sidestep.NewQueue(acq, redistest.Mini(t), "q", sidestep.QueueConfig{})
		holding := sidestep.NewTask(a, "t", one("k"), func(context.Context, *lock.Lock, int) error {
			close(began)
			<-end
			return nil
		})
		waiting := sidestep.NewTask(b, "t", one("k"), ran.handler())
		start(t, a)
		start(t, b)
		enqueue(t, holding, 1)
		<-began
		deferred(t, waiting, 2, sidestep.Defer(time.Hour))
		close(end)
		ran.within(t, 1, time.Second)
	})
}

// Nor is the lock passed on from one section to the next of a line in one of them: that
// looks only whether another name waits.
func TestLineOfTwoQueuesOfOneName(t *testing.T) {
	for _, queues := range []int{1, 2} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			bubble(t, func(t *testing.T, locks *redis.Client) {
				other := newLocker(t, locks, lock.Config{})
				held := 0
				acq := newAcquirer(t, locks, sidestep.Config{Hooks: sidestep.Hooks{Ran: func(context.Context, sidestep.RanEvent) {
					if st, err := other.Inspect(context.Background(), "k"); err != nil {
						t.Error(err)
					} else if st.Held {
						held++
					}
				}}})
				queue := sidestep.NewQueue(acq, redistest.Mini(t), "q", sidestep.QueueConfig{})
				for range queues - 1 {
					sidestep.NewQueue(acq, redistest.Mini(t), "q", sidestep.QueueConfig{})
				}
				ran := newRuns()
				task := sidestep.NewTask(queue, "t", one("k"), ran.handler())
				const n = 10
				for i := range n {
					enqueue(t, task, i)
				}
				stop := start(t, queue)
				ran.wait(t, n)
				stop()
				if passes := held > 0; passes != (queues == 1) {
					t.Errorf("the lock was held after %d of %d sections", held, n)
				}
			})
		})
	}
}

func TestDeferredRequestsRunInOrder(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 16})
		const n = 200
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		s := enter(t, newAcquirer(t, another(t, rdb), sidestep.Config{}), "k")
		for i := range n {
			p := sidestep.Policy(sidestep.Defer(time.Duration(n-i) * time.Minute)) // the delay is no order
			if i%2 == 1 {
				p = sidestep.RetryFor(0).Then(sidestep.Defer(10 * time.Minute))
			}
			deferred(t, task, i, p)
		}
		s.leave(t)
		start(t, q)
		ran.wait(t, n)
		deliveries := 0
		for _, r := range ran.list() {
			deliveries += r.request.Deliveries
		}
		if got := ran.values(); !slices.IsSorted(got) || len(got) != n || deliveries != n {
			t.Errorf("%d ran with %d deliveries, in order: %v; want %d each, in order", len(got), deliveries, slices.IsSorted(got), n)
		}
	})
}

// A request in line for a lock runs as soon as an operator takes the lock away.
func TestRevokeLetsTheLineGoOn(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q")
		start(t, d.queue)
		s := enter(t, newAcquirer(t, rdb, sidestep.Config{}), "k")
		began := time.Now()
		deferred(t, d.task, 1, sidestep.Defer(time.Hour))
		if was, err := d.acq.Locker().Revoke(t.Context(), "k"); !was || err != nil {
			t.Fatalf("Revoke = %v, %v", was, err)
		}
		d.ran.wait(t, 1)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the request ran after %v", took)
		}
		s.end()
		<-s.done
	})
}
