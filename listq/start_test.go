package listq

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A handler that ends its goroutine leaves its slot to what was claimed ahead.
func TestGoexitStartsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		defer srv.Close()
		rdb := srv.Client()
		defer rdb.Close()
		q := New(rdb, "q", Config{})
		if _, err := q.Push(t.Context(), &Request{ID: "a"}, &Request{ID: "b"}); err != nil {
			t.Fatal(err)
		}
		claimed, err := q.Claim(t.Context(), 2)
		if err != nil || len(claimed.Deliveries) != 2 {
			t.Fatalf("Claim = %d, %v, want two", len(claimed.Deliveries), err)
		}
		c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
		defer c.end(nil)
		var ran []string
		c.handler = func(_ context.Context, d *Delivery) error {
			if ran = append(ran, d.ID); d.ID == "a" {
				runtime.Goexit()
			}
			return nil
		}
		c.place.take(1, false)
		c.ahead.add(claimed.Deliveries[1:])
		c.start(claimed.Deliveries[0])
		c.acking.Go(c.feeder(t.Context()).ackAll)
		c.drain()
		if want := []string{"a", "b"}; !slices.Equal(ran, want) {
			t.Errorf("ran %q, want %q", ran, want)
		}
	})
}

// What has less than two thirds of its lease left when it starts is renewed out of
// turn, and nothing else is.
func TestLateAnswerIsRenewedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		defer srv.Close()
		rdb := srv.Client()
		defer rdb.Close()
		q := New(rdb, "q", Config{Lease: 30 * time.Second})
		for left, want := range map[time.Duration]int{20 * time.Second: 0, 20*time.Second - 1: 1, time.Second: 1, 30 * time.Second: 0} {
			c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
			c.handler = func(context.Context, *Delivery) error { return nil }
			d := &Delivery{Request: Request{ID: "a"}, queue: q}
			until := time.Now().Add(left)
			d.until.Store(&until)
			d.settled.Store(true)
			c.start(d)
			if got := len(c.hurry); got != want {
				t.Errorf("%v left: %d signals, want %d", left, got, want)
			}
			c.running.Wait()
			c.end(nil)
		}
	})
}
