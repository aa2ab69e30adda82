package sidestep_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
)

// A client that heeds deadlines heeds no cancellation; calls do.
func TestCallsEndWhenCancelledThoughTheClientHeedsDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), hanging(t, true), "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		for name, call := range map[string]func(context.Context) error{
			"Enqueue": func(ctx context.Context) error { _, err := task.Enqueue(ctx, 1); return err },
			"Cancel":  func(ctx context.Context) error { _, err := q.Cancel(ctx, "x"); return err },
			"Stats":   func(ctx context.Context) error { _, err := q.Stats(ctx); return err },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, cancel)
			began := time.Now()
			err := call(ctx)
			if took := time.Since(began); took > 300*time.Millisecond {
				t.Errorf("%s cancelled after 200ms took %v: %v", name, took, err)
			}
		}
	})
}

// What was sent when a deadline ended it may have been carried out, whoever says that it
// has ended.
func TestDeadlineThatTheClientHeedsIsAmbiguous(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), hanging(t, true), "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		for name, call := range map[string]func(context.Context) error{
			"Enqueue": func(ctx context.Context) error { _, err := task.Enqueue(ctx, 1); return err },
			"Cancel":  func(ctx context.Context) error { _, err := q.Cancel(ctx, "x"); return err },
		} {
			for range 30 { // either of the client and the call may be the first to see it
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				err := call(ctx)
				cancel()
				if !errors.Is(err, sidestep.ErrAmbiguous) {
					t.Errorf("%s = %v, want ErrAmbiguous", name, err)
				}
			}
		}
	})
}

// A panic in a hook of the client comes out of the call, as it does without a context
// that may end.
func TestPanicOfTheClientIsTheCallers(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		bad := another(t, rdb)
		bad.AddHook(onCommand{before: func(redis.Cmder) error { panic("hook") }})
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), bad, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer func() {
			if v := recover(); v != "hook" {
				t.Errorf("recovered %v, want what the hook panicked with", v)
			}
		}()
		_, err := task.Enqueue(ctx, 1)
		t.Errorf("Enqueue = %v", err)
	})
}

// One that ends its goroutine ends the caller's.
func TestGoexitOfTheClientIsTheCallers(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		bad := another(t, rdb)
		bad.AddHook(onCommand{before: func(redis.Cmder) error { runtime.Goexit(); panic(nil) }})
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), bad, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := task.Enqueue(ctx, 1)
			t.Errorf("Enqueue = %v", err)
		}()
		select {
		case <-done:
		case <-time.After(time.Hour):
			t.Error("Enqueue has not ended within an hour")
		}
		cancel()
	})
}

// A request that was parked when nobody waited for the answer any more runs as soon as
// the lock is free, as others do: also if it comes to Redis after the release.
func TestAbandonedParkRunsAtOnce(t *testing.T) {
	for name, takes := range map[string]time.Duration{"stored before the release": 5 * time.Second, "stored after it": 300 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				slow := another(t, rdb)
				var on atomic.Bool
				slow.AddHook(onCommand{before: func(redis.Cmder) error {
					if on.Load() {
						time.Sleep(500 * time.Millisecond)
					}
					return nil
				}})
				d := &deferring{acq: newAcquirer(t, rdb, sidestep.Config{}), ran: newRuns()}
				d.queue = sidestep.NewQueue(d.acq, slow, "q", sidestep.QueueConfig{})
				d.task = sidestep.NewTask(d.queue, "t", one("k"), d.ran.handler())
				start(t, d.queue)
				var freed time.Time
				err := d.acq.Do(t.Context(), "k", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
					on.Store(true)
					c, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
					defer cancel()
					if _, err := d.task.Do(c, 1, sidestep.Defer(time.Hour)); !errors.Is(err, sidestep.ErrAmbiguous) {
						t.Errorf("Do = %v, want ErrAmbiguous", err)
					}
					time.Sleep(takes - 200*time.Millisecond)
					on.Store(false)
					freed = time.Now()
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if n := len(d.ran.list()); n != 1 {
					st, _ := d.queue.Stats(t.Context())
					t.Errorf("ran %d times, %v after the release, want once, at once; %+v", n, time.Since(freed), st)
				}
			})
		})
	}
}

// A promoted request that has waited for too long is dead, and the call says so.
func TestPromoteOfOneThatWaitedTooLong(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		d := newDeferring(t, rdb, "q", sidestep.MaxWait(time.Minute))
		lk := hold(t, rdb, "k")
		r := deferred(t, d.task, 1, sidestep.Defer(time.Hour))
		release(t, lk)
		time.Sleep(2 * time.Minute)
		got, err := d.queue.Promote(t.Context(), r.ID)
		info, _ := d.queue.Get(t.Context(), r.ID)
		if !errors.Is(err, sidestep.ErrRunning) || info.Place != "dead" {
			t.Errorf("Promote = %+v, %v, and it is %s: %s", got, err, info.Place, info.Note)
		}
	})
}

// Promote of one behind the first ends with its context as well.
func TestPromoteBehindTheFirstEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		slow := another(t, rdb)
		var on atomic.Bool
		slow.AddHook(onCommand{before: func(cmd redis.Cmder) error {
			if on.Load() && slices.Contains(cmd.Args(), any("k")) {
				time.Sleep(time.Minute) // no answer
			}
			return nil
		}})
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), slow, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		hold(t, rdb, "k")
		deferred(t, task, 1, sidestep.Defer(time.Hour))
		second := deferred(t, task, 2, sidestep.Defer(time.Hour))
		on.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := q.Promote(ctx, second.ID)
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Errorf("Promote with a deadline of 200ms took %v: %v", took, err)
		}
		time.Sleep(time.Minute) // what is left behind ends
	})
}
