package sidestep_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// A task that is enqueued while the queue is idle is offered to its workers; if Redis then
// refuses to store it, it may have run all the same, and the caller is told so.
func TestEnqueueOffers(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		own := another(t, rdb)
		sent := redistest.Count(own)
		var full atomic.Bool
		own.AddHook(onCommand{before: func(cmd redis.Cmder) error {
			if cmd.Name() == "lpush" {
				return nil
			}
			time.Sleep(time.Microsecond) // on miniredis a pop takes what is pushed a moment later
			if full.Load() {
				return redis.ErrPoolTimeout
			}
			return nil
		}})
		queue := sidestep.NewQueue(newAcquirer(t, own, sidestep.Config{}), own, "q", sidestep.QueueConfig{})
		worker := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{Workers: 2})
		var runs atomic.Int32
		task := func(q *sidestep.Queue) *sidestep.Task[int] {
			return sidestep.NewTask(q, "t", func(int) string { return "" }, func(context.Context, *lock.Lock, int) error {
				runs.Add(1)
				return nil
			})
		}
		task(worker)
		enqueue := task(queue)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- worker.Run(ctx) }()
		synctest.Wait()
		for i := range 3 {
			sent.Reset()
			r, err := enqueue.Enqueue(t.Context(), i)
			if err != nil || r.ID == "" || r.Duplicate {
				t.Errorf("Enqueue = %+v, %v", r, err)
			}
			if offered := slices.Contains(sent.Names(), "lpush"); offered != (i > 0) {
				t.Errorf("the %d. call sent %q", i+1, sent.Names())
			}
			time.Sleep(5 * time.Millisecond)
		}
		full.Store(true)
		sent.Reset()
		defer func() { t.Log(sent.Names()) }()
		r, err := enqueue.Enqueue(t.Context(), 3)
		synctest.Wait()
		if !errors.Is(err, sidestep.ErrAmbiguous) || r.ID == "" || runs.Load() != 4 {
			t.Errorf("what ran and could not be stored (%d runs): %+v, %v, want ErrAmbiguous and its ID", runs.Load(), r, err)
		}
		full.Store(false)
		if r, err := enqueue.Enqueue(t.Context(), 3, sidestep.WithID(r.ID)); err != nil || !r.Duplicate {
			t.Errorf("again: %+v, %v, want a duplicate", r, err)
		}
		time.Sleep(time.Minute)
		cancel()
		if err := <-ran; err != nil || runs.Load() != 4 {
			t.Errorf("Run = %v after %d runs, want 4", err, runs.Load())
		}
	})
}
