package lock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// redsync gives a node a twentieth of the TTL: half an hour with a TTL of 10 h, and
// too little for a network with one of 100 ms.
func TestQuorumWaitsForNodesWithinItsTimeout(t *testing.T) {
	for _, tt := range []struct{ ttl, want time.Duration }{
		{10 * time.Hour, time.Second}, // NodeTimeout's default
		{300 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(tt.ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				direct := miniNodes(t, 3)
				hung, f := faulty(t, direct[2], func(o *redis.Options) { o.MaxRetries = -1 })
				l := newQuorum(t, []*redis.Client{direct[0], direct[1], hung}, lock.Config{TTL: tt.ttl})
				release(t, take(t, l, "warm"))
				synctest.Wait()
				f.dead.Store(true)
				timed := func(what string, want time.Duration, acquire func() (*lock.Lock, error)) {
					t.Helper()
					began := time.Now()
					lk, err := acquire()
					if d := time.Since(began); d != want {
						t.Errorf("%s took %v, want %v", what, d, want)
					}
					if err == nil {
						release(t, lk)
					} else if errors.Is(err, lock.ErrNotHeld) {
						t.Errorf("%s = %v", what, err)
					}
					synctest.Wait()
				}
				try := func() (*lock.Lock, error) { return l.TryAcquire(t.Context(), "x") }
				timed("a try that two nodes grant", 0, try)
				timed("an acquire that two nodes grant", 0, func() (*lock.Lock, error) { return l.Acquire(t.Context(), "x", nil) })
				direct[0].Set(t.Context(), "x", "theirs", 0)
				timed("a try that one node grants", tt.want, try)
				direct[1].Set(t.Context(), "x", "theirs", 0)
				timed("a try that none grants", 0, try)
				f.dead.Store(false)
				time.Sleep(time.Minute) // commands in flight time out
			})
		})
	}
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			direct := miniNodes(t, 3)
			hung, f := faulty(t, direct[1], func(o *redis.Options) { o.MaxRetries = -1 })
			slow, g := faulty(t, direct[2], nil)
			l := newQuorum(t, []*redis.Client{direct[0], hung, slow}, lock.Config{TTL: 100 * time.Millisecond})
			release(t, take(t, l, "warm"))
			synctest.Wait()
			f.dead.Store(true)
			g.delay.Store(int64(10 * time.Millisecond)) // twice what redsync's twentieth is
			release(t, take(t, l, "x"))
			f.dead.Store(false)
			time.Sleep(time.Minute)
		})
	})
}

// rueidislock waits for ever for a lock that is free if the network is slower than the
// time after which it tries the next key.
func TestFreeLockIsTakenHoweverSlowTheNetwork(t *testing.T) {
	for _, latency := range []time.Duration{60 * time.Millisecond, 2500 * time.Millisecond} {
		t.Run(latency.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow, f := faulty(t, redistest.Mini(t), nil)
				l := newLocker(t, slow, lock.Config{})
				release(t, take(t, l, "warm"))
				f.delay.Store(int64(latency))
				for name, acquire := range map[string]func() (*lock.Lock, error){
					"TryAcquire": func() (*lock.Lock, error) { return l.TryAcquire(t.Context(), "x") },
					"Acquire":    func() (*lock.Lock, error) { return l.Acquire(t.Context(), "x", nil) },
					"Do": func() (lk *lock.Lock, err error) {
						err = l.Do(t.Context(), "x", nil, func(_ context.Context, got *lock.Lock) error { lk = got; return nil })
						return lk, err
					},
				} {
					began := time.Now()
					lk, err := acquire()
					if err != nil {
						t.Errorf("%s = %v", name, err)
						continue
					}
					want := latency
					if name == "Do" {
						want *= 2 // it has released
					}
					if d := time.Since(began); d != want {
						t.Errorf("%s took %v, want %v", name, d, want)
					}
					release(t, lk)
				}
			})
		})
	}
}

// A Redisson lock may be renewed after its unlock. Here an extension that is under way
// as the lock is released, and arrives late, changes nothing, and no other is sent.
func TestNothingExtendsAReleasedLock(t *testing.T) {
	for _, then := range []string{"free", "taken"} {
		t.Run(then, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				late := another(t, rdb)
				var holding atomic.Bool
				var sent atomic.Int32
				goOn, arrived := make(chan struct{}), make(chan struct{})
				late.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					sent.Add(1)
					if holding.CompareAndSwap(true, false) { // the first in the section
						<-goOn
						defer close(arrived)
					}
					return next(ctx, cmd)
				}})
				l, other := newLocker(t, late, lock.Config{TTL: 3 * time.Second}), newLocker(t, rdb, lock.Config{TTL: 2 * time.Second})
				lk := take(t, other, "warm")
				if err := lk.Extend(t.Context()); err != nil { // the scripts are known
					t.Error(err)
				}
				release(t, lk)
				if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error {
					holding.Store(true)
					time.Sleep(1100 * time.Millisecond)
					if holding.Load() {
						t.Error("no extension is under way")
					}
					return nil
				}); err != nil {
					t.Errorf("TryDo = %v", err)
				}
				wantHeld(t, other, "x", false)
				if then == "taken" {
					take(t, other, "x")
				}
				close(goOn)
				<-arrived
				before := sent.Load()
				if st := wantHeld(t, other, "x", then == "taken"); st.Held && st.TTL != 2*time.Second {
					t.Errorf("the lease of another lasts for %v, want its 2s", st.TTL)
				}
				time.Sleep(time.Minute)
				if n := sent.Load() - before; n > 0 {
					t.Errorf("%d commands after the release", n)
				}
				wantHeld(t, other, "x", false)
			})
		})
	}
}

