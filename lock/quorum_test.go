package lock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-redsync/redsync/v4"
	rsredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// eachQuorum runs fn on three and five nodes in memory, and on three servers.
func eachQuorum(t *testing.T, fn func(t *testing.T, nodes []*redis.Client)) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("mini %d", n), func(t *testing.T) { fn(t, miniNodes(t, n)) })
	}
	t.Run("real 3", func(t *testing.T) {
		var nodes []*redis.Client
		for range 3 {
			nodes = append(nodes, redistest.NewServer(t).Client(t))
		}
		fn(t, nodes)
	})
}

func miniNodes(t *testing.T, n int) []*redis.Client {
	var nodes []*redis.Client
	for range n {
		nodes = append(nodes, redistest.Mini(t))
	}
	return nodes
}

// newQuorum returns a Locker on nodes that is closed when the test ends.
func newQuorum(t testing.TB, nodes []*redis.Client, cfg lock.Config) *lock.Locker {
	t.Helper()
	l := lock.NewQuorum(universal(nodes), cfg)
	t.Cleanup(func() { l.Close() })
	return l
}

func universal(nodes []*redis.Client) []redis.UniversalClient {
	var clients []redis.UniversalClient
	for _, n := range nodes {
		clients = append(clients, n)
	}
	return clients
}

// wantKeys checks at how many nodes the lock key is there, once all is done.
func wantKeys(t *testing.T, nodes []*redis.Client, key string, want int) {
	t.Helper()
	if n := countKeys(nodes, key); n != want {
		t.Errorf("%q is at %d nodes, want %d", key, n, want)
	}
}

func countKeys(nodes []*redis.Client, key string) (n int) {
	for _, rdb := range nodes {
		n += int(rdb.Exists(context.Background(), key).Val())
	}
	return n
}

func TestQuorum(t *testing.T) {
	eachQuorum(t, func(t *testing.T, nodes []*redis.Client) {
		ctx := t.Context()
		a := newQuorum(t, nodes, lock.Config{Owner: "a", TTL: 10 * time.Second})
		b := newQuorum(t, nodes, lock.Config{Owner: "b"})
		lk := take(t, a, "x")
		_, err := b.TryAcquire(ctx, "x")
		le, ok := errors.AsType[*lock.LockedError](err)
		if !ok || le.Owner != "a" || le.RetryAfter <= 5*time.Second || le.RetryAfter > 10*time.Second {
			t.Fatalf("refusal = %#v", err)
		}
		if st := wantHeld(t, b, "x", true); st.Owner != "a" || st.Fence < lk.Fence() || st.TTL <= 5*time.Second {
			t.Errorf("Inspect = %+v, fence %d", st, lk.Fence())
		}
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		left, held, err := b.Look(ctx, "x", "q")
		if err != nil || !held || left <= 5*time.Second {
			t.Errorf("Look = %v, %v, %v", left, held, err)
		}
		release(t, lk)
		release(t, lk)
		if q := lk.Reported(); !slices.Equal(q, []string{"q"}) {
			t.Errorf("Reported = %q", q)
		}
		if _, held, err := b.Look(ctx, "x", "q"); held || err != nil {
			t.Errorf("Look at a free lock = %v, %v", held, err)
		}
		if err := lk.Extend(ctx); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend after Release = %v", err)
		}
		waitFor(t, func() bool { st, err := b.Inspect(ctx, "x"); return err == nil && !st.Held })

		lk2 := take(t, b, "x")
		if lk2.Fence() <= lk.Fence() {
			t.Errorf("fence %d after %d", lk2.Fence(), lk.Fence())
		}
		if was, err := a.Revoke(ctx, "x"); !was || err != nil {
			t.Errorf("Revoke = %v, %v", was, err)
		}
		// Calls return at a majority: votes may be under way that nobody counts.
		waitFor(t, func() bool { return errors.Is(lk2.Extend(ctx), lock.ErrNotHeld) }) // never makes a key
		waitFor(t, func() bool { was, err := a.Revoke(ctx, "x"); return !was && err == nil })
		var lk3 *lock.Lock
		waitFor(t, func() (ok bool) { lk3, err = a.TryAcquire(ctx, "x"); return err == nil })
		if lk3.Fence() <= lk2.Fence() {
			t.Errorf("fence %d after %d", lk3.Fence(), lk2.Fence())
		}
		err = a.TryDo(ctx, "x", func(context.Context, *lock.Lock) error { return nil })
		if !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryDo = %v", err)
		}
		release(t, lk3)
	})
}

