package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// backoffFunc is a Backoff.
type backoffFunc func() (time.Duration, bool)

func (f backoffFunc) Next(int, time.Duration) (time.Duration, bool) { return f() }

// Where a backoff panics nobody waits any more, so nobody is let in: neither what is
// in line keeps a place, nor what was handed on meanwhile the lock.
func TestBackoffThatPanics(t *testing.T) {
	for _, in := range []string{"another process", "this process"} {
		t.Run(in, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
				handsOn := in == "this process"
				if handsOn {
					b = a
				}
				lk, err := a.Acquire(t.Context(), "x", nil)
				if err != nil {
					t.Fatal(err)
				}
				func() {
					defer func() {
						if got := recover(); got != "boom" {
							t.Errorf("recovered %v", got)
						}
					}()
					b.Acquire(t.Context(), "x", backoffFunc(func() (time.Duration, bool) {
						if handsOn {
							release(t, lk)
						}
						panic("boom")
					}))
				}()
				synctest.Wait()
				if !handsOn {
					if st := wantHeld(t, a, "x", true); st.Waiters > 0 {
						t.Errorf("%d waiters", st.Waiters)
					}
					release(t, lk)
				}
				synctest.Wait()
				wantHeld(t, a, "x", false)
			})
		})
	}
}

// A waiter that gives up while the holder in its own process is on its way out
// gets a whole error all the same.
func TestGivingUpAsTheHolderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		leaving, left := make(chan struct{}), make(chan struct{})
		l := newLocker(t, rdb, lock.Config{Owner: "me", TurnSections: 1})
		lk, err := l.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		released := make(chan error, 1)
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			select {
			case <-leaving:
			default:
				close(leaving)
				<-left
			}
			return next(ctx, cmd)
		}})
		_, err = l.Acquire(t.Context(), "x", backoffFunc(func() (time.Duration, bool) {
			go func() { released <- lk.Release(t.Context()) }()
			<-leaving
			return 0, false
		}))
		var held *lock.LockedError
		if !errors.As(err, &held) || held == nil || held.Owner != "me" || held.Key != "x" {
			t.Errorf("Acquire = %#v, want that me holds x", err)
		}
		close(left)
		if err := <-released; err != nil {
			t.Errorf("Release = %v, want nil", err)
		}
	})
}
