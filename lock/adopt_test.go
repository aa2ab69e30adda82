package lock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// eachLocker runs fn with Lockers of one node and of a quorum.
func eachLocker(t *testing.T, fn func(t *testing.T, locker func(lock.Config) *lock.Locker)) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		fn(t, func(cfg lock.Config) *lock.Locker { return newLocker(t, rdb, cfg) })
	})
	t.Run("quorum", func(t *testing.T) {
		nodes := miniNodes(t, 3)
		fn(t, func(cfg lock.Config) *lock.Locker { return newQuorum(t, nodes, cfg) })
	})
}

func TestAdopt(t *testing.T) {
	eachLocker(t, func(t *testing.T, locker func(lock.Config) *lock.Locker) {
		ctx := t.Context()
		a, b, c := locker(lock.Config{Owner: "a"}), locker(lock.Config{Owner: "b"}), locker(lock.Config{Owner: "c"})
		given, err := a.Acquire(ctx, "x", nil) // from a block of fences
		if err != nil {
			t.Fatal(err)
		}
		token, err := given.Disown()
		if err != nil || token != given.Token() {
			t.Fatalf("Disown = %q, %v", token, err)
		}
		if _, err := a.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) { // and gives nothing back
			t.Errorf("TryAcquire of a disowned lock = %v", err)
		}
		lk, err := b.Adopt(ctx, "x", token, lock.WithTTL(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if lk.Fence() != given.Fence() || lk.Token() == token || lk.TTL() != 20*time.Second || time.Until(lk.Expires()) < 10*time.Second {
			t.Errorf("adopted: fence %d, was %d; TTL %v", lk.Fence(), given.Fence(), lk.TTL())
		}
		if st := wantHeld(t, c, "x", true); st.Owner != "b" {
			t.Errorf("owner %q", st.Owner)
		}
		if _, err := c.Adopt(ctx, "x", token); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("second Adopt = %v", err)
		}
		if err := given.Extend(ctx); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend by the giver = %v", err)
		}
		if _, err := given.Disown(); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("second Disown = %v", err)
		}
		release(t, given)
		release(t, given)
		wantHeld(t, c, "x", true)
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend by the adopter: %v", err)
		}
		stale := lk.Token()
		release(t, lk)
		waitFor(t, func() bool { st, err := c.Inspect(ctx, "x"); return err == nil && !st.Held })
		if _, err := b.Adopt(ctx, "x", stale); !errors.Is(err, lock.ErrNotHeld) || errors.Is(err, lock.ErrUnavailable) {
			t.Errorf("Adopt of a released lock = %v", err)
		}

		// Without Disown the giver is told when it next extends.
		given = take(t, a, "x")
		if given.Fence() <= lk.Fence() {
			t.Errorf("fence %d after %d", given.Fence(), lk.Fence())
		}
		if lk, err = b.Adopt(ctx, "x", given.Token()); err != nil {
			t.Fatal(err)
		}
		release(t, given) // it was covered, and leaves the lock alone
		wantHeld(t, c, "x", true)
		token = lk.Token()
		if lk, err = c.Adopt(ctx, "x", token); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{
			"", "x", token, strings.Replace(lk.Token(), ".", "-", 1), lk.Token()[:20], lk.Token() + "0000",
			lk.Token()[:strings.LastIndexByte(lk.Token(), '.')+1] + "-1",
		} {
			if _, err := a.Adopt(ctx, "x", bad); !errors.Is(err, lock.ErrNotHeld) && !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("Adopt(%q) = %v", bad, err)
			}
		}
		if _, err := a.Adopt(ctx, "other", lk.Token()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Adopt of another name = %v", err)
		}
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		release(t, lk)
	})
}

// Whoever gave a token away without Disown may hold nothing any more: Release lets
// none of its own process in unless Redis does.
func TestReleaseOfAnAdoptedLockHandsNothingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{Owner: "a"}), newLocker(t, rdb, lock.Config{Owner: "b"})
		given, err := a.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		entered := make(chan *lock.Lock, 1)
		go func() {
			lk, err := a.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Error(err)
			}
			entered <- lk
		}()
		synctest.Wait()
		adopted, err := b.Adopt(t.Context(), "x", given.Token())
		if err != nil {
			t.Fatal(err)
		}
		release(t, given)
		synctest.Wait()
		select {
		case lk := <-entered:
			t.Fatalf("%v is good until %v, and %v until %v", lk, lk.Expires(), adopted, adopted.Expires())
		default:
		}
		if err := adopted.Extend(t.Context()); err != nil {
			t.Errorf("Extend by the adopter: %v", err)
		}
		release(t, adopted)
		release(t, <-entered)
	})
}

