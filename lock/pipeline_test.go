package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// A Locker on go-redis's automatic pipelines keeps its promises: exclusion, refusals,
// waiting by grant, contexts that end.
func TestAutoPipeline(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		pipes, err := rdb.AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		a, b := newLocker(t, pipes, lock.Config{}), newLocker(t, pipes, lock.Config{})
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		var inside, sections [4]int // each guarded by its lock
		var wg sync.WaitGroup
		for i := range 32 {
			l := []*lock.Locker{a, b}[i%2]
			k := i / 2 % 4
			wg.Go(func() {
				for range 20 {
					if err := l.Do(t.Context(), fmt.Sprint("key:", k), nil, func(context.Context, *lock.Lock) error {
						if inside[k]++; inside[k] != 1 {
							t.Errorf("%d inside", inside[k])
						}
						sections[k]++
						inside[k]--
						return nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for k, n := range sections {
			if n != 160 {
				t.Errorf("key %d: %d sections, want 160", k, n)
			}
		}
		lk := take(t, a, "x")
		if _, err := b.TryAcquire(t.Context(), "x"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire of a held lock = %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waits := make(chan error)
		go func() { _, err := b.Acquire(ctx, "x", nil); waits <- err }()
		cancel()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire = %v", err)
		}
		release(t, lk)
		release(t, take(t, b, "x"))
	})
}