// An uncontended acquire is one command at each node, and another to raise the
// fence if they disagree; a refused try is one, with nothing to take back.
func TestQuorumCommands(t *testing.T) {
	eachQuorum(t, func(t *testing.T, nodes []*redis.Client) {
		ctx := t.Context()
		a, b := newQuorum(t, nodes, lock.Config{}), lock.NewQuorum(universal(nodes), lock.Config{})
		for i, rdb := range nodes {
			rdb.Set(ctx, "{warm}:fence", time.Now().Add(time.Hour).UnixMicro()+int64(i), 0) // to be raised
		}
		lk := take(t, a, "warm")
		lk.Extend(ctx)
		release(t, lk)
		a.Close()
		var counters []*redistest.Counter
		for _, rdb := range nodes {
			rdb.Set(ctx, "{x}:fence", "1", 0) // the fences agree from now on, but for the clocks
			counters = append(counters, redistest.Count(rdb))
		}
		count := func(what string, want ...int) {
			t.Helper()
			for i, n := range counters {
				if !slices.Contains(want, n.Commands()) {
					t.Errorf("%s: node %d got %v, want %v", what, i, n.Names(), want)
				}
				n.Reset()
			}
		}
		settle := func(l **lock.Locker) { // a call returns at a majority
			(*l).Close()
			*l = lock.NewQuorum(universal(nodes), lock.Config{})
			t.Cleanup(func() { (*l).Close() })
		}
		settle(&a)
		lk = take(t, a, "x")
		settle(&a)
		count("TryAcquire", 1, 2) // 2: each node has a clock of its own
		if _, err := b.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			t.Fatal(err)
		}
		settle(&b)
		count("refused TryAcquire", 0, 1) // 0: two had refused before the third was asked
		lk.Extend(ctx)
		for _, n := range counters {
			waitFor(t, func() bool { return n.Commands() == 1 })
		}
		count("Extend", 1)
		release(t, lk)
		for _, n := range counters {
			waitFor(t, func() bool { return n.Commands() == 1 })
		}
		count("Release", 1)
	})
}

// In one instant all clocks agree: exactly one command at each node, as long as
// the fences do; where they do not, exactly two.
func TestQuorumWriteBackCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := miniNodes(t, 3)
		l := newQuorum(t, nodes, lock.Config{})
		for i, rdb := range nodes {
			rdb.Set(t.Context(), "{warm}:fence", time.Now().Add(time.Hour).UnixMicro()+int64(i), 0) // to be raised
		}
		release(t, take(t, l, "warm"))
		synctest.Wait()
		var counters []*redistest.Counter
		for _, rdb := range nodes {
			counters = append(counters, redistest.Count(rdb))
		}
		for _, c := range []struct {
			name   string
			fences [3]int64 // beyond the last
			want   int
		}{
			{"all agree", [3]int64{0, 0, 0}, 1},
			{"a majority agrees", [3]int64{5, 5, 0}, 1},
			{"none agree", [3]int64{7, 8, 9}, 2},
		} {
			f := time.Now().Add(time.Hour).UnixMicro()
			for i, rdb := range nodes {
				rdb.Set(t.Context(), "{x}:fence", f+c.fences[i], 0)
				counters[i].Reset()
			}
			lk := take(t, l, "x")
			synctest.Wait()
			for i, n := range counters {
				// The first two to answer decide. If the third was one of a majority
				// that agrees, the fences were raised though they need not have been.
				if got := n.Commands(); got != c.want && c.name != "a majority agrees" {
					t.Errorf("%s: node %d got %v, want %d", c.name, i, n.Names(), c.want)
				}
				if fence, _ := nodes[i].Get(t.Context(), "{x}:fence").Int64(); c.want == 2 && fence < lk.Fence() {
					t.Errorf("%s: node %d has fence %d, less than the lock's %d", c.name, i, fence, lk.Fence())
				}
			}
			release(t, lk)
			synctest.Wait()
		}
	})
}

