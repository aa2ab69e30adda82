package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A worker process: Run works on the queue until its context ends. Requests of one
// lock run one at a time, in order, and no worker waits for a lock.
func ExampleQueue_Run() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{Workers: 8})

	// In a program: signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	charge := sidestep.NewTask(queue, "charge",
		func(o Order) string { return "account:" + o.Account },
		func(ctx context.Context, _ *lock.Lock, o Order) error {
			r := sidestep.RequestFrom(ctx)
			if o.Number == 2 && r.Attempts == 0 {
				return errors.New("the bank is closed") // runs again after the backoff
			}
			fmt.Printf("order %d, failed before: %d times\n", o.Number, r.Attempts)
			if o.Number == 2 {
				stop()
			}
			return nil
		},
		sidestep.Backoff(retry.Constant(10*time.Millisecond)))

	for n := 1; n <= 3; n++ {
		if _, err := charge.Enqueue(ctx, Order{Number: n, Account: "ann"}); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(queue.Run(ctx))
	// Output:
	// order 1, failed before: 0 times
	// order 3, failed before: 0 times
	// order 2, failed before: 1 times
	// <nil>
}

// Shutdown: end Run's context. Handlers that run finish within the drain
// timeout; then their contexts end, and their requests go back to the queue as if
// nobody had claimed them.
func ExampleQueue_Run_shutdown() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "films", sidestep.QueueConfig{DrainTimeout: 10 * time.Millisecond})

	ctx, stop := context.WithCancel(context.Background())
	encode := sidestep.NewTask(queue, "encode", func(film string) string { return film },
		func(ctx context.Context, _ *lock.Lock, film string) error {
			if sidestep.RequestFrom(ctx).Deliveries == 1 {
				fmt.Println("encoding", film)
			}
			stop()
			<-ctx.Done() // takes long
			fmt.Println("draining:", errors.Is(context.Cause(ctx), sidestep.ErrDraining))
			return context.Cause(ctx)
		})
	receipt, err := encode.Enqueue(ctx, "metropolis")
	if err != nil {
		panic(err)
	}
	fmt.Println(queue.Run(ctx))

	again, err := queue.Promote(context.Background(), receipt.ID)
	fmt.Println("still there:", err == nil && again.ID == receipt.ID)
	// Output:
	// encoding metropolis
	// draining: true
	// <nil>
	// still there: true
}

// A worker dies with a request: its lease ends, and another worker runs it. Here
// the first worker claims and is never heard of again.
func ExampleQueue_Run_deadWorker() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	storage := listq.Config{Lease: 100 * time.Millisecond} // 30 s by default
	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{Storage: storage})

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	charge := sidestep.NewTask(queue, "charge", func(o Order) string { return "account:" + o.Account },
		func(ctx context.Context, _ *lock.Lock, o Order) error {
			r := sidestep.RequestFrom(ctx)
			fmt.Printf("order %d: delivery %d, failed attempts %d\n", o.Number, r.Deliveries, r.Attempts)
			stop()
			return nil
		})
	if _, err := charge.Enqueue(ctx, Order{Number: 1, Account: "ann"}); err != nil {
		panic(err)
	}
	claimed, err := listq.New(rdb, "orders", storage).Claim(ctx, 1)
	fmt.Println("claimed by a worker that dies:", len(claimed.Deliveries), err)

	fmt.Println(queue.Run(ctx))
	// Output:
	// claimed by a worker that dies: 1 <nil>
	// order 1: delivery 2, failed attempts 0
	// <nil>
}
