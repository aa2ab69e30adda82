package lock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
)

// jam holds up single commands, as a slow server does, so that others meet.
type jam struct {
	mu   sync.Mutex
	gate chan struct{} // nil: none is held up
}

func (j *jam) hook() hook {
	return hook{
		process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			j.mu.Lock()
			gate := j.gate
			j.mu.Unlock()
			if gate != nil {
				<-gate
			}
			return next(ctx, cmd)
		},
		pipeline: func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			return next(ctx, cmds)
		},
	}
}

// hold takes as many locks as there is room for at once, each of whose commands
// is then under way until what it returns is called.
func (j *jam) hold(t *testing.T, l *lock.Locker) (free func()) {
	t.Helper()
	j.mu.Lock()
	gate := make(chan struct{})
	j.gate = gate
	j.mu.Unlock()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { take(t, l, fmt.Sprint("held up:", i)) })
	}
	synctest.Wait()
	j.mu.Lock()
	j.gate = nil
	j.mu.Unlock()
	return func() {
		close(gate)
		wg.Wait()
	}
}

// shared reports whether a command is that of several callers: it has the keys of
// more than one.
func shared(cmd redis.Cmder) bool {
	args := cmd.Args()
	if len(args) < 3 || !strings.HasPrefix(fmt.Sprint(args[0]), "eval") {
		return false
	}
	n, err := strconv.Atoi(fmt.Sprint(args[2]))
	return err == nil && n > 4
}

func TestWhoIsAloneSendsEachCommandByItself(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		release(t, take(t, l, "x")) // the scripts are known
		count := redistest.Count(rdb)
		var meetings atomic.Int32
		rdb.AddHook(hook{
			process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				if shared(cmd) {
					meetings.Add(1)
				}
				return next(ctx, cmd)
			},
			pipeline: func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
				meetings.Add(1)
				return next(ctx, cmds)
			},
		})
		for range 20 {
			release(t, take(t, l, "x"))
		}
		if c, r, m := count.Commands(), count.RoundTrips(), meetings.Load(); c != 40 || r != 40 || m != 0 {
			t.Errorf("20 times acquire and release: %d commands in %d round trips, %d of them shared; want 40, 40, 0", c, r, m)
		}
	})
}

func TestWhoMeetsOthersSharesARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		release(t, take(t, l, "x"))
		count := redistest.Count(rdb)
		var j jam
		rdb.AddHook(j.hook())
		var locks [2][10]*lock.Lock
		for round := range locks {
			free := j.hold(t, l)
			count.Reset()
			var wg sync.WaitGroup
			for i := range locks[round] {
				wg.Go(func() { locks[round][i] = take(t, l, fmt.Sprint("key:", round, ":", i)) })
				if round > 0 {
					wg.Go(func() { release(t, locks[0][i]) })
				}
			}
			synctest.Wait()
			free()
			wg.Wait()
			if c, r := count.Commands(), count.RoundTrips(); round > 0 && (c != 1 || r != 1) { // the scripts are known by then
				t.Errorf("10 acquires and 10 releases behind 2 that were under way: %d commands in %d round trips, want 1", c, r)
			}
			for i := range 2 {
				if _, err := l.Revoke(t.Context(), fmt.Sprint("held up:", i)); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// In a round trip that several share each gets the answer to its own command, be
// that an error, also if the server knows no script any more.
func TestAnswersOfASharedRoundTripAreEachTheirOwn(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		t.Run(fmt.Sprint("flushed ", flushed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				l, other := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{Owner: "other"})
				release(t, take(t, l, "x"))
				take(t, other, "held")
				if err := rdb.ZAdd(t.Context(), "{broken}:fence", redis.Z{Member: "no number"}).Err(); err != nil {
					t.Fatal(err)
				}
				mine := take(t, l, "mine")
				var j jam
				rdb.AddHook(j.hook())
				free := j.hold(t, l)
				if flushed {
					if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
						t.Fatal(err)
					}
				}
				var free1, free2, held, broken, released error
				var wg sync.WaitGroup
				try := func(name string, err *error) {
					wg.Go(func() { _, *err = l.TryAcquire(context.Background(), name) })
					synctest.Wait()
				}
				try("free:1", &free1)
				try("held", &held)
				try("broken", &broken)
				wg.Go(func() { released = mine.Release(t.Context()) })
				synctest.Wait()
				try("free:2", &free2)
				free()
				wg.Wait()
				if free1 != nil || free2 != nil || released != nil {
					t.Errorf("of free locks: %v, %v; of the release: %v; want none", free1, free2, released)
				}
				var locked *lock.LockedError
				if !errors.As(held, &locked) || locked.Owner != "other" {
					t.Errorf("of a held lock: %v, want that other holds it", held)
				}
				if redisErr := redis.Error(nil); !errors.As(broken, &redisErr) || !strings.Contains(broken.Error(), "WRONGTYPE") {
					t.Errorf("of a broken lock: %v, want WRONGTYPE", broken)
				}
				wantHeld(t, l, "mine", false)
				wantHeld(t, l, "free:2", true)
			})
		})
	}
}

