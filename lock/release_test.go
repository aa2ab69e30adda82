package lock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// Release does its work though its context has ended, on whichever goroutine that
// is: its own if the client says how long an answer may take, another if not.
func TestReleaseOutlivesItsContext(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		for _, c := range []struct {
			name string
			set  func(*redis.Options)
		}{
			{"first attempt", func(o *redis.Options) { o.MaxRetries = -1 }},
			{"as it comes", func(*redis.Options) {}},
			{"in the background", func(o *redis.Options) { o.ReadTimeout = time.Minute }},
		} {
			t.Run(c.name, func(t *testing.T) {
				opts := *rdb.Options()
				opts.ContextTimeoutEnabled = true
				c.set(&opts)
				own := redis.NewClient(&opts)
				defer own.Close()
				l := lock.New(own, lock.Config{})
				defer l.Close()
				ctx, cancel := context.WithCancel(t.Context())
				lk, err := l.TryAcquire(ctx, "x")
				if err != nil {
					t.Fatal(err)
				}
				cancel()
				if err := lk.Release(ctx); err != nil {
					t.Errorf("Release = %v", err)
				}
				wantHeld(t, l, "x", false)
			})
		}
	})
}

// A lock that is given back in the background leaves the registered queues to the
// next release, if nobody in this process can tell them.
func TestGivenBackKeepsRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		leaving, left := make(chan struct{}), make(chan struct{})
		slow := redis.NewClient(rdb.Options())
		defer slow.Close()
		var waiting atomic.Bool
		slow.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if cmd.Name() == "evalsha" && waiting.CompareAndSwap(true, false) {
				close(leaving)
				<-left
			}
			return next(ctx, cmd)
		}})
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, slow, lock.Config{})
		release(t, take(t, a, "x")) // the scripts are known

		lk := take(t, a, "x")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.AfterFunc(50*time.Millisecond, func() { waiting.Store(true) })
		if _, err := b.Acquire(ctx, "x", nil); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v, want a refusal", err)
		}
		<-leaving
		if _, held, err := a.Look(t.Context(), "x", "q"); !held || err != nil {
			t.Fatalf("Look = %v, %v", held, err)
		}
		release(t, lk) // to b, which gives it back
		close(left)
		synctest.Wait()
		if st := wantHeld(t, a, "x", false); len(st.Queues) != 1 {
			t.Errorf("registered after the lock was given back: %v, want q", st.Queues)
		}
		lk = take(t, a, "x")
		release(t, lk)
		if got := lk.Reported(); len(got) != 1 || got[0] != "q" {
			t.Errorf("Reported = %v, want q", got)
		}
	})
}
