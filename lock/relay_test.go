package lock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
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

// relayed runs a section of a relay and returns its fence.
func relayed(t *testing.T, l *lock.Locker, name string) (fence int64) {
	t.Helper()
	if err := l.TryDo(t.Context(), name, func(_ context.Context, lk *lock.Lock) error {
		fence = lk.Fence()
		return nil
	}, lock.Relay("q")); err != nil {
		t.Fatalf("TryDo(%q) = %v", name, err)
	}
	return fence
}

// another returns a client of the same server.
func another(t *testing.T, rdb *redis.Client) *redis.Client {
	t.Helper()
	opts := *rdb.Options()
	own := redis.NewClient(&opts)
	t.Cleanup(func() { own.Close() })
	return own
}

// slowed returns a client of the same server whose commands are sent late by a delay,
// at first none. It is for bubbles.
func slowed(t *testing.T, rdb *redis.Client) (c *redis.Client, delay *atomic.Int64) {
	t.Helper()
	c, delay = another(t, rdb), new(atomic.Int64)
	c.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		time.Sleep(time.Duration(delay.Load()))
		return next(ctx, cmd)
	}})
	return c, delay
}

func held(t *testing.T, l *lock.Locker, name string) bool {
	t.Helper()
	st, err := l.Inspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Held
}

// free waits until nobody holds a lock.
func free(t *testing.T, l *lock.Locker, name string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); held(t, l, name); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s is held", name)
		}
	}
}

// Sections of a relay take a command each, and have fences that grow.
func TestRelay(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		release(t, take(t, newLocker(t, rdb, lock.Config{}), "warm"))
		own := another(t, rdb)
		count := redistest.Count(own)
		l := newLocker(t, own, lock.Config{})
		relayed(t, l, "warm") // the script is known
		l.EndRelay("warm", "q")
		free(t, l, "warm")
		count.Reset()
		var last int64
		for range 10 {
			f := relayed(t, l, "x")
			if f <= last {
				t.Errorf("fence %d after %d", f, last)
			}
			last = f
		}
		if got := count.Commands(); got < 10 || got > 11 {
			t.Errorf("10 sections took %d commands %v, want 10 or, if the last one's is sent by now, 11", got, count.Names())
		}
		l.EndRelay("x", "q")
		free(t, l, "x")
		if f := take(t, newLocker(t, rdb, lock.Config{}), "x").Fence(); f <= last {
			t.Errorf("fence %d after the relay, whose last was %d", f, last)
		}
	})
}

// A lock that no further section comes for is free after a hundredth of a second, or
// at once if that is known; also if it is known before Redis has answered.
func TestRelayEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration // before EndRelay; negative: never
		free time.Duration
	}{
		{"by itself", -1, 10 * time.Millisecond},
		{"by EndRelay", time.Millisecond, time.Millisecond},
		{"by EndRelay before the answer", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
				relayed(t, l, "x")
				if c.wait != 0 {
					synctest.Wait()
					wantHeld(t, other, "x", true)
				}
				if c.wait >= 0 {
					time.Sleep(c.wait)
					l.EndRelay("x", "other queue") // which is none of this relay
					l.EndRelay("x", "q")
				}
				time.Sleep(c.free)
				synctest.Wait()
				wantHeld(t, other, "x", false)
				relayed(t, l, "x") // goes on as if nothing had been
			})
		})
	}
}

// EndRelays waits until what a queue's relays have passed on is released, whether Redis
// has answered or not, but for no longer than its context; other queues' it leaves.
func TestEndRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		slow := another(t, rdb)
		slow.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			time.Sleep(time.Millisecond)
			return next(ctx, cmd)
		}})
		l, other := newLocker(t, slow, lock.Config{}), newLocker(t, rdb, lock.Config{})
		l.EndRelays(t.Context(), "q") // of which there are none
		relayed(t, l, "x")
		time.Sleep(2 * time.Millisecond)
		relayed(t, l, "y")
		if err := l.TryDo(t.Context(), "z", nothing, lock.Relay("p")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
		relayed(t, l, "w") // which Redis has yet to answer
		ended, end := context.WithCancel(t.Context())
		end()
		l.EndRelays(ended, "q")
		wantHeld(t, other, "x", true)
		l.EndRelays(t.Context(), "q")
		for name, held := range map[string]bool{"w": false, "x": false, "y": false, "z": true} {
			wantHeld(t, other, name, held)
		}
	})
}

