package listq

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// The lease of what was handed over counts from the push. How long ago that is by this
// process's clock follows from the last answered claim; it is no time in the future,
// and if nothing is known the lease has ended.
func TestHandedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{})
		server := time.UnixMilli(1_700_000_000_000) // another clock than this process's
		const lease = 2 * time.Second
		for name, tt := range map[string]struct {
			anchored, pushed time.Duration // before now; by the server's clock after the anchor
			want             time.Duration
		}{
			"at once":                     {0, 0, lease - time.Millisecond},
			"a while after the claim":     {time.Second, 900 * time.Millisecond, lease - 100*time.Millisecond - time.Millisecond},
			"before it was answered":      {0, -500 * time.Millisecond, lease - 500*time.Millisecond - time.Millisecond},
			"too long ago":                {5 * time.Second, time.Second, -2*time.Second - time.Millisecond},
			"the server's clock was set":  {time.Second, time.Hour, lease},
			"the server's clock was back": {time.Second, -time.Hour, lease - time.Second - time.Hour - time.Millisecond},
		} {
			q.anchor.Store(&anchor{sent: time.Now().Add(-tt.anchored), server: server})
			d, err := q.handed(script.Handed{Item: script.Item{ID: "a", Accepted: server.Add(tt.pushed)}, Token: "h1", Lease: lease})
			if err == nil {
				t.Errorf("%s: a request without a body was read", name)
			}
			if left := d.left(); left != tt.want {
				t.Errorf("%s: %v left, want %v", name, left, tt.want)
			}
		}
		q.anchor.Store(nil)
		if d, _ := q.handed(script.Handed{Lease: lease}); d.left() > 0 {
			t.Errorf("without an anchor %v are left", d.left())
		}
	})
}

// What comes when it cannot be started goes back, uncounted.
func TestHandOverGoesBack(t *testing.T) {
	t.Run("handed over", func(t *testing.T) {
		goesBack(t, func(ctx context.Context, q *Queue) error {
			_, err := q.Push(ctx, &Request{ID: "a"})
			return err
		})
	})
	t.Run("offered", func(t *testing.T) {
		goesBack(t, func(ctx context.Context, q *Queue) error {
			e, err := q.entry(&Request{ID: "a"})
			if err != nil {
				return err
			}
			h := script.Handed{Item: script.Item{ID: e.ID, Body: e.Body, Deliveries: 1, Accepted: time.Now()}, Token: "o1", Lease: time.Second}
			return q.script.Client().LPush(ctx, q.script.Keys().Wake(), h.String()).Err()
		})
	})
}

// goesBack brings a request into wake, and starts it or not.
func goesBack(t *testing.T, bring func(ctx context.Context, q *Queue) error) {
	synctest.Test(t, func(t *testing.T) {
		for name, spoil := range map[string]func(c *consumer, cancel context.CancelFunc){
			"no slot":         func(c *consumer, _ context.CancelFunc) { c.place.take(1, false) },
			"its lease ended": func(c *consumer, _ context.CancelFunc) { c.queue.anchor.Store(nil) },
			"it stops":        func(_ *consumer, cancel context.CancelFunc) { cancel() },
			"":                func(*consumer, context.CancelFunc) {},
		} {
			q := New(redistest.Mini(t), "q", Config{})
			ctx, cancel := context.WithCancel(t.Context())
			c := q.consumer(ctx, ConsumeConfig{Workers: 1}.withDefaults(q))
			ran := false
			c.handler = func(context.Context, *Delivery) error {
				ran = true
				return nil
			}
			if _, err := q.claimNext(t.Context(), &q.lanes[0], 1, hearing{wake: true}, nil); err != nil {
				t.Fatal(err)
			}
			if err := bring(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			v, err := q.script.Client().LPop(t.Context(), q.script.Keys().Wake()).Result()
			if err != nil {
				t.Fatal(err)
			}
			spoil(c, cancel)
			c.woken(ctx, v)
			c.acking.Go(c.feeder(t.Context()).ackAll)
			c.drain()
			c.end(nil)
			cancel()
			if want := name == ""; ran != want {
				t.Errorf("%s: ran: %v, want %v", name, ran, want)
			}
			claimed, err := q.Claim(t.Context(), 1)
			if err != nil || (len(claimed.Deliveries) == 1) == ran {
				t.Fatalf("%s: then %d were claimed, %v", name, len(claimed.Deliveries), err)
			}
			for _, d := range claimed.Deliveries {
				if d.Deliveries != 1 {
					t.Errorf("%s: it was delivered for the %dth time", name, d.Deliveries)
				}
			}
		}
	})
}

// What comes out of wake and cannot be read counts as a token: somebody looks.
func TestUnreadableHandOverIsAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{})
		c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
		defer c.end(nil)
		for _, v := range []string{"1", "what is this"} {
			c.woken(t.Context(), v)
			select {
			case <-c.token:
			default:
				t.Errorf("%q: nobody looks", v)
			}
		}
	})
}
