package lock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// hearing is a client that subscribes by another way than it sends commands.
type hearing struct {
	redis.UniversalClient
	by *redis.Client
}

func (h hearing) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return h.by.Subscribe(ctx, channels...)
}

// A waiter who is not told that it has the lock finds out when its timer rings, and
// enters beside nobody.
func TestWaiterThatIsNotToldEnters(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		p := redistest.Through(t, rdb)
		holder, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		waiter := newLocker(t, hearing{rdb, p.Client(t)}, lock.Config{ClaimLease: 200 * time.Millisecond})
		lk := take(t, holder, "x")
		entered, leave, left := make(chan int64, 1), make(chan struct{}), make(chan error, 1)
		end := sync.OnceFunc(func() { close(leave) })
		defer end()
		go func() {
			left <- waiter.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				entered <- lk.Fence()
				<-leave
				return nil
			})
		}()
		waitFor(t, func() bool { st, _ := holder.Inspect(t.Context(), "x"); return st.Waiters == 1 })
		p.BlackHole(true) // for the message alone
		release(t, lk)
		select {
		case fence := <-entered:
			if fence <= lk.Fence() {
				t.Errorf("fence %d after %d", fence, lk.Fence())
			}
			if _, err := other.TryAcquire(t.Context(), "x"); !errors.Is(err, lock.ErrLocked) {
				t.Errorf("TryAcquire beside the waiter = %v", err)
			}
			p.BlackHole(false) // the message comes after all, unless the subscription was given up
		case <-time.After(20 * time.Second):
			t.Fatal("the waiter did not enter")
		}
		end()
		if err := <-left; err != nil {
			t.Errorf("Do = %v", err)
		}
		release(t, take(t, other, "x"))
	})
}

// The message is lost or late. The waiter enters when the holder's lease would have
// been over, or after a claim lease, whichever is earlier; and a message that comes
// when its section is over takes the lock from nobody.
func TestLostWakeCostsTheEarlierOfTwoLeases(t *testing.T) {
	for name, tt := range map[string]struct {
		late   time.Duration // 0: never
		ttl    time.Duration // of the holder
		stay   time.Duration // of the waiter
		within time.Duration // from the join on
	}{
		"lost":                     {0, time.Minute, 3 * time.Second, time.Second},
		"lost, lease over first":   {0, 400 * time.Millisecond, 3 * time.Second, 400 * time.Millisecond},
		"late, while inside":       {900 * time.Millisecond, time.Minute, 3 * time.Second, time.Second},
		"late, when another is in": {900 * time.Millisecond, time.Minute, 10 * time.Millisecond, time.Second},
		"late, lease over first":   {900 * time.Millisecond, 400 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				bad, f := faulty(t, rdb, nil)
				holder, next := newLocker(t, rdb, lock.Config{TTL: tt.ttl}), newLocker(t, rdb, lock.Config{})
				waiter := newLocker(t, hearing{rdb, bad}, lock.Config{})
				seen := newSections(t)
				lk := take(t, holder, "x")
				joined := time.Now()
				waits, follows := make(chan error, 1), make(chan error, 1)
				go func() {
					waits <- waiter.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
						if d := time.Since(joined); d > tt.within+50*time.Millisecond {
							t.Errorf("entered %v after it joined, want %v and a little", d, tt.within)
						}
						return seen.run(ctx, lk, tt.stay)
					})
				}()
				synctest.Wait()
				go func() {
					follows <- next.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
						return seen.run(ctx, lk, 5*time.Second)
					})
				}()
				time.Sleep(200 * time.Millisecond)
				f.delay.Store(int64(tt.late))
				f.dead.Store(tt.late == 0)
				release(t, lk)
				synctest.Wait()
				f.delay.Store(0)
				f.dead.Store(false)
				if seen.entered() > 0 {
					t.Fatal("the message was not lost")
				}
				if err := <-waits; err != nil {
					t.Errorf("Do = %v", err)
				}
				if err := <-follows; err != nil {
					t.Errorf("Do of the next in line = %v", err)
				}
				wantHeld(t, holder, "x", false)
			})
		})
	}
}
