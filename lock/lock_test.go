package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

func TestMain(m *testing.M) {
	if runAsWorker() {
		return
	}
	redistest.Main(m)
}

// newLocker returns a Locker that is closed when the test ends.
func newLocker(t testing.TB, rdb redis.UniversalClient, cfg lock.Config) *lock.Locker {
	t.Helper()
	l := lock.New(rdb, cfg)
	t.Cleanup(func() { l.Close() })
	return l
}

// take acquires name or ends the test.
func take(t testing.TB, l *lock.Locker, name string, opts ...lock.Option) *lock.Lock {
	t.Helper()
	lk, err := l.TryAcquire(context.Background(), name, opts...)
	if err != nil {
		t.Fatalf("TryAcquire(%q): %v", name, err)
	}
	return lk
}

// release releases lk or fails the test.
func release(t testing.TB, lk *lock.Lock) {
	t.Helper()
	if err := lk.Release(context.Background()); err != nil {
		t.Errorf("Release: %v", err)
	}
}

func wantHeld(t testing.TB, l *lock.Locker, name string, want bool) lock.State {
	t.Helper()
	st, err := l.Inspect(context.Background(), name)
	if err != nil {
		t.Fatalf("Inspect(%q): %v", name, err)
	}
	if st.Held != want {
		t.Errorf("Inspect(%q).Held = %v, want %v (%+v)", name, st.Held, want, st)
	}
	return st
}

func TestTryAcquire(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		a := newLocker(t, rdb, lock.Config{Owner: "a", TTL: 10 * time.Second})
		b := newLocker(t, rdb, lock.Config{Owner: "b"})
		lk := take(t, a, "x")
		if lk.Name() != "x" || lk.TTL() != 10*time.Second || lk.Fence() <= 0 || lk.Token() == "" {
			t.Errorf("lock = %q %v %d", lk.Name(), lk.TTL(), lk.Fence())
		}
		_, err := b.TryAcquire(ctx, "x")
		le, ok := errors.AsType[*lock.LockedError](err)
		if !ok || !errors.Is(err, lock.ErrLocked) || le.Key != "x" || le.Owner != "a" || le.RetryAfter <= 9*time.Second || le.RetryAfter > 10*time.Second {
			t.Fatalf("refusal = %#v", err)
		}
		if strings.Contains(fmt.Sprintf("%+v %#v", err, le), lk.Token()) {
			t.Error("the refusal reveals the token")
		}
		st := wantHeld(t, b, "x", true)
		if st.Owner != "a" || st.Fence != lk.Fence() || st.Waiters != 0 || st.TTL <= 9*time.Second {
			t.Errorf("Inspect = %+v", st)
		}
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		release(t, lk)
		release(t, lk)
		if err := lk.Extend(ctx); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend after Release = %v", err)
		}
		lk2 := take(t, b, "x", lock.WithTTL(time.Second), lock.WithOwner("me"))
		if lk2.Fence() <= lk.Fence() {
			t.Errorf("fence %d after %d", lk2.Fence(), lk.Fence())
		}
		if st := wantHeld(t, b, "x", true); st.Owner != "me" || st.TTL > time.Second {
			t.Errorf("Inspect = %+v", st)
		}
		release(t, lk2)
		var none *lock.Lock
		if none.Release(ctx) != nil || none.Fence() != 0 || none.Reported() != nil {
			t.Error("a nil lock is not harmless")
		}
	})
}

func TestCommandCounts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := context.Background()
		l := newLocker(t, rdb, lock.Config{})
		lk := take(t, l, "warm") // loads the scripts
		lk.Extend(ctx)
		release(t, lk)
		n := redistest.Count(rdb)
		count := func(what string, want int) {
			t.Helper()
			if n.Commands() != want || n.RoundTrips() != want {
				t.Errorf("%s: %d commands %v in %d round trips, want %d", what, n.Commands(), n.Names(), n.RoundTrips(), want)
			}
			n.Reset()
		}
		lk = take(t, l, "x")
		count("TryAcquire", 1)
		if _, err := l.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			t.Fatal(err)
		}
		count("refused TryAcquire", 1)
		lk.Extend(ctx)
		count("Extend", 1)
		release(t, lk)
		count("Release", 1)
		release(t, lk)
		count("second Release", 0)
		lk, err := l.Acquire(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		count("free Acquire", 1)
		release(t, lk)
		count("its Release", 1)
		if err := l.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { return nil }); err != nil {
			t.Fatal(err)
		}
		count("Do", 2)
		if subs, err := rdb.PubSubChannels(ctx, "*mail*").Result(); err != nil || len(subs) != 0 {
			t.Errorf("subscriptions without contention: %v, %v", subs, err)
		}
		for _, name := range []string{"", "a\x00b", strings.Repeat("x", 1025)} {
			n.Reset()
			if _, err := l.TryAcquire(ctx, name); !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("TryAcquire(%.10q) = %v", name, err)
			}
			if _, err := l.Acquire(ctx, name, nil); !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("Acquire(%.10q) = %v", name, err)
			}
			count("invalid name", 0)
		}
	})
}

