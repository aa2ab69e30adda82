package lock_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// refusal is an answer of Redis.
type refusal string

func (e refusal) Error() string { return string(e) }
func (refusal) RedisError()     {}

// An acquire that was granted for a caller who left, and asks again for another's longer
// lease, gives the lock back if that is answered with an error.
func TestErrorAfterAGrantLeavesNoOrphan(t *testing.T) {
	for _, quorum := range []bool{false, true} {
		t.Run(map[bool]string{false: "one", true: "quorum"}[quorum], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := []*redis.Client{redistest.Mini(t)}
				if quorum {
					nodes = append(nodes, redistest.Mini(t), redistest.Mini(t))
				}
				var slow []*redis.Client
				var refuse atomic.Bool
				for _, n := range nodes {
					c, delay := slowed(t, n)
					delay.Store(int64(10 * time.Millisecond))
					c.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
						if refuse.Load() && strings.HasPrefix(cmd.Name(), "eval") {
							cmd.SetErr(refusal("BUSY Redis is busy running a script"))
							return cmd.Err()
						}
						return next(ctx, cmd)
					}})
					slow = append(slow, c)
				}
				var l, other *lock.Locker
				if quorum {
					l, other = newQuorum(t, slow, lock.Config{}), newQuorum(t, nodes, lock.Config{})
				} else {
					l, other = newLocker(t, slow[0], lock.Config{}), newLocker(t, nodes[0], lock.Config{})
				}
				release(t, take(t, l, "warm")) // the scripts are known
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = l.Acquire(ctx, "x", nil, lock.WithTTL(10*time.Minute)) })
				synctest.Wait()
				wg.Go(func() {
					_, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(time.Hour))
					if !errors.Is(err, lock.ErrUnavailable) {
						t.Errorf("Acquire = %v", err)
					}
				})
				synctest.Wait()
				cancel()
				time.Sleep(15 * time.Millisecond) // granted; asks again
				synctest.Wait()
				wantHeld(t, other, "x", true)
				refuse.Store(true)
				wg.Wait()
				refuse.Store(false) // for a moment only: the clean-up would succeed
				time.Sleep(2 * time.Minute)
				wantHeld(t, other, "x", false)
			})
		})
	}
}

// An extension was carried out and its answer lost; after the lease has run out here, what
// Redis still has is given back, whether its end was noticed before the release or not.
func TestReleaseAfterTheLeaseGivesBack(t *testing.T) {
	for _, after := range []time.Duration{10 * time.Minute, 12 * time.Minute} { // before and after the sweep
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				own := another(t, rdb)
				var lose atomic.Bool
				own.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					err := next(ctx, cmd)
					if lose.Load() {
						err = io.EOF
						cmd.SetErr(err)
					}
					return err
				}})
				l, other := newLocker(t, own, lock.Config{TTL: 10 * time.Minute}), newLocker(t, rdb, lock.Config{})
				warm := take(t, l, "warm")
				if err := warm.Extend(t.Context()); err != nil { // the script is known
					t.Fatal(err)
				}
				release(t, warm)
				lk := take(t, l, "x")
				began := time.Now()
				time.Sleep(5 * time.Minute)
				lose.Store(true)
				if err := lk.Extend(t.Context()); !errors.Is(err, lock.ErrUnavailable) {
					t.Fatalf("Extend = %v", err)
				}
				lose.Store(false)
				time.Sleep(after - time.Since(began))
				_ = lk.Release(t.Context()) // which may find it held after all
				time.Sleep(10 * time.Second)
				wantHeld(t, other, "x", false)
			})
		})
	}
}
