package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// A lock that lapsed stays closed for LapseDelay, to clients of other libraries
// too; its holder is told at the end of the lease all the same.
func TestLapseDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		ctx := t.Context()
		cfg := lock.Config{TTL: 2 * time.Second, LapseDelay: 10 * time.Second}
		a, b := newLocker(t, rdb, cfg), newLocker(t, rdb, cfg)
		lk := take(t, a, "x")
		began := time.Now()
		if d := time.Until(lk.Expires()); d > 2*time.Second {
			t.Errorf("the lease lasts %v", d)
		}
		time.Sleep(2 * time.Second)
		if err := lk.Extend(ctx); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend after the lease = %v", err)
		}
		synctest.Wait()
		theirs := redsync.New(goredis.NewPool(rdb)).NewMutex("x", redsync.WithTries(1))
		if theirs.TryLock() == nil {
			t.Error("redsync took a closed lock")
		}
		if _, err := b.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire of a closed lock = %v", err)
		}
		if _, err := a.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire by the process that lapsed = %v", err)
		}
		lk2, err := b.Acquire(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d < 12*time.Second || d > 13*time.Second {
			t.Errorf("closed for %v, want TTL and LapseDelay", d)
		}
		if lk2.Fence() <= lk.Fence() {
			t.Errorf("fence %d after %d", lk2.Fence(), lk.Fence())
		}
		if err := lk.Release(ctx); !errors.Is(err, lock.ErrNotHeld) { // changes nothing
			t.Errorf("Release = %v", err)
		}
		wantHeld(t, a, "x", true)

		// A release ends it at once, and so does a hand-over in line.
		release(t, lk2)
		lk = take(t, a, "x")
		entered := make(chan *lock.Lock)
		go func() {
			lk, err := b.Acquire(ctx, "x", nil)
			if err != nil {
				t.Error(err)
			}
			entered <- lk
		}()
		time.Sleep(time.Second)
		released := time.Now()
		release(t, lk)
		lk = <-entered
		if d := time.Since(released); d > 100*time.Millisecond {
			t.Errorf("handed over after %v", d)
		}
		if d := time.Until(lk.Expires()); d > 2*time.Second {
			t.Errorf("the lease handed over lasts %v", d)
		}
		release(t, lk)
		release(t, take(t, a, "x"))
	})
}

// A lapsed section in Hold opens the lock when its function has returned, not
// when its context ends.
func TestLapseDelayEndsWithTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		bad, f := faulty(t, rdb, nil)
		cfg := lock.Config{TTL: 2 * time.Second, LapseDelay: time.Minute}
		a, b := newLocker(t, bad, cfg), newLocker(t, rdb, cfg)
		var returned, entered time.Time
		done := make(chan struct{})
		err := a.TryDo(t.Context(), "x", func(ctx context.Context, _ *lock.Lock) error {
			f.dead.Store(true)
			<-ctx.Done()
			go func() {
				defer close(done)
				if err := b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { entered = time.Now(); return nil }); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(20 * time.Second) // does not heed it
			f.dead.Store(false)
			time.Sleep(5 * time.Second)
			returned = time.Now()
			return nil
		})
		if !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("TryDo = %v", err)
		}
		<-done
		if d := entered.Sub(returned); d < 0 || d > 5*time.Second {
			t.Errorf("entered %v after the function returned", d)
		}
		time.Sleep(time.Minute)
	})
}

// The watchdog keeps a lock with a delay as well as one without.
func TestLapseDelayUnderHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, locker := range []*lock.Locker{
			newLocker(t, redistest.Mini(t), lock.Config{TTL: time.Second, LapseDelay: time.Minute}),
			newQuorum(t, miniNodes(t, 3), lock.Config{TTL: time.Second, LapseDelay: time.Minute}),
		} {
			if err := locker.Do(t.Context(), "x", nil, func(ctx context.Context, _ *lock.Lock) error {
				time.Sleep(10 * time.Second)
				return ctx.Err()
			}); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			release(t, take(t, locker, "x"))
			synctest.Wait()
		}
	})
}
