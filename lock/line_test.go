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

// deaf returns a client whose server goes on counting it as a subscriber
// although nothing reaches it any more, once dead is set: a host that was
// switched off.
func deaf(t *testing.T, rdb *redis.Client) (*redis.Client, *faults) {
	return faulty(t, rdb, nil)
}

func TestDeadWaiterCostsAClaimLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		dead, f := deaf(t, rdb)
		holder := newLocker(t, rdb, lock.Config{})
		gone, live := lock.New(dead, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, holder, "x")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { gone.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { return nil }) })
		time.Sleep(10 * time.Millisecond)
		entered := make(chan time.Time, 1)
		wg.Go(func() {
			if err := live.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { entered <- time.Now(); return nil }); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(500 * time.Millisecond)
		f.dead.Store(true) // the first in line; its commands hang too
		released := time.Now()
		release(t, lk)
		if d := (<-entered).Sub(released); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("the dead waiter cost %v, want a claim lease of 1s", d)
		}
		f.dead.Store(false)
		cancel()
		wg.Wait()
		time.Sleep(30 * time.Second) // commands in flight time out, the subscription is new
		gone.Close()
	})
}

// A half-open subscription is noticed and replaced.
func TestHalfOpenSubscriptionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		bad, f := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1; o.ReadTimeout = 300 * time.Millisecond })
		a := newLocker(t, rdb, lock.Config{})
		b := lock.New(bad, lock.Config{ClaimLease: 20 * time.Second})
		lk := take(t, a, "x")
		done := make(chan error)
		go func() {
			done <- b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { return nil })
		}()
		time.Sleep(500 * time.Millisecond)
		dials := f.dials.Load()
		f.dead.Store(true)
		time.Sleep(2500 * time.Millisecond) // silence, ping, silence
		f.dead.Store(false)
		time.Sleep(2500 * time.Millisecond)
		if f.dials.Load() == dials {
			t.Error("no new connection")
		}
		released := time.Now()
		release(t, lk)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(released); d > 100*time.Millisecond {
			t.Errorf("told after %v", d)
		}
		time.Sleep(time.Second)
		b.Close()
	})
}

// A handler that ignores its context must not hold its own process's waiters.
func TestLapsedHolderIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: time.Second})
		lk, err := l.Acquire(t.Context(), "x", nil) // no watchdog
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var fence int64
		if err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error { fence = lk.Fence(); return nil }); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 1100*time.Millisecond || fence <= lk.Fence() {
			t.Errorf("entered after %v with fence %d after %d", d, fence, lk.Fence())
		}
		if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Release = %v", err)
		}
	})
}

func TestMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: time.Second, MaxHold: 5 * time.Second})
		began := time.Now()
		err := l.Do(t.Context(), "x", nil, func(ctx context.Context, _ *lock.Lock) error {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
				t.Errorf("cause %v", context.Cause(ctx))
			}
			synctest.Wait()
			wantHeld(t, l, "x", false)
			return nil
		})
		if d := time.Since(began); d != 5*time.Second || !errors.Is(err, lock.ErrNotHeld) || !strings.Contains(err.Error(), "MaxHold") {
			t.Errorf("Do = %v after %v", err, d)
		}
	})
}

// A section that the lock was handed to has its own MaxHold, which may end before
// what the timer ran for until then.
func TestMaxHoldOfASectionHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{TTL: 10 * time.Second, MaxHold: 2 * time.Second})
		first, err := l.Acquire(t.Context(), "x", nil) // without Hold, and its limit
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan time.Duration, 1)
		go func() {
			_ = l.Do(t.Context(), "x", nil, func(ctx context.Context, _ *lock.Lock) error {
				began := time.Now()
				<-ctx.Done()
				ended <- time.Since(began)
				return nil
			})
		}()
		synctest.Wait()
		release(t, first)
		if d := <-ended; d != 2*time.Second {
			t.Errorf("the context ended after %v, want 2s", d)
		}
	})
}