// The context of one caller ends while its command is in line or shares a round
// trip: it is told so, what it took is given back, and the others have their locks.
func TestAnEndedContextTouchesNoOther(t *testing.T) {
	for _, timeouts := range []bool{false, true} {
		t.Run(fmt.Sprint("ContextTimeoutEnabled ", timeouts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := *redistest.Mini(t).Options()
				opts.ContextTimeoutEnabled = timeouts
				rdb := redis.NewClient(&opts)
				defer rdb.Close()
				l := newLocker(t, rdb, lock.Config{})
				release(t, take(t, l, "x"))
				var j jam
				rdb.AddHook(j.hook())
				free := j.hold(t, l)
				var errs [9]error
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range errs {
					ctx := ctx
					if i%3 > 0 {
						ctx = t.Context()
					}
					wg.Go(func() { _, errs[i] = l.TryAcquire(ctx, fmt.Sprint("key:", i)) })
					synctest.Wait()
				}
				cancel()
				synctest.Wait()
				free()
				wg.Wait()
				synctest.Wait() // given back
				for i, err := range errs {
					if ended := i%3 == 0; errors.Is(err, context.Canceled) != ended || (err == nil) == ended {
						t.Errorf("caller %d: %v; its context has ended: %v", i, err, ended)
					}
					wantHeld(t, l, fmt.Sprint("key:", i), i%3 > 0)
				}
			})
		})
	}
}

// silent is a connection that answers nothing while it is to be silent.
type silent struct {
	net.Conn
	on *atomic.Bool
}

func (c *silent) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for err == nil && c.on.Load() { // what came is lost, as is all that follows
		n, err = c.Conn.Read(b)
	}
	return n, err
}

// Connections whose answers never come hold up those who use them, and the others
// for some milliseconds.
func TestConnectionsThatHangHoldUpNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := *redistest.Mini(t).Options()
		dial := opts.Dialer
		var hang atomic.Bool
		var dialed atomic.Int32
		opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if dialed.Add(1) <= 2 {
				conn = &silent{conn, &hang}
			}
			return conn, err
		}
		rdb := redis.NewClient(&opts)
		defer rdb.Close()
		l := newLocker(t, rdb, lock.Config{})
		var wg sync.WaitGroup
		for i := range 2 { // a connection each
			wg.Go(func() { release(t, take(t, l, fmt.Sprint("first:", i))) })
		}
		wg.Wait()
		hang.Store(true)
		began := time.Now()
		for i := range 2 {
			wg.Go(func() {
				// Its repetition may find the other one that hangs.
				if _, err := l.TryAcquire(t.Context(), fmt.Sprint("hang:", i)); err != nil && !errors.Is(err, lock.ErrUnavailable) {
					t.Error(err)
				}
				if d := time.Since(began); d < time.Second {
					t.Errorf("an acquire on a connection that hangs took %v: the test is in vain", d)
				}
			})
		}
		synctest.Wait()
		for round := range 5 {
			began := time.Now()
			var others sync.WaitGroup
			for i := range 20 {
				others.Go(func() { take(t, l, fmt.Sprint("key:", round, ":", i)) })
			}
			others.Wait()
			if d := time.Since(began); d > 10*time.Millisecond {
				t.Errorf("round %d: 20 acquires took %v beside connections that hang, want 10ms at most", round, d)
			}
		}
		wg.Wait()
	})
}

