package listq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// The tests of this file run on a fake clock, with a server in memory.

func TestIdleConsumerIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		consume(t, listq.New(rdb, "q", listq.Config{}), listq.ConsumeConfig{}, nothing)
		time.Sleep(time.Second) // set-up
		w.writes.Store(0)
		time.Sleep(time.Minute)
		if n := w.writes.Load(); n > 60 || n < 20 {
			t.Errorf("an idle consumer sent %d commands in a minute, want at most 60, and at least its polls", n)
		}
	})
}

func TestBusyConsumerIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{}, &listq.Request{}, &listq.Request{})
		ctx, end := context.WithCancel(t.Context())
		consume(t, q, listq.ConsumeConfig{Workers: 1}, func(context.Context, *listq.Delivery) error {
			<-ctx.Done()
			return nil
		})
		defer end()
		time.Sleep(time.Second)
		w.writes.Store(0)
		time.Sleep(time.Minute)
		if n := w.writes.Load(); n > 60 {
			t.Errorf("a consumer with no slot free, beside a queue with work, sent %d commands in a minute, want at most 60", n)
		}
	})
}

func TestPushStartsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Poll: time.Hour})
		started := make(chan time.Time)
		consume(t, q, listq.ConsumeConfig{}, func(context.Context, *listq.Delivery) error {
			started <- time.Now()
			return nil
		})
		for range 5 {
			time.Sleep(7 * time.Second)
			pushed := time.Now()
			push(t, q, &listq.Request{})
			near(t, "a push was started", (<-started).Sub(pushed), 0)
		}
	})
}

func TestNackedRequestComesBackOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{Poll: time.Hour})
		begun := time.Now()
		var ran []time.Duration
		done := make(chan struct{})
		consume(t, q, listq.ConsumeConfig{Backoff: after(1500 * time.Millisecond)}, func(_ context.Context, d *listq.Delivery) error {
			ran = append(ran, time.Since(begun))
			if d.Attempts < 3 {
				return errors.New("not yet")
			}
			close(done)
			return nil
		})
		push(t, q, &listq.Request{})
		<-done
		for i, at := range ran {
			near(t, fmt.Sprintf("run %d began", i), at, time.Duration(i)*1500*time.Millisecond)
		}
	})
}

// A process that stops in order leaves nobody waiting for a poll: not for work,
// nor for what it had the time of.
func TestShutdownHandsOver(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("first=", first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				cfg := listq.Config{Poll: time.Hour}
				producer := listq.New(rdb, "q", cfg)
				begun := time.Now()
				ran := make(chan time.Duration, 1)
				h := func(_ context.Context, d *listq.Delivery) error {
					if d.Attempts == 0 {
						return errors.New("later")
					}
					ran <- time.Since(begun)
					return nil
				}
				back := listq.ConsumeConfig{Backoff: after(20 * time.Second)}
				stops := []func(){
					consume(t, listq.New(rdb, "q", cfg), back, h),
					consume(t, listq.New(rdb, "q", cfg), back, h),
				}
				time.Sleep(time.Second)
				begun = time.Now()
				push(t, producer, &listq.Request{ID: "a"})
				time.Sleep(10 * time.Second)
				if first {
					stops[0]()
				} else {
					stops[1]()
				}
				near(t, "the request ran again", <-ran, 20*time.Second)
			})
		})
	}
}

// What is due is timed by one process, not by all.
func TestIdleConsumersDoNotHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		cfg := listq.Config{Poll: time.Hour}
		var ran atomic.Int64
		const processes, requests = 20, 30
		h := func(_ context.Context, d *listq.Delivery) error {
			if d.Attempts == 0 {
				return errors.New("later")
			}
			ran.Add(1)
			return nil
		}
		for range processes {
			consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{Backoff: after(time.Minute)}, h)
		}
		time.Sleep(time.Second)
		for range requests {
			push(t, listq.New(rdb, "q", cfg), &listq.Request{})
			time.Sleep(time.Second)
		}
		w.writes.Store(0)
		const minute = 60
		time.Sleep(minute * time.Second)
		blocking := int64(processes * minute / 5) // each blocks for 5 s at a time
		if n := w.writes.Load() - blocking; ran.Load() != requests || n > 8*requests {
			t.Errorf("%d processes ran %d of %d delayed requests with %d commands, want all with at most %d",
				processes, ran.Load(), requests, n, 8*requests)
		}
	})
}

func TestPollOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, w := wired(t, server(t))
		q := listq.New(rdb, "q", listq.Config{PollOnly: true, Poll: 3 * time.Second})
		ran := make(chan time.Time, 10)
		consume(t, q, listq.ConsumeConfig{Workers: 1}, func(context.Context, *listq.Delivery) error {
			ran <- time.Now()
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		time.Sleep(10 * time.Second)
		w.writes.Store(0)
		time.Sleep(time.Minute)
		if n := w.writes.Load(); n > 60/2 {
			t.Errorf("polling every 3s sent %d commands in a minute, want one a poll", n)
		}
		pushed := time.Now()
		for range 10 {
			push(t, q, &listq.Request{})
		}
		for i := range 10 {
			if late := (<-ran).Sub(pushed); late > 3*time.Second+time.Duration(i+1)*15*time.Millisecond {
				t.Errorf("request %d started after %v, want within the poll of 3s, and then one after another", i, late)
			}
		}
	})
}

func TestRenewalKeepsALongRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cfg := listq.Config{Lease: 3 * time.Second}
		var runs atomic.Int64
		done := make(chan error, 10)
		h := func(ctx context.Context, d *listq.Delivery) error {
			runs.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			done <- context.Cause(ctx)
			return nil
		}
		q := listq.New(rdb, "q", cfg)
		consume(t, q, listq.ConsumeConfig{}, h)
		consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{}, h)
		push(t, q, &listq.Request{})
		if err := <-done; err != nil {
			t.Errorf("the context of a handler of 20 leases ended: %v", err)
		}
		synctest.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("a request of 20 leases ran %d times, want once", n)
		}
		empty(t, rdb, q)
	})
}

// A handler that has settled its delivery may go on: its lease is gone because of
// that, and its context does not end.
func TestSettledHandlerKeepsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale := 0
		q := listq.New(redistest.Mini(t), "q", listq.Config{Lease: 3 * time.Second, Hooks: listq.Hooks{
			Stale: func(context.Context, *listq.Delivery) { stale++ },
		}})
		done := make(chan error, 1)
		consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
			if err := d.Ack(ctx); err != nil {
				t.Errorf("Ack = %v", err)
			}
			if err := d.Nack(ctx, 0, 0, ""); !errors.Is(err, listq.ErrSettled) {
				t.Errorf("Nack after Ack = %v, want ErrSettled", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Second):
			}
			done <- context.Cause(ctx)
			return nil
		})
		push(t, q, &listq.Request{})
		if err := <-done; err != nil || stale != 0 {
			t.Errorf("the context of a handler that acknowledged ended: %v; Stale called %d times", err, stale)
		}
	})
}

func TestDeadWorkersRequestRunsAgainWithinOneLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cfg := listq.Config{Lease: 10 * time.Second}
		q := listq.New(rdb, "q", cfg)
		ran := make(chan *listq.Delivery, 1)
		push(t, q, &listq.Request{ID: "a"})
		begun := time.Now()
		claim(t, q) // and dies
		time.Sleep(time.Second)
		consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{}, func(_ context.Context, d *listq.Delivery) error {
			ran <- d
			return nil
		})
		d := <-ran
		// The dead worker had the time, so that the others notice within a poll of 2s.
		if late := time.Since(begun) - cfg.Lease; late < 0 || late > 2*time.Second {
			t.Errorf("a dead worker's request ran %v after its lease ended, want up to 2s", late)
		}
		if d.Deliveries != 2 || d.Attempts != 0 {
			t.Errorf("the second delivery has Deliveries=%d Attempts=%d, want 2 and 0", d.Deliveries, d.Attempts)
		}
	})
}

// The context ends when the lease does, by the local clock, whether Redis answers
// with an error or not at all.
func TestLostLeaseEndsTheContext(t *testing.T) {
	for _, how := range []string{"errors", "silence"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := server(t)
				rdb, w := wired(t, srv)
				var stale atomic.Int64
				q := listq.New(rdb, "q", listq.Config{Lease: 3 * time.Second, Hooks: listq.Hooks{
					Stale: func(context.Context, *listq.Delivery) { stale.Add(1) },
				}})
				ended := make(chan error, 1)
				var begun time.Time
				var again atomic.Bool
				done := make(chan *listq.Delivery, 1)
				push(t, q, &listq.Request{})
				consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
					if !again.CompareAndSwap(false, true) {
						done <- d
						return nil
					}
					begun = time.Now()
					if how == "errors" {
						srv.SetError("LOADING Redis is loading the dataset in memory")
					} else {
						w.hole.Store(true)
					}
					select {
					case <-ctx.Done():
					case <-time.After(time.Minute):
					}
					ended <- context.Cause(ctx)
					return ctx.Err()
				})
				if err := <-ended; !errors.Is(err, listq.ErrStale) {
					t.Fatalf("the context ended with the cause %v after %v, want ErrStale", err, time.Since(begun))
				}
				if took := time.Since(begun); took > 3*time.Second || took < 2900*time.Millisecond {
					t.Errorf("the context ended after %v, want 3s, the lease", took)
				}
				synctest.Wait() // the context ends first
				if stale.Load() != 1 {
					t.Errorf("Stale was called %d times, want once", stale.Load())
				}
				srv.SetError("")
				w.hole.Store(false)
				if d := <-done; d.Attempts != 0 {
					t.Errorf("the lost lease counted as %d attempts, want 0", d.Attempts)
				}
			})
		})
	}
}

func TestStaleWorkerChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var stale atomic.Int64
		cfg := listq.Config{Lease: time.Second, Hooks: listq.Hooks{Stale: func(_ context.Context, d *listq.Delivery) {
			d.Settled() // must not block
			stale.Add(1)
		}}}
		q, other := listq.New(rdb, "q", cfg), listq.New(rdb, "q", cfg)
		push(t, q, &listq.Request{ID: "a", Lock: "k"}, &listq.Request{ID: "b", Lock: "k"})
		late := claim(t, q)
		time.Sleep(2 * time.Second)
		now := claim(t, other)
		ctx := t.Context()
		for name, settle := range map[string]func() error{
			"Ack":     func() error { return late.Ack(ctx) },
			"Extend":  func() error { return late.Extend(ctx) },
			"Nack":    func() error { return claimAgain(late).Nack(ctx, 0, 1, "") },
			"Bury":    func() error { return claimAgain(late).Bury(ctx, "") },
			"Requeue": func() error { return claimAgain(late).Requeue(ctx) },
		} {
			if err := settle(); !errors.Is(err, listq.ErrStale) && !errors.Is(err, listq.ErrSettled) {
				t.Errorf("%s of a stale delivery = %v, want ErrStale", name, err)
			}
		}
		if stale.Load() != 1 {
			t.Errorf("Stale was called %d times, want once", stale.Load())
		}
		if err := now.Ack(ctx); err != nil {
			t.Errorf("Ack by the new worker = %v", err)
		}
		if d := claim(t, other); d.ID != "b" {
			t.Errorf("Claim = %q, want b", d.ID)
		}
	})
}

func claimAgain(d *listq.Delivery) *listq.Delivery { return d }

func TestDrain(t *testing.T) {
	t.Run("running handlers finish", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			q := listq.New(rdb, "q", listq.Config{})
			begun := make(chan struct{})
			stop := consume(t, q, listq.ConsumeConfig{Workers: 1}, func(ctx context.Context, d *listq.Delivery) error {
				close(begun)
				time.Sleep(9 * time.Second)
				return ctx.Err()
			})
			push(t, q, &listq.Request{ID: "a"})
			<-begun
			push(t, q, &listq.Request{ID: "b"})
			stop()
			if d := claim(t, q); d.ID != "b" {
				t.Errorf("after the drain, the queue has %q, want b alone", d.ID)
			}
		})
	})
	t.Run("past the timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			q := listq.New(rdb, "q", listq.Config{})
			begun := make(chan struct{})
			var cause error
			stop := consume(t, q, listq.ConsumeConfig{DrainTimeout: 5 * time.Second}, func(ctx context.Context, d *listq.Delivery) error {
				close(begun)
				<-ctx.Done()
				cause = context.Cause(ctx)
				return ctx.Err()
			})
			push(t, q, &listq.Request{ID: "a"})
			<-begun
			at := time.Now()
			stop()
			near(t, "Consume returned", time.Since(at), 5*time.Second)
			if !errors.Is(cause, listq.ErrDraining) {
				t.Errorf("the handler's context ended with the cause %v, want ErrDraining", cause)
			}
			if d := claim(t, q); d.ID != "a" || d.Deliveries != 1 || d.Attempts != 0 {
				t.Errorf("requeued: %q Deliveries=%d Attempts=%d, want a, 1 and 0", d.ID, d.Deliveries, d.Attempts)
			}
		})
	})
	t.Run("without Redis", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := server(t)
			rdb, _ := wired(t, srv)
			q := listq.New(rdb, "q", listq.Config{Lease: time.Hour})
			begun := make(chan struct{})
			stop := consume(t, q, listq.ConsumeConfig{DrainTimeout: time.Second}, func(ctx context.Context, d *listq.Delivery) error {
				srv.SetError("LOADING Redis is loading the dataset in memory")
				close(begun)
				return nil
			})
			push(t, q, &listq.Request{ID: "a"})
			<-begun
			at := time.Now()
			stop()
			if took := time.Since(at); took > 10*time.Second {
				t.Errorf("Consume returned %v after its end, with Redis away and a drain timeout of 1s", took)
			}
		})
	})
}

func TestPanicAndGoexitCountAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var hook events
		q := listq.New(rdb, "q", listq.Config{Hooks: listq.Hooks{Panic: func(_ context.Context, d *listq.Delivery, v any, stack []byte) {
			if !strings.Contains(string(stack), "time_test.go") {
				t.Errorf("the stack does not show the handler:\n%s", stack)
			}
			hook.add(fmt.Sprint(d.ID, " ", v))
		}}})
		var ran events
		stop := consume(t, q, listq.ConsumeConfig{Workers: 1, Backoff: after(time.Second)}, func(_ context.Context, d *listq.Delivery) error {
			ran.add(fmt.Sprint(d.ID, d.Attempts))
			switch {
			case d.ID == "p" && d.Attempts == 0:
				panic("oh")
			case d.ID == "g" && d.Attempts == 0:
				runtime.Goexit()
			}
			return nil
		})
		push(t, q, &listq.Request{ID: "p"}, &listq.Request{ID: "g"}, &listq.Request{ID: "z"})
		time.Sleep(5 * time.Second)
		stop()
		got := ran.list()
		slices.Sort(got[3:])
		if want := []string{"p0", "g0", "z0", "g1", "p1"}; !slices.Equal(got, want) {
			t.Errorf("runs = %v, want %v", got, want)
		}
		if got, want := hook.list(), []string{"p oh"}; !slices.Equal(got, want) {
			t.Errorf("Panic hook = %v, want %v", got, want)
		}
		empty(t, rdb, q)
	})
}

func TestCapsMakeRequestsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var dead events
		cfg := listq.Config{Lease: time.Second, MaxDeliveries: 3, Hooks: listq.Hooks{Dead: func(_ context.Context, e listq.DeadEvent) {
			dead.add(e.Queue + " " + e.ID + " " + e.Reason)
		}}}
		q := listq.New(rdb, "q", cfg)

		push(t, q, &listq.Request{ID: "killer"})
		for range 3 {
			claim(t, q) // and dies
			time.Sleep(2 * time.Second)
		}
		if c, err := q.Claim(t.Context(), 1); err != nil || len(c.Deliveries) != 0 {
			t.Errorf("Claim = %+v, %v, want none after MaxDeliveries", c.Deliveries, err)
		}

		push(t, q, &listq.Request{ID: "failing"}, &listq.Request{ID: "garbled"}, &listq.Request{ID: "given up"})
		rdb.HSet(t.Context(), q.Key()+"msg", "garbled", "\xff")
		var ran atomic.Int64
		fixed := make(chan struct{}, 1)
		backoff := after(time.Second)
		consume(t, q, listq.ConsumeConfig{MaxAttempts: 4, Backoff: backoff}, func(ctx context.Context, d *listq.Delivery) error {
			switch {
			case d.ID == "given up":
				return d.Bury(ctx, "of no use")
			case ran.Add(1) > 4:
				fixed <- struct{}{}
				return nil
			}
			return errors.New("broken")
		})
		time.Sleep(10 * time.Second)
		want := []string{
			"q killer crash loop", "q garbled undecodable: request has version 255, this program knows 1",
			"q given up of no use", "q failing attempts: broken",
		}
		got := dead.list()
		slices.Sort(got[1:3])
		if !slices.Equal(got, want) {
			t.Errorf("dead = %q, want %q", got, want)
		}
		if ran.Load() != 4 {
			t.Errorf("the failing request ran %d times, want MaxAttempts = 4", ran.Load())
		}
		for _, id := range []string{"failing", "nobody"} {
			if ok, err := q.Revive(t.Context(), id); err != nil || ok != (id == "failing") {
				t.Errorf("Revive(%q) = %v, %v", id, ok, err)
			}
		}
		<-fixed
		synctest.Wait()
		if ok, err := q.Revive(t.Context(), "failing"); ok || err != nil {
			t.Errorf("Revive of a finished request = %v, %v, want false", ok, err)
		}
	})
}