// Goroutines of two processes contend; sections cost about two commands.
func TestContendedCommands(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		n := redistest.Count(rdb)
		var wg sync.WaitGroup
		const rounds = 30
		for range 3 {
			l := newLocker(t, rdb, lock.Config{})
			wg.Go(func() {
				for range rounds {
					if err := l.Do(context.Background(), "x", nil, func(context.Context, *lock.Lock) error { return nil }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if per := float64(n.Commands()) / (3 * rounds); per > 2.6 {
			t.Errorf("%.2f commands per contended section, want about 2: %v", per, n.Names()[:20])
		}
	})
}

func TestWaitersEnterInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		holder := newLocker(t, rdb, lock.Config{Owner: "holder"})
		lk := take(t, holder, "x")
		var order []int
		var fences []int64
		var wg sync.WaitGroup
		for i := range 5 {
			l := newLocker(t, rdb, lock.Config{})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error {
					order = append(order, i)
					fences = append(fences, lk.Fence())
					time.Sleep(time.Millisecond)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(3 * time.Second)
		st := wantHeld(t, holder, "x", true)
		if st.Waiters != 5 {
			t.Errorf("%d in line, want 5", st.Waiters)
		}
		began := time.Now()
		release(t, lk)
		wg.Wait()
		if d := time.Since(began); d > 50*time.Millisecond {
			t.Errorf("five sections took %v", d)
		}
		if !slices.IsSorted(order) || !slices.IsSorted(fences) || len(order) != 5 || fences[0] <= lk.Fence() {
			t.Errorf("order %v, fences %v", order, fences)
		}
		wantHeld(t, holder, "x", false)
	})
}

// A turn reserves the fences that the one before makes likely, so that they do not run
// ahead of the clock.
func TestTurnsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		holder, l := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{TurnSections: 100, TurnTime: time.Hour})
		turns := func(sections int) (sizes []int) {
			lk := take(t, holder, "x")
			var last int64
			var wg sync.WaitGroup
			for range sections {
				wg.Go(func() {
					if err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error {
						if lk.Fence() != last+1 {
							sizes = append(sizes, 0)
						}
						last = lk.Fence()
						sizes[len(sizes)-1]++
						time.Sleep(time.Millisecond) // so that the next turn's fences do not follow on
						return nil
					}); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			release(t, lk)
			wg.Wait()
			return sizes
		}
		if got, want := turns(300), []int{16, 32, 64, 100, 88}; !slices.Equal(got, want) {
			t.Errorf("turns of %v sections, want %v", got, want)
		}
		if got, want := turns(20), []int{16, 4}; !slices.Equal(got, want) {
			t.Errorf("turns of %v sections, want %v", got, want)
		}
	})
}

// With the defaults, processes whose sections are longer than TurnTime take turns of
// one section; shorter ones fit more of them into it.
func TestTurnTime(t *testing.T) {
	for _, c := range []struct {
		section time.Duration
		turn    int
	}{{5 * time.Millisecond, 1}, {2100 * time.Microsecond, 2}, {1100 * time.Microsecond, 4}} {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			holder := newLocker(t, rdb, lock.Config{})
			lk := take(t, holder, "x")
			var order []int
			var wg sync.WaitGroup
			for p := range 3 {
				l := newLocker(t, rdb, lock.Config{})
				for range 8 {
					wg.Go(func() {
						if err := l.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error {
							time.Sleep(c.section)
							order = append(order, p)
							return nil
						}); err != nil {
							t.Error(err)
						}
					})
				}
				time.Sleep(50 * time.Millisecond) // they arrive one process after the other
			}
			release(t, lk)
			wg.Wait()
			for i, p := range order {
				if want := i / c.turn % 3; p != want {
					t.Fatalf("sections of %v: order of processes %v, want turns of %d", c.section, order, c.turn)
				}
			}
		})
	}
}

func TestLocalHandOffTakesNoRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TurnSections: 10, TurnTime: time.Hour})
		lk, err := l.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		release(t, take(t, l, "warm")) // loads the scripts
		n := redistest.Count(rdb)
		var fences []int64
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error {
					fences = append(fences, lk.Fence())
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		release(t, lk)
		wg.Wait()
		if n.Commands() != 1 { // the last release
			t.Errorf("commands: %v", n.Names())
		}
		for i, f := range fences {
			if f != lk.Fence()+int64(i)+1 {
				t.Errorf("fences %v after %d", fences, lk.Fence())
			}
		}
	})
}

func TestTurnIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a := newLocker(t, rdb, lock.Config{TurnSections: 3, TurnTime: time.Hour})
		b := newLocker(t, rdb, lock.Config{})
		var order []string
		var last int64
		var wg sync.WaitGroup
		section := func(l *lock.Locker, who string) {
			wg.Go(func() {
				if err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error {
					order = append(order, who)
					if lk.Fence() <= last {
						t.Errorf("fence %d after %d", lk.Fence(), last)
					}
					last = lk.Fence()
					time.Sleep(20 * time.Millisecond)
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		for range 4 {
			section(a, "a")
		}
		section(b, "b")
		wg.Wait()
		if got := strings.Join(order, ""); got != "aaaba" {
			t.Errorf("order %q, want aaaba", got)
		}
	})
}

func TestCancelledWaitLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		why := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		var err error
		done := make(chan struct{})
		go func() { _, err = b.Acquire(ctx, "x", nil); close(done) }()
		time.Sleep(100 * time.Millisecond)
		if st := wantHeld(t, a, "x", true); st.Waiters != 1 {
			t.Errorf("%d in line, want 1", st.Waiters)
		}
		cancel(why)
		<-done
		if !errors.Is(err, why) || !errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v", err)
		}
		if le, ok := errors.AsType[*lock.LockedError](err); !ok || le.Owner != "a" {
			t.Errorf("Acquire = %v", err)
		}
		synctest.Wait()
		if st := wantHeld(t, a, "x", true); st.Waiters != 0 {
			t.Errorf("%d in line after the cancel", st.Waiters)
		}
		release(t, lk)
		wantHeld(t, a, "x", false)
	})
}

// attempts is a Backoff of a fixed delay and a number of tries.
type attempts struct {
	delay time.Duration
	max   int
	asked atomic.Int32
}

func (a *attempts) Next(attempt int, elapsed time.Duration) (time.Duration, bool) {
	a.asked.Store(int32(attempt))
	return a.delay, attempt < a.max
}

func TestBackoffGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		bo := &attempts{delay: 100 * time.Millisecond, max: 4}
		began := time.Now()
		_, err := b.Acquire(t.Context(), "x", bo)
		if _, ok := errors.AsType[*lock.LockedError](err); !ok {
			t.Fatalf("Acquire = %v", err)
		}
		if d := time.Since(began); d < 300*time.Millisecond || d > 310*time.Millisecond || bo.asked.Load() != 4 {
			t.Errorf("gave up after %v and %d tries", d, bo.asked.Load())
		}
		// The same behind a holder of the own process.
		began = time.Now()
		own, err := b.Acquire(t.Context(), "y", nil)
		if err != nil {
			t.Fatal(err)
		}
		bo = &attempts{delay: 100 * time.Millisecond, max: 3}
		if _, err = b.Acquire(t.Context(), "y", bo); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v", err)
		}
		if d := time.Since(began); d < 200*time.Millisecond || d > 210*time.Millisecond {
			t.Errorf("gave up after %v", d)
		}
		release(t, own)
		synctest.Wait()
		if st := wantHeld(t, a, "x", true); st.Waiters != 0 {
			t.Errorf("%d in line", st.Waiters)
		}
		release(t, lk)
	})
}

func TestHoldExtends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var extended atomic.Int32
		l := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second, Hooks: lock.Hooks{
			Extended: func(_ context.Context, e lock.ExtendedEvent) {
				extended.Add(1)
				if e.Slack < 1900*time.Millisecond || e.Slack > 2*time.Second {
					t.Errorf("slack %v", e.Slack)
				}
			},
		}})
		err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			for range 60 {
				time.Sleep(time.Second)
				if ctx.Err() != nil || time.Until(lk.Expires()) < time.Second {
					t.Fatalf("lost: %v, %v", context.Cause(ctx), lk.Expires())
				}
			}
			return nil
		})
		if err != nil || extended.Load() < 50 || extended.Load() > 70 {
			t.Errorf("TryDo = %v, %d extensions", err, extended.Load())
		}
		wantHeld(t, l, "x", false)
	})
}

