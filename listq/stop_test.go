package listq_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/listq"
)

// The drain timeout counts from the end of Consume's context, also while Redis does not
// answer.
func TestDrainTimeoutCountsFromTheStop(t *testing.T) {
	for name, drain := range map[string]time.Duration{"at once": -1, "100ms": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb, w := wired(t, server(t))
				q := listq.New(rdb, "q", listq.Config{Lease: 10 * time.Minute})
				began, ended := make(chan struct{}), make(chan time.Time, 1)
				push(t, q, &listq.Request{})
				stop := consume(t, q, listq.ConsumeConfig{DrainTimeout: drain}, func(ctx context.Context, _ *listq.Delivery) error {
					close(began)
					<-ctx.Done()
					ended <- time.Now()
					return ctx.Err()
				})
				<-began
				w.hole.Store(true)
				time.Sleep(2500 * time.Millisecond) // a claim is under way
				stopped := time.Now()
				stop()
				near(t, "the handler's context ended", (<-ended).Sub(stopped), max(drain, 0))
			})
		})
	}
}

// A consumer that stops starts nothing that it has claimed ahead, also while Redis does
// not answer.
func TestStopStartsNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		q := listq.New(rdb, "q", listq.Config{})
		many(t, q, 1000)
		var ran, late atomic.Int64
		var stopped atomic.Bool
		hung := make(chan struct{})
		stop := consume(t, q, listq.ConsumeConfig{Workers: 4}, func(context.Context, *listq.Delivery) error {
			if stopped.Load() {
				late.Add(1)
			}
			switch i := ran.Add(1); {
			case i == 300:
				w.hole.Store(true) // what is claimed from here on is not answered
				close(hung)
				fallthrough
			case i > 300:
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		})
		<-hung
		time.Sleep(15 * time.Millisecond) // a claim with acknowledgements is under way
		stopped.Store(true)
		stop()
		if n := late.Load(); n > 0 {
			t.Errorf("%d requests were started after the stop", n)
		}
	})
}

// A consumer that stops returns soon after the drain timeout, however much is to be
// acknowledged.
func TestManyAcksDoNotDelayTheEnd(t *testing.T) {
	for _, workers := range []int{100, 1000} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := server(t)
				rdb, _ := wired(t, srv)
				q := listq.New(rdb, "q", listq.Config{Lease: 10 * time.Minute})
				many(t, q, workers)
				var ran atomic.Int64
				all, end := make(chan struct{}), make(chan struct{})
				stop := consume(t, q, listq.ConsumeConfig{Workers: workers, DrainTimeout: time.Second}, func(context.Context, *listq.Delivery) error {
					if ran.Add(1) == int64(workers) {
						close(all)
					}
					<-end
					return nil
				})
				<-all
				srv.SetError("LOADING Redis is loading the dataset in memory")
				began := time.Now()
				time.AfterFunc(500*time.Millisecond, func() { close(end) })
				stop()
				if took := time.Since(began); took > 8*time.Second {
					t.Errorf("Consume returned %v after the stop, with a drain timeout of 1s", took)
				}
				srv.SetError("")
			})
		})
	}
}

// What handlers finish long after the drain timeout is acknowledged.
func TestLateHandlersAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, _ := wired(t, server(t))
		var stopped atomic.Bool
		rdb.AddHook(delay{before: func(redis.Cmder) time.Duration {
			if stopped.Load() {
				return 50 * time.Millisecond
			}
			return 0
		}})
		q := listq.New(rdb, "q", listq.Config{})
		const n = 300
		many(t, q, n)
		var running atomic.Int64
		stop := consume(t, q, listq.ConsumeConfig{Workers: n, DrainTimeout: -1}, func(context.Context, *listq.Delivery) error {
			time.Sleep(10*time.Second + time.Duration(running.Add(1))*20*time.Millisecond)
			return nil
		})
		time.Sleep(time.Second)
		stopped.Store(true)
		stop()
		stopped.Store(false)
		empty(t, rdb, q)
	})
}