// Whoever stands in line gets the lock before the relay's next section.
func TestRelayLetsWaitersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		relayed(t, l, "x")
		synctest.Wait()
		entered := make(chan *lock.Lock)
		if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error {
			go func() {
				lk, err := other.Acquire(t.Context(), "x", nil)
				if err != nil {
					t.Error(err)
				}
				entered <- lk
			}()
			time.Sleep(time.Second)
			return nil
		}, lock.Relay("q")); err != nil {
			t.Fatal(err)
		}
		if err := l.TryDo(t.Context(), "x", nothing, lock.Relay("q")); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryDo beside the waiter that was let in = %v, want a refusal", err)
		}
		lk := <-entered
		release(t, lk)
		relayed(t, l, "x")
	})
}

// A queue that has registered is told, and the lock is free for it.
func TestRelayTellsQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{})
		var mu sync.Mutex
		var told []string
		l.OnFreed(func(name string, queues []string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, name+": "+strings.Join(queues, " "))
		})
		for _, queue := range []string{"p", "q"} {
			if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error {
				_, _, err := l.Look(t.Context(), "x", queue)
				return err
			}, lock.Relay("q")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			wantHeld(t, l, "x", queue == "q")
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"x: p", "x: q"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// For those who do not stand in line the lock is free for a moment after so many
// sections.
func TestRelayLetsTriesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		for i := 1; i <= 40; i++ {
			relayed(t, l, "x")
			synctest.Wait()
			if free := i%16 == 0; held(t, other, "x") == free {
				t.Errorf("after section %d the lock is free: %v, want %v", i, !free, free)
			}
		}
	})
}

// A section that fails, or panics, releases the lock before TryDo returns.
func TestRelayOfAFailedSection(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		failed := errors.New("failed")
		if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error { return failed }, lock.Relay("q")); !errors.Is(err, failed) {
			t.Errorf("TryDo = %v", err)
		}
		wantHeld(t, l, "x", false)
		func() {
			defer func() { _ = recover() }()
			_ = l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error { panic(failed) }, lock.Relay("q"))
		}()
		wantHeld(t, l, "x", false)
	})
}

// Other settings are another relay, and the option says what is wrong with it.
func TestRelayOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{})
		for _, o := range []lock.Option{lock.Relay(""), lock.LastOfRelay("")} {
			if err := l.TryDo(t.Context(), "x", nothing, o); !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("TryDo with %v = %v, want ErrInvalid", o, err)
			}
		}
		if got := fmt.Sprint(lock.Relay("q"), lock.LastOfRelay("q")); got != `Relay("q") LastOfRelay("q")` {
			t.Errorf("the options print as %s", got)
		}
		for _, o := range []lock.Option{lock.WithTTL(time.Minute), lock.WithOwner("somebody"), lock.Relay("p")} {
			relayed(t, l, "x")
			synctest.Wait()
			if err := l.TryDo(t.Context(), "x", nothing, lock.Relay("q"), o); !errors.Is(err, lock.ErrLocked) {
				t.Errorf("TryDo with %v = %v, want a refusal", o, err)
			}
			time.Sleep(time.Second)
		}
		// Acquire and TryAcquire ignore it.
		lk := take(t, l, "x", lock.Relay("q"))
		release(t, lk)
		wantHeld(t, l, "x", false)
	})
}

// A lock that is being given back is waited for, however long that takes: a try would
// be refused because of nobody but this Locker.
func TestRelayIsNotInItsOwnWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		slow, delay := slowed(t, rdb)
		l := newLocker(t, slow, lock.Config{})
		relayed(t, l, "x")
		synctest.Wait()
		delay.Store(int64(50 * time.Millisecond))
		l.EndRelay("x", "q")
		time.Sleep(time.Millisecond)
		relayed(t, l, "x")
	})
}

// The last section of a relay takes the lock over, if there is one to take over, and
// has released it when TryDo returns.
func TestLastOfRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		own := another(t, rdb)
		l, other := newLocker(t, own, lock.Config{}), newLocker(t, rdb, lock.Config{})
		release(t, take(t, l, "x")) // the scripts are known
		count := redistest.Count(own)
		for _, c := range []struct {
			before   bool
			commands int
		}{{true, 1}, {false, 2}} {
			if c.before {
				relayed(t, l, "x")
				synctest.Wait()
			}
			count.Reset()
			if err := l.TryDo(t.Context(), "x", nothing, lock.LastOfRelay("q")); err != nil {
				t.Fatal(err)
			}
			if got := count.Commands(); got != c.commands {
				t.Errorf("another section before: %v; %d commands %v, want %d", c.before, got, count.Names(), c.commands)
			}
			wantHeld(t, other, "x", false)
		}
	})
}

// nothing is a section that does nothing.
func nothing(context.Context, *lock.Lock) error { return nil }