// A backoff that gives up, or is out of its mind, leaves no request behind.
func TestBackoffGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead events
		q := listq.New(redistest.Mini(t), "q", listq.Config{Hooks: listq.Hooks{Dead: func(_ context.Context, e listq.DeadEvent) { dead.add(e.Reason) }}})
		b := retryFunc(func(attempt int, _ time.Duration) (time.Duration, bool) { return -time.Hour, attempt < 3 })
		consume(t, q, listq.ConsumeConfig{Backoff: b}, func(context.Context, *listq.Delivery) error { return errors.New("no") })
		push(t, q, &listq.Request{ID: "a"})
		time.Sleep(time.Second)
		if got := dead.list(); !slices.Equal(got, []string{"attempts: no"}) {
			t.Errorf("dead = %q, want one, after the backoff gave up", got)
		}
	})
}

type retryFunc func(int, time.Duration) (time.Duration, bool)

func (f retryFunc) Next(n int, d time.Duration) (time.Duration, bool) { return f(n, d) }

// Two queues with one pool: the pool's size is kept, and a queue that is never
// empty does not starve the other.
func TestSharedSlotsGoRound(t *testing.T) {
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprint("pollOnly=", pollOnly), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				cfg := listq.Config{PollOnly: pollOnly}
				busy, other := listq.New(rdb, "busy", cfg), listq.New(rdb, "other", cfg)
				var running, most, served atomic.Int64
				slots := listq.NewSlots(2)
				work := func(_ context.Context, d *listq.Delivery) error {
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(100 * time.Millisecond)
					running.Add(-1)
					if d.Queue() == other {
						served.Add(1)
					}
					return nil
				}
				for range 20 {
					var batch []*listq.Request
					for range 100 {
						batch = append(batch, &listq.Request{})
					}
					push(t, busy, batch...)
				}
				consume(t, busy, listq.ConsumeConfig{Slots: slots}, work)
				consume(t, other, listq.ConsumeConfig{Slots: slots}, work)
				time.Sleep(10 * time.Second)
				for range 10 {
					push(t, other, &listq.Request{})
				}
				time.Sleep(5 * time.Second)
				if served.Load() != 10 {
					t.Errorf("beside a busy queue, %d of 10 requests ran within 5s", served.Load())
				}
				if most.Load() != 2 {
					t.Errorf("%d handlers ran at once on 2 slots", most.Load())
				}
			})
		})
	}
}

// More than one claim can bring, with slots for all of them.
func TestManySlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{Poll: time.Hour, PollOnly: true})
		for range 3 {
			var batch []*listq.Request
			for range 120 {
				batch = append(batch, &listq.Request{})
			}
			push(t, q, batch...)
		}
		var running atomic.Int64
		consume(t, q, listq.ConsumeConfig{Workers: 400}, func(context.Context, *listq.Delivery) error {
			running.Add(1)
			time.Sleep(time.Second)
			return nil
		})
		time.Sleep(500 * time.Millisecond)
		if n := running.Load(); n != 360 {
			t.Errorf("%d of 360 requests run at once on 400 slots", n)
		}
	})
}

func TestMoveBringsBackWithoutConsuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Lease: 5 * time.Second})
		push(t, q, &listq.Request{ID: "a"})
		claim(t, q)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- listq.New(rdb, "q", listq.Config{}).Move(ctx, nil) }()
		time.Sleep(6 * time.Second)
		if ids := rdb.LRange(ctx, q.Key()+"ready", 0, -1).Val(); !slices.Equal(ids, []string{"a"}) {
			t.Errorf("ready = %v, want a, after its lease ended", ids)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Move = %v, want nil", err)
		}
	})
}

// What is due at once is brought back at once, also if it is more than one claim's.
func TestMoveBringsAllBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Lease: 5 * time.Second})
		for range 300 {
			push(t, q, &listq.Request{})
		}
		for range 3 {
			if c, err := q.Claim(t.Context(), 100); err != nil || len(c.Deliveries) != 100 {
				t.Fatalf("Claim = %d, %v, want 100", len(c.Deliveries), err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- listq.New(rdb, "q", listq.Config{}).Move(ctx, nil) }()
		ready := func() int64 { return rdb.LLen(ctx, q.Key()+"ready").Val() }
		for ready() == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond)
		if n := ready(); n != 300 {
			t.Errorf("%d are ready, want all 300, whose leases have ended", n)
		}
		stop()
		<-done
	})
}

