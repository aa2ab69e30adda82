package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Wait a little, then step aside: policies compose, and print themselves.
func ExampleRetryPolicy_Then() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "mail", sidestep.QueueConfig{})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	send := sidestep.NewTask(queue, "send", func(to string) string { return "mailbox:" + to },
		func(_ context.Context, _ *lock.Lock, to string) error {
			fmt.Println("sent to", to)
			stop()
			return nil
		})

	policy := sidestep.RetryFor(20 * time.Millisecond).Then(sidestep.Defer(time.Minute))
	fmt.Println(policy)
	err := acq.Do(ctx, "mailbox:ann", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		out, err := send.Do(ctx, "ann", policy)
		fmt.Println("waited first:", out.Waited >= 20*time.Millisecond, "- deferred then:", out.Deferred != nil)
		return err
	})
	fmt.Println(err)
	fmt.Println(queue.Run(ctx))
	// Output:
	// retry(20ms), then defer(1m0s)
	// waited first: true - deferred then: true
	// <nil>
	// sent to ann
	// <nil>
}

// Retry takes any backoff. It says when to look again at the latest, and when to
// give up; a release wakes the waiter earlier.
func ExampleRetry() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{Owner: "nightly"})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	ctx := context.Background()

	policy := sidestep.Retry(retry.Limit(retry.Exponential(time.Millisecond, 10*time.Millisecond), 4))
	err := acq.Do(ctx, "backup", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		return acq.Do(ctx, "backup", policy, func(context.Context, *lock.Lock) error { return nil })
	})
	fmt.Println(errors.Is(err, sidestep.ErrLocked), err)
	// Output:
	// true lock: "backup" is held by nightly
}

// NotBefore is the strict form: the request waits out its delay even if the lock
// is free earlier.
func ExampleDeferPolicy_NotBefore() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "poll", sidestep.QueueConfig{})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var conflict time.Time
	poll := sidestep.NewTask(queue, "poll", func(host string) string { return host },
		func(_ context.Context, _ *lock.Lock, host string) error {
			fmt.Println("asked", host, "- waited it out:", time.Since(conflict) >= 50*time.Millisecond)
			stop()
			return nil
		})

	err := acq.Do(ctx, "example.org", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		conflict = time.Now()
		_, err := poll.Do(ctx, "example.org", sidestep.Defer(50*time.Millisecond).NotBefore())
		return err
	})
	fmt.Println(err)
	fmt.Println(queue.Run(ctx))
	// Output:
	// <nil>
	// asked example.org - waited it out: true
	// <nil>
}