func TestHoldReleasesWhateverHappens(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		mine := errors.New("mine")
		if err := l.TryDo(t.Context(), "x", func(context.Context, *lock.Lock) error { return mine }); !errors.Is(err, mine) {
			t.Errorf("TryDo = %v", err)
		}
		wantHeld(t, l, "x", false)
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic is lost")
				}
			}()
			l.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { panic("boom") })
		}()
		wantHeld(t, l, "x", false)
		ctx, cancel := context.WithCancel(t.Context())
		if err := l.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { cancel(); return nil }); err != nil {
			t.Errorf("Do = %v", err)
		}
		wantHeld(t, l, "x", false)
		lk := take(t, l, "x")
		if err := lk.Hold(ctx, func(context.Context) error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Hold = %v", err)
		}
		wantHeld(t, l, "x", false)
		if err := lk.Hold(t.Context(), func(context.Context) error { t.Error("called"); return nil }); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Hold = %v", err)
		}
	})
}

// A function that releases its own lock is told that it holds nothing any more,
// before another can hold it.
func TestReleaseInHoldEndsTheContext(t *testing.T) {
	for _, next := range []string{"another process", "this process"} {
		t.Run(next, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				l := newLocker(t, rdb, lock.Config{TTL: time.Second})
				other := nextIn(t, next, l, rdb)
				var section context.Context
				entered := make(chan struct{})
				if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
					section = ctx
					go func() {
						defer close(entered)
						if err := other.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error {
							wantEnded(t, section)
							return nil
						}); err != nil {
							t.Error(err)
						}
					}()
					synctest.Wait()
					release(t, lk)
					if !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
						t.Errorf("the context ended with %v, want ErrNotHeld", context.Cause(ctx))
					}
					<-entered
					return nil
				}); err != nil {
					t.Errorf("Do = %v", err)
				}
			})
		})
	}
}

// nextIn returns the Locker of the next section: l itself in "this process", and one of its
// own in another.
func nextIn(t *testing.T, where string, l *lock.Locker, rdb *redis.Client) *lock.Locker {
	t.Helper()
	if where == "this process" {
		return l
	}
	return newLocker(t, rdb, lock.Config{})
}

// wantEnded is called by the next section: the context of the one before has ended.
func wantEnded(t *testing.T, section context.Context) {
	t.Helper()
	if section.Err() == nil {
		t.Error("two sections whose contexts have not ended")
	}
}

// So has the context of a section whose function has returned, for what that has left
// behind: also while the answer to the release is under way.
func TestReturnFromHoldEndsTheContext(t *testing.T) {
	for _, next := range []string{"another process", "this process"} {
		t.Run(next, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				own, f := faulty(t, rdb, nil)
				l := newLocker(t, own, lock.Config{TurnTime: time.Hour, Hooks: lock.Hooks{
					Released: func(context.Context, lock.ReleasedEvent) { time.Sleep(time.Second) },
				}})
				other := nextIn(t, next, l, rdb)
				var wg sync.WaitGroup
				var section context.Context
				wg.Go(func() {
					if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, _ *lock.Lock) error {
						section = ctx
						time.Sleep(time.Second)
						f.delay.Store(int64(time.Second))
						return nil
					}); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(500 * time.Millisecond)
				if err := other.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error {
					f.delay.Store(0)
					wantEnded(t, section)
					return nil
				}); err != nil {
					t.Error(err)
				}
				wg.Wait()
			})
		})
	}
}