// A reply to a claim that is lost is asked for again; what it held, and the slots
// do not, goes back.
func TestLostClaimHoldsMoreThanThereAreSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb := srv.Client()
		defer rdb.Close()
		q := listq.New(rdb, "q", listq.Config{})
		for i := range 8 {
			push(t, q, &listq.Request{ID: fmt.Sprint(i)})
		}
		if _, err := q.Claim(lostReplies(t, srv, rdb, q), 8); err == nil {
			t.Fatal("Claim without a reply returned no error")
		}
		var running, most atomic.Int64
		var order events
		consume(t, q, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			order.add(d.ID)
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			if d.Deliveries != 1 {
				t.Errorf("%s: Deliveries=%d, want 1", d.ID, d.Deliveries)
			}
			return nil
		})
		time.Sleep(10 * time.Second)
		got := order.list()
		slices.Sort(got)
		if len(got) != 8 || most.Load() != 2 {
			t.Errorf("ran %v, %d at once, want 8 requests, 2 at once", got, most.Load())
		}
	})
}

// lostReplies returns a context with which the next claim of q is applied, and
// its answer lost.
func lostReplies(t *testing.T, srv *sidesteptest.Server, rdb interface {
	AddHook(hook redisHook)
}, q *listq.Queue,
) context.Context {
	t.Helper()
	type key struct{}
	rdb.AddHook(loseReply{key{}})
	return context.WithValue(t.Context(), key{}, true)
}

// An extension that fails is tried again after a 24th of the lease. That is said
// once, as are the first claim that fails and the first that succeeds again.
func TestExtensionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, _ := wired(t, srv)
		var log strings.Builder
		q := listq.New(rdb, "q", listq.Config{Lease: 24 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		begun, done := make(chan struct{}), make(chan error, 1)
		stop := consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, _ *listq.Delivery) error {
			close(begun)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			done <- context.Cause(ctx)
			return nil
		})
		push(t, q, &listq.Request{})
		<-begun
		time.Sleep(7500 * time.Millisecond)
		srv.SetError("LOADING Redis is loading the dataset in memory")
		time.Sleep(14 * time.Second) // of the 16 left
		srv.SetError("")
		if err := <-done; err != nil {
			t.Errorf("the lease was lost: %v", err)
		}
		stop()
		for _, msg := range []string{"leases were not extended; trying on", "claims fail; trying on", "claims succeed again"} {
			if n := strings.Count(log.String(), msg); n != 1 {
				t.Errorf("%q was said %d times, want once\n%s", msg, n, &log)
			}
		}
	})
}

// A backoff is asked for the attempt that has just failed, the first being 1.
func TestBackoffCountsFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{})
		var asked []int
		backoff := retry.BackoffFunc(func(attempt int, _ time.Duration) (time.Duration, bool) {
			asked = append(asked, attempt)
			return time.Second, attempt < 3
		})
		stop := consume(t, q, listq.ConsumeConfig{Workers: 1, Backoff: backoff}, func(context.Context, *listq.Delivery) error {
			return errors.New("no")
		})
		push(t, q, &listq.Request{})
		time.Sleep(10 * time.Second)
		stop()
		if want := []int{1, 2, 3}; !slices.Equal(asked, want) {
			t.Errorf("asked for the attempts %v, want %v", asked, want)
		}
	})
}

// While claims are refused, one that failed is followed by a pause, whatever handlers
// finish meanwhile.
func TestClaimsThatFailPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, _ := wired(t, srv)
		var refused atomic.Bool
		var claims, ran atomic.Int64
		rdb.AddHook(delay{before: func(cmd redis.Cmder) time.Duration {
			if isClaim(cmd) && refused.Load() {
				claims.Add(1)
			}
			return 0
		}})
		q := listq.New(rdb, "q", listq.Config{})
		const n = 1500
		many(t, q, n)
		stuck, all := make(chan struct{}), make(chan struct{})
		consume(t, q, listq.ConsumeConfig{Workers: 500}, func(context.Context, *listq.Delivery) error {
			i := ran.Add(1)
			switch i {
			case 600:
				srv.SetError("NOPERM this user has no permissions")
				refused.Store(true)
				close(stuck)
			case n:
				close(all)
			}
			if i > 100 {
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			return nil
		})
		<-stuck
		time.Sleep(10 * time.Second)
		if got := claims.Load(); got < 5 || got > 120 {
			t.Errorf("%d claims were made in 10s while all were refused, want some, with pauses of half a second on average", got)
		}
		srv.SetError("")
		<-all
	})
}
