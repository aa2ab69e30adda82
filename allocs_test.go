package sidestep_test

import (
	"context"
	"testing"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// To enqueue a request costs its encoding and its receipt on top of the push.
func TestAllocationsOfEnqueue(t *testing.T) {
	rdb := redistest.Real(t)
	locker := lock.New(rdb, lock.Config{})
	t.Cleanup(func() { locker.Close() })
	queue := sidestep.NewQueue(sidestep.New(locker, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
	task := sidestep.NewTask(queue, "t", func(int) string { return "k" },
		func(context.Context, *lock.Lock, int) error { return nil })
	ctx := context.Background()
	n := testing.AllocsPerRun(500, func() {
		if _, err := task.Enqueue(ctx, 7); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", n)
	if n > 22 && !raceEnabled {
		t.Errorf("Enqueue allocates %v times, want at most 22", n)
	}
}
