package lock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// Close ends the goroutines that wait for work, and those that are at work end with
// it: none rests until it is swept away.
func TestCloseEndsWorkersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{})
		busy := make(chan struct{})
		l.mu.Lock()
		l.spawn(func() {})
		l.spawn(func() { <-busy })
		l.mu.Unlock()
		synctest.Wait()
		if len(l.workers.idle) != 1 || l.workers.n != 2 {
			t.Fatalf("%d goroutines, %d idle, want one of two", l.workers.n, len(l.workers.idle))
		}
		began := time.Now()
		go func() {
			synctest.Wait() // until Close waits for the second
			close(busy)
		}()
		l.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("Close took %v longer than the work", took)
		}
		if l.workers.n != 0 {
			t.Errorf("%d goroutines after Close", l.workers.n)
		}
	})
}

// A sweep ends those goroutines that nobody has needed since the last one, and not as
// many as were idle then.
func TestSweepSparesThoseInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{})
		spawn := func(n int, f func()) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for range n {
				l.spawn(f)
			}
		}
		spawn(5, func() {})
		time.Sleep(idleLinger * 3 / 2) // five idle at the first sweep
		busy := make(chan struct{})
		spawn(3, func() { <-busy })
		time.Sleep(idleLinger) // the second one
		close(busy)
		synctest.Wait()
		if l.workers.n != 3 || len(l.workers.idle) != 3 {
			t.Errorf("%d goroutines, %d idle, want the three that were in use", l.workers.n, len(l.workers.idle))
		}
		l.Close()
	})
}

// A hook that closes the Locker from within a Release, which it should not, holds nobody up.
func TestCloseInAHookOfARelease(t *testing.T) {
	var l *Locker
	l = New(redistest.Mini(t), Config{Hooks: Hooks{Released: func(context.Context, ReleasedEvent) { _ = l.Close() }}})
	lk, err := l.TryAcquire(context.Background(), "x")
	if err == nil {
		err = lk.Release(context.Background())
	}
	if err != nil {
		t.Error(err)
	}
}

// A hook of the client that panics in a call on its caller's goroutine harms nobody else.
func TestAPanicInACallLeavesTheLocker(t *testing.T) {
	rdb := redistest.Mini(t)
	l, ctx := New(rdb, Config{}), context.Background()
	held, err := l.TryAcquire(ctx, "held")
	if err != nil {
		t.Fatal(err)
	}
	broken := true
	rdb.AddHook(panics{&broken})
	for _, tt := range []struct {
		what string
		call func()
	}{
		{"TryAcquire", func() { _, _ = l.TryAcquire(ctx, "x") }},
		{"Acquire", func() { _, _ = l.Acquire(ctx, "y", nil) }},
		{"Extend", func() { _ = held.Extend(ctx) }},
		{"Release", func() { _ = held.Release(ctx) }},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", tt.what)
				}
			}()
			tt.call()
		}()
		if !l.mu.TryLock() {
			t.Fatalf("%s: whoever comes next waits for ever", tt.what)
		}
		l.mu.Unlock()
	}
	broken = false
	if lk, err := l.TryAcquire(ctx, "z"); err != nil || lk.Release(ctx) != nil {
		t.Errorf("after the panics: %v", err)
	}
	_ = l.Close() // nil, always; but it must end
}

// panics is a hook that panics in each script, while that is set.
type panics struct{ broken *bool }

func (panics) DialHook(next redis.DialHook) redis.DialHook { return next }

func (panics) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (p panics) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if *p.broken && cmd.Name() == "evalsha" {
			panic("boom")
		}
		return next(ctx, cmd)
	}
}
