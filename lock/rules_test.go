package lock

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// A fence key that is no number of ours makes acquire fail before it writes: no
// lock is left to nobody.
func TestFaultOfTheFenceStrandsNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, k := context.Background(), keysOf("", "x")
		n := newSingle(rdb, &aloneScripts, 0)
		if err := rdb.RPush(ctx, k.fence, "no number").Err(); err != nil {
			t.Fatal(err)
		}
		if r, err := n.acquire(ctx, &k, &acquireArgs{value: new("a me"), lease: time.Minute, block: 1, margin: time.Minute}); err == nil {
			t.Errorf("acquire = %+v, want an error", r)
		}
		if rdb.Exists(ctx, k.lock).Val() != 0 {
			t.Error("a lock was written without a fence")
		}
	})
}

// The next fence is larger than the last one, also if the server's clock has
// stepped back behind that.
func TestFenceGrowsThoughTheClockStepsBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, k := context.Background(), keysOf("", "x")
		n := newSingle(rdb, &aloneScripts, 0)
		last := time.Now().Add(time.Hour).UnixMicro() // minted before the step
		if err := rdb.Set(ctx, k.fence, strconv.FormatInt(last, 10), time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		r, err := n.acquire(ctx, &k, &acquireArgs{value: new("a me"), lease: time.Minute, block: 4, margin: time.Minute})
		if err != nil || !r.granted || r.fence != last+4 {
			t.Errorf("acquire = %+v, %v, want the block of four fences after %d", r, err, last)
		}
	})
}

// A node lifts its fence whoever holds the lock, and its answer counts only if
// that is still the caller.
func TestRaiseCountsHoldersOnly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, k := context.Background(), keysOf("", "x")
		n := newSingle(rdb, &quorumScripts, 0)
		rdb.Set(ctx, k.lock, "a me", time.Hour)
		for i, want := range map[int64]bool{1: false, 2: true} {
			value := map[bool]string{true: "a me", false: "b me"}[want]
			fence := time.Now().Add(time.Duration(i) * time.Hour).UnixMicro()
			ours, err := n.raise(ctx, &k, value, fence, time.Minute)
			if err != nil || ours != want {
				t.Errorf("raise by %q = %v, %v, want %v", value, ours, err, want)
			}
			if got, _ := rdb.Get(ctx, k.fence).Int64(); got < fence {
				t.Errorf("the fence is %d, want at least %d", got, fence)
			}
		}
	})
}

// A vote that is taken back late does not take another's.
func TestDiscardComparesTheToken(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, k := context.Background(), keysOf("", "x")
		n := newSingle(rdb, &quorumScripts, 0)
		rdb.Set(ctx, k.lock, "a me", time.Hour)
		if err := n.discard(ctx, &k, "b me"); err != nil || rdb.Get(ctx, k.lock).Val() != "a me" {
			t.Errorf("discard of another's token: %v; the lock holds %q", err, rdb.Get(ctx, k.lock).Val())
		}
		if err := n.discard(ctx, &k, "a me"); err != nil || rdb.Exists(ctx, k.lock).Val() != 0 {
			t.Errorf("discard of the own token: %v; the lock is still there", err)
		}
	})
}

// A section that ends when the deadline has passed and the timer is late hands
// nothing on: the next one gets a lease of its own.
func TestNoHandOffPastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{TTL: time.Hour})
		defer l.Close()
		first, err := l.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan *lease)
		go func() { // Do, because a plain Acquire wants half of its lease
			if err := l.Do(t.Context(), "x", nil, func(_ context.Context, lk *Lock) error {
				next <- lk.ls
				return nil
			}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		l.mu.Lock()
		first.ls.deadline = time.Now()
		l.mu.Unlock()
		_ = first.Release(t.Context()) // it may have been lost
		if <-next == first.ls {
			t.Error("a lease that had run out was handed on")
		}
		synctest.Wait()
	})
}

// A process has the fences that it reserved and no others: one that comes after a
// turn, though not all of the turn's fences were used, gets a larger one.
func TestFencesOfATurnAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes, so that fences grow by one
		rdb := redistest.Mini(t)
		a, b := New(rdb, Config{TTL: time.Hour}), New(rdb, Config{TTL: time.Hour})
		defer a.Close()
		defer b.Close()
		first, err := a.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan *Lock)
		go func() {
			lk, err := a.Acquire(t.Context(), "x", nil)
			if err != nil {
				t.Error(err)
			}
			next <- lk
		}()
		synctest.Wait()
		if err := first.Release(t.Context()); err != nil {
			t.Error(err)
		}
		second := <-next
		if err := second.Release(t.Context()); err != nil {
			t.Error(err)
		}
		third, err := b.TryAcquire(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if second.Fence() <= first.Fence() || third.Fence() <= second.Fence()+1 {
			t.Errorf("fences %d and %d of a turn, and then %d; want growing ones, and some of the turn's left over", first.Fence(), second.Fence(), third.Fence())
		}
		_ = third.Release(t.Context())
	})
}

// A process whose turn has lasted for TurnTime hands on to others, though it has
// fences left.
func TestTurnEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		a := New(rdb, Config{TurnSections: 100, TurnTime: 30 * time.Millisecond})
		b := New(rdb, Config{})
		defer a.Close()
		defer b.Close()
		var order []string
		var running sync.WaitGroup
		section := func(l *Locker, who string) {
			running.Go(func() {
				if err := l.Do(t.Context(), "x", nil, func(context.Context, *Lock) error {
					order = append(order, who)
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
		running.Wait()
		if got := strings.Join(order, ""); got != "aabaa" {
			t.Errorf("order %q, want aabaa", got)
		}
	})
}

// A deadline that has come by the wall clock has come, whatever the monotonic one
// says, which stands still while the machine sleeps; and the other way round.
func TestTheClockThatSaysLessCounts(t *testing.T) {
	for _, tt := range []struct{ wall, monotonic, want time.Duration }{
		{time.Hour, time.Hour, time.Hour},
		{-time.Minute, time.Hour, -time.Minute},
		{time.Hour, -time.Minute, -time.Minute},
	} {
		at := time.Now().Add(tt.wall)
		// The second word of a time with a monotonic reading is that reading.
		(*[2]int64)(unsafe.Pointer(&at))[1] += int64(tt.monotonic - tt.wall)
		if got := until(at); got > tt.want || got < tt.want-time.Minute {
			t.Errorf("wall clock %v, monotonic %v: until = %v, want %v", tt.wall, tt.monotonic, got, tt.want)
		}
	}
}
