// Command hello runs one task by each policy while its lock is taken.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

func main() {
	rdb := sidesteptest.New().Client() // or redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	locker := lock.New(rdb, lock.Config{Owner: "alice"})
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{Workers: 8})
	charge := sidestep.NewTask(queue, "charge",
		func(account string) string { return "account:" + account }, // the lock it needs
		func(_ context.Context, lk *lock.Lock, account string) error {
			fmt.Println("charging", account, "under", lk.Name())
			return nil
		})

	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	err := acq.Do(ctx, "account:ann", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		_, err := charge.Do(ctx, "ann", sidestep.Fail())
		fmt.Println("fail: ", err)
		_, err = charge.Do(ctx, "ann", sidestep.RetryFor(100*time.Millisecond))
		fmt.Println("retry:", err)
		out, err := charge.Do(ctx, "ann", sidestep.Defer(5*time.Second))
		fmt.Println("defer:", out.Deferred != nil, err)
		return err
	}) // the release tells the queue, so "ann" is charged now and not in 5 s
	fmt.Println("first section:", err)
	fmt.Println("queue:", queue.Run(ctx)) // workers and claimer, until ctx ends
}