// A second Hold leaves the first its lock, also if it comes with a context that has
// ended.
func TestHoldInHoldReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		if err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			ended, cancel := context.WithCancel(ctx)
			defer cancel()
			for _, want := range []error{lock.ErrNotHeld, context.Canceled} {
				if err := lk.Hold(ended, func(context.Context) error { t.Error("called"); return nil }); !errors.Is(err, want) {
					t.Errorf("Hold = %v, want %v", err, want)
				}
				wantHeld(t, other, "x", true)
				cancel()
			}
			return ctx.Err()
		}); err != nil {
			t.Errorf("TryDo = %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := lock.New(rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, b, "x")
		kept := take(t, a, "kept")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := a.Acquire(t.Context(), "x", nil); !errors.Is(err, lock.ErrClosed) {
					t.Errorf("Acquire = %v", err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		for range 2 {
			wg.Go(func() { a.Close() })
		}
		wg.Wait()
		if subs := rdb.PubSubChannels(t.Context(), "*").Val(); len(subs) != 0 {
			t.Errorf("still subscribed to %v", subs)
		}
		if st := wantHeld(t, b, "x", true); st.Waiters != 0 {
			t.Errorf("%d in line", st.Waiters)
		}
		if _, err := a.TryAcquire(t.Context(), "y"); !errors.Is(err, lock.ErrClosed) {
			t.Errorf("TryAcquire = %v", err)
		}
		if _, err := a.Acquire(t.Context(), "y", nil); !errors.Is(err, lock.ErrClosed) {
			t.Errorf("Acquire = %v", err)
		}
		if err := kept.Extend(t.Context()); err != nil {
			t.Errorf("Extend = %v", err)
		}
		release(t, kept)
		release(t, lk)
	})
}

// Close waits for the commands of callers whose contexts have no end, too, and what they
// still take is given back before that.
func TestCloseWaitsForCallsWithoutAnEnd(t *testing.T) {
	ctx := context.Background()
	for what, call := range map[string]func(l *lock.Locker, held *lock.Lock) error{
		"Acquire": func(l *lock.Locker, _ *lock.Lock) error {
			if _, err := l.Acquire(ctx, "y", nil); !errors.Is(err, lock.ErrClosed) {
				return fmt.Errorf("not closed: %w", err)
			}
			return nil
		},
		"TryAcquire": func(l *lock.Locker, _ *lock.Lock) error {
			_, err := l.TryAcquire(ctx, "z")
			return err
		},
		"Extend":  func(_ *lock.Locker, held *lock.Lock) error { return held.Extend(ctx) },
		"Release": func(_ *lock.Locker, held *lock.Lock) error { return held.Release(ctx) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				own, f := faulty(t, rdb, nil)
				l := lock.New(own, lock.Config{})
				release(t, take(t, l, "y")) // the scripts are known
				held := take(t, l, "x")
				if err := held.Extend(t.Context()); err != nil {
					t.Fatal(err)
				}
				f.delay.Store(int64(time.Second))
				began := time.Now()
				done := make(chan error, 1)
				go func() { done <- call(l, held) }()
				time.Sleep(100 * time.Millisecond)
				l.Close()
				own.Close() // after the Locker, as documented
				if took := time.Since(began); took < time.Second {
					t.Errorf("Close returned %v after the call began, whose answer takes 1s", took)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Second)
				wantHeld(t, newLocker(t, rdb, lock.Config{}), "y", false)
			})
		})
	}
}

// What runs in the background ends by itself when nothing is left to do: the
// bubble would fail on goroutines that stay.
func TestIdleLockerHasNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := lock.New(rdb, lock.Config{}), lock.New(rdb, lock.Config{})
		lk := take(t, a, "x")
		done := make(chan error)
		go func() {
			done <- b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { time.Sleep(time.Minute); return nil })
		}()
		time.Sleep(time.Second)
		release(t, lk)
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if subs := rdb.PubSubChannels(t.Context(), "*").Val(); len(subs) != 0 {
			t.Errorf("still subscribed to %v", subs)
		}
	})
}

