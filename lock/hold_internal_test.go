package lock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// A process that was stopped past its lease goes on before its timers do: the
// context's Err must not say then that all is well.
func TestErrDoesNotWaitForTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{TTL: time.Second})
		defer l.Close()
		lk, err := l.TryAcquire(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		err = lk.Hold(t.Context(), func(ctx context.Context) error {
			time.Sleep(3 * time.Second) // the watchdog extends
			if ctx.Err() != nil {
				t.Errorf("Err = %v (%v) while the lock is held", ctx.Err(), context.Cause(ctx))
			}
			l.mu.Lock() // as if stopped: neither the timer nor the watchdog runs
			lk.ls.timer.Stop()
			l.dog.remove(lk.ls)
			end := lk.ls.deadline
			l.mu.Unlock()

			time.Sleep(time.Until(end) - time.Millisecond)
			if ctx.Err() != nil {
				t.Errorf("Err = %v a millisecond before the end", ctx.Err())
			}
			time.Sleep(time.Millisecond)
			if err := ctx.Err(); !errors.Is(err, context.Canceled) || !errors.Is(context.Cause(ctx), ErrNotHeld) {
				t.Errorf("Err = %v with cause %v at the end, want canceled, not held", err, context.Cause(ctx))
			}
			return nil
		})
		if !errors.Is(err, ErrNotHeld) {
			t.Errorf("Hold = %v, want ErrNotHeld", err)
		}
	})
}