// A minority that is hung, down or restarted without its data costs nothing.
func TestQuorumMinority(t *testing.T) {
	for _, real := range []bool{false, true} {
		t.Run(map[bool]string{false: "mini", true: "real"}[real], func(t *testing.T) {
			ctx := t.Context()
			direct := miniNodes(t, 3)
			empty := func() { direct[2].FlushAll(ctx) }
			if real {
				var servers []*redistest.Server
				for i := range direct {
					servers = append(servers, redistest.NewServer(t))
					direct[i] = servers[i].Client(t)
				}
				empty = func() {
					servers[2].Kill()
					if err := servers[2].Start(); err != nil {
						t.Fatal(err)
					}
				}
			}
			third := redistest.Through(t, direct[2])
			nodes := []*redis.Client{direct[0], direct[1], third.Client(t, func(o *redis.Options) {
				o.ReadTimeout, o.MaxRetries = time.Second, -1 // so that Close need not wait for long
			})}
			l := newQuorum(t, nodes, lock.Config{NodeTimeout: 9 * time.Second})
			other := newQuorum(t, direct, lock.Config{})
			// full takes the lock at all nodes.
			full := func() (lk *lock.Lock) {
				waitFor(t, func() bool {
					lk = take(t, l, "x")
					for range 100 {
						v := direct[2].Get(ctx, "x").Val() // of this very lock: no acquire is under way any more
						if v != "" && v == direct[0].Get(ctx, "x").Val() && v == direct[1].Get(ctx, "x").Val() {
							return true
						}
					}
					release(t, lk)
					return false
				})
				return lk
			}
			gone := func() bool { return direct[2].Exists(ctx, "x").Val() == 0 }
			allGone := func() bool {
				return gone() && direct[0].Exists(ctx, "x").Val()+direct[1].Exists(ctx, "x").Val() == 0
			}

			release(t, full())
			waitFor(t, allGone)
			third.BlackHole(true)
			began := time.Now()
			lk := take(t, l, "x")
			wantKeys(t, direct, "x", 2)
			if _, err := other.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
				t.Errorf("TryAcquire of another = %v", err)
			}
			if err := lk.Extend(ctx); err != nil {
				t.Errorf("Extend with a hung node: %v", err)
			}
			release(t, lk)
			waitFor(t, func() bool { return direct[0].Exists(ctx, "x").Val()+direct[1].Exists(ctx, "x").Val() == 0 })
			if err := l.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { return nil }); err != nil {
				t.Errorf("Do with a hung node: %v", err)
			}
			if st := wantHeld(t, l, "y", false); st.Owner != "" {
				t.Errorf("Inspect with a hung node = %+v", st)
			}
			if _, held, err := l.Look(ctx, "y", "q"); held || err != nil {
				t.Errorf("Look with a hung node = %v, %v", held, err)
			}
			lk = take(t, l, "y")
			waitFor(t, func() bool { return countKeys(direct, "y") == 2 })
			if was, err := l.Revoke(ctx, "y"); !was || err != nil {
				t.Errorf("Revoke with a hung node = %v, %v", was, err)
			}
			release(t, lk) // changes nothing
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("with a hung node it took %v", d)
			}
			third.Cut() // what it held back is lost
			third.BlackHole(false)

			lk = full()
			empty()
			if err := lk.Extend(ctx); err != nil {
				t.Errorf("Extend with a node restarted empty: %v", err)
			}
			waitFor(t, gone) // Extend does not make the key anew
			if _, err := other.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
				t.Errorf("TryAcquire of another with a node restarted empty = %v", err)
			}
			release(t, lk)
			waitFor(t, allGone)
			lk2 := take(t, other, "x")
			if lk2.Fence() <= lk.Fence() {
				t.Errorf("fence %d after %d", lk2.Fence(), lk.Fence())
			}
			release(t, lk2)
		})
	}
}

