package delayq_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Requests that run later, and what can be done with them meanwhile.
func Example() {
	srv := sidesteptest.New() // a Redis in memory
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	mail := listq.New(rdb, "mail", listq.Config{})
	later := delayq.New(mail)
	for _, id := range []string{"remind-ann", "remind-bob", "remind-cleo"} {
		if _, err := later.ScheduleIn(ctx, &listq.Request{ID: id}, time.Hour); err != nil {
			fmt.Println("not accepted:", err)
			return
		}
	}

	ok, err := later.Cancel(ctx, "remind-ann") // she came by herself
	fmt.Println("cancelled:", ok, err)
	_, err = later.Reschedule(ctx, "remind-bob", 50*time.Millisecond)
	fmt.Println("sooner:", err)
	_, err = later.Promote(ctx, "remind-cleo")
	fmt.Println("now:", err)
	_, err = later.Reschedule(ctx, "remind-ann", time.Hour)
	fmt.Println("nobody to remind:", errors.Is(err, delayq.ErrUnknown))

	sent := 0
	_ = mail.Consume(ctx, listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
		fmt.Println(d.ID)
		if sent++; sent == 2 {
			stop()
		}
		return nil
	})
	// Output:
	// cancelled: true <nil>
	// sooner: <nil>
	// now: <nil>
	// nobody to remind: true
	// remind-cleo
	// remind-bob
}

// A process that moves what is due onto the LIST, for workers that only claim.
func ExampleQueue_Run() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	q := listq.New(rdb, "q", listq.Config{Poll: 20 * time.Millisecond})
	later := delayq.New(q)
	if _, err := later.ScheduleIn(ctx, &listq.Request{ID: "r"}, 50*time.Millisecond); err != nil {
		fmt.Println("not accepted:", err)
		return
	}
	done := make(chan error)
	go func() { done <- later.Run(ctx, nil, nil) }()

	for {
		s, err := q.Stats(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		if s.Ready == 1 {
			fmt.Println("ready:", s.Ready, "delayed:", s.Delayed)
			break
		}
	}
	stop()
	fmt.Println("claimer:", <-done)
	// Output:
	// ready: 1 delayed: 0
	// claimer: <nil>
}

// A request meets a held lock, stands in line for it, and gets its turn when the
// lock is released, not when a delay has passed.
func ExampleQueue_Park() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	q := listq.New(rdb, "q", listq.Config{})
	later := delayq.New(q)

	held, err := locker.TryAcquire(ctx, "account:7")
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := locker.TryAcquire(ctx, "account:7"); errors.Is(err, lock.ErrLocked) {
		r := &listq.Request{ID: "payment", Lock: "account:7"}
		if _, err := later.Park(ctx, r, time.Hour); err != nil {
			fmt.Println("not accepted:", err)
			return
		}
		if err := later.Register(ctx, locker, r.Lock); err != nil {
			fmt.Println("its release will not tell, but the probe will look:", err)
		}
		fmt.Println("stepped aside")
	}
	line, err := later.Line(ctx, "account:7", 10)
	fmt.Println("in line:", line, err)

	if err := held.Release(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for _, queue := range held.Reported() { // those with requests in line
		if err := delayq.HintKey(ctx, rdb, queue, "account:7"); err != nil {
			fmt.Println(err)
		}
	}
	_ = q.Consume(ctx, listq.ConsumeConfig{}, func(_ context.Context, d *listq.Delivery) error {
		fmt.Println(d.ID, "has its turn")
		stop()
		return nil
	})
	// Output:
	// stepped aside
	// in line: [payment] <nil>
	// payment has its turn
}