// go-redis repeats what got no answer. Of a round trip that several shared each
// repeats its own, but for a release's first attempt, which has its time.
func TestALostRoundTripIsRepeatedByEach(t *testing.T) {
	for _, retries := range []int{3, -1} {
		t.Run(fmt.Sprint("MaxRetries ", retries), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := *redistest.Mini(t).Options()
				opts.MaxRetries = retries
				rdb := redis.NewClient(&opts)
				defer rdb.Close()
				l := newLocker(t, rdb, lock.Config{})
				release(t, take(t, l, "x"))
				var j jam
				rdb.AddHook(j.hook())
				var lost atomic.Int32
				rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					err := next(ctx, cmd)
					if !shared(cmd) {
						return err
					}
					lost.Add(1) // it is done, and the answer lost
					if !cmd.NoRetry() {
						t.Errorf("%v would be repeated for all", cmd.Args()[0])
					}
					cmd.SetErr(io.EOF)
					return errors.Join(err, io.EOF)
				}})
				free := j.hold(t, l)
				var errs [8]error
				var wg sync.WaitGroup
				for i := range errs {
					wg.Go(func() { _, errs[i] = l.TryAcquire(context.Background(), fmt.Sprint("key:", i)) })
				}
				synctest.Wait()
				free()
				wg.Wait()
				for i, err := range errs {
					if repeated := retries > 0; (err == nil) != repeated || !repeated && !errors.Is(err, io.EOF) {
						t.Errorf("caller %d: %v; repeated: %v", i, err, repeated)
					}
				}
				if lost.Load() == 0 {
					t.Error("no round trip was shared")
				}
			})
		})
	}
}

// The lease of who had to wait for a place counts from before that.
func TestALeaseCountsFromBeforeTheWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: time.Second})
		release(t, take(t, l, "x"))
		var j jam
		rdb.AddHook(j.hook())
		free := j.hold(t, l)
		began := time.Now()
		var locks [4]*lock.Lock
		var wg sync.WaitGroup
		for i := range locks {
			wg.Go(func() {
				if i%2 == 0 {
					locks[i] = take(t, l, fmt.Sprint("key:", i))
					return
				}
				var err error
				if locks[i], err = l.Acquire(t.Context(), fmt.Sprint("key:", i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(3 * time.Millisecond)
		free()
		wg.Wait()
		for i, lk := range locks {
			if d := lk.Expires().Sub(began); d > 988*time.Millisecond {
				t.Errorf("lock %d is ours until %v after the call, want 988ms: its TTL less the drift", i, d)
			}
		}
	})
}

// Exclusion, and fences in order, while round trips are shared and scripts are
// forgotten.
func TestSharedRoundTripsKeepExclusion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const keys, callers, rounds = 8, 64, 30
		lockers := []*lock.Locker{newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})}
		var meetings atomic.Int32
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if shared(cmd) {
				meetings.Add(1)
			}
			return next(ctx, cmd)
		}})
		var inside [keys]atomic.Int32
		var fences [keys][]int64 // each guarded by its lock
		var wg sync.WaitGroup
		for i := range callers {
			l, key := lockers[i%2], i/2%keys
			wg.Go(func() {
				for n := range rounds {
					if i == 0 && n%5 == 0 {
						if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
							t.Error(err)
						}
					}
					if i%4 < 2 { // tries beside those who wait
						lk, err := l.TryAcquire(t.Context(), fmt.Sprint("tried:", i))
						if err != nil {
							t.Error(err)
							return
						}
						release(t, lk)
					}
					if err := l.Do(t.Context(), fmt.Sprint("key:", key), nil, func(_ context.Context, lk *lock.Lock) error {
						if n := inside[key].Add(1); n != 1 {
							t.Errorf("key %d: %d inside", key, n)
						}
						fences[key] = append(fences[key], lk.Fence())
						inside[key].Add(-1)
						return nil
					}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for key, f := range fences {
			if len(f) != callers*rounds/keys || !slices.IsSorted(f) || len(slices.Compact(slices.Clone(f))) != len(f) {
				t.Errorf("key %d: the fences of %d sections do not grow, or are not %d", key, len(f), callers*rounds/keys)
			}
		}
		if meetings.Load() == 0 {
			t.Error("no round trip was shared")
		}
	})
}

// A release whose first attempt shares a round trip that gets no answer still
// returns in time, and not when all repetitions are through.
func TestAReleaseThatSharesARoundTripEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: time.Minute})
		var held [4]*lock.Lock
		for i := range held {
			held[i] = take(t, l, fmt.Sprint("key:", i))
		}
		var j jam
		rdb.AddHook(j.hook())
		free := j.hold(t, l)
		timeout := &net.OpError{Op: "read", Err: context.DeadlineExceeded}
		var met atomic.Bool
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if shared(cmd) {
				met.Store(true)
			} else if args := cmd.Args(); !met.Load() || len(args) < 3 || args[2] != "4" { // no release
				return next(ctx, cmd)
			}
			time.Sleep(3 * time.Second)
			cmd.SetErr(timeout)
			return timeout
		}})
		var wg sync.WaitGroup
		for i, lk := range held {
			wg.Go(func() {
				began := time.Now()
				if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrUnavailable) {
					t.Errorf("release %d: %v, want that Redis gave no answer", i, err)
				}
				if d := time.Since(began); d > 5*time.Second+10*time.Millisecond {
					t.Errorf("release %d took %v, want 5s at most", i, d)
				}
			})
		}
		synctest.Wait()
		free()
		wg.Wait()
		if !met.Load() {
			t.Error("no round trip was shared")
		}
	})
}

