package listq_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// Several processes on one queue: every request runs, once; those of a lock run
// in the order of Push and one at a time; nothing is left behind.
func TestLoad(t *testing.T) {
	for _, locks := range []int{0, 1, 7} {
		t.Run(fmt.Sprint("locks=", locks), func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				n := map[int]int{0: 600, 1: 150, 7: 300}[locks] // the more is gated, the slower
				ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
				defer stop()
				var mu sync.Mutex // guards the maps
				seen, order, running := make(map[string]int), make(map[string][]int), make(map[string]int)
				var ran atomic.Int64
				h := func(_ context.Context, d *listq.Delivery) error {
					i := int(d.Payload[0])<<8 | int(d.Payload[1])
					mu.Lock()
					seen[d.ID]++
					if d.Lock != "" {
						order[d.Lock] = append(order[d.Lock], i)
						if running[d.Lock]++; running[d.Lock] > 1 {
							t.Errorf("two requests of lock %q run at once", d.Lock)
						}
					}
					mu.Unlock()
					if d.Deliveries != 1 || d.Attempts != 0 || d.Deferrals != 0 {
						t.Errorf("request %d: Deliveries=%d Attempts=%d Deferrals=%d, want 1, 0, 0", i, d.Deliveries, d.Attempts, d.Deferrals)
					}
					mu.Lock()
					running[d.Lock]--
					mu.Unlock()
					if ran.Add(1) == int64(n) {
						stop()
					}
					return nil
				}
				var processes sync.WaitGroup
				for range 3 {
					q := listq.New(rdb, "q", listq.Config{})
					processes.Go(func() {
						if err := q.Consume(ctx, listq.ConsumeConfig{Workers: 8}, h); err != nil {
							t.Errorf("Consume = %v", err)
						}
					})
				}
				q := listq.New(rdb, "q", listq.Config{})
				for i := 0; i < n; {
					var batch []*listq.Request
					for range 1 + i%40 {
						if i == n {
							break
						}
						r := &listq.Request{Payload: []byte{byte(i >> 8), byte(i)}}
						if locks > 0 {
							r.Lock = fmt.Sprint("lock", i%locks)
						}
						batch = append(batch, r)
						i++
					}
					push(t, q, batch...)
				}
				processes.Wait()
				if len(seen) != n {
					t.Errorf("%d of %d requests ran", len(seen), n)
				}
				for id, times := range seen {
					if times != 1 {
						t.Errorf("request %s ran %d times", id, times)
					}
				}
				for lock, is := range order {
					if !slices.IsSorted(is) {
						t.Errorf("requests of %s were delivered in the order %v", lock, is)
					}
				}
				empty(t, rdb, q)
			})
		})
	}
}

func TestRoundTrips(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		q := listq.New(rdb, "q", listq.Config{})
		count := redistest.Count(rdb)
		checking := false // the first round loads the scripts
		trips := func(what string, want int) {
			t.Helper()
			if got := count.Commands(); checking && (got != want || count.RoundTrips() != want) {
				t.Errorf("%s took %d commands, %d round trips, want %d: %v", what, got, count.RoundTrips(), want, count.Names())
			}
			count.Reset()
		}
		for _, checking = range []bool{false, true} {
			push(t, q, &listq.Request{})
			trips("Push", 1)
			push(t, q, &listq.Request{}, &listq.Request{}, &listq.Request{Lock: "k"}, &listq.Request{Lock: "k"})
			trips("Push of four", 1)
			c, err := q.Claim(ctx, 100)
			if err != nil || len(c.Deliveries) != 4 {
				t.Fatalf("Claim(100) = %+v, %v, want 4 deliveries: one is gated", c, err)
			}
			trips("Claim of a batch", 1)
			for i, settle := range []func() error{
				func() error { return c.Deliveries[0].Ack(ctx) },
				func() error { return c.Deliveries[1].Requeue(ctx) },
				func() error { return c.Deliveries[2].Bury(ctx, "why") },
				func() error { return c.Deliveries[3].Extend(ctx) },
				func() error { return c.Deliveries[3].Nack(ctx, time.Second, 0, "why") },
			} {
				if err := settle(); err != nil {
					t.Errorf("settlement %d = %v", i, err)
				}
				trips(fmt.Sprint("settlement ", i), 1)
			}
			if _, err := q.Push(ctx); err != nil {
				t.Errorf("Push of nothing = %v", err)
			}
			trips("Push of nothing", 0)
			rdb.FlushDB(ctx)
			count.Reset()
		}
	})
}

// What many handlers finish at a time is acknowledged together, and one answer
// brings many requests.
func TestBatches(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const n = 100
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{})
		if err := claim(t, q).Ack(t.Context()); err != nil { // loads the scripts
			t.Fatal(err)
		}
		var batch []*listq.Request
		for range n {
			batch = append(batch, &listq.Request{})
		}
		push(t, q, batch...)
		count := redistest.Count(rdb)
		var ready, done sync.WaitGroup
		ready.Add(n)
		done.Add(n)
		stop := consume(t, q, listq.ConsumeConfig{Workers: n}, func(context.Context, *listq.Delivery) error {
			ready.Done()
			ready.Wait()
			done.Done()
			return nil
		})
		done.Wait()
		stop()
		// One claim, a few acks, and what frames them: CONFIG, the hand-over.
		if got := count.Commands(); got > 25 {
			t.Errorf("%d requests took %d commands, want at most 25: %v", n, got, count.Names())
		}
		empty(t, rdb, q)
	})
}

func TestRevivedAndRepeatedPush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		q := listq.New(rdb, "q", listq.Config{})
		r := &listq.Request{ID: "a", Payload: []byte("1")}
		push(t, q, r)
		again := func(when string) {
			t.Helper()
			if n, err := q.Push(ctx, r, r); n != 0 || err != nil {
				t.Errorf("Push of a known id, %s = %d, %v, want 0", when, n, err)
			}
		}
		again("ready")
		d := claim(t, q)
		again("leased")
		if err := d.Nack(ctx, time.Hour, 1, "no"); err != nil {
			t.Fatal(err)
		}
		again("dead")
		if ok, err := q.Revive(ctx, "a"); !ok || err != nil {
			t.Errorf("Revive = %v, %v", ok, err)
		}
		d = claim(t, q)
		if d.Attempts != 0 || d.Deliveries != 1 || string(d.Payload) != "1" {
			t.Errorf("revived: %+v, want its counters at zero and its payload", d)
		}
		if err := d.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		again("finished")
	})
}
