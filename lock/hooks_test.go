package lock_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A lock that came to a waiter who had left is given back, and no hook tells of either.
func TestHooksTellOfLocksThatSomebodyGot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		rdb := srv.Client()
		t.Cleanup(func() { rdb.Close(); srv.Close() })
		var acquired, released atomic.Int64
		l := newLocker(t, rdb, lock.Config{Hooks: lock.Hooks{
			Acquired: func(context.Context, lock.AcquiredEvent) { acquired.Add(1) },
			Released: func(context.Context, lock.ReleasedEvent) { released.Add(1) },
		}})
		for range 50 {
			lk, err := l.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, leave := context.WithCancel(t.Context())
			go func() {
				if lk, err := l.Acquire(ctx, "x", nil); err == nil {
					release(t, lk)
				}
			}()
			synctest.Wait()
			leave()
			release(t, lk)
			synctest.Wait()
		}
		if a, r := acquired.Load(), released.Load(); a != r {
			t.Errorf("Acquired was called %d times, and Released %d", a, r)
		}
	})
}