// A majority that does not answer is no refusal.
func TestQuorumMajorityDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := miniNodes(t, 3)
		down := []*redis.Client{good[0]}
		var f []*faults
		for _, rdb := range good[1:] {
			c, x := faulty(t, rdb, func(o *redis.Options) { o.MaxRetries = -1; o.ReadTimeout = 200 * time.Millisecond })
			down, f = append(down, c), append(f, x)
		}
		ctx := t.Context()
		l := newQuorum(t, down, lock.Config{})
		held := take(t, l, "held")
		for _, x := range f {
			x.dead.Store(true)
		}
		check := func(what string, err error) {
			t.Helper()
			u, ok := errors.AsType[*lock.UnavailableError](err)
			if !ok || errors.Is(err, lock.ErrLocked) || errors.Is(err, lock.ErrNotHeld) {
				t.Errorf("%s = %v", what, err)
				return
			}
			var at []int
			for _, n := range u.Nodes {
				at = append(at, n.Node)
				if n.Err == nil {
					t.Errorf("%s: node %d without an error", what, n.Node)
				}
			}
			if !slices.Equal(at, []int{1, 2}) {
				t.Errorf("%s blames nodes %v, want 1 and 2", what, at)
			}
		}
		_, err := l.TryAcquire(ctx, "x")
		check("TryAcquire", err)
		_, err = l.TryAcquire(ctx, "held")
		check("TryAcquire of a held lock", err)
		_, err = l.Acquire(ctx, "x", nil)
		check("Acquire", err)
		check("Do", l.Do(ctx, "x", nil, func(context.Context, *lock.Lock) error { t.Error("entered"); return nil }))
		check("Extend", held.Extend(ctx))
		_, err = l.Inspect(ctx, "x")
		check("Inspect", err)
		_, _, err = l.Look(ctx, "x", "q")
		check("Look", err)
		_, err = l.Revoke(ctx, "x")
		check("Revoke", err)
		check("Release", held.Release(ctx))
		time.Sleep(10 * time.Second) // clean-ups try, and give up
		wantKeys(t, good[:1], "x", 0)

		for _, x := range f {
			x.dead.Store(false)
		}
		time.Sleep(10 * time.Second)
		release(t, take(t, l, "x"))
		synctest.Wait()
		wantKeys(t, good, "x", 0)
		time.Sleep(time.Minute)
	})
}

// What waits for a node that hangs is bounded: it is not asked to release what it was not
// asked for.
func TestHungNodeIsNotAskedToReleaseWhatItWasSpared(t *testing.T) {
	nodes := miniNodes(t, 3)
	stuck := make(chan struct{})
	nodes[2].AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		<-stuck
		return next(ctx, cmd)
	}})
	l := newQuorum(t, nodes, lock.Config{})
	before := runtime.NumGoroutine()
	const bound = 4096 // maxOpen
	for range bound {
		release(t, take(t, l, "x"))
	}
	if n := runtime.NumGoroutine() - before; n > bound+500 {
		t.Errorf("%d goroutines wait for one node", n)
	}
	close(stuck)
}

// A release that finds no majority says which nodes did not answer, also if they would
// have been given more time than a release has.
func TestQuorumReleaseSaysWhichNodesAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := miniNodes(t, 3)
		stuck := make(chan struct{})
		l := newQuorum(t, nodes, lock.Config{NodeTimeout: 8 * time.Second})
		lk := take(t, l, "x")
		synctest.Wait()
		for _, rdb := range nodes[1:] {
			rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				<-stuck
				return next(ctx, cmd)
			}})
		}
		err := lk.Release(t.Context())
		if u, ok := errors.AsType[*lock.UnavailableError](err); !ok || len(u.Nodes) != 2 {
			t.Errorf("Release = %v", err)
		}
		close(stuck)
	})
}

