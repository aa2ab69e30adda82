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