// A late copy of a join: its grant names a ticket that nobody has any more.
func TestUnknownGrantIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		var late []redis.Cmder
		b2 := make(chan struct{})
		bad, _ := faulty(t, rdb, nil)
		bad.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			late = append(late, cmd)
			return next(ctx, cmd)
		}})
		w := lock.New(bad, lock.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { w.Acquire(ctx, "x", nil); close(b2) }()
		time.Sleep(100 * time.Millisecond)
		cancel()
		<-b2
		synctest.Wait()
		if st := wantHeld(t, a, "x", true); st.Waiters != 0 {
			t.Fatalf("%d in line", st.Waiters)
		}
		// The join again, after its ticket is finished.
		var join redis.Cmder
		for _, c := range late {
			if len(c.Args()) == 12 { // a try names no line and has no entry
				join = c
			}
		}
		if join == nil {
			t.Fatal("no join seen")
		}
		if err := rdb.Do(t.Context(), join.Args()...).Err(); err != nil {
			t.Fatal(err)
		}
		if st := wantHeld(t, a, "x", true); st.Waiters != 1 {
			t.Fatalf("%d in line", st.Waiters)
		}
		release(t, lk) // grants to the finished ticket
		synctest.Wait()
		wantHeld(t, a, "x", false)

		// The same copy on a free lock takes it; whoever is refused by it in that
		// process gives it back.
		if err := rdb.Do(t.Context(), join.Args()...).Err(); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, b, "x", true)
		if _, err := w.TryAcquire(t.Context(), "x"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire = %v", err)
		}
		synctest.Wait()
		wantHeld(t, b, "x", false)
		w.Close()
	})
}

func TestForeignLockIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		for _, value := range []string{"c2VjcmV0", "secret of someone else", ""} {
			rdb.Set(t.Context(), "x", value, 0)
			_, err := l.TryAcquire(t.Context(), "x")
			le, ok := errors.AsType[*lock.LockedError](err)
			if !ok || le.Owner != "" || le.RetryAfter != 0 {
				t.Fatalf("TryAcquire = %#v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the value: %v", err)
			}
			if left, held, err := l.Look(t.Context(), "x", "q"); !held || left != time.Second || err != nil {
				t.Errorf("Look = %v, %v, %v", left, held, err)
			}
		}
		// It is freed without a word; the waiter looks every second or so.
		done := make(chan *lock.Lock)
		go func() { lk, _ := l.Acquire(t.Context(), "x", nil); done <- lk }()
		time.Sleep(10 * time.Second)
		rdb.Del(t.Context(), "x")
		began := time.Now()
		lk := <-done
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("noticed after %v", d)
		}
		release(t, lk)
	})
}

// A lock of another program that has the empty string for a value is held all the same.
func TestForeignLockWithoutAValue(t *testing.T) {
	for what, n := range map[string]int{"one": 1, "quorum": 3} {
		t.Run(what, func(t *testing.T) {
			nodes := miniNodes(t, n)
			l := newLocker(t, nodes[0], lock.Config{})
			if n > 1 {
				l = newQuorum(t, nodes, lock.Config{})
			}
			for _, rdb := range nodes {
				rdb.Set(t.Context(), "x", "", time.Minute)
			}
			if st := wantHeld(t, l, "x", true); st.TTL <= 0 || st.Owner != "" {
				t.Errorf("Inspect = %+v", st)
			}
			if was, err := l.Revoke(t.Context(), "x"); !was || err != nil {
				t.Errorf("Revoke = %v, %v", was, err)
			}
			waitFor(t, func() bool { return countKeys(nodes, "x") == 0 })
			if was, err := l.Revoke(t.Context(), "x"); was || err != nil {
				t.Errorf("Revoke of a free lock = %v, %v", was, err)
			}
		})
	}
}

// A lock of another program that expires in millions of years, since it took nanoseconds
// for milliseconds, is one like others.
func TestForeignLockThatLastsForAges(t *testing.T) {
	rdb := redistest.Real(t)
	l := newLocker(t, rdb, lock.Config{})
	rdb.Set(t.Context(), "x", "theirs", 0)
	if err := rdb.Do(t.Context(), "PEXPIREAT", "x", time.Now().UnixNano()).Err(); err != nil {
		t.Fatal(err)
	}
	if _, held, err := l.Look(t.Context(), "x", "q"); !held || err != nil {
		t.Errorf("Look = %v, %v", held, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx, "x", nil); !errors.Is(err, lock.ErrLocked) {
		t.Errorf("Acquire = %v", err)
	}
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		if was, err := a.Revoke(t.Context(), "x"); was || err != nil {
			t.Errorf("Revoke = %v, %v", was, err)
		}
		lk := take(t, a, "x")
		fence := make(chan int64, 1)
		done := make(chan error)
		go func() {
			done <- b.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error { fence <- lk.Fence(); return nil })
		}()
		time.Sleep(100 * time.Millisecond)
		if was, err := b.Revoke(t.Context(), "x"); !was || err != nil {
			t.Errorf("Revoke = %v, %v", was, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if f := <-fence; f <= lk.Fence() {
			t.Errorf("fence %d after %d", f, lk.Fence())
		}
		if err := lk.Extend(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend = %v", err)
		}
	})
}