// What a failed or cancelled acquire got of the lock it gives back.
func TestQuorumLeavesNoOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		direct := miniNodes(t, 3)
		nodes := slices.Clone(direct)
		var f *faults
		nodes[2], f = faulty(t, direct[2], nil)
		l := newQuorum(t, nodes, lock.Config{})
		other := newQuorum(t, direct, lock.Config{})
		release(t, take(t, l, "x"))

		// Two nodes are another's: the third is given back.
		for _, rdb := range direct[:2] {
			rdb.Set(t.Context(), "x", "theirs", 10*time.Minute)
		}
		if _, err := l.TryAcquire(t.Context(), "x"); !errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryAcquire = %v", err)
		}
		synctest.Wait()
		wantKeys(t, direct[2:], "x", 0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := l.Acquire(ctx, "x", nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, lock.ErrLocked) {
			t.Errorf("Acquire = %v", err)
		}
		cancel()
		synctest.Wait()
		wantKeys(t, direct[2:], "x", 0)
		for _, rdb := range direct {
			if n := rdb.ZCard(t.Context(), "{x}:line").Val(); n != 0 {
				t.Errorf("%d in line after a cancel", n)
			}
			rdb.Del(t.Context(), "x")
		}

		// The third answers late: what it grants then is given back then.
		f.delay.Store(int64(1500 * time.Millisecond))
		direct[0].Set(t.Context(), "x", "theirs", 10*time.Minute)
		began := time.Now()
		if _, err := l.TryAcquire(t.Context(), "x"); !errors.Is(err, lock.ErrLocked) && !errors.Is(err, lock.ErrUnavailable) {
			t.Errorf("TryAcquire = %v", err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("refused after %v, want the NodeTimeout of 1s at most", d)
		}
		time.Sleep(10 * time.Second)
		wantKeys(t, direct, "x", 1)
		direct[0].Del(t.Context(), "x")

		// A release does not overtake the acquire that is under way at a slow node.
		lk := take(t, l, "x")
		release(t, lk)
		time.Sleep(10 * time.Second)
		wantKeys(t, direct, "x", 0)

		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		f.delay.Store(int64(1500 * time.Millisecond))
		if lk, err := l.TryAcquire(ctx, "y"); err == nil {
			release(t, lk)
		}
		cancel()
		time.Sleep(10 * time.Second)
		wantKeys(t, direct, "y", 0)
		release(t, take(t, other, "x"))
		time.Sleep(time.Minute)
	})
}

// Processes that wait are woken by a release; the other nodes' lines, timers and
// lost votes notwithstanding nobody waits for long.
func TestQuorumWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := miniNodes(t, 3)
		holder := newQuorum(t, nodes, lock.Config{})
		lk := take(t, holder, "x")
		var wg sync.WaitGroup
		var mu sync.Mutex
		var entered []int
		for i := range 4 {
			l := newQuorum(t, nodes, lock.Config{})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				if err := l.Do(t.Context(), "x", nil, func(context.Context, *lock.Lock) error {
					mu.Lock()
					entered = append(entered, i)
					mu.Unlock()
					time.Sleep(time.Millisecond)
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(600 * time.Millisecond) // timers look every second
		released := time.Now()
		release(t, lk)
		wg.Wait()
		if d := time.Since(released); d > 300*time.Millisecond {
			t.Errorf("four sections took %v, want milliseconds", d)
		}
		slices.Sort(entered) // their order is that of arrival only where nobody was overtaken
		if !slices.Equal(entered, []int{0, 1, 2, 3}) {
			t.Errorf("entered: %v, want each once", entered)
		}
		synctest.Wait()
		wantKeys(t, nodes, "x", 0)
	})
}

