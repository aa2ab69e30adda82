package listq_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/listq"
)

// The end of a lease is noticed in time, also of a request whose claim was answered
// late.
func TestLateClaimsLeaseIsWatched(t *testing.T) {
	for _, pushed := range []time.Duration{3 * time.Second, 25 * time.Second} { // some 10s before an extension, and before the leases are looked at
		synctest.Test(t, func(t *testing.T) { testLateClaim(t, pushed) })
	}
}

func testLateClaim(t *testing.T, pushed time.Duration) {
	srv := server(t)
	rdb, _ := wired(t, srv)
	var slow atomic.Bool
	rdb.AddHook(delay{after: func(cmd redis.Cmder) time.Duration {
		if isClaim(cmd) && slow.Load() {
			return 9500 * time.Millisecond
		}
		return 0
	}})
	q := listq.New(rdb, "q", listq.Config{Lease: 30 * time.Second, PollOnly: true})
	ended := make(chan time.Duration, 1)
	consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
		if d.Deliveries > 1 {
			return nil
		}
		srv.SetError("LOADING Redis is loading the dataset in memory")
		<-ctx.Done()
		srv.SetError("")
		ended <- time.Since(d.LeaseExpires())
		return ctx.Err()
	})
	time.Sleep(pushed)
	slow.Store(true)
	push(t, q, &listq.Request{})
	late := <-ended
	slow.Store(false)
	if late > 100*time.Millisecond {
		t.Errorf("the handler's context ended %v after the lease", late)
	}
}

// So is that of a short lease which comes while an extension waits for its answer.
func TestLeaseIsWatchedWhileAnExtensionHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, _ := wired(t, srv)
		var hang atomic.Bool
		rdb.AddHook(delay{after: func(cmd redis.Cmder) time.Duration {
			if hang.Load() && names(cmd, "long") {
				return 12 * time.Second
			}
			return 0
		}})
		q := listq.New(rdb, "q", listq.Config{})
		var ran atomic.Int64
		ended := make(chan time.Duration, 1)
		h := func(ctx context.Context, d *listq.Delivery) error {
			if d.ID == "short" && ran.Add(1) > 1 {
				return nil
			}
			<-ctx.Done()
			if d.ID == "short" {
				ended <- time.Since(d.LeaseExpires())
			}
			return ctx.Err()
		}
		stop := consume(t, q, listq.ConsumeConfig{Workers: 2, DrainTimeout: -1}, h)
		time.Sleep(500 * time.Millisecond)
		push(t, q, &listq.Request{ID: "long"})
		time.Sleep(9400 * time.Millisecond) // the consumer listens, and the extension begins soon
		hang.Store(true)
		time.Sleep(2 * time.Second)
		push(t, q, &listq.Request{ID: "short"})
		other, _ := wired(t, srv)
		consume(t, listq.New(other, "q", listq.Config{}), listq.ConsumeConfig{Workers: 1, DrainTimeout: -1}, h)
		late := <-ended
		hang.Store(false)
		if late > 100*time.Millisecond {
			t.Errorf("the handler's context ended %v after the lease", late)
		}
		stop()
	})
}

// Leases are extended in time, also while others that are shorter come all the time.
func TestShortLeasesPutNoExtensionOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, _ := wired(t, server(t))
		const lease = 30 * time.Second
		q := listq.New(rdb, "q", listq.Config{Lease: lease})
		least := make(chan time.Duration, 1)
		push(t, q, &listq.Request{ID: "long"}) // claimed, for a lease; what is pushed to a waiting consumer is handed to it for less
		consume(t, q, listq.ConsumeConfig{}, func(_ context.Context, d *listq.Delivery) error {
			if d.ID != "long" {
				return nil
			}
			left := lease
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				left = min(left, time.Until(d.LeaseExpires()))
			}
			least <- left
			return nil
		})
		time.Sleep(time.Second)
		for len(least) == 0 {
			push(t, q, &listq.Request{})
			time.Sleep(50 * time.Millisecond)
		}
		if left := <-least; left < lease/2 {
			t.Errorf("a lease of %v had %v left before it was extended, want at least half of it", lease, left)
		}
	})
}

// No handler begins with a request whose lease is over.
func TestNothingStartsAfterItsLease(t *testing.T) {
	for _, hole := range []int64{300, 500} { // how much waits with a worker then differs
		synctest.Test(t, func(t *testing.T) { testNothingStartsAfterItsLease(t, hole) })
	}
}

func testNothingStartsAfterItsLease(t *testing.T, hole int64) {
	rdb, w := wired(t, server(t))
	q := listq.New(rdb, "q", listq.Config{Lease: 2 * time.Second})
	many(t, q, 1000)
	var ran atomic.Int64
	consume(t, q, listq.ConsumeConfig{Workers: 4}, func(_ context.Context, d *listq.Delivery) error {
		if over := time.Since(d.LeaseExpires()); over >= 0 {
			t.Errorf("a handler began %v after its lease", over)
		}
		switch i := ran.Add(1); {
		case i == hole:
			w.hole.Store(true) // what is claimed from here on is not answered
			time.AfterFunc(20*time.Second, func() { w.hole.Store(false) })
			fallthrough
		case i > hole && i < hole+300:
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	for range 300 {
		if time.Sleep(time.Second); ran.Load() >= 1000 {
			break
		}
	}
	if n := ran.Load(); n < 1000 {
		t.Errorf("%d of 1000 requests ran", n)
	}
}

// A claim whose context had ended was not sent: the leases of the next one begin with that.
func TestClaimThatWasNotSentBeganNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{ID: "a"})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		before := w.writes.Load()
		if _, err := q.Claim(ended, 1); err == nil {
			t.Fatal("a claim whose context had ended succeeded")
		}
		if n := w.writes.Load() - before; n != 0 {
			t.Fatalf("it sent %d commands", n)
		}
		time.Sleep(time.Minute)
		if left := time.Until(claim(t, q).LeaseExpires()); left < 29*time.Second {
			t.Errorf("%v of the lease are left after the claim, want 30s", left)
		}
	})
}
