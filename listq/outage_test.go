package listq_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/listq"
)

// A request is no older for a claim that had to be sent again.
func TestAgeAfterALostClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := patient(t, server(t))
		q := listq.New(rdb, "q", listq.Config{PollOnly: true})
		type seen struct{ age, real time.Duration }
		out := make(chan seen, 1)
		push(t, q, &listq.Request{})
		pushed := time.Now()
		w.hole.Store(true)
		time.AfterFunc(2*time.Second, func() { w.hole.Store(false) })
		consume(t, q, listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
			select {
			case out <- seen{d.Age(), time.Since(pushed)}:
			default:
			}
			return errors.New("no")
		})
		s := <-out
		if (s.age - s.real).Abs() > time.Second {
			t.Errorf("Age is %v, of a request pushed %v ago", s.age, s.real)
		}
	})
}

// What finishes after an acknowledgement was sent into a short hole, long after the drain
// timeout, is acknowledged: the server answers again by then.
func TestLateHandlersAfterAShortHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := patient(t, server(t))
		q := listq.New(rdb, "q", listq.Config{Lease: 10 * time.Minute})
		const n = 100
		many(t, q, n)
		var running atomic.Int64
		stop := consume(t, q, listq.ConsumeConfig{Workers: n, DrainTimeout: -1}, func(context.Context, *listq.Delivery) error {
			i := running.Add(1)
			if i == 1 {
				time.Sleep(20 * time.Second)
			} else {
				time.Sleep(22 * time.Second) // when the server has been back for 1.5s
			}
			return nil
		})
		time.AfterFunc(19900*time.Millisecond, func() { w.hole.Store(true) })
		time.AfterFunc(20500*time.Millisecond, func() { w.hole.Store(false) })
		time.Sleep(time.Second)
		stop()
		if s := stats(t, q); s.Leased > 1 {
			t.Errorf("%d of %d requests that were finished are left leased for %v, though only one acknowledgement was sent while Redis was away for 600ms", s.Leased, n, 10*time.Minute)
		}
	})
}

// Consume returns when all that it started has ended.
func TestNothingIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, _ := wired(t, srv)
		other := srv.Client()
		t.Cleanup(func() { other.Close() })
		var under atomic.Int64
		rdb.AddHook(delay{before: func(cmd redis.Cmder) time.Duration {
			if names(cmd, "k") {
				under.Add(1)
				return 5 * time.Second
			}
			return 0
		}, after: func(cmd redis.Cmder) time.Duration {
			if names(cmd, "k") {
				under.Add(-1)
			}
			return 0
		}})
		q, o := listq.New(rdb, "q", listq.Config{}), listq.New(other, "q", listq.Config{})
		e, err := o.Entry(&listq.Request{Lock: "k"})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Script().ParkNew(t.Context(), e, "+1"); err != nil {
			t.Fatal(err)
		}
		stop := consume(t, q, listq.ConsumeConfig{DrainTimeout: -1}, nothing)
		time.Sleep(time.Second)
		stop()
		if n := under.Load(); n != 0 {
			t.Errorf("Consume returned, and %d of its commands are under way", n)
		}
		time.Sleep(10 * time.Second)
	})
}

// A single worker that stops while what it gave back is under way claims no more.
func TestSingleWorkerClaimsNothingAfterItsStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, _ := wired(t, server(t))
		var stuck, stopped atomic.Bool
		var late atomic.Int64
		rdb.AddHook(delay{before: func(cmd redis.Cmder) time.Duration {
			if stopped.Load() && isClaim(cmd) {
				late.Add(1)
			}
			if stuck.Load() && cmd.Name() == "evalsha" && !isClaim(cmd) {
				return 500 * time.Millisecond
			}
			return 0
		}})
		q := listq.New(rdb, "q", listq.Config{})
		many(t, q, 1000)
		_, stop, release := consumeUntilStuck(t, q, 1)
		stuck.Store(true)
		time.Sleep(10 * time.Millisecond) // what was claimed ahead is on its way back
		release()
		time.Sleep(10 * time.Millisecond)
		stopped.Store(true)
		stop()
		stopped.Store(false)
		if n := late.Load(); n != 0 {
			t.Errorf("%d claims were made after the stop", n)
		}
	})
}
