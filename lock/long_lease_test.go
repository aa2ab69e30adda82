package lock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// passOn takes x for an hour, and passes it to whoever begins to wait for it in begin.
func passOn(t *testing.T, rdb *redis.Client, begin func(l *lock.Locker)) {
	t.Helper()
	l := newLocker(t, rdb, lock.Config{})
	lk, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	begin(l)
	synctest.Wait() // until it waits
	release(t, lk)
}

// A section that was passed a lease of an hour, and has a TTL of a second, keeps the
// hour when it extends.
func TestExtendShortensNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		passed := make(chan *lock.Lock, 1)
		passOn(t, rdb, func(l *lock.Locker) {
			go func() {
				lk, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(time.Second))
				if err != nil {
					t.Error(err)
				}
				passed <- lk
			}()
		})
		lk := <-passed
		if err := lk.Extend(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if left := time.Until(lk.Expires()); left < time.Minute {
			t.Errorf("the lease is over in %v", left)
		}
		wantHeld(t, newLocker(t, rdb, lock.Config{}), "x", true)
		release(t, lk)
	})
}

// So does one whose watchdog extends, though Redis is away afterwards for longer than
// its TTL.
func TestTheWatchdogShortensNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cut, f := faulty(t, rdb, nil)
		other := newLocker(t, rdb, lock.Config{})
		done := make(chan error, 1)
		passOn(t, cut, func(l *lock.Locker) {
			go func() {
				done <- l.Do(t.Context(), "x", nil, func(ctx context.Context, _ *lock.Lock) error {
					time.Sleep(21 * time.Minute) // the first tick is after a third of the hour
					f.dead.Store(true)
					time.Sleep(3 * time.Second)
					wantHeld(t, other, "x", true)
					f.dead.Store(false)
					return ctx.Err()
				}, lock.WithTTL(time.Second))
			}()
		})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
