package lock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// A refusal allocates little more than go-redis does for its command.
func TestAllocationsOfARefusal(t *testing.T) {
	rdb := redistest.Real(t)
	l, ctx := newLocker(t, rdb, lock.Config{}), context.Background()
	take(t, l, "x")
	wantAllocs(t, "a refused try", 14, func() {
		if _, err := l.TryAcquire(ctx, "x"); !errors.Is(err, lock.ErrLocked) {
			t.Fatal(err)
		}
	})
}

// waitedOn is a context that tells when somebody waits for its end.
type waitedOn struct {
	context.Context
	waits chan struct{}
}

func (c waitedOn) Done() <-chan struct{} {
	c.waits <- struct{}{}
	return nil
}

// A lock that is handed to the next goroutine of the process costs that one's place in
// line, and nothing of go-redis.
func TestAllocationsOfAHandOff(t *testing.T) {
	l := newLocker(t, redistest.Real(t), lock.Config{TurnSections: 65536, TurnTime: 1 << 62})
	ctx := waitedOn{context.Background(), make(chan struct{}, 16)}
	start, entered := make(chan struct{}), make(chan *lock.Lock)
	defer close(start)
	go func() {
		for range start {
			lk, err := l.Acquire(ctx, "x", nil)
			if err != nil {
				t.Error(err)
			}
			entered <- lk
		}
	}()
	lk, err := l.Acquire(context.Background(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	wantAllocs(t, "a hand-off", 5, func() {
		start <- struct{}{}
		<-ctx.waits
		if err := lk.Release(context.Background()); err != nil {
			t.Fatal(err)
		}
		lk = <-entered
	})
	release(t, lk)
}

// wantAllocs checks how often fn allocates, go-redis's own share included. Figures are
// those of an ordinary build.
func wantAllocs(t *testing.T, what string, limit float64, fn func()) {
	t.Helper()
	n := testing.AllocsPerRun(500, fn)
	t.Logf("%s: %v allocations", what, n)
	if n > limit && !raceEnabled {
		t.Errorf("%s: %v allocations, want at most %v", what, n, limit)
	}
}