// Nor does a section of a relay pass on what may be another's.
func TestRelayOfAGivenToken(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		l := newLocker(t, rdb, lock.Config{})
		err := l.TryDo(t.Context(), "x", func(_ context.Context, lk *lock.Lock) error { lk.Token(); return nil }, lock.Relay("q"))
		if err != nil {
			t.Fatal(err)
		}
		wantHeld(t, l, "x", false)
	})
}

// A reply to Adopt is lost and the command sent again: same lock. Without a
// second try nobody keeps it.
func TestAdoptLostReply(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		a := newLocker(t, rdb, lock.Config{})
		warm := take(t, a, "warm")
		lk, err := a.Adopt(ctx, "warm", warm.Token())
		if err != nil {
			t.Fatal(err)
		}
		release(t, lk)
		bad, f := faulty(t, rdb, nil)
		given := take(t, a, "x")
		f.lose.Store(1)
		if lk, err = newLocker(t, bad, lock.Config{}).Adopt(ctx, "x", given.Token()); err != nil || lk.Fence() != given.Fence() {
			t.Fatalf("Adopt = %v", err)
		}
		worse, f := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1 })
		f.lose.Store(1)
		_, err = newLocker(t, worse, lock.Config{}).Adopt(ctx, "x", lk.Token())
		if u, ok := errors.AsType[*lock.UnavailableError](err); !ok || u.Op != "adopt" || !errors.Is(err, lock.ErrAmbiguous) {
			t.Errorf("Adopt = %v", err)
		}
		waitFor(t, func() bool { st, err := a.Inspect(ctx, "x"); return err == nil && !st.Held })
	})
}

// A section in Hold that gives its lock away ends in peace, whoever waits in its
// process goes on waiting, and its watchdog does not touch the lock any more.
func TestDisownInHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a, b := newLocker(t, rdb, lock.Config{TTL: 3 * time.Second}), newLocker(t, rdb, lock.Config{})
		lk := take(t, a, "x")
		waited := make(chan time.Time, 1)
		if err := lk.Hold(t.Context(), func(ctx context.Context) error {
			go func() {
				if err := a.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error { waited <- time.Now(); return nil }); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(10 * time.Second)
			token, err := lk.Disown()
			if err != nil {
				t.Error(err)
			}
			adopted, err := b.Adopt(t.Context(), "x", token, lock.WithTTL(20*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			<-ctx.Done() // at the deadline
			if !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
				t.Errorf("cause %v", context.Cause(ctx))
			}
			time.Sleep(5 * time.Second)
			if err := adopted.Extend(t.Context()); err != nil {
				t.Errorf("Extend by the adopter: %v", err)
			}
			select {
			case <-waited:
				t.Error("two inside")
			default:
			}
			release(t, adopted)
			return nil
		}); err != nil {
			t.Errorf("Hold = %v", err)
		}
		<-waited
	})
}

// MaxHold ends the context of a section that has given its lock away as well.
func TestMaxHoldOfADisownedSection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{TTL: time.Hour, MaxHold: time.Minute})
		began := time.Now()
		if err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			if _, err := lk.Disown(); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, lock.ErrNotHeld) || !strings.Contains(cause.Error(), "MaxHold") {
				t.Errorf("cause %v", cause)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("its context ended after %v, want 1m", took)
		}
	})
}

// Adopt with a context that has ended says what was not done.
func TestAdoptWithAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, redistest.Mini(t), lock.Config{})
		token := take(t, l, "x").Token()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := l.Adopt(ctx, "x", token)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "adopt") {
			t.Errorf("Adopt = %v", err)
		}
	})
}

