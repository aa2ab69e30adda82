package lock_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// An uncontended pair allocates so often, go-redis's own share included.
func TestAllocations(t *testing.T) {
	rdb := redistest.Real(t)
	l := newLocker(t, rdb, lock.Config{})
	ctx := context.Background()
	wantAllocs(t, "TryAcquire, Release", 15, func() {
		lk, err := l.TryAcquire(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		lk.Release(ctx)
	})
	wantAllocs(t, "Acquire, Release", 19, func() {
		lk, err := l.Acquire(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		lk.Release(ctx)
	})
}

func BenchmarkAcquireRelease(b *testing.B) {
	rdb := redistest.Real(b)
	l := newLocker(b, rdb, lock.Config{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		lk, err := l.TryAcquire(ctx, "x")
		if err != nil {
			b.Fatal(err)
		}
		if err := lk.Release(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefused(b *testing.B) {
	rdb := redistest.Real(b)
	l := newLocker(b, rdb, lock.Config{})
	ctx := context.Background()
	take(b, l, "x")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			b.Fatal(err)
		}
	}
}

// Two processes hand one lock to each other: an operation is two sections.
func BenchmarkHandOff(b *testing.B) {
	rdb := redistest.Real(b)
	ctx := context.Background()
	nothing := func(context.Context, *lock.Lock) error { return nil }
	lockers := []*lock.Locker{newLocker(b, rdb, lock.Config{}), newLocker(b, rdb, lock.Config{})}
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for _, l := range lockers {
			wg.Go(func() {
				if err := l.Do(ctx, "x", nil, nothing); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