func TestQuorumExclusion(t *testing.T) {
	eachQuorum(t, func(t *testing.T, nodes []*redis.Client) {
		var h history
		var wg sync.WaitGroup
		const processes, goroutines, rounds = 3, 2, 15
		for range processes {
			l := newQuorum(t, nodes, lock.Config{TurnSections: 3, TTL: 5 * time.Second})
			for range goroutines {
				wg.Go(func() {
					for range rounds {
						err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *lock.Lock) error {
							h.section(t, lk, 100*time.Microsecond)
							return nil
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		wg.Wait()
		if h.sections != processes*goroutines*rounds {
			t.Errorf("%d sections", h.sections)
		}
		look := newQuorum(t, nodes, lock.Config{})
		waitFor(t, func() bool {
			st, err := look.Inspect(t.Context(), "x")
			return err == nil && !st.Held && st.Waiters == 0
		})
	})
}

// Look says that a lock is free if an acquire could get a majority, and, while the votes
// are split, that it is held, for a moment.
func TestQuorumLookAtSplitVotes(t *testing.T) {
	const moment = 100 * time.Millisecond
	for _, c := range []struct {
		votes string // each node's: a holder, "." none, "!" the node is down
		held  bool
		most  time.Duration // of what is left, and more than nothing
	}{
		{"...", false, 0},
		{"..a", false, 0},
		{"..!", false, 0},
		{"aa.", true, time.Minute},
		{"aa!", true, time.Minute},
		{"ab.", true, moment},
		{"abc", true, moment},
		{"a.!", true, moment},
		{"ab!", true, moment},
		{"s.!", true, 50 * time.Millisecond},
		{"e.!", true, moment},
		{"aa..", true, moment}, // of which an acquire would get two
		{"a...", false, 0},
		{"aa..!", true, moment},
	} {
		t.Run(c.votes, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var nodes []*redis.Client
				for _, vote := range c.votes {
					rdb := redistest.Mini(t)
					lasts := time.Minute
					switch vote {
					case '!':
						rdb.AddHook(hook{process: func(_ context.Context, cmd redis.Cmder, _ redis.ProcessHook) error {
							err := &net.OpError{Op: "dial", Err: net.ErrClosed}
							cmd.SetErr(err)
							return err
						}})
					case 's': // which is about to end
						lasts = 50 * time.Millisecond
					case 'e': // which has no end
						lasts = 0
					}
					if vote != '.' && vote != '!' {
						if err := rdb.Set(t.Context(), "x", string(vote), lasts).Err(); err != nil {
							t.Fatal(err)
						}
					}
					nodes = append(nodes, rdb)
				}
				l := lock.NewQuorum(universal(nodes), lock.Config{})
				defer l.Close()
				left, held, err := l.Look(t.Context(), "x", "q")
				if err != nil || held != c.held || left > c.most || held && left < c.most/2 {
					t.Errorf("Look = %v, %v, %v, want %v, for %v", left, held, err, c.held, c.most)
				}
				lk, err := l.TryAcquire(t.Context(), "x")
				if refused := errors.Is(err, lock.ErrLocked); refused != c.held {
					t.Errorf("TryAcquire = %v, and Look says that it is held: %v", err, c.held)
				}
				if err == nil {
					release(t, lk)
				}
			})
		})
	}
}

// A redsync mutex over the same nodes and a lock exclude each other.
func TestQuorumAndRedsync(t *testing.T) {
	eachQuorum(t, func(t *testing.T, nodes []*redis.Client) {
		ctx := t.Context()
		l := newQuorum(t, nodes, lock.Config{ClaimLease: 50 * time.Millisecond})
		var pools []rsredis.Pool
		for _, rdb := range nodes {
			pools = append(pools, goredis.NewPool(rdb))
		}
		theirs := redsync.New(pools...).NewMutex("x", redsync.WithTries(1))
		if err := theirs.LockContext(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := l.TryAcquire(ctx, "x")
		if le, ok := errors.AsType[*lock.LockedError](err); !ok || le.RetryAfter <= 0 || le.RetryAfter > 8*time.Second {
			t.Errorf("TryAcquire = %#v", err)
		}
		got := make(chan *lock.Lock)
		go func() {
			lk, err := l.Acquire(ctx, "x", nil)
			if err != nil {
				t.Error(err)
			}
			got <- lk
		}()
		waitFor(t, func() bool { st, _ := l.Inspect(ctx, "x"); return st.Waiters == 1 })
		if ok, err := theirs.UnlockContext(ctx); !ok || err != nil {
			t.Fatal(ok, err)
		}
		lk := <-got // by its timer: redsync tells nobody
		if err := theirs.TryLockContext(ctx); err == nil {
			t.Error("redsync took a held lock")
		}
		if err := lk.Extend(ctx); err != nil {
			t.Errorf("Extend: %v", err)
		}
		release(t, lk)
		waitFor(t, func() bool { return theirs.TryLockContext(ctx) == nil })
		if ok, err := theirs.UnlockContext(ctx); !ok || err != nil {
			t.Error(ok, err)
		}
	})
}

func TestNewQuorumPanics(t *testing.T) {
	for what, clients := range map[string][]redis.UniversalClient{"no clients": nil, "a nil client": {nil}, "a nil *redis.Client": {(*redis.Client)(nil)}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewQuorum with %s did not panic", what)
				}
			}()
			lock.NewQuorum(clients, lock.Config{})
		}()
	}
}
