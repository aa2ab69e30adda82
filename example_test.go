package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Order is the payload of the examples' task.
type Order struct {
	Number  int
	Account string
}

// The smallest program: run a section under a lock, or fail at once.
func Example() {
	srv := sidesteptest.New() // a Redis in memory; use redis.NewClient for a real one
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{Owner: "worker-1"})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	ctx := context.Background()

	err := acq.Do(ctx, "invoice:7", sidestep.Fail(), func(ctx context.Context, lk *lock.Lock) error {
		fmt.Println("this runs alone in all processes")

		// Meanwhile, somebody else:
		err := acq.Do(ctx, "invoice:7", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			fmt.Println("this does not run")
			return nil
		})
		var held *sidestep.LockedError
		if errors.As(err, &held) {
			fmt.Printf("held by %s for at most %v\n", held.Owner, held.RetryAfter.Round(time.Minute/2))
		}
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// this runs alone in all processes
	// held by worker-1 for at most 30s
	// error: <nil>
}

// Retry waits in line. The lock is handed over as soon as it is released.
func ExampleRetryFor() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	ctx := context.Background()

	entered := make(chan struct{})
	first := make(chan error)
	go func() {
		first <- acq.Do(ctx, "report", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			close(entered)
			fmt.Println("first")
			return nil
		})
	}()
	<-entered
	err := acq.Do(ctx, "report", sidestep.RetryFor(10*time.Second), func(context.Context, *lock.Lock) error {
		fmt.Println("second")
		return nil
	})
	fmt.Println(<-first, err)
	// Output:
	// first
	// second
	// <nil> <nil>
}

// Defer stores the request: the caller goes on, and the request runs as soon as
// the lock is released, in any process that runs the queue.
func ExampleDefer() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{Workers: 4})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	charge := sidestep.NewTask(queue, "charge",
		func(o Order) string { return "account:" + o.Account },
		func(_ context.Context, _ *lock.Lock, o Order) error {
			fmt.Printf("order %d is charged to %s\n", o.Number, o.Account)
			if o.Number == 3 {
				stop()
			}
			return nil
		})

	// While somebody works on ann's account, three orders come in.
	err := acq.Do(ctx, "account:ann", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		for _, o := range []Order{{1, "ann"}, {2, "bob"}, {3, "ann"}} {
			out, err := charge.Do(ctx, o, sidestep.Defer(5*time.Second))
			if err != nil {
				return err
			}
			if out.Deferred != nil {
				fmt.Printf("order %d is deferred\n", o.Number)
			}
		}
		return nil
	})
	if err != nil {
		fmt.Println("error:", err)
	}
	// The release has told the queue, so the deferred orders do not wait out the
	// five seconds.
	fmt.Println("run:", queue.Run(ctx))
	// Output:
	// order 1 is deferred
	// order 2 is charged to bob
	// order 3 is deferred
	// order 1 is charged to ann
	// order 3 is charged to ann
	// run: <nil>
}
