package listq

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// around is a hook around each command.
type around func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error

func (around) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h around) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return h(ctx, cmd, next) }
}

func (around) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// What a lost answer held is asked for again even if the slots that it was for are
// taken by then, and goes back.
func TestLostAnswerAndThenNoFreeSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		opt := *rdb.Options()
		own := redis.NewClient(&opt)
		defer own.Close()
		var armed atomic.Bool
		other := New(rdb, "q", Config{})
		own.AddHook(around(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			c, ok := cmd.(*redis.Cmd)
			if !ok || err != nil || !armed.Load() {
				return err
			}
			if v, ok := c.Val().([]any); ok && len(v) == 7 {
				if items, ok := v[0].([]any); ok && len(items) == 3 && armed.Swap(false) {
					time.AfterFunc(500*time.Microsecond, func() {
						if _, err := other.Push(context.Background(), &Request{ID: "b"}); err != nil {
							t.Error(err)
						}
					})
					err = errors.New("connection lost")
					cmd.SetErr(err)
				}
			}
			return err
		}))
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var mu sync.Mutex
		ran := map[string]time.Duration{}
		count := map[string]int{}
		h := func(ctx context.Context, d *Delivery) error {
			mu.Lock()
			ran[d.ID] = time.Since(began)
			count[d.ID] = d.Deliveries
			mu.Unlock()
			if d.ID == "b" {
				select {
				case <-time.After(10 * time.Minute):
				case <-ctx.Done():
				}
			}
			return nil
		}
		var done sync.WaitGroup
		done.Go(func() { _ = New(own, "q", Config{}).Consume(ctx, ConsumeConfig{Workers: 1}, h) })
		time.Sleep(time.Second)
		// "a" comes by a claim: it is due, as delayq has it
		armed.Store(true)
		e, err := other.Entry(&Request{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := other.script.Schedule(ctx, e, "+1000"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		mu.Lock()
		if _, ok := ran["b"]; !ok {
			t.Error("b did not run, which this test is about")
		}
		mu.Unlock()
		done.Go(func() { _ = other.Consume(ctx, ConsumeConfig{Workers: 1}, h) }) // has nothing to do
		time.Sleep(time.Minute)
		mu.Lock()
		if at := ran["a"]; at == 0 || at > 10*time.Second || count["a"] != 1 {
			t.Errorf("a ran after %v, delivered for the %dth time, want it a poll after it was due, at 2s", at, count["a"])
		}
		mu.Unlock()
		cancel()
		done.Wait()
	})
}

// A feeder whose free slots were all used for what was ahead stands in line for the
// next: handlers that settle by themselves bring it nothing.
func TestStandsInLineForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := New(rdb, "q", Config{})
		const n = 400
		for range n / 100 {
			batch := make([]*Request, 100)
			for i := range batch {
				batch[i] = &Request{}
			}
			if _, err := q.Push(t.Context(), batch...); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var last time.Duration
		var ran, longest atomic.Int64
		began := time.Now()
		c := q.consumer(ctx, ConsumeConfig{Workers: 1}.withDefaults(q))
		c.handler = func(ctx context.Context, d *Delivery) error {
			now := time.Since(began)
			longest.Store(max(longest.Load(), int64(now-last)))
			last = now
			ran.Add(1)
			return d.Bury(ctx, "failed") // as failed handlers do, it settles by itself
		}
		// The state after an answer has been handed out with a slot free, as its handler ended meanwhile: 100 are
		// ahead, and the kick is set.
		f := c.feeder(context.WithoutCancel(ctx))
		f.timer.Stop()
		x, err := f.exchange(ctx, lane0, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		all, _ := q.decodeAll(ctx, x.claim)
		c.ahead.add(all)
		f.pace = pace{mean: 10 * time.Microsecond, took: 500 * time.Microsecond} // 100 are wanted ahead
		signal(c.kick)
		var done sync.WaitGroup
		done.Go(func() {
			for ctx.Err() == nil {
				if due, ok := f.reason(ctx); ok {
					f.turn(ctx, due)
				}
			}
		})
		time.Sleep(30 * time.Second)
		if got := ran.Load(); got != n || longest.Load() > int64(100*time.Millisecond) {
			t.Errorf("%d of %d ran; for %v nothing did, while the slot was free and ready was not empty", got, n, time.Duration(longest.Load()))
		}
		cancel()
		done.Wait()
		c.giveBack(c.ahead.close())
		c.acking.Go(f.ackAll)
		c.drain()
		c.end(nil)
	})
}

// What the second lane adds just as the first one looks and finds nothing ahead is
// watched.
func TestWhatIsAddedIsWatched(t *testing.T) {
	q := New(redistest.Mini(t), "q", Config{})
	c := q.consumer(t.Context(), ConsumeConfig{Workers: 2}.withDefaults(q))
	defer c.end(nil)
	for i := range 1000 {
		f := c.feeder(t.Context())
		f.timer.Stop()
		f.impatience.Reset(0) // as set by watchAhead
		f.impatient = true
		d := &Delivery{queue: q}
		until := time.Now().Add(time.Hour)
		d.until.Store(&until)
		f.mu.Lock() // some exchange ends just now
		var both sync.WaitGroup
		both.Go(func() { f.reason(t.Context()) }) // finds nothing ahead, and waits for f.mu
		for range 100 {                           // it comes as far as that
			runtime.Gosched()
		}
		c.ahead.add([]*Delivery{d}) // the other lane's handOut
		f.mu.Unlock()
		f.watchAhead()
		both.Wait()
		f.impatience.Stop()
		if n := c.ahead.len(); n > 0 && !f.impatient {
			t.Fatalf("try %d: %d is ahead, and no timer runs", i, n)
		}
		c.ahead.mu.Lock()
		c.ahead.clear()
		c.ahead.mu.Unlock()
	}
}
