package lock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// faults are what the connections of a client suffer.
type faults struct {
	lose  atomic.Int32 // so many replies are read and thrown away with their connection
	delay atomic.Int64 // replies arrive so much later, in ns; in bubbles only
	dead  atomic.Bool  // nothing arrives any more, and nobody says so
	dials atomic.Int32
}

// faulty returns another client of rdb's server, whose connections suffer.
func faulty(t *testing.T, rdb *redis.Client, change func(*redis.Options)) (*redis.Client, *faults) {
	t.Helper()
	f := &faults{}
	opt := *rdb.Options()
	dial := opt.Dialer
	opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		f.dials.Add(1)
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &faultyConn{Conn: c, f: f}, nil
	}
	if change != nil {
		change(&opt)
	}
	c := redis.NewClient(&opt)
	t.Cleanup(func() { c.Close() })
	if err := c.Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	return c, f
}

type faultyConn struct {
	net.Conn
	f    *faults
	gone atomic.Bool
}

func (c *faultyConn) Write(b []byte) (int, error) {
	if c.gone.Load() {
		return 0, io.EOF
	}
	if c.f.dead.Load() {
		return len(b), nil // it goes nowhere
	}
	return c.Conn.Write(b)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	for {
		if c.gone.Load() {
			return 0, io.EOF
		}
		n, err := c.Conn.Read(b)
		if err != nil {
			return n, err
		}
		if c.f.dead.Load() {
			continue // until the deadline
		}
		if d := c.f.delay.Load(); d > 0 {
			time.Sleep(time.Duration(d))
		}
		if c.f.lose.Load() > 0 && c.f.lose.Add(-1) >= 0 {
			c.gone.Store(true)
			return 0, io.EOF
		}
		return n, nil
	}
}

// redsync reports a free lock as taken, and a good unlock as expired, if a reply
// is lost and go-redis sends the command again.
func TestLostReplyIsSentAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := context.Background()
		bad, f := faulty(t, rdb, nil)
		l := newLocker(t, bad, lock.Config{})
		look := newLocker(t, rdb, lock.Config{})
		lk := take(t, l, "warm")
		lk.Extend(ctx)
		release(t, lk)

		f.lose.Store(1)
		lk = take(t, l, "x")
		if st := wantHeld(t, look, "x", true); st.Fence != lk.Fence() {
			t.Errorf("fence %d, in Redis %d", lk.Fence(), st.Fence)
		}
		f.lose.Store(1)
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		f.lose.Store(1)
		release(t, lk)
		wantHeld(t, look, "x", false)
		if f.lose.Load() != 0 || f.dials.Load() != 4 {
			t.Errorf("%d losses left, %d dials", f.lose.Load(), f.dials.Load())
		}
	})
}

// redislock leaves the lock taken for its whole TTL.
func TestLostReplyWithoutRetryLeavesNoOrphan(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		bad, f := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1 })
		look := newLocker(t, rdb, lock.Config{})
		release(t, take(t, look, "x"))
		ambiguous := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, lock.ErrUnavailable) || !errors.Is(err, lock.ErrAmbiguous) || errors.Is(err, lock.ErrLocked) {
				t.Errorf("%s = %v", what, err)
			}
		}
		for what, step := range map[string]func(*lock.Locker) error{
			"TryAcquire": func(l *lock.Locker) error {
				f.lose.Store(1)
				_, err := l.TryAcquire(context.Background(), "x")
				return err
			},
			"Acquire": func(l *lock.Locker) error {
				f.lose.Store(1)
				_, err := l.Acquire(t.Context(), "x", nil)
				return err
			},
			"Extend": func(l *lock.Locker) error {
				lk := take(t, l, "x")
				f.lose.Store(1)
				err := lk.Extend(context.Background())
				release(t, lk)
				return err
			},
			"Release": func(l *lock.Locker) error {
				lk := take(t, l, "x")
				f.lose.Store(1)
				err := lk.Release(context.Background())
				release(t, lk) // now it is answered
				return err
			},
		} {
			l := lock.New(bad, lock.Config{})
			ambiguous(what, step(l))
			l.Close() // waits for the clean-up
			wantHeld(t, look, "x", false)
		}
	})
}

