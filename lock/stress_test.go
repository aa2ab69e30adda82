package lock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// history checks a run of sections on one lock: none overlap, and fences grow
// in the order of holding.
type history struct {
	mu       sync.Mutex
	inside   int
	last     int64
	sections int
}

func (h *history) section(t *testing.T, lk *lock.Lock, work time.Duration) {
	h.mu.Lock()
	h.inside++
	if h.inside != 1 {
		t.Errorf("%d inside", h.inside)
	}
	if lk.Fence() <= h.last {
		t.Errorf("fence %d after %d", lk.Fence(), h.last)
	}
	h.last = lk.Fence()
	h.sections++
	h.mu.Unlock()
	<-time.After(work)
	h.mu.Lock()
	h.inside--
	h.mu.Unlock()
}

// Several processes, each with several goroutines, all ways of acquiring, some
// cancelled: what is promised holds all the time.
func TestExclusionUnderStress(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		var h history
		var wg sync.WaitGroup
		const processes, goroutines, rounds = 3, 3, 25
		for p := range processes {
			l := newLocker(t, rdb, lock.Config{TurnSections: 1 + p*4, TTL: 5 * time.Second})
			for g := range goroutines {
				rnd := rand.New(rand.NewPCG(uint64(p), uint64(g)))
				wg.Go(func() {
					for range rounds {
						work := time.Duration(rnd.IntN(300)) * time.Microsecond
						ctx, cancel := t.Context(), context.CancelFunc(func() {})
						if rnd.IntN(4) == 0 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(4000))*time.Microsecond)
						}
						var err error
						switch rnd.IntN(4) {
						case 0:
							var lk *lock.Lock
							if lk, err = l.TryAcquire(ctx, "x"); err == nil {
								h.section(t, lk, work)
								release(t, lk)
							}
						case 1:
							var lk *lock.Lock
							if lk, err = l.Acquire(ctx, "x", nil); err == nil {
								h.section(t, lk, work)
								release(t, lk)
							}
						default:
							err = l.Do(ctx, "x", nil, func(_ context.Context, lk *lock.Lock) error {
								h.section(t, lk, work)
								return nil
							})
						}
						if err != nil && !errors.Is(err, lock.ErrLocked) && !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
						cancel()
					}
				})
			}
		}
		wg.Wait()
		if h.sections < 50 {
			t.Errorf("only %d sections", h.sections)
		}
		look := newLocker(t, rdb, lock.Config{})
		waitFor(t, func() bool {
			st, err := look.Inspect(t.Context(), "x")
			return err == nil && !st.Held && st.Waiters == 0
		})
		t.Logf("%d sections", h.sections)
	})
}

// A redsync mutex of the same name and a lock exclude each other.
func TestRedsyncExclusion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		l := newLocker(t, rdb, lock.Config{})
		theirs := redsync.New(goredis.NewPool(rdb)).NewMutex("x", redsync.WithTries(1))

		if err := theirs.LockContext(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := l.TryAcquire(ctx, "x")
		if le, ok := errors.AsType[*lock.LockedError](err); !ok || le.RetryAfter <= 0 || le.RetryAfter > 8*time.Second {
			t.Errorf("TryAcquire = %#v", err)
		}
		got := make(chan *lock.Lock)
		go func() {
			lk, err := l.Acquire(ctx, "x", nil)
			if err != nil {
				t.Error(err)
			}
			got <- lk
		}()
		waitFor(t, func() bool { st, _ := l.Inspect(ctx, "x"); return st.Waiters == 1 })
		if ok, err := theirs.UnlockContext(ctx); !ok || err != nil {
			t.Fatal(ok, err)
		}
		lk := <-got // by its timer: redsync tells nobody

		if err := theirs.TryLockContext(ctx); err == nil {
			t.Error("redsync took a held lock")
		}
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		release(t, lk)
		if err := theirs.TryLockContext(ctx); err != nil {
			t.Errorf("redsync on a free lock: %v", err)
		}
		if ok, err := theirs.UnlockContext(ctx); !ok || err != nil {
			t.Error(ok, err)
		}
	})
}
