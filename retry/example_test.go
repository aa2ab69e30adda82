package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep/retry"
)

// The loop is yours; the backoff says how long to wait and when to stop.
func Example() {
	backoff := retry.Limit(retry.Exponential(time.Millisecond, 4*time.Millisecond), 5)
	taken := errors.New("taken")
	try := func() error { return taken } // it never works here

	loop := func(ctx context.Context) error {
		start := time.Now()
		for attempt := 1; ; attempt++ {
			err := try()
			if err == nil {
				return nil
			}
			delay, ok := backoff.Next(attempt, time.Since(start))
			if !ok {
				return err
			}
			fmt.Println("try", attempt, err, "- wait", delay)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(delay):
			}
		}
	}
	fmt.Println("gave up:", loop(context.Background()))
	// Output:
	// try 1 taken - wait 1ms
	// try 2 taken - wait 2ms
	// try 3 taken - wait 4ms
	// try 4 taken - wait 4ms
	// gave up: taken
}

// show prints the delays of a loop whose tries take no time.
func show(b retry.Backoff, n int) {
	var elapsed time.Duration
	for attempt := 1; attempt <= n; attempt++ {
		delay, ok := b.Next(attempt, elapsed)
		if !ok {
			fmt.Println("give up after", elapsed)
			return
		}
		fmt.Println(delay)
		elapsed += delay
	}
}

func ExampleExponential() {
	b := retry.Exponential(100*time.Millisecond, time.Second)
	fmt.Println(b)
	show(b, 6)
	// Output:
	// exponential(100ms..1s)
	// 100ms
	// 200ms
	// 400ms
	// 800ms
	// 1s
	// 1s
}

// The first loop of a service may meet the lock with hundreds of others, so the
// delays are spread: each is anything from zero to the exponential one.
func ExampleFullJitter() {
	b := retry.FullJitter(100*time.Millisecond, time.Second)
	fmt.Println(b)
	for attempt, limit := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		delay, _ := b.Next(attempt+1, 0)
		fmt.Println(delay <= limit*time.Millisecond)
	}
	// Output:
	// full jitter(100ms..1s)
	// true
	// true
	// true
	// true
	// true
	// true
}

// The last delay is shortened, so that the last try comes when the time is over.
func ExampleWithin() {
	b := retry.Within(retry.Constant(400*time.Millisecond), time.Second)
	fmt.Println(b)
	show(b, 10)
	// Output:
	// constant(400ms), within 1s
	// 400ms
	// 400ms
	// 200ms
	// give up after 1s
}

// Three tries are two retries.
func ExampleLimit() {
	show(retry.Limit(retry.Constant(time.Second), 3), 10)
	// Output:
	// 1s
	// 1s
	// give up after 2s
}

// Plain jitter around something regular: never longer than it was.
func ExampleJitter() {
	b := retry.Jitter(retry.Constant(time.Second), 0.2)
	delay, _ := b.Next(1, 0)
	fmt.Println(b)
	fmt.Println(800*time.Millisecond <= delay && delay <= time.Second)
	// Output:
	// constant(1s), jitter 0.2
	// true
}

// A rule of your own: follow what the attempt number says, stop after three.
func ExampleBackoffFunc() {
	b := retry.BackoffFunc(func(attempt int, _ time.Duration) (time.Duration, bool) {
		return time.Duration(attempt) * time.Second, attempt < 3
	})
	show(b, 10)
	// Output:
	// 1s
	// 2s
	// give up after 3s
}