// A revoke whose answer was lost, and which is sent again, takes the lock from the
// holder that it found and not from the next one.
func TestRevokeAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		proxy := redistest.Through(t, rdb)
		l, operator := newLocker(t, rdb, lock.Config{}), newLocker(t, proxy.Client(t), lock.Config{})
		take(t, l, "x")
		if was, err := operator.Revoke(t.Context(), "x"); !was || err != nil { // from here on the scripts are known
			t.Fatalf("Revoke = %v, %v", was, err)
		}
		take(t, l, "x")
		revoked := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- newLocker(t, rdb, lock.Config{}).Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
				<-revoked
				return lk.Extend(ctx)
			})
		}()
		waitFor(t, func() bool {
			st, err := l.Inspect(t.Context(), "x")
			return err == nil && st.Waiters == 1
		})
		lost := proxy.DropReply("$5\r\n60000\r\n") // the revoke's, which has the fence margin
		if was, err := operator.Revoke(t.Context(), "x"); !was || err != nil {
			t.Errorf("Revoke = %v, %v", was, err)
		}
		<-lost
		close(revoked)
		if err := <-done; err != nil {
			t.Errorf("the section of the next holder = %v", err)
		}
	})
}

// A lock that this process has itself revoked goes to nobody in it without Redis having
// been asked: neither to who waits, nor to the next section of a relay.
func TestRevokedLockIsNotHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l, other := newLocker(t, rdb, lock.Config{TurnTime: time.Hour}), newLocker(t, rdb, lock.Config{})
		revoked := func() (next *lock.Lock) {
			t.Helper()
			if was, err := l.Revoke(t.Context(), "x"); !was || err != nil {
				t.Errorf("Revoke = %v, %v", was, err)
			}
			return take(t, other, "x")
		}
		first, err := l.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		var inside atomic.Bool
		done := make(chan error, 1)
		go func() {
			done <- l.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { inside.Store(true); return nil })
		}()
		synctest.Wait()
		next := revoked()
		release(t, first)
		synctest.Wait()
		if inside.Load() {
			t.Error("who waited was let in under a revoked lease")
		}
		release(t, next)
		if err := <-done; err != nil {
			t.Error(err)
		}

		relayed(t, l, "x") // kept for the next section
		synctest.Wait()
		next = revoked()
		if err := l.TryDo(t.Context(), "x", nothing, lock.Relay("q")); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryDo = %v", err)
		}
		release(t, next)
	})
}

// A Revoke whose command takes its time takes the lock from a lease that did not exist
// when it was called: that one is handed on to nobody either.
func TestRevokedLaterLeaseIsNotHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var holdBack atomic.Bool
		came, gate := make(chan struct{}), make(chan struct{})
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if holdBack.CompareAndSwap(true, false) {
				close(came)
				<-gate
			}
			return next(ctx, cmd)
		}})
		l, other := newLocker(t, rdb, lock.Config{TurnTime: time.Hour}), newLocker(t, rdb, lock.Config{})
		ctx := t.Context()
		release(t, take(t, l, "y")) // there is a connection
		holdBack.Store(true)
		revoked := make(chan error, 1)
		go func() {
			was, err := l.Revoke(ctx, "x")
			if !was {
				t.Error("nothing was revoked")
			}
			revoked <- err
		}()
		<-came // it is about to look
		first, err := l.Acquire(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		var inside atomic.Bool
		done := make(chan error, 1)
		go func() {
			done <- l.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error {
				inside.Store(true)
				return nil
			})
		}()
		synctest.Wait()
		close(gate)
		if err := <-revoked; err != nil {
			t.Fatal(err)
		}
		next := take(t, other, "x")
		release(t, first)
		synctest.Wait()
		if inside.Load() {
			t.Error("who waited was let in under a revoked lease")
		}
		release(t, next)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Queues are told of a release also if its answer comes when nobody waits for it any more.
func TestLateAnswerTellsQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, _ := faulty(t, redistest.Mini(t), func(o *redis.Options) { o.ReadTimeout = 10 * time.Second })
		var slow atomic.Bool
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			if slow.Load() {
				time.Sleep(7 * time.Second)
			}
			return err
		}})
		l := newLocker(t, rdb, lock.Config{})
		freed := make(chan []string, 1)
		l.OnFreed(func(name string, queues []string) { freed <- append(queues, name) })
		lk := take(t, l, "x")
		if _, held, err := l.Look(t.Context(), "x", "q"); !held || err != nil {
			t.Fatalf("Look = %v, %v", held, err)
		}
		slow.Store(true)
		if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrUnavailable) {
			t.Errorf("Release = %v, want ErrUnavailable", err)
		}
		time.Sleep(time.Minute)
		select {
		case got := <-freed:
			if !slices.Equal(got, []string{"q", "x"}) {
				t.Errorf("told of %v, want q and x", got)
			}
		default:
			t.Error("nobody was told")
		}
	})
}

// A lock that is free after a revoke is told to the queues that had registered; one
// that went to a waiter is not, and the registration stays.
func TestRevokeTellsQueues(t *testing.T) {
	test := func(t *testing.T, holder, operator *lock.Locker) {
		freed := make(chan []string, 1)
		operator.OnFreed(func(name string, queues []string) { freed <- append(queues, name) })
		take(t, holder, "x")
		if _, held, err := holder.Look(t.Context(), "x", "q"); !held || err != nil {
			t.Fatalf("Look = %v, %v", held, err)
		}
		if was, err := operator.Revoke(t.Context(), "x"); !was || err != nil {
			t.Fatalf("Revoke = %v, %v", was, err)
		}
		operator.Close() // which waits for what it tells
		select {
		case got := <-freed:
			if !slices.Equal(got, []string{"q", "x"}) {
				t.Errorf("told of %v, want q and x", got)
			}
		default:
			t.Error("nobody was told")
		}
	}
	t.Run("one node", func(t *testing.T) {
		redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
			a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
			test(t, a, newLocker(t, rdb, lock.Config{}))
			take(t, a, "x")
			b.OnFreed(func(string, []string) { t.Error("told again, though nobody had registered again") })
			if was, err := b.Revoke(t.Context(), "x"); !was || err != nil {
				t.Errorf("Revoke = %v, %v", was, err)
			}
			b.Close()
		})
	})
	t.Run("quorum", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var nodes []redis.UniversalClient
			for range 3 {
				nodes = append(nodes, redistest.Mini(t))
			}
			a, b := lock.NewQuorum(nodes, lock.Config{}), lock.NewQuorum(nodes, lock.Config{})
			defer a.Close()
			test(t, a, b)
		})
	})
	t.Run("a waiter has it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
			var free atomic.Bool
			b.OnFreed(func(string, []string) {
				if !free.Load() {
					t.Error("the lock is not free, and the queues were told")
				}
			})
			take(t, a, "x")
			got := make(chan *lock.Lock)
			go func() { lk, _ := b.Acquire(t.Context(), "x", nil); got <- lk }()
			time.Sleep(time.Millisecond)
			a.Look(t.Context(), "x", "q")
			if was, err := b.Revoke(t.Context(), "x"); !was || err != nil {
				t.Fatalf("Revoke = %v, %v", was, err)
			}
			lk := <-got
			free.Store(true)
			release(t, lk)
			if !slices.Equal(lk.Reported(), []string{"q"}) {
				t.Errorf("the waiter's release reported %v, want q", lk.Reported())
			}
		})
	})
}