// However the command that passes the lock on is lost, before it is executed, after,
// or until much later, nobody is left with the lock, and what came late takes it from
// nobody.
func TestRelayLosesNothing(t *testing.T) {
	for _, how := range []string{"before", "after", "late"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				bad := another(t, rdb)
				lost := &net.OpError{Op: "read", Err: errors.New("cut")}
				var once sync.Once
				late := func() {}
				bad.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					args := cmd.Args()
					if len(args) < 13 || args[12] == nil || cmd.Name() != "evalsha" {
						return next(ctx, cmd)
					}
					drop := false
					once.Do(func() { drop = true })
					if !drop {
						return next(ctx, cmd)
					}
					switch how {
					case "after":
						_ = next(ctx, cmd)
					case "late":
						late = func() { _ = next(ctx, redis.NewCmd(ctx, args...)) }
					}
					cmd.SetErr(lost)
					return lost
				}})
				other := newLocker(t, rdb, lock.Config{})
				for range 2 { // the scripts are known
					relayed(t, other, "warm")
				}
				l := newLocker(t, bad, lock.Config{})
				first := relayed(t, l, "x")
				synctest.Wait()
				wantHeld(t, other, "x", false)
				lk := take(t, other, "x")
				if lk.Fence() <= first {
					t.Errorf("fence %d after %d", lk.Fence(), first)
				}
				late()
				if st := wantHeld(t, other, "x", true); st.Fence != lk.Fence() {
					t.Errorf("the fence is %d, want %d", st.Fence, lk.Fence())
				}
				if err := lk.Extend(t.Context()); err != nil {
					t.Errorf("Extend = %v", err)
				}
				release(t, lk)
				relayed(t, l, "x")
			})
		})
	}
}

// If the answer that names the queues which a relay has freed the lock for is lost, those
// who listen are told that there may be some: with the command that passes the lock on,
// which go-redis repeats or which fails, and with the release of what was passed on.
func TestLostAnswerOfARelayIsReported(t *testing.T) {
	for _, c := range []struct {
		name  string
		relay string // the queue of the relay; q waits for the lock
		fails bool
	}{
		{"sent again", "other", false},
		{"failed", "other", true},
		{"passed on and given back", "q", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				own := another(t, rdb)
				lost := &net.OpError{Op: "read", Err: errors.New("cut")}
				var arm atomic.Bool
				own.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					if !arm.CompareAndSwap(true, false) {
						return next(ctx, cmd)
					}
					_ = next(ctx, cmd) // nobody sees the answer
					if c.fails {
						cmd.SetErr(lost)
						return lost
					}
					return next(ctx, cmd)
				}})
				l := newLocker(t, own, lock.Config{})
				for range 2 { // the scripts are known
					relayed(t, l, "warm")
				}
				time.Sleep(time.Second)
				freed := make(chan []string, 10)
				l.OnFreed(func(name string, queues []string) { freed <- append(queues, name) })
				if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error {
					_, _, err := l.Look(t.Context(), "x", "q")
					arm.Store(c.relay != "q")
					return err
				}, lock.Relay(c.relay)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if c.relay == "q" {
					wantHeld(t, l, "x", true)
					arm.Store(true)
					l.EndRelay("x", "q")
					synctest.Wait()
				}
				close(freed)
				if got := <-freed; !slices.Equal(got, []string{"x"}) {
					t.Errorf("told of %q, want x without queues", got)
				}
				if got, again := <-freed; again {
					t.Errorf("told again, of %q", got)
				}
				wantHeld(t, l, "x", false)
			})
		})
	}
}

// A relay that ends as it should is not taken for one whose answer was lost.
func TestAnsweredRelayReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{})
		l.OnFreed(func(name string, queues []string) { t.Errorf("told of %q: %q", name, queues) })
		for range 20 {
			relayed(t, l, "x")
			synctest.Wait()
		}
		l.EndRelay("x", "q")
		synctest.Wait()
		relayed(t, l, "x")
		time.Sleep(time.Second)
		wantHeld(t, l, "x", false)
	})
}

// A section whose context ends while it waits for the lock to be passed on leaves
// nothing behind, and so does a Locker that is closed.
func TestRelayGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		slow, delay := slowed(t, rdb)
		l, other := lock.New(slow, lock.Config{}), newLocker(t, rdb, lock.Config{})
		relayed(t, l, "x")
		delay.Store(int64(time.Second))
		relayed(t, l, "x")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := l.TryDo(ctx, "x", nothing, lock.Relay("q")); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 200*time.Millisecond {
			t.Errorf("TryDo = %v after %v, want the end of its context", err, time.Since(began))
		}
		time.Sleep(3 * time.Second)
		wantHeld(t, other, "x", false)

		delay.Store(0)
		relayed(t, l, "x")
		synctest.Wait()
		l.Close()
		wantHeld(t, other, "x", false)
		if err := l.TryDo(t.Context(), "x", nothing, lock.Relay("q")); !errors.Is(err, lock.ErrClosed) {
			t.Errorf("TryDo = %v, want ErrClosed", err)
		}
	})
}

