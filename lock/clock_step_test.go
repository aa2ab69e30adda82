package lock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// clocked is a server whose clock is off from the process's. In bubbles only.
type clocked struct {
	srv *sidesteptest.Server
	off atomic.Int64 // by so many ns
}

func newClocked(t *testing.T) (*clocked, *redis.Client) {
	c := &clocked{srv: sidesteptest.New()}
	rdb := c.srv.Client()
	t.Cleanup(func() {
		rdb.Close()
		c.srv.Close()
	})
	c.set(rdb)
	return c, rdb
}

// set makes the server's clock go on with each command of rdb.
func (c *clocked) set(rdb *redis.Client) {
	tick := func() { c.srv.SetTime(c.now()) }
	rdb.AddHook(hook{
		process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			tick()
			return next(ctx, cmd)
		},
		pipeline: func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			tick()
			return next(ctx, cmds)
		},
	})
}

func (c *clocked) step(d time.Duration) { c.off.Add(int64(d)) }

func (c *clocked) now() time.Time { return time.Now().Add(time.Duration(c.off.Load())) }

// sections sees who is inside.
type sections struct {
	t *testing.T

	mu     sync.Mutex // guards the fields below
	inside map[*lock.Lock]context.Context
	last   int64 // fence
	n      int
}

// entered is how many sections there were.
func (s *sections) entered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func newSections(t *testing.T) *sections {
	return &sections{t: t, inside: make(map[*lock.Lock]context.Context)}
}

// run is a section that lasts for d, or until its context ends.
func (s *sections) run(ctx context.Context, lk *lock.Lock, d time.Duration) error {
	s.mu.Lock()
	s.n++
	for _, other := range s.inside {
		if other.Err() == nil && ctx.Err() == nil {
			s.t.Error("two are inside whose contexts have not ended")
		}
	}
	if lk.Fence() <= s.last {
		s.t.Errorf("fence %d after %d", lk.Fence(), s.last)
	}
	s.last = lk.Fence()
	s.inside[lk] = ctx
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.inside, lk)
		s.mu.Unlock()
	}()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// The server's clock steps by an hour: no section is lost by that as long as its lease
// is longer than the step, no two are inside, and fences grow.
func TestStepOfTheServersClockCostsNoSection(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		lease := 2 * time.Second
		if step > 0 {
			lease = 2 * time.Hour // see TestStepThatTakesALeaseIsNoticed
		}
		for _, when := range []string{"held", "in line", "granted"} {
			t.Run(fmt.Sprint(step, " ", when), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					stepWhile(t, step, when, lease)
				})
			})
		}
	}
}

func stepWhile(t *testing.T, step time.Duration, when string, lease time.Duration) {
	c, rdb := newClocked(t)
	seen := newSections(t)
	var running sync.WaitGroup
	inside := make(chan struct{})
	// section has a process of its own, and is extended once.
	section := func(fn func()) {
		l := newLocker(t, rdb, lock.Config{TTL: lease, ClaimLease: lease, FenceMargin: 12 * lease})
		running.Go(func() {
			if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				fn()
				return seen.run(ctx, lk, lease/2)
			}); err != nil {
				t.Errorf("Do = %v", err)
			}
		})
	}
	var once sync.Once
	at := func(moment string) {
		if moment == when {
			once.Do(func() { c.step(step) })
		}
	}
	section(func() { close(inside) })
	<-inside
	at("held")
	for range 2 {
		section(func() { at("granted") })
		synctest.Wait()
	}
	at("in line")
	running.Wait()
	if n := seen.entered(); n != 3 {
		t.Errorf("%d sections, want 3", n)
	}
	lk := take(t, newLocker(t, rdb, lock.Config{FenceMargin: 12 * lease}), "x")
	if lk.Fence() <= seen.last {
		t.Errorf("fence %d after %d", lk.Fence(), seen.last)
	}
	release(t, lk)
}

// A step forward may take a lease. The section ends with its next extension, not with
// the lease that it believes in, and who comes then has a larger fence.
func TestStepThatTakesALeaseIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rdb := newClocked(t)
		l, other := newLocker(t, rdb, lock.Config{TTL: 30 * time.Second}), newLocker(t, rdb, lock.Config{})
		var fence int64
		began := time.Now()
		err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			fence = lk.Fence()
			c.step(time.Hour)
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
				t.Errorf("cause %v", context.Cause(ctx))
			}
			return nil
		})
		if d := time.Since(began); d > 10*time.Second || !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("TryDo = %v after %v, want the end at the extension after a third of 30s", err, d)
		}
		c.step(-time.Hour) // it was wrong
		lk := take(t, other, "x")
		if lk.Fence() <= fence {
			t.Errorf("fence %d after %d", lk.Fence(), fence)
		}
		release(t, lk)
	})
}