// Releases that meet other commands while Redis hangs end in the time that a release
// has: none waits for a second exchange, for the others.
func TestReleasesThatMeetOthersEndInTime(t *testing.T) {
	for _, timeout := range []time.Duration{3 * time.Second, 5 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb, f := faulty(t, redistest.Mini(t), func(o *redis.Options) { o.ReadTimeout = timeout })
				l := newLocker(t, rdb, lock.Config{TTL: time.Minute})
				var held [6]*lock.Lock
				for i := range held {
					held[i] = take(t, l, fmt.Sprint("key:", i))
				}
				f.dead.Store(true)
				var wg sync.WaitGroup
				for range 4 { // they are under way, and hang
					wg.Go(func() { _, _ = l.Inspect(t.Context(), "other") })
				}
				synctest.Wait()
				for i, lk := range held {
					wg.Go(func() {
						began := time.Now()
						if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrUnavailable) {
							t.Errorf("release %d: %v, want that Redis gave no answer", i, err)
						}
						if d := time.Since(began); d > 6*time.Second {
							t.Errorf("release %d took %v, want 6s at most", i, d)
						}
					})
				}
				for range 4 {
					wg.Go(func() { _, _, _ = l.Look(t.Context(), "other", "q") })
				}
				wg.Wait()
				f.dead.Store(false)
			})
		})
	}
}

// A hook of the client may keep a command, and finds in it later what was sent.
func TestCommandsThatAHookKeeps(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		type kept struct {
			cmd  redis.Cmder
			text string
		}
		var mu sync.Mutex
		var all []kept
		met, alone := 0, 0
		keep := func(cmds ...redis.Cmder) {
			mu.Lock()
			defer mu.Unlock()
			for _, cmd := range cmds {
				all = append(all, kept{cmd, wordsOf(cmd)})
				if shared(cmd) {
					met++
				} else {
					alone++
				}
			}
		}
		rdb.AddHook(hook{
			process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				err := next(ctx, cmd)
				keep(cmd)
				return err
			},
			pipeline: func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
				err := next(ctx, cmds)
				keep(cmds...)
				return err
			},
		})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for range 50 {
					lk, err := l.TryAcquire(context.Background(), fmt.Sprint(i))
					if err == nil {
						err = lk.Release(context.Background())
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, k := range all {
			if now := wordsOf(k.cmd); now != k.text {
				t.Fatalf("sent was\n%s\nand the hook has now\n%s", k.text, now)
			}
		}
		if met == 0 || alone == 0 {
			t.Errorf("%d commands of several callers, %d of one, want some of both", met, alone)
		}
	})
}

// wordsOf returns the words of a command as they are sent.
func wordsOf(cmd redis.Cmder) string {
	var words []string
	for _, arg := range cmd.Args() {
		switch arg := arg.(type) {
		case *string:
			words = append(words, *arg)
		case *int64:
			words = append(words, fmt.Sprint(*arg))
		default:
			words = append(words, fmt.Sprint(arg))
		}
	}
	return strings.Join(words, " ")
}
