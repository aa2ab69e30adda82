package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A lock can be lost: here an operator takes it away, elsewhere the process was
// paused or Redis was out of reach. The section's context ends before anyone else
// can hold the lock, and the error says so.
func Example_lostLock() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{TTL: 100 * time.Millisecond})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})

	err := acq.Do(context.Background(), "leader", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		if _, err := locker.Revoke(ctx, "leader"); err != nil {
			return err
		}
		<-ctx.Done() // code that takes long looks at its context
		return context.Cause(ctx)
	})
	fmt.Println("lost:", errors.Is(err, sidestep.ErrNotHeld))
	// Output:
	// lost: true
}

// account is a store that compares fencing tokens: it refuses whoever comes with
// a smaller one than it has seen.
type account struct {
	mu      sync.Mutex
	fence   int64
	balance int
}

var errStaleFence = errors.New("a later holder was here before")

func (a *account) set(fence int64, balance int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if fence < a.fence {
		return errStaleFence
	}
	a.fence, a.balance = fence, balance
	return nil
}

// A lease cannot stop a process that was paused in the middle of a section and
// goes on when the lock has passed to another. A store that compares fencing
// tokens can.
func Example_fence() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	ctx := context.Background()
	var store account

	paused, err := locker.TryAcquire(ctx, "account:ann", lock.WithTTL(20*time.Millisecond))
	if err != nil {
		panic(err)
	}
	// This process now stands still for longer than its lease; another waits.
	next, err := locker.Acquire(ctx, "account:ann", nil)
	if err != nil {
		panic(err)
	}
	fmt.Println("the next holder writes:", store.set(next.Fence(), 100))
	fmt.Println("the paused one goes on:", store.set(paused.Fence(), 50))
	fmt.Println("balance:", store.balance)
	fmt.Println("releasing tells as well:", errors.Is(paused.Release(ctx), sidestep.ErrNotHeld))
	// Output:
	// the next holder writes: <nil>
	// the paused one goes on: a later holder was here before
	// balance: 100
	// releasing tells as well: true
}