// What was passed on to a process that was stopped meanwhile is not entered when its
// lease is over.
func TestRelayPastItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		slow := another(t, rdb)
		var delay atomic.Int64
		slow.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			time.Sleep(time.Duration(delay.Load()))
			return err
		}})
		l := newLocker(t, slow, lock.Config{TTL: time.Second})
		first := relayed(t, l, "x")
		synctest.Wait()
		delay.Store(int64(2 * time.Second))
		second := relayed(t, l, "x") // whose answer comes late
		time.Sleep(time.Millisecond)
		delay.Store(0)
		third := relayed(t, l, "x")
		if second <= first || third <= second+1 {
			t.Errorf("fences %d, %d, %d: want growing ones, and one lost before the third", first, second, third)
		}
	})
}

// A quorum ignores the option.
func TestRelayOnAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := lock.NewQuorum([]redis.UniversalClient{rdb}, lock.Config{})
		defer l.Close()
		for range 3 {
			relayed(t, l, "x")
			wantHeld(t, l, "x", false)
		}
	})
}

// A copy of the command that passed the lock on, which comes while the next section
// is inside and somebody waits, does not let that one in.
func TestRelayedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		own := another(t, rdb)
		var mu sync.Mutex
		var passed []any
		own.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if args := cmd.Args(); len(args) == 13 {
				mu.Lock()
				passed = args
				mu.Unlock()
			}
			return next(ctx, cmd)
		}})
		l, other := newLocker(t, own, lock.Config{}), newLocker(t, rdb, lock.Config{})
		relayed(t, l, "x")
		synctest.Wait()
		var waiting sync.WaitGroup
		inside := false
		if err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			waiting.Go(func() {
				if err := other.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error {
					if inside {
						t.Error("two are inside")
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
			inside = true
			synctest.Wait()
			mu.Lock()
			if err := rdb.Process(t.Context(), redis.NewCmd(t.Context(), passed...)); err != nil {
				t.Error(err)
			}
			mu.Unlock()
			synctest.Wait()
			inside = false
			return lk.Extend(ctx)
		}, lock.Relay("q")); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
	})
}

// The same with a lock that stays closed for a while after its lease.
func TestRelayPastItsLeaseIsNotInItsOwnWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		slow := another(t, rdb)
		var delay, before atomic.Int64
		slow.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			time.Sleep(time.Duration(before.Load()))
			err := next(ctx, cmd)
			time.Sleep(time.Duration(delay.Load()))
			return err
		}})
		l := newLocker(t, slow, lock.Config{TTL: time.Second, LapseDelay: 10 * time.Second})
		relayed(t, l, "x")
		synctest.Wait()
		delay.Store(int64(2 * time.Second))
		relayed(t, l, "x") // whose answer comes late
		time.Sleep(time.Millisecond)
		delay.Store(0)
		before.Store(int64(time.Millisecond))
		relayed(t, l, "x")
	})
}

// B8: who comes for a lock that is being given back waits for those who are told of it.

// A section waits until the lock is given back, not until all who listen are told.
func TestRelayDoesNotWaitForListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{})
		l.OnFreed(func(string, []string) { time.Sleep(2 * time.Second) }) // a queue's Redis that does not answer
		if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error {
			_, _, err := l.Look(t.Context(), "x", "q")
			return err
		}, lock.Relay("q")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.EndRelay("x", "q")
		began := time.Now()
		relayed(t, l, "x")
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("it took %v to take a free lock", d)
		}
	})
}

// B9: without OnFreed the registrations stay for the next release.

// Do takes over what was passed on, and passes nothing on itself.
func TestDoEndsARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		own := another(t, rdb)
		l, other := newLocker(t, own, lock.Config{}), newLocker(t, rdb, lock.Config{})
		release(t, take(t, l, "x")) // the scripts are known
		relayed(t, l, "x")
		synctest.Wait()
		count := redistest.Count(own)
		if err := l.Do(t.Context(), "x", nil, nothing, lock.Relay("q")); err != nil {
			t.Fatal(err)
		}
		if got := count.Commands(); got != 1 {
			t.Errorf("%d commands %v, want the release", got, count.Names())
		}
		wantHeld(t, other, "x", false)
		if err := l.Do(t.Context(), "x", nil, nothing, lock.Relay("")); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("Do without a queue = %v, want ErrInvalid", err)
		}
	})
}