func TestTryAcquireAll(t *testing.T) {
	eachLocker(t, func(t *testing.T, locker func(lock.Config) *lock.Locker) {
		ctx := t.Context()
		a, b := locker(lock.Config{Owner: "a"}), locker(lock.Config{Owner: "b"})
		locks, err := a.TryAcquireAll(ctx, "x", "y", "z")
		if err != nil || len(locks) != 3 {
			t.Fatal(locks, err)
		}
		for i, name := range []string{"x", "y", "z"} {
			if locks[i].Name() != name || locks[i].Fence() == 0 {
				t.Errorf("lock %d is %q with fence %d", i, locks[i].Name(), locks[i].Fence())
			}
			if st := wantHeld(t, b, name, true); st.Owner != "a" {
				t.Errorf("owner %q", st.Owner)
			}
		}
		release(t, locks[0])
		_, err = b.TryAcquireAll(ctx, "x", "z", "y")
		if le, ok := errors.AsType[*lock.LockedError](err); !ok || le.Key != "z" || le.Owner != "a" || le.RetryAfter <= 0 {
			t.Errorf("refusal = %#v", err)
		}
		waitFor(t, func() bool { st, err := a.Inspect(ctx, "x"); return err == nil && !st.Held })
		if err := locks[1].Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		release(t, locks[1])
		release(t, locks[2])
		var again []*lock.Lock
		waitFor(t, func() bool { again, err = b.TryAcquireAll(ctx, "z", "y", "x"); return err == nil })
		for i, lk := range again {
			if lk.Fence() <= locks[2-i].Fence() {
				t.Errorf("%s: fence %d after %d", lk.Name(), lk.Fence(), locks[2-i].Fence())
			}
			release(t, lk)
		}
		for what, names := range map[string][]string{"none": nil, "twice": {"a", "b", "a"}, "empty": {"a", ""}, "many": make([]string, 257)} {
			if _, err := a.TryAcquireAll(ctx, names...); !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("%s: TryAcquireAll = %v", what, err)
			}
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := a.TryAcquireAll(gone, "x", "y"); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		a.Close()
		if _, err := a.TryAcquireAll(ctx, "x", "y"); !errors.Is(err, lock.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestTryAcquireAllFaults(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		bad, f := faulty(t, rdb, nil)
		l := newLocker(t, bad, lock.Config{})
		all := func() []*lock.Lock {
			t.Helper()
			locks, err := l.TryAcquireAll(ctx, "x", "y")
			if err != nil {
				t.Fatal(err)
			}
			return locks
		}
		for _, lk := range all() {
			release(t, lk)
		}
		n := redistest.Count(bad)
		f.lose.Store(1)
		locks := all() // sent again: the same locks
		if !slices.Equal(n.Names(), []string{"evalsha"}) {
			t.Errorf("sent %v", n.Names())
		}
		n.Reset()
		if _, err := l.TryAcquireAll(ctx, "w", "y"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("refusal = %v", err)
		}
		if n.Commands() != 1 {
			t.Errorf("a refusal took %v", n.Names())
		}
		for _, lk := range locks {
			if st := wantHeld(t, l, lk.Name(), true); st.Fence != lk.Fence() {
				t.Errorf("fence %d, in Redis %d", lk.Fence(), st.Fence)
			}
			release(t, lk)
		}

		worse, f := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1 })
		f.lose.Store(1)
		if _, err := newLocker(t, worse, lock.Config{}).TryAcquireAll(ctx, "x", "y"); !errors.Is(err, lock.ErrAmbiguous) {
			t.Errorf("TryAcquireAll = %v", err)
		}
		waitFor(t, func() bool { return rdb.Exists(ctx, "x", "y").Val() == 0 })
	})
}

// A quorum's locks are taken one after the other: if the first is over by the time the
// last is there, none is returned.
func TestTryAcquireAllReturnsNoneThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nodes []*redis.Client
		for range 3 {
			slow, delay := slowed(t, redistest.Mini(t))
			delay.Store(int64(100 * time.Millisecond))
			nodes = append(nodes, slow)
		}
		l := newQuorum(t, nodes, lock.Config{TTL: time.Second})
		names := strings.Split("abcdefghijklmno", "")
		locks, err := l.TryAcquireAll(t.Context(), names...)
		if !errors.Is(err, lock.ErrUnavailable) || len(locks) > 0 {
			t.Errorf("TryAcquireAll = %v, %v", locks, err)
		}
		for _, name := range names {
			wantHeld(t, l, name, false)
		}
	})
}

