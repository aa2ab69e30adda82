package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

func ExampleLocker_TryAcquire() {
	srv := sidesteptest.New() // a Redis in memory, for the example
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{Owner: "worker-1"})
	defer l.Close()

	lk, err := l.TryAcquire(ctx, "invoice:7")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = l.TryAcquire(ctx, "invoice:7")
	if held, ok := errors.AsType[*lock.LockedError](err); ok {
		fmt.Println("refused:", held.Owner, "has it; ask again within the TTL:", held.RetryAfter <= 30*time.Second)
	}
	if err := lk.Release(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: refused: worker-1 has it; ask again within the TTL: true
}

func ExampleLocker_Do() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{})
	defer l.Close()

	first, err := l.Acquire(ctx, "account:1", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() {
		done <- l.Do(ctx, "account:1", nil, func(ctx context.Context, lk *lock.Lock) error {
			fmt.Println("second in, with a larger fence:", lk.Fence() > first.Fence())
			return nil
		})
	}()
	fmt.Println("first out")
	if err := first.Release(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("error:", <-done)
	// Output:
	// first out
	// second in, with a larger fence: true
	// error: <nil>
}

func ExampleLock_Hold() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{TTL: time.Second})
	defer l.Close()

	lk, err := l.TryAcquire(ctx, "report")
	if err != nil {
		fmt.Println(err)
		return
	}
	err = lk.Hold(ctx, func(ctx context.Context) error {
		select {
		case <-ctx.Done(): // the lock is lost, or the caller wants to stop
			return context.Cause(ctx)
		case <-time.After(1500 * time.Millisecond): // longer than the TTL
			return nil
		}
	})
	fmt.Println("error:", err)

	st, err := l.Inspect(ctx, "report")
	fmt.Println("held afterwards:", st.Held, err)
	// Output:
	// error: <nil>
	// held afterwards: false <nil>
}

func ExampleLock_Hold_lost() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{TTL: 300 * time.Millisecond})
	defer l.Close()

	err := l.TryDo(ctx, "report", func(ctx context.Context, lk *lock.Lock) error {
		if _, err := l.Revoke(ctx, "report"); err != nil { // an operator takes the lock away
			return err
		}
		<-ctx.Done()
		fmt.Println("told in time:", time.Now().Before(lk.Expires().Add(time.Second)))
		return errors.New("gave up half-way")
	})
	fmt.Println("lost:", errors.Is(err, lock.ErrNotHeld))
	// Output:
	// told in time: true
	// lost: true
}

// A store that remembers the largest fence refuses a holder that lost its lock
// without knowing.
func ExampleLock_Fence() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{})
	defer l.Close()

	var largest int64
	write := func(who string, fence int64) {
		if fence < largest {
			fmt.Println(who, "refused")
			return
		}
		largest = fence
		fmt.Println(who, "wrote")
	}

	paused, err := l.TryAcquire(ctx, "file")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Advance(time.Minute) // its process sleeps for longer than the lease lasts
	current, err := l.TryAcquire(ctx, "file")
	if err != nil {
		fmt.Println(err)
		return
	}
	write("the current holder", current.Fence())
	write("the paused holder", paused.Fence())
	// Output:
	// the current holder wrote
	// the paused holder refused
}