// The server's clock steps forward between a join and its grant, which then seems to
// be given much later than it was: it counts from its receipt at the latest.
func TestGrantAfterAStepLastsForAClaimLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rdb := newClocked(t)
		bad, f := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1 })
		c.set(bad)
		holder := newLocker(t, rdb, lock.Config{TTL: 3 * time.Hour})
		waiter, next := lock.New(bad, lock.Config{}), newLocker(t, rdb, lock.Config{})
		seen := newSections(t)
		lk := take(t, holder, "x")
		var running sync.WaitGroup
		running.Go(func() {
			err := waiter.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				if d := time.Until(lk.Expires()); d > time.Second {
					t.Errorf("a grant of a claim lease of 1s lasts for %v", d)
				}
				f.dead.Store(true) // nothing extends it
				return seen.run(ctx, lk, time.Minute)
			})
			if !errors.Is(err, lock.ErrNotHeld) {
				t.Errorf("Do = %v, want ErrNotHeld", err)
			}
		})
		synctest.Wait()
		running.Go(func() {
			if err := next.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				return seen.run(ctx, lk, 2*time.Minute)
			}); err != nil {
				t.Errorf("Do = %v", err)
			}
		})
		synctest.Wait()
		c.step(time.Hour)
		release(t, lk)
		running.Wait()
		if n := seen.entered(); n != 2 {
			t.Errorf("%d sections, want 2", n)
		}
		f.dead.Store(false)
		time.Sleep(time.Minute) // commands in flight time out
		waiter.Close()
	})
}

// With rueidislock a client whose clock is behind the server's takes a lock that is
// over at once. Here what counts is how long, never when.
func TestClocksThatDisagree(t *testing.T) {
	for _, off := range []time.Duration{-10 * time.Hour, -10 * time.Second, 10 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, rdb := newClocked(t)
				c.step(off)
				a, b := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second}), newLocker(t, rdb, lock.Config{})
				lk := take(t, a, "x")
				if d := time.Until(lk.Expires()); d > 3*time.Second || d < 2900*time.Millisecond {
					t.Errorf("a lease of 3s lasts for %v", d)
				}
				if ahead := lk.Fence() - c.now().UnixMicro(); ahead < 0 || ahead > 1e6 {
					t.Errorf("the fence is %d us ahead of the server's clock", ahead)
				}
				_, err := b.TryAcquire(t.Context(), "x")
				if le, ok := errors.AsType[*lock.LockedError](err); !ok || le.RetryAfter != 3*time.Second {
					t.Errorf("TryAcquire = %v, want a refusal for 3s", err)
				}
				began, seen := time.Now(), newSections(t)
				var running sync.WaitGroup
				for _, l := range []*lock.Locker{b, a} { // the holder is heard of no more
					running.Go(func() {
						if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
							return seen.run(ctx, lk, 100*time.Second)
						}); err != nil {
							t.Errorf("Do = %v", err)
						}
					})
					synctest.Wait()
				}
				running.Wait()
				if d := time.Since(began); d < 203*time.Second || d > 204*time.Second {
					t.Errorf("two sections of 100s behind a lease of 3s took %v", d)
				}
			})
		})
	}
}

// Redisson's fair lock sorts its waiters by the clocks of the clients, so that one whose
// clock is wrong throws out others. Here no client tells the time: whatever is sent
// has no number in it that could be one.
func TestNoClientTellsTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var mu sync.Mutex
		sent := make(map[string]int)
		check := func(cmd redis.Cmder) {
			mu.Lock()
			defer mu.Unlock()
			sent[cmd.Name()]++
			for _, arg := range cmd.Args() {
				for _, word := range strings.Fields(fmt.Sprint(arg)) {
					n, err := strconv.ParseFloat(word, 64)
					for unit := time.Second; err == nil && unit > 0; unit /= 1000 {
						if d := float64(time.Now().UnixNano()) - n*float64(unit); math.Abs(d) < float64(24*time.Hour) {
							t.Errorf("%s is sent %s, which is a time", cmd.Name(), word)
						}
					}
				}
			}
		}
		rdb.AddHook(hook{
			process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				check(cmd)
				return next(ctx, cmd)
			},
			pipeline: func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
				for _, cmd := range cmds {
					check(cmd)
				}
				return next(ctx, cmds)
			},
		})
		seen := newSections(t)
		var running sync.WaitGroup
		for range 3 {
			l := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second})
			running.Go(func() {
				if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
					return seen.run(ctx, lk, 5*time.Second)
				}); err != nil {
					t.Errorf("Do = %v", err)
				}
			})
			synctest.Wait()
		}
		running.Wait()
		mu.Lock()
		defer mu.Unlock()
		if n := seen.entered(); n != 3 || sent["evalsha"] < 6 {
			t.Errorf("%d sections, sent %v", n, sent)
		}
	})
}