func TestLookAndReported(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		l := newLocker(t, rdb, lock.Config{})
		if _, held, err := l.Look(ctx, "x", "q"); held || err != nil {
			t.Errorf("Look at a free lock = %v, %v", held, err)
		}
		lk := take(t, l, "x")
		for _, q := range []string{"q", "r", "q"} {
			left, held, err := l.Look(ctx, "x", q)
			if !held || left <= 29*time.Second || left > 30*time.Second || err != nil {
				t.Errorf("Look = %v, %v, %v", left, held, err)
			}
		}
		if st := wantHeld(t, l, "x", true); len(st.Queues) != 2 {
			t.Errorf("registered: %v", st.Queues)
		}
		if d := rdb.PTTL(ctx, "{x}:parked").Val(); d < 24*time.Hour-time.Minute || d > 24*time.Hour {
			t.Errorf("registrations last %v", d)
		}
		release(t, lk)
		got := lk.Reported()
		slices.Sort(got)
		if !slices.Equal(got, []string{"q", "r"}) {
			t.Errorf("Reported = %v", got)
		}
		lk = take(t, l, "x")
		release(t, lk)
		if got := lk.Reported(); len(got) != 0 {
			t.Errorf("Reported again: %v", got)
		}
	})
}

// A release that grants leaves the registrations to the one that frees.
func TestGrantReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		got := make(chan *lock.Lock)
		go func() {
			lk, err := b.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Error(err)
			}
			got <- lk
		}()
		time.Sleep(time.Second)
		a.Look(t.Context(), "x", "q")
		release(t, lk)
		if len(lk.Reported()) != 0 {
			t.Errorf("Reported = %v", lk.Reported())
		}
		lk = <-got
		release(t, lk)
		if !slices.Equal(lk.Reported(), []string{"q"}) {
			t.Errorf("Reported = %v", lk.Reported())
		}
	})
}

// A release can grant the lock to a waiter that has given up and whose leaving
// is still on its way. What gives the lock back then frees it, and must report.
func TestGrantToOneWhoLeftReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		leaving, left := make(chan struct{}), make(chan struct{})
		slow := redis.NewClient(rdb.Options())
		defer slow.Close()
		var waiting atomic.Bool
		slow.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if cmd.Name() == "evalsha" && waiting.CompareAndSwap(true, false) {
				close(leaving)
				<-left
			}
			return next(ctx, cmd)
		}})
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, slow, lock.Config{})
		freed := make(chan []string, 1)
		b.OnFreed(func(name string, queues []string) { freed <- append(queues, name) })
		warm := take(t, a, "x") // the scripts are known
		release(t, warm)

		lk := take(t, a, "x")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.AfterFunc(50*time.Millisecond, func() { waiting.Store(true) })
		if _, err := b.Acquire(ctx, "x", nil); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v, want a refusal", err)
		}
		<-leaving
		a.Look(t.Context(), "x", "q")
		release(t, lk)
		if got := lk.Reported(); len(got) != 0 {
			t.Errorf("Reported = %v by a release that granted", got)
		}
		close(left)
		select {
		case got := <-freed:
			if !slices.Equal(got, []string{"q", "x"}) {
				t.Errorf("told of %v, want q and x", got)
			}
		case <-time.After(time.Minute):
			t.Error("the lock was freed, and nobody was told of q")
		}
		wantHeld(t, a, "x", false)
	})
}

// Without Pub/Sub waiting works, only slower.
func TestWaitWithoutSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a := newLocker(t, rdb, lock.Config{})
		bad := redis.NewClient(rdb.Options())
		defer bad.Close()
		b := lock.New(noPubSub{bad}, lock.Config{})
		defer b.Close()
		lk := take(t, a, "x")
		done := make(chan error)
		go func() {
			done <- b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { return nil })
		}()
		time.Sleep(5 * time.Second)
		if st := wantHeld(t, a, "x", true); st.Waiters != 0 {
			t.Errorf("%d in line who would not hear", st.Waiters)
		}
		began := time.Now()
		release(t, lk)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("noticed after %v", d)
		}
	})
}

// noPubSub is a client that cannot subscribe.
type noPubSub struct{ redis.UniversalClient }