// A refused try of redsync deletes what it may have left, by its value: with a fixed one, for
// a hand-over, that is the holder's key. Nothing that is refused here touches the holder's
// keys, be it on one node or on several.
func TestWhoIsRefusedTouchesNothingOfTheHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := miniNodes(t, 3)
		for name, of := range map[string]func(owner string) *lock.Locker{
			"one":     func(owner string) *lock.Locker { return newLocker(t, nodes[0], lock.Config{Owner: owner}) },
			"several": func(owner string) *lock.Locker { return newQuorum(t, nodes, lock.Config{Owner: owner}) },
		} {
			holder, other := of("same"), of("same")
			lk := take(t, holder, name)
			synctest.Wait()
			before := make(map[int]string)
			for i, n := range nodes {
				before[i] = n.Get(t.Context(), name).Val()
			}
			for range 3 {
				if _, err := other.TryAcquire(t.Context(), name); !errors.Is(err, lock.ErrLocked) {
					t.Errorf("%s: TryAcquire = %v, want ErrLocked", name, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				if _, err := other.Acquire(ctx, name, nil); !errors.Is(err, lock.ErrLocked) {
					t.Errorf("%s: Acquire = %v, want ErrLocked", name, err)
				}
				cancel()
			}
			time.Sleep(time.Second)
			for i, n := range nodes {
				if got := n.Get(t.Context(), name).Val(); got != before[i] {
					t.Errorf("%s: node %d has %q after the tries, and had %q", name, i, got, before[i])
				}
			}
			release(t, lk)
			synctest.Wait()
		}
	})
}

// redislock's retry strategies keep count: one that is used again has no tries left.
func TestOneBackoffServesManyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		rdb.Set(t.Context(), "x", "theirs", 0)
		b := retry.Limit(retry.Constant(20*time.Millisecond), 3)
		for i := range 3 {
			began := time.Now()
			if _, err := l.Acquire(t.Context(), "x", b); !errors.Is(err, lock.ErrLocked) {
				t.Fatalf("Acquire = %v, want ErrLocked", err)
			}
			if took := time.Since(began); took != 40*time.Millisecond {
				t.Errorf("call %d waited %v, want 40ms", i, took)
			}
		}
	})
}

// rueidislock has one TTL for all locks of a Locker, and Redisson's fenced lock forgets the
// lease that it is asked for, and says the counter's fence, whoever asks.
func TestEachLockHasItsOwnLeaseAndFence(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		for _, ttl := range []time.Duration{time.Second, time.Hour} {
			first := take(t, l, "x", lock.WithTTL(ttl))
			if left := rdb.PTTL(t.Context(), "x").Val(); left > ttl || left < ttl/2 {
				t.Errorf("a lock for %v has %v in Redis", ttl, left)
			}
			fence := first.Fence()
			release(t, first)
			next := take(t, l, "x")
			if first.Fence() != fence || next.Fence() <= fence {
				t.Errorf("fences %d, and %d once the next one had %d", fence, first.Fence(), next.Fence())
			}
			release(t, next)
		}
	})
}

// A lock of Redisson is a thread's, so that no other may release it.
func TestAnyGoroutineMayRelease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		lk, done := take(t, l, "x"), make(chan error)
		go func() { done <- lk.Release(context.Background()) }()
		if err := <-done; err != nil {
			t.Error(err)
		}
		wantHeld(t, l, "x", false)
	})
}

// A waiter of etcd whose session has ended goes on waiting for what will not come. Here one
// that has been dropped from the line, whatever did that, is there again soon.
func TestAWaiterThatWasForgottenStillEnters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		held := take(t, other, "x")
		entered := make(chan time.Time, 1)
		go func() {
			lk, err := l.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Error(err)
				return
			}
			entered <- time.Now()
			release(t, lk)
		}()
		time.Sleep(100 * time.Millisecond)
		if n := rdb.Del(t.Context(), "{x}:line").Val(); n != 1 {
			t.Fatal("nobody stood in line")
		}
		release(t, held)
		freed := time.Now()
		if d := (<-entered).Sub(freed); d > 1100*time.Millisecond {
			t.Errorf("it entered %v after the release, want within a claim lease (1s)", d)
		}
		synctest.Wait()
	})
}

// A dead holder costs each newcomer of DynamoDB's lock client a whole lease, counted from
// when it first looked. Here it is what is left of the lease.
func TestANewcomerWaitsForWhatIsLeftOfADeadHoldersLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		rdb.Set(t.Context(), "x", "of one that is dead", 10*time.Second)
		time.Sleep(8 * time.Second)
		began := time.Now()
		lk, err := l.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2100*time.Millisecond {
			t.Errorf("it waited %v, want the 2s that were left", took)
		}
		release(t, lk)
	})
}

// Heartbeats of DynamoDB's lock client follow each other without a pause once one was late.
func TestALateExtensionIsNotFollowedByMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, delay := slowed(t, redistest.Mini(t))
		l := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second})
		count := redistest.Count(rdb)
		err := l.TryDo(t.Context(), "x", func(ctx context.Context, _ *lock.Lock) error {
			delay.Store(int64(1500 * time.Millisecond))
			time.Sleep(2600 * time.Millisecond)
			delay.Store(0)
			time.Sleep(2 * time.Second) // the answer is there
			count.Reset()
			time.Sleep(30 * time.Second)
			return ctx.Err()
		})
		if n := count.Commands(); err != nil || n < 25 || n > 35 {
			t.Errorf("%d extensions in 30 s, want about 30: %v", n, err)
		}
	})
}
