package listq_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// onSecondLane is a hook that is called after each claim of a feeder's second lane,
// and may lose its answer.
type onSecondLane func() error

func (onSecondLane) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h onSecondLane) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		for _, a := range cmd.Args()[1:] {
			if s, ok := a.(string); ok && strings.HasSuffix(s, "/1") && !strings.Contains(s, ":") && err == nil {
				if err = h(); err != nil {
					cmd.SetErr(err)
				}
			}
		}
		return err
	}
}

func (onSecondLane) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Two claims are under way at a time while there is enough to do, but not for a
// single worker, whose requests would come in another order.
func TestTwoClaimsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for workers, want := range map[int]bool{1: false, 8: true} {
			rdb := redistest.Mini(t)
			var seconds atomic.Int64
			rdb.AddHook(onSecondLane(func() error { seconds.Add(1); return nil }))
			q := listq.New(rdb, "q", listq.Config{})
			many(t, q, 1500)
			var ran, last atomic.Int64
			stop := consume(t, q, listq.ConsumeConfig{Workers: workers}, func(_ context.Context, d *listq.Delivery) error {
				if n := d.Accepted.UnixMilli(); last.Swap(n) > n && workers == 1 {
					t.Error("out of order")
				}
				ran.Add(1)
				return nil
			})
			time.Sleep(time.Second)
			stop()
			empty(t, rdb, q)
			if ran.Load() != 1500 || seconds.Load() > 0 != want {
				t.Errorf("%d workers: %d ran, with %d claims of a second lane, want any: %v", workers, ran.Load(), seconds.Load(), want)
			}
		}
	})
}

// What a lost answer to a claim of the second lane held is not lost: it runs a moment
// later, once; and if the consumer ends meanwhile it goes back, uncounted.
func TestLostAnswerOfTheSecondLane(t *testing.T) {
	for _, ends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			q, began := listq.New(rdb, "q", listq.Config{}), time.Now()
			rdb.AddHook(onSecondLane(func() error {
				switch {
				case ends && ctx.Err() == nil: // then what leaves asks
					cancel()
				case !ends && time.Since(began) == 0: // until all else has run, and nothing presses any more
				default:
					return nil
				}
				return errors.New("connection lost")
			}))
			const n = 1500
			many(t, q, n)
			var ran atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = q.Consume(ctx, listq.ConsumeConfig{Workers: 8}, func(_ context.Context, d *listq.Delivery) error {
					if d.Deliveries != 1 {
						t.Errorf("delivered for the %dth time", d.Deliveries)
					}
					ran.Add(1)
					return nil
				}) // always nil
			}()
			time.Sleep(time.Second) // far less than a lease
			cancel()
			<-done
			if !ends && ran.Load() != n {
				t.Errorf("%d of %d ran", ran.Load(), n)
			}
			s := stats(t, q)
			if s.Leased != 0 || s.Ready != n-int(ran.Load()) {
				t.Errorf("after %d of %d: %+v, want the rest to be ready", ran.Load(), n, s)
			}
			for more := true; more; {
				c, err := q.Claim(t.Context(), 128)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range c.Deliveries {
					if d.Deliveries != 1 {
						t.Fatalf("what went back was counted: delivered for the %dth time", d.Deliveries)
					}
				}
				more = c.More
			}
		})
	}
}