func (noPubSub) Subscribe(context.Context, ...string) *redis.PubSub {
	down := refusing(errors.New("refused"))
	ps := down.Subscribe(context.Background())
	ps.Close()
	down.Close()
	return ps
}

func TestWaiterRejoinsAfterItsSubscriptionIsKilled(t *testing.T) {
	rdb := redistest.Real(t)
	a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{ClaimLease: 20 * time.Second})
	lk := take(t, a, "x")
	done := make(chan error, 1)
	go func() {
		done <- b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { return nil })
	}()
	waitFor(t, func() bool { st, _ := a.Inspect(t.Context(), "x"); return st.Waiters == 1 })
	if n, err := rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Result(); err != nil || n < 1 {
		t.Fatalf("killed %d, %v", n, err)
	}
	waitFor(t, func() bool { subs := rdb.PubSubChannels(t.Context(), "sidestep:mail:*").Val(); return len(subs) == 1 })
	release(t, lk)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the waiter was not told")
	}
}

// waitFor polls until ok.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("nothing happened in 5 s")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestWatchdogHoldsManyLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		n := 2000
		if testing.Short() || raceEnabled {
			n = 500
		}
		l := newLocker(t, rdb, lock.Config{TTL: 60 * time.Second})
		var wg sync.WaitGroup
		var calls, lost atomic.Int32
		locks := make([]*lock.Lock, n)
		for i := range locks {
			locks[i] = take(t, l, "x"+string(rune('0'+i%10))+time.Duration(i).String())
		}
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if len(cmd.Args()) > 20 {
				calls.Add(1)
			}
			return next(ctx, cmd)
		}})
		stop := make(chan struct{})
		for _, lk := range locks {
			wg.Go(func() {
				if err := lk.Hold(t.Context(), func(ctx context.Context) error {
					select {
					case <-ctx.Done():
						lost.Add(1)
					case <-stop:
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(70 * time.Second) // three ticks
		if got, want := calls.Load(), int32(3*(n/250+1)+2); lost.Load() != 0 || got > want || got < 3 {
			t.Errorf("at %v: %d lost, %d commands, want at most %d", time.Now(), lost.Load(), got, want)
		}
		close(stop)
		wg.Wait()
	})
}

func TestConfigPanics(t *testing.T) {
	rdb := redistest.Mini(t)
	for name, cfg := range map[string]lock.Config{
		"TTL 100ns":    {TTL: 100}, // as it was given
		"Lease 1.5ms":  {ClaimLease: 1500 * time.Microsecond},
		"ClaimLease":   {ClaimLease: time.Millisecond},
		"FenceMargin":  {FenceMargin: -1},
		"MaxHold":      {MaxHold: -1},
		"TurnSections": {TurnSections: -1},
		"TurnTime":     {TurnTime: -1},
		"Prefix":       {Prefix: "\x00"},
		"owner":        {Owner: strings.Repeat("o", 257)},
	} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "lock: Config.") || !strings.Contains(msg, name) {
					t.Errorf("%s: panic %q", name, msg)
				}
			}()
			lock.New(rdb, cfg)
			t.Errorf("%s: no panic", name)
		}()
	}
	for name, c := range map[string]redis.UniversalClient{
		"nil":      nil,
		"nil one":  (*redis.Client)(nil),
		"nil many": (*redis.ClusterClient)(nil),
		"ReadOnly": redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"nowhere.invalid:1"}, ReadOnly: true}),
	} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "lock: ") {
					t.Errorf("%s: panic %q", name, msg)
				}
			}()
			lock.New(c, lock.Config{})
			t.Errorf("%s: no panic", name)
		}()
	}
}

func TestOptionsPrintThemselves(t *testing.T) {
	if s := lock.WithTTL(time.Second).String(); s != "WithTTL(1s)" {
		t.Error(s)
	}
	if s := lock.WithOwner("me").String(); s != `WithOwner("me")` {
		t.Error(s)
	}
	if lock.WithTTL(time.Second) != lock.WithTTL(time.Second) {
		t.Error("options do not compare")
	}
}
