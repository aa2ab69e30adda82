package listq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Push on one side, Consume on the other.
func Example() {
	srv := sidesteptest.New() // a Redis in memory
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	mail := listq.New(rdb, "mail", listq.Config{})
	for _, name := range []string{"Ann", "Bob"} {
		if _, err := mail.Push(ctx, &listq.Request{Task: "welcome", Payload: []byte(name)}); err != nil {
			fmt.Println("not accepted:", err)
			return
		}
	}

	sent := 0
	err := mail.Consume(ctx, listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
		fmt.Println(d.Task, string(d.Payload))
		if sent++; sent == 2 {
			stop() // in a program, a signal does this
		}
		return nil // acknowledges
	})
	fmt.Println("drained:", err)
	// Output:
	// welcome Ann
	// welcome Bob
	// drained: <nil>
}

// A request whose handler fails comes back after a backoff.
func ExampleQueue_Consume_failure() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	q := listq.New(rdb, "payments", listq.Config{})
	if _, err := q.Push(ctx, &listq.Request{ID: "payment-7"}); err != nil {
		fmt.Println("not accepted:", err)
		return
	}

	cfg := listq.ConsumeConfig{Backoff: retry.FullJitter(10*time.Millisecond, time.Second)}
	_ = q.Consume(ctx, cfg, func(_ context.Context, d *listq.Delivery) error {
		if d.Attempts < 2 {
			fmt.Println(d.ID, "failed")
			return errors.New("the bank does not answer")
		}
		fmt.Println(d.ID, "done after", d.Attempts, "failures")
		stop()
		return nil
	})
	// Output:
	// payment-7 failed
	// payment-7 failed
	// payment-7 done after 2 failures
}

// A worker dies with a request in its hands: the request runs again when its
// lease has ended, and the death is no attempt.
func ExampleQueue_Claim_deadWorker() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	cfg := listq.Config{Lease: 200 * time.Millisecond, Poll: 50 * time.Millisecond}
	if _, err := listq.New(rdb, "q", cfg).Push(ctx, &listq.Request{ID: "r"}); err != nil {
		fmt.Println("not accepted:", err)
		return
	}
	dies := listq.New(rdb, "q", cfg)
	claimed, err := dies.Claim(ctx, 1)
	if err != nil || len(claimed.Deliveries) != 1 {
		fmt.Println("no request:", err)
		return
	}
	late := claimed.Deliveries[0] // and no sign of life from here on

	_ = listq.New(rdb, "q", cfg).Consume(ctx, listq.ConsumeConfig{}, func(_ context.Context, d *listq.Delivery) error {
		fmt.Printf("%s: delivery %d, %d attempts\n", d.ID, d.Deliveries, d.Attempts)
		err := late.Nack(ctx, 0, 0, "I am back")
		fmt.Println("the dead worker changes nothing:", errors.Is(err, listq.ErrStale))
		stop()
		return nil
	})
	// Output:
	// r: delivery 2, 0 attempts
	// the dead worker changes nothing: true
}

// A request that fails for good is dead, with the reason, until somebody revives
// it.
func ExampleQueue_Revive() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	died := make(chan listq.DeadEvent, 1)
	q := listq.New(rdb, "reports", listq.Config{Hooks: listq.Hooks{
		Dead: func(_ context.Context, e listq.DeadEvent) { died <- e },
	}})
	if _, err := q.Push(ctx, &listq.Request{ID: "march"}); err != nil {
		fmt.Println("not accepted:", err)
		return
	}

	var operator sync.WaitGroup
	operator.Go(func() {
		e := <-died
		fmt.Printf("%s is dead: %s\n", e.ID, e.Reason)
		ok, err := q.Revive(context.Background(), e.ID) // after the fault was repaired; ctx may end before the answer
		if !ok || err != nil {
			fmt.Println("not revived:", err)
			stop()
		}
	})
	repaired := false
	_ = q.Consume(ctx, listq.ConsumeConfig{MaxAttempts: 1}, func(context.Context, *listq.Delivery) error {
		if !repaired {
			repaired = true
			return errors.New("division by zero")
		}
		fmt.Println("done")
		stop()
		return nil
	})
	operator.Wait()
	// Output:
	// march is dead: attempts: division by zero
	// done
}