// redislock returns a lock whose key is gone already.
func TestReplyLaterThanTheLeaseIsNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		bad, f := faulty(t, rdb, nil)
		l := lock.New(bad, lock.Config{TTL: 200 * time.Millisecond})
		release(t, take(t, l, "warm"))
		f.delay.Store(int64(600 * time.Millisecond))
		_, err := l.TryAcquire(context.Background(), "x")
		if !errors.Is(err, lock.ErrAmbiguous) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire = %v", err)
		}
		_, err = l.Acquire(context.Background(), "x", nil)
		if !errors.Is(err, lock.ErrAmbiguous) {
			t.Errorf("Acquire = %v", err)
		}
		l.Close()
	})
}

// redsync answers a call with a deadline of 100 ms after 600 ms with nil, or with
// ContextTimeoutEnabled after 100 ms, leaving an orphan.
func TestDeadlineIsHonouredAndLeavesNoOrphan(t *testing.T) {
	for _, enabled := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Mini(t)
			bad, f := faulty(t, rdb, func(o *redis.Options) { o.ContextTimeoutEnabled = enabled })
			l := lock.New(bad, lock.Config{})
			look := newLocker(t, rdb, lock.Config{})
			release(t, take(t, l, "warm"))
			f.delay.Store(int64(600 * time.Millisecond))
			for name, acquire := range map[string]func(context.Context) (*lock.Lock, error){
				"try":     func(ctx context.Context) (*lock.Lock, error) { return l.TryAcquire(ctx, "try") },
				"acquire": func(ctx context.Context) (*lock.Lock, error) { return l.Acquire(ctx, "acquire", nil) },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				began := time.Now()
				lk, err := acquire(ctx)
				if d := time.Since(began); d != 100*time.Millisecond || lk != nil || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lock.ErrLocked) {
					t.Errorf("%s (%v) = %v, %v after %v", name, enabled, lk, err, d)
				}
				cancel()
				wantHeld(t, look, name, true) // not given back yet
				time.Sleep(5 * time.Second)
				wantHeld(t, look, name, false)
			}
			l.Close()
		})
	}
}

// A context that has ended never wins the lock by luck, and its cause is kept.
func TestEndedContextSendsNothing(t *testing.T) {
	rdb := redistest.Mini(t)
	l := newLocker(t, rdb, lock.Config{})
	n := redistest.Count(rdb)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for range 10 {
		if _, err := l.TryAcquire(ctx, "x"); !errors.Is(err, why) {
			t.Errorf("TryAcquire = %v", err)
		}
		if _, err := l.Acquire(ctx, "x", nil); !errors.Is(err, why) {
			t.Errorf("Acquire = %v", err)
		}
	}
	if _, err := l.Inspect(ctx, "x"); !errors.Is(err, why) {
		t.Errorf("Inspect = %v", err)
	}
	if n.Commands() != 0 {
		t.Errorf("sent %v", n.Names())
	}
}

// Every library read leaves the lock taken if the context of the work is done.
func TestReleaseWithEndedContext(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		lk, err := l.TryAcquire(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := lk.Release(ctx); err != nil {
			t.Errorf("Release = %v", err)
		}
		wantHeld(t, l, "x", false)
	})
}

// redsync's Unlock takes as long as the slowest node likes.
func TestReleaseIsBoundedThoughRedisHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		bad, f := faulty(t, rdb, nil)
		l := lock.New(bad, lock.Config{})
		lk := take(t, l, "x")
		f.dead.Store(true)
		began := time.Now()
		err := lk.Release(context.Background())
		if d := time.Since(began); d > 5*time.Second || !errors.Is(err, lock.ErrAmbiguous) {
			t.Errorf("Release = %v after %v", err, d)
		}
		f.dead.Store(false)
		l.Close()
		wantHeld(t, newLocker(t, rdb, lock.Config{}), "x", false)
	})
}

// Release got no answer and is called again when the lease is over: the section
// ended with the first call.
func TestReleaseAgainAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, f := faulty(t, redistest.Mini(t), nil)
		lost := 0
		l := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second, Hooks: lock.Hooks{Lost: func(context.Context, lock.LostEvent) { lost++ }}})
		lk := take(t, l, "x")
		f.dead.Store(true)
		if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrUnavailable) || time.Now().Before(lk.Expires()) {
			t.Fatalf("Release = %v, at %v, the lease being over at %v", err, time.Now(), lk.Expires())
		}
		f.dead.Store(false)
		release(t, lk)
		if lost > 0 {
			t.Error("Hooks.Lost was told of a section that ended in time")
		}
	})
}

