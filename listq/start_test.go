package listq

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// leased is a delivery, of a request with a lock or "", whose lease has so long to run.
func leased(q *Queue, lock string, left time.Duration) *Delivery {
	d := &Delivery{Request: Request{ID: "a", Lock: lock}, queue: q}
	until := time.Now().Add(left)
	d.until.Store(&until)
	return d
}

// A handler that ends its goroutine leaves its slot to what was claimed ahead.
func TestGoexitStartsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{})
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
		q := New(redistest.Mini(t), "q", Config{Lease: 30 * time.Second})
		for left, want := range map[time.Duration]int{20 * time.Second: 0, 20*time.Second - 1: 1, time.Second: 1, 30 * time.Second: 0} {
			c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
			c.handler = func(context.Context, *Delivery) error { return nil }
			d := leased(q, "", left)
			d.settled.Store(true)
			c.start(d)
			c.running.Wait()
			if got := len(c.hurry); got != want {
				t.Errorf("%v left: %d signals, want %d", left, got, want)
			}
			c.end(nil)
		}
	})
}

// An answer may hold more than was asked for. What neither a slot nor the place
// ahead was meant for goes back.
func TestTooMuchGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{})
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			if _, err := q.Push(t.Context(), &Request{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
		defer c.end(nil)
		end := make(chan struct{})
		c.handler = func(context.Context, *Delivery) error {
			<-end
			return nil
		}
		f := c.feeder(t.Context())
		x := exchange{free: c.place.take(1, false), n: 3}
		var err error
		if x.claim, err = q.claimNext(t.Context(), &q.lanes[0], 5, hearing{}, nil); err != nil {
			t.Fatal(err)
		}
		f.handOut(t.Context(), x)
		synctest.Wait()
		if n := f.ahead.len(); n != 2 {
			t.Errorf("%d wait ahead, want 2", n)
		}
		if ids := q.script.Client().LRange(t.Context(), q.Key()+"ready", 0, -1).Val(); !slices.Equal(ids, []string{"d", "e"}) {
			t.Errorf("ready = %q, want what was too much, in its order", ids)
		}
		close(end)
		c.acking.Go(f.ackAll)
		c.drain()
	})
}

// A worker died if a delivery ended in neither a failure nor a conflict.
func TestDied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		deliveries, attempts, deferrals int
		want                            bool
	}{{1, 0, 0, false}, {2, 0, 0, true}, {2, 1, 0, false}, {2, 0, 1, false}, {3, 1, 1, false}, {4, 1, 1, true}} {
		if got := died(tt.deliveries, tt.attempts, tt.deferrals); got != tt.want {
			t.Errorf("%d deliveries, %d attempts, %d deferrals: %t, want %t", tt.deliveries, tt.attempts, tt.deferrals, got, tt.want)
		}
	}
}

// Whose lease is over loses its context; who is being settled then, or was, does
// not. The next look is due when the next lease would end.
func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{Lease: 16 * time.Second})
		for name, tt := range map[string]struct {
			left              time.Duration
			settling, settled bool
			lost              bool
			next              time.Duration
		}{
			"it runs":                {left: 3 * time.Second, next: 3 * time.Second},
			"its lease ends now":     {lost: true, next: 16 * time.Second},
			"it has ended":           {left: -time.Second, lost: true, next: 16 * time.Second},
			"it is being settled":    {settling: true, next: time.Second},
			"that takes long":        {left: -time.Second, settling: true, next: time.Second},
			"that will take no time": {left: 2 * time.Second, settling: true, next: 2 * time.Second},
			"it was settled":         {settled: true, next: 16 * time.Second},
		} {
			c := q.consumer(t.Context(), ConsumeConfig{}.withDefaults(q))
			d := leased(q, "", tt.left)
			d.settling.Store(tt.settling)
			d.settled.Store(tt.settled)
			var cause error
			c.active[d] = func(err error) { cause = err }
			if next := c.expire(); next != tt.next {
				t.Errorf("%s: the next look in %v, want %v", name, next, tt.next)
			}
			if lost := errors.Is(cause, ErrStale); lost != tt.lost || d.lost.Load() != tt.lost {
				t.Errorf("%s: lost %t, want %t", name, lost, tt.lost)
			}
			c.end(nil)
		}
	})
}
