package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

func TestExtendNeverShortensALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		ctx := t.Context()
		a, b := newLocker(t, rdb, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{Owner: "b"})
		first, err := a.Acquire(ctx, "x", nil, lock.WithTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan *lock.Lock)
		go func() {
			lk, err := a.Acquire(ctx, "x", nil, lock.WithTTL(time.Second))
			if err != nil {
				t.Error(err)
			}
			got <- lk
		}()
		synctest.Wait()
		release(t, first)
		lk := <-got
		if err := lk.Extend(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if left := time.Until(lk.Expires()); left > 0 {
			if other, err := b.TryAcquire(ctx, "x"); err == nil {
				t.Errorf("%v is good for %v, and so is %v for %v", other, time.Until(other.Expires()), lk, left)
				release(t, other)
			}
		}
		lk.Release(ctx)
	})
}

// The same by the watchdog: once it has extended the lease, Redis is away for some
// seconds, and another takes the lock, while the context goes on for an hour.
func TestWatchdogNeverShortensALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		ctx := t.Context()
		bad, f := faulty(t, rdb, nil)
		a, b := newLocker(t, bad, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{Owner: "b"})
		first, err := a.Acquire(ctx, "x", nil, lock.WithTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			done <- a.Do(ctx, "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				time.Sleep(21 * time.Minute) // a third of what was granted, and the watchdog has extended
				f.dead.Store(true)
				time.Sleep(3 * time.Second)
				if other, err := b.TryAcquire(ctx, "x"); err == nil && ctx.Err() == nil {
					t.Errorf("%v is good for %v, and the context of %v has not ended, %v before %v", other, time.Until(other.Expires()), lk, time.Until(lk.Expires()), "its end")
					release(t, other)
				}
				f.dead.Store(false)
				return nil
			}, lock.WithTTL(time.Second))
		}()
		synctest.Wait()
		release(t, first)
		if err := <-done; err != nil && !errors.Is(err, lock.ErrNotHeld) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func TestReleaseThatMeetsOthersIsBounded(t *testing.T) {
	for _, timeout := range []time.Duration{3 * time.Second, 5 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb, f := faulty(t, redistest.Mini(t), func(o *redis.Options) { o.ReadTimeout = timeout; o.MaxRetries = 3 })
				l := newLocker(t, rdb, lock.Config{TTL: time.Minute})
				var locks []*lock.Lock
				for i := range 6 {
					locks = append(locks, take(t, l, fmt.Sprint(i)))
				}
				f.dead.Store(true)
				var wg sync.WaitGroup
				for range 4 { // those before, which hang
					wg.Go(func() { l.Inspect(t.Context(), "y") })
				}
				synctest.Wait()
				for i, lk := range locks {
					wg.Go(func() {
						began := time.Now()
						err := lk.Release(t.Context())
						if d := time.Since(began); d > 6*time.Second {
							t.Errorf("release %d took %v: %v", i, d, err)
						}
					})
				}
				for range 4 {
					wg.Go(func() { l.Look(t.Context(), "y", "q") })
				}
				wg.Wait()
				f.dead.Store(false)
				time.Sleep(2 * time.Minute)
			})
		})
	}
}
