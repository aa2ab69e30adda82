package sidestep_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

func TestLookingIntoAQueue(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		locker := lock.New(rdb, lock.Config{})
		defer locker.Close()
		acq := sidestep.New(locker, sidestep.Config{})
		queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Partitions: 3})
		task := sidestep.NewTask(queue, "t", func(key string) string { return key },
			func(context.Context, *lock.Lock, string) error { return nil })

		var waiting []string
		for _, key := range []string{"a", "b", "c", "d"} {
			r, err := task.Enqueue(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, r.ID)
		}
		later, err := task.EnqueueIn(ctx, time.Hour, "a")
		if err != nil {
			t.Fatal(err)
		}
		var parked []string
		err = acq.Do(ctx, "held", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
			for range 3 {
				out, err := task.Do(ctx, "held", sidestep.Defer(time.Minute))
				if err != nil {
					return err
				}
				parked = append(parked, out.Deferred.ID)
			}
			line, err := queue.Line(ctx, "held", 2)
			if err != nil || !slices.Equal(line, parked[:2]) {
				t.Errorf("Line(held, 2) = %v, %v, want %v", line, err, parked[:2])
			}
			got, err := queue.Stats(ctx)
			if err != nil || got.Ready != 4 || got.Delayed != 1 || got.Parked != 3 || got.Leased != 0 || got.Dead != 0 {
				t.Errorf("Stats = %+v, %v, want 4 ready, 1 delayed, 3 parked", got, err)
			}
			if got.Next.IsZero() || got.Next.After(later.Due) {
				t.Errorf("Stats.Next = %v, want the first probe", got.Next)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for id, place := range map[string]string{waiting[3]: "ready", later.ID: "delayed", parked[0]: "ready", parked[2]: "parked"} {
			info, err := queue.Get(ctx, id)
			if err != nil || info.Place != place || info.Task != "t" {
				t.Errorf("Get(%s) = %+v, %v, want it %s", id, info, err, place)
			}
		}
		if _, err := queue.Get(ctx, "nobody"); !errors.Is(err, sidestep.ErrUnknown) {
			t.Errorf("Get(nobody) = %v, want ErrUnknown", err)
		}
		if dead, err := queue.Dead(ctx, 10); err != nil || len(dead) != 0 {
			t.Errorf("Dead = %v, %v, want none", dead, err)
		}
	})
}

func TestDeadOfAllPartitions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		locker := lock.New(rdb, lock.Config{})
		defer locker.Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		died := make(chan string, 8)
		acq := sidestep.New(locker, sidestep.Config{Hooks: sidestep.Hooks{
			Dead: func(_ context.Context, e sidestep.DeadEvent) { died <- e.ID },
		}})
		queue := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Partitions: 3})
		task := sidestep.NewTask(queue, "t", func(key string) string { return key },
			func(context.Context, *lock.Lock, string) error { return errors.New("no") }, sidestep.MaxAttempts(1))
		want := map[string]bool{}
		for _, key := range []string{"a", "b", "c", "d", "e"} {
			r, err := task.Enqueue(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			want[r.ID] = true
		}
		ran := make(chan error, 1)
		go func() { ran <- queue.Run(ctx) }()
		for range want {
			<-died
		}
		stop()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		dead, err := queue.Dead(t.Context(), 10)
		if err != nil || len(dead) != len(want) {
			t.Fatalf("Dead = %v, %v, want %d", dead, err, len(want))
		}
		for i, d := range dead {
			if !want[d.ID] || i > 0 && d.Time.After(dead[i-1].Time) {
				t.Errorf("Dead[%d] = %v, want the latest first", i, d)
			}
			if info, err := queue.Get(t.Context(), d.ID); err != nil || info.Note != "attempts: no" {
				t.Errorf("Get(%s) = %+v, %v, want the reason", d.ID, info, err)
			}
		}
	})
}
