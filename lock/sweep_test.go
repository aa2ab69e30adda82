package lock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// Locks that nobody releases end with their leases, and nothing of them stays. Those
// that are held stay known.
func TestNothingStaysOfALockThatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		lost := 0
		l := New(rdb, Config{TTL: time.Second, Hooks: Hooks{Lost: func(context.Context, LostEvent) { lost++ }}})
		defer l.Close()
		other := New(rdb, Config{})
		defer other.Close()
		ctx := t.Context()
		must := func(lk *Lock, err error) *Lock {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return lk
		}
		kept := must(l.TryAcquire(ctx, "kept", WithTTL(time.Hour)))
		blocker := must(other.TryAcquire(ctx, "waited for"))
		time.AfterFunc(time.Second, func() { blocker.Release(ctx) })
		locks := []*Lock{must(l.Acquire(ctx, "waited for", nil))} // which has a mailbox
		for i := range 10 {
			locks = append(locks, must(l.TryAcquire(ctx, fmt.Sprint("try", i))), must(l.Acquire(ctx, fmt.Sprint("acquire", i), nil)))
		}
		if _, err := must(l.TryAcquire(ctx, "disowned")).Disown(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		l.mu.Lock()
		if len(l.live) != 1 || len(l.slots)+len(l.mails) > 0 {
			t.Errorf("%d tokens, %d slots, %d mailboxes, want the one token of a lock that is held", len(l.live), len(l.slots), len(l.mails))
		}
		l.mu.Unlock()
		if lost != len(locks) {
			t.Errorf("%d locks lost, want %d", lost, len(locks))
		}
		for _, lk := range locks {
			if err := lk.Release(ctx); !errors.Is(err, ErrNotHeld) {
				t.Errorf("Release of %v = %v, want ErrNotHeld", lk, err)
			}
		}
		if err := kept.Release(ctx); err != nil {
			t.Errorf("Release = %v", err)
		}
		time.Sleep(leaseSweep)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.sweeping {
			t.Error("there is a sweep though there are no leases")
		}
	})
}