// What it has taken from a quorum that hangs by then is given back in the background.
func TestTryAcquireAllOnAQuorumEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := miniNodes(t, 3)
		slow := []*redis.Client{nodes[0]}
		var delays []*atomic.Int64
		for _, rdb := range nodes[1:] {
			c, delay := slowed(t, rdb)
			slow, delays = append(slow, c), append(delays, delay)
		}
		l := newQuorum(t, slow, lock.Config{})
		release(t, take(t, l, "y")) // the scripts are known
		synctest.Wait()
		set := func(d time.Duration) {
			for _, delay := range delays {
				delay.Store(int64(d))
			}
		}
		set(100 * time.Millisecond)
		time.AfterFunc(250*time.Millisecond, func() { set(3 * time.Second) })
		ctx, cancel := context.WithTimeout(t.Context(), 350*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := l.TryAcquireAll(ctx, "a", "b", "c", "d"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("TryAcquireAll = %v", err)
		}
		if took := time.Since(began); took != 350*time.Millisecond {
			t.Errorf("it returned after %v, its context ended after 350ms", took)
		}
		time.Sleep(20 * time.Second)
		for _, name := range []string{"a", "b", "c", "d"} {
			wantKeys(t, nodes, name, 0)
		}
	})
}

// The names of a Cluster's locks must be on one of its servers.
func TestTryAcquireAllInCluster(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{}) // not a *redis.Client: several servers
	defer ring.Close()
	l := newLocker(t, ring, lock.Config{})
	if _, err := l.TryAcquireAll(t.Context(), "{a}x", "{b}x"); !errors.Is(err, lock.ErrInvalid) {
		t.Errorf("different tags: %v", err)
	}
	if _, err := l.TryAcquireAll(t.Context(), "{a}x", "{a}y"); errors.Is(err, lock.ErrInvalid) {
		t.Errorf("the same tag: %v", err)
	}
}

// A section that is over gives away nothing: its lease may be that of the next one by now.
func TestTokenOfASectionThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		rdb := srv.Client()
		t.Cleanup(func() { rdb.Close(); srv.Close() })
		l := newLocker(t, rdb, lock.Config{TurnTime: time.Minute, TurnSections: 100})
		first, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan *lock.Lock)
		go func() {
			lk, err := l.Acquire(t.Context(), "x", nil, lock.WithTTL(10*time.Second))
			if err != nil {
				t.Error(err)
			}
			next <- lk
		}()
		synctest.Wait()
		release(t, first)
		second := <-next
		if token := first.Token(); token != "" {
			t.Errorf("Token = %q after Release, which handed the lock on with fence %d", token, second.Fence())
		}
		if first.TTL() != 20*time.Second || second.TTL() != 10*time.Second {
			t.Errorf("TTL = %v and %v, want each its own", first.TTL(), second.TTL())
		}
		if second.Token() == "" {
			t.Error("the holder has no token")
		}
		release(t, second)
	})
}

// A node that was not of the majority which knew the fence, and has the lock nonetheless,
// counts when it is taken over: another may be down.
func TestQuorumAdoptsThoughANodeLags(t *testing.T) {
	ctx := t.Context()
	var srvs []*sidesteptest.Server
	var nodes []*redis.Client
	for range 3 {
		srv := sidesteptest.New()
		rdb := srv.Client()
		t.Cleanup(func() { rdb.Close(); srv.Close() })
		srvs, nodes = append(srvs, srv), append(nodes, rdb)
	}
	a, b := newQuorum(t, nodes, lock.Config{Owner: "a"}), newQuorum(t, nodes, lock.Config{Owner: "b"})
	ahead := time.Now().Add(10 * time.Second).UnixMicro()
	for _, rdb := range nodes {
		rdb.Set(ctx, "{x}:fence", ahead, time.Minute) // all mint the same, and none is raised
	}
	lk := take(t, a, "x")
	waitFor(t, func() bool { return countKeys(nodes, "x") == 3 })
	nodes[2].Set(ctx, "{x}:fence", ahead, redis.KeepTTL)
	token, err := lk.Disown()
	if err != nil {
		t.Fatal(err)
	}
	srvs[0].SetError("LOADING a minority is down")
	adopted, err := b.Adopt(ctx, "x", token)
	if err != nil {
		t.Fatalf("Adopt = %v with one node of three down", err)
	}
	if adopted.Fence() != lk.Fence() {
		t.Errorf("fence %d, want %d", adopted.Fence(), lk.Fence())
	}
	if err := adopted.Extend(ctx); err != nil {
		t.Errorf("Extend = %v", err)
	}
	release(t, adopted)
	if f, err := nodes[2].Get(ctx, "{x}:fence").Int64(); err != nil || f < lk.Fence() {
		t.Errorf("the node that lagged has fence %d, %v, want at least %d", f, err, lk.Fence())
	}
}