// A wait in a Redis that hangs is not refused by whoever held the lock before this
// process did.
func TestNoRefusalByWhoHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, f := faulty(t, redistest.Mini(t), nil)
		a, b := newLocker(t, rdb, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{Owner: "b", TurnSections: 1})
		lk := take(t, a, "x")
		in, out, first := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			first <- b.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { close(in); <-out; return nil })
		}()
		synctest.Wait()
		release(t, lk)
		<-in
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		second := make(chan error)
		go func() {
			_, err := b.Acquire(ctx, "x", nil)
			second <- err
		}()
		synctest.Wait()
		f.dead.Store(true)
		close(out) // the turn is over, and the release gets no answer
		if err := <-second; !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v, want the end of its context alone", err)
		}
		if err := <-first; err != nil {
			t.Errorf("Do = %v", err)
		}
		f.dead.Store(false)
		time.Sleep(time.Minute) // commands in flight time out
	})
}

// redsync's Extend and Unlock answer "lock already taken" for a lock that is not.
func TestErrorsSayWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: time.Second})
		other := newLocker(t, rdb, lock.Config{TTL: time.Second})
		lost := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, lock.ErrNotHeld) || errors.Is(err, lock.ErrLocked) || errors.Is(err, lock.ErrUnavailable) {
				t.Errorf("%s = %v, want ErrNotHeld alone", what, err)
			}
		}
		lk := take(t, l, "x")
		time.Sleep(2 * time.Second)
		lost("Extend after the lease", lk.Extend(t.Context()))
		lost("Release after the lease", lk.Release(t.Context()))
		lost("again", lk.Release(t.Context()))

		lk = take(t, l, "x")
		time.Sleep(2 * time.Second)
		theirs := take(t, other, "x")
		lost("Release of another's", lk.Release(t.Context()))
		wantHeld(t, l, "x", true)
		release(t, theirs)

		lk = take(t, l, "x")
		if was, err := other.Revoke(t.Context(), "x"); !was || err != nil {
			t.Errorf("Revoke = %v, %v", was, err)
		}
		lost("Extend after Revoke", lk.Extend(t.Context()))

		lk = take(t, l, "x")
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		release(t, lk) // the section was covered all the same
	})
}

func TestRedisErrorsAreNotContention(t *testing.T) {
	t.Run("reply", func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		if err := rdb.LPush(t.Context(), "x", 1).Err(); err != nil {
			t.Fatal(err)
		}
		_, err := l.TryAcquire(t.Context(), "x")
		if !errors.Is(err, lock.ErrUnavailable) || errors.Is(err, lock.ErrAmbiguous) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire = %v", err)
		}
		if _, err := l.Acquire(t.Context(), "x", nil); !errors.Is(err, lock.ErrUnavailable) {
			t.Errorf("Acquire = %v", err)
		}
	})
	t.Run("dial", func(t *testing.T) {
		down := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}
		rdb := refusing(down)
		defer rdb.Close()
		l := newLocker(t, rdb, lock.Config{})
		for range 2 {
			_, err := l.TryAcquire(context.Background(), "x")
			ue, ok := errors.AsType[*lock.UnavailableError](err)
			if !ok || ue.Sent || ue.Op != "acquire" || ue.Key != "x" || !errors.Is(err, down) || errors.Is(err, lock.ErrAmbiguous) {
				t.Errorf("TryAcquire = %#v", err)
			}
		}
	})
}

// refusing returns a client that cannot dial. It looks up no names: the resolver
// of a process belongs to the synctest bubble that first used it.
func refusing(err error) *redis.Client {
	return redis.NewClient(&redis.Options{
		MaxRetries: -1, DialerRetries: 1,
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return nil, err },
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// rueidislock swallows errors and waits for ever.
func TestWaitEndsWhenRedisFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		done := make(chan error)
		go func() { _, err := b.Acquire(t.Context(), "x", nil); done <- err }()
		time.Sleep(500 * time.Millisecond)
		rdb.AddHook(hook{process: func(_ context.Context, cmd redis.Cmder, _ redis.ProcessHook) error {
			err := errReply("NOREPLICAS Not enough good replicas to write.")
			cmd.SetErr(err)
			return err
		}})
		if err := <-done; !errors.Is(err, lock.ErrUnavailable) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v", err)
		}
		_ = lk
	})
}

