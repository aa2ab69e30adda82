package listq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func outOfMemory(t testing.TB, rdb *redis.Client) {
	t.Helper()
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
}

// While Redis is out of memory, a handler that takes longer than its lease goes on.
func TestLeasesAreExtendedWithoutMemory(t *testing.T) {
	t.Parallel()
	rdb := redistest.NewServer(t).Client(t)
	const lease = 3 * time.Second
	q := listq.New(rdb, "q", listq.Config{Lease: lease, Poll: 200 * time.Millisecond})
	push(t, q, &listq.Request{})
	done := make(chan error, 100)
	consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
		outOfMemory(t, rdb)
		first := d.LeaseExpires()
		for {
			select {
			case <-ctx.Done():
				done <- context.Cause(ctx)
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
				if d.LeaseExpires().Sub(first) > lease/2 { // extended twice
					done <- nil
					return nil
				}
			}
		}
	})
	if err := <-done; err != nil {
		t.Errorf("the handler's context ended: %v", err)
	}
}

// While Redis is out of memory what is there is worked off, which frees some: also
// while a lock's probe is due.
func TestQueueIsWorkedOffWithoutMemory(t *testing.T) {
	for _, parked := range []bool{false, true} {
		t.Run(fmt.Sprint("parked=", parked), func(t *testing.T) {
			t.Parallel()
			rdb := redistest.NewServer(t).Client(t)
			cfg := listq.Config{Poll: 200 * time.Millisecond}
			q := listq.New(rdb, "q", cfg)
			if parked {
				if _, err := delayq.New(q).Park(t.Context(), &listq.Request{Lock: "k"}, time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			const n = 20
			many(t, q, n)
			outOfMemory(t, rdb)
			y := newTally(n)
			consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{Probe: func(context.Context, string) {}}, y.handle)
			y.wait(t)
		})
	}
}