// A granted waiter holds a claim lease; its first tick must come in time.
func TestGrantedHoldExtendsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		done := make(chan error)
		go func() {
			done <- b.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				if d := time.Until(lk.Expires()); d > time.Second || d < 900*time.Millisecond {
					t.Errorf("entered with %v, want just under the claim lease", d)
				}
				for range 40 {
					time.Sleep(time.Second)
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
				}
				return nil
			})
		}()
		time.Sleep(time.Second)
		release(t, lk)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Plain Acquire has no watchdog, so it must not return with a claim lease.
func TestGrantedAcquireConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		done := make(chan *lock.Lock)
		go func() {
			lk, err := b.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Error(err)
			}
			done <- lk
		}()
		time.Sleep(time.Second)
		release(t, lk)
		got := <-done
		if d := time.Until(got.Expires()); d < 29*time.Second {
			t.Errorf("lock lasts %v", d)
		}
		if st := wantHeld(t, b, "x", true); st.TTL < 29*time.Second || got.Fence() <= lk.Fence() || got.Fence() > st.Fence {
			t.Errorf("%+v, fence %d after %d", st, got.Fence(), lk.Fence())
		}
		release(t, got)
	})
}

// The acquire was sent for a caller whose TTL is shorter, and who has left when the
// answer comes.
func TestAcquireLastsForItsOwnTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, delay := slowed(t, redistest.Mini(t))
		delay.Store(int64(100 * time.Millisecond))
		l := newLocker(t, slow, lock.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := l.Acquire(ctx, "x", nil, lock.WithTTL(time.Second))
			left <- err
		}()
		synctest.Wait()
		got := make(chan *lock.Lock)
		go func() {
			lk, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(time.Hour))
			if err != nil {
				t.Error(err)
			}
			got <- lk
		}()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire = %v", err)
		}
		lk := <-got
		if d := time.Until(lk.Expires()); d < 30*time.Minute {
			t.Errorf("a lock with a TTL of %v lasts for %v", lk.TTL(), d)
		}
		release(t, lk)
	})
}

func TestLostLockEndsContextInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var lost atomic.Int32
		a := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second, Hooks: lock.Hooks{
			Lost: func(_ context.Context, e lock.LostEvent) {
				lost.Add(1)
				if e.Key != "x" || !errors.Is(e.Err, lock.ErrNotHeld) || e.Fence == 0 {
					t.Errorf("event %+v", e)
				}
			},
		}})
		broken := errors.New("cable cut")
		var cut atomic.Bool
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if cut.Load() {
				cmd.SetErr(broken)
				return broken
			}
			return next(ctx, cmd)
		}})
		began := time.Now()
		err := a.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			time.Sleep(1100 * time.Millisecond)
			cut.Store(true)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			if !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
				t.Errorf("cause %v", context.Cause(ctx))
			}
			// Extended after 1 s: the key ends at 4 s, the section before.
			if d := time.Since(began); d > 4*time.Second || d < 3900*time.Millisecond {
				t.Errorf("context ended after %v", d)
			}
			return errors.New("half done")
		})
		if !errors.Is(err, lock.ErrNotHeld) || !strings.Contains(err.Error(), "half done") || lost.Load() != 1 {
			t.Errorf("TryDo = %v, lost %d times", err, lost.Load())
		}
	})
}

// hook adapts funcs to redis.Hook.
type hook struct {
	process  func(context.Context, redis.Cmder, redis.ProcessHook) error
	pipeline func(context.Context, []redis.Cmder, redis.ProcessPipelineHook) error
}

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	if h.process == nil {
		return next
	}
	return func(ctx context.Context, cmd redis.Cmder) error { return h.process(ctx, cmd, next) }
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.pipeline != nil {
			return h.pipeline(ctx, cmds, next)
		}
		if h.process != nil {
			if err := h.process(ctx, cmds[0], func(context.Context, redis.Cmder) error { return nil }); err != nil {
				for _, c := range cmds {
					c.SetErr(err)
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}