type errReply string

func (e errReply) Error() string { return string(e) }
func (errReply) RedisError()     {}

// redsync's WithSetNXOnExtend revives a lock that others held in between.
func TestExtendRevivesNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		lk := take(t, l, "x")
		rdb.Del(t.Context(), "x")
		if err := lk.Extend(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend = %v", err)
		}
		wantHeld(t, l, "x", false)
		if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Release = %v", err)
		}
	})
}

// redsync's default Lock gives up before a crashed holder's default TTL ends.
func TestAcquireOutlivesACrashedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{}), newLocker(t, rdb, lock.Config{})
		take(t, a, "x") // and is heard of no more
		began := time.Now()
		lk, err := b.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d < 29*time.Second || d > 30*time.Second+100*time.Millisecond {
			t.Errorf("waited %v for a lease of 30s", d)
		}
		release(t, lk)
	})
}

// redsync's Mutex has a data race here.
func TestExtendWhileOthersLook(t *testing.T) {
	rdb := redistest.Mini(t)
	l := newLocker(t, rdb, lock.Config{})
	lk := take(t, l, "x")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				before := lk.Expires()
				if err := lk.Extend(t.Context()); err != nil {
					t.Error(err)
				}
				if lk.Expires().Before(before) || lk.TTL() != 30*time.Second || lk.Token() == "" {
					t.Error("the lease went back")
				}
			}
		})
	}
	wg.Wait()
	for range 4 {
		wg.Go(func() { release(t, lk) })
	}
	wg.Wait()
}

// redislock deletes the key at once and reports success.
func TestShortTTLIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{})
		n := redistest.Count(rdb)
		for _, d := range []time.Duration{-1, 0, 1, time.Millisecond - 1, 10*time.Millisecond - 1, 1<<63 - 1} {
			if _, err := l.TryAcquire(t.Context(), "x", lock.WithTTL(d)); !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("TTL %d: %v", d, err)
			}
		}
		if n.Commands() != 0 {
			t.Errorf("sent %v", n.Names())
		}
		if lk := take(t, l, "x", lock.WithTTL(10*time.Millisecond+1)); lk.TTL() != 10*time.Millisecond {
			t.Errorf("TTL %v", lk.TTL())
		}
	})
}

func TestScriptFlush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{TTL: 300 * time.Millisecond})
		lk := take(t, l, "x")
		flush := func() {
			if err := rdb.ScriptFlush(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		flush()
		if err := lk.Extend(t.Context()); err != nil {
			t.Error(err)
		}
		flush()
		release(t, lk)
		if err := l.Do(t.Context(), "x", nil, func(ctx context.Context, lk *lock.Lock) error {
			flush() // for the watchdog
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(400 * time.Millisecond):
				return nil
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// With INCR the counter restarts at 1, and resources refuse everybody for ever.
func TestFenceGrowsThroughAFlush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		var last int64
		for i := range 20 {
			lk := take(t, l, "x")
			if lk.Fence() <= last {
				t.Fatalf("fence %d after %d", lk.Fence(), last)
			}
			last = lk.Fence()
			if i%5 == 4 {
				rdb.FlushDB(t.Context())
				lk.Release(t.Context())
				continue
			}
			release(t, lk)
		}
		if ahead := last - time.Now().UnixMicro(); ahead > 1e6 {
			t.Errorf("fence is %d us ahead of the clock", ahead)
		}
	})
}

// Redisson waits for the next third of the lease after a failure.
func TestWatchdogRetriesWithinTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second})
		var broken atomic.Bool
		var tries atomic.Int32
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if broken.Load() {
				tries.Add(1)
				cmd.SetErr(io.EOF)
				return io.EOF
			}
			return next(ctx, cmd)
		}})
		if err := l.TryDo(t.Context(), "x", func(ctx context.Context, _ *lock.Lock) error {
			time.Sleep(500 * time.Millisecond)
			broken.Store(true)
			time.Sleep(2300 * time.Millisecond)
			broken.Store(false)
			time.Sleep(10 * time.Second)
			return context.Cause(ctx)
		}); err != nil {
			t.Error(err)
		}
		if n := tries.Load(); n < 3 || n > 30 {
			t.Errorf("%d failed attempts", n)
		}
	})
}
