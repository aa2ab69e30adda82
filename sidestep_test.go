package sidestep_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestDeferredRequestsRunInOrderOneByOne(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		locker := lock.New(rdb, lock.Config{})
		defer locker.Close()
		acq := sidestep.New(locker, sidestep.Config{})
		queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 16})
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		const n = 400
		var mu sync.Mutex
		var order []int
		deliveries := 0
		task := sidestep.NewTask(queue, "t", func(int) string { return "hot" }, func(ctx context.Context, _ *lock.Lock, v int) error {
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, v)
			deliveries += sidestep.RequestFrom(ctx).Deliveries
			if len(order) == n {
				stop()
			}
			return nil
		})
		held, err := locker.TryAcquire(ctx, "hot")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			out, err := task.Do(ctx, i, sidestep.Defer(time.Second))
			if err != nil || out.Deferred == nil {
				t.Fatalf("Do(%d) = %+v, %v, want a receipt", i, out, err)
			}
		}
		if err := held.Release(ctx); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := queue.Run(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("makespan %v, ideal %v, deliveries %d", time.Since(start), n*5*time.Millisecond, deliveries)
		if !slices.IsSorted(order) || len(order) != n {
			t.Errorf("%d ran, in order: %v", len(order), slices.IsSorted(order))
		}
	})
}
