package lock_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

func TestReleaseThatMeetsOthersIsBounded(t *testing.T) {
	for _, timeout := range []time.Duration{3 * time.Second, 5 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb, f := faulty(t, redistest.Mini(t), func(o *redis.Options) { o.ReadTimeout = timeout; o.MaxRetries = 3 })
				l := newLocker(t, rdb, lock.Config{TTL: time.Minute})
				var locks []*lock.Lock
				for i := range 6 {
					locks = append(locks, take(t, l, fmt.Sprint(i)))
				}
				f.dead.Store(true)
				var wg sync.WaitGroup
				for range 4 { // those before, which hang
					wg.Go(func() { l.Inspect(t.Context(), "y") })
				}
				synctest.Wait()
				for i, lk := range locks {
					wg.Go(func() {
						began := time.Now()
						err := lk.Release(t.Context())
						if d := time.Since(began); d > 6*time.Second {
							t.Errorf("release %d took %v: %v", i, d, err)
						}
					})
				}
				for range 4 {
					wg.Go(func() { l.Look(t.Context(), "y", "q") })
				}
				wg.Wait()
				f.dead.Store(false)
				time.Sleep(2 * time.Minute)
			})
		})
	}
}
