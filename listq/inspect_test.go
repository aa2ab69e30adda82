package listq_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func TestStatsAndGet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		q := listq.New(rdb, "q", listq.Config{})
		if got, err := q.Stats(ctx); err != nil || got != (listq.Stats{}) {
			t.Errorf("Stats of an empty queue = %+v, %v", got, err)
		}
		for _, id := range []string{"leased", "dead", "nacked", "garbled"} {
			push(t, q, &listq.Request{ID: id, Task: "task", Lock: "lock of " + id, MaxWait: time.Hour, Headers: map[string]string{"a": "b"}})
		}
		claim(t, q)
		if err := claim(t, q).Bury(ctx, "why"); err != nil {
			t.Fatal(err)
		}
		if err := claim(t, q).Nack(ctx, time.Hour, 0, "an error"); err != nil {
			t.Fatal(err)
		}
		// "garbled" holds the turn of its lock, so that the next one is parked.
		g := claim(t, q)
		push(t, q, &listq.Request{ID: "parked", Lock: g.Lock})
		if c, err := q.Claim(ctx, 1); err != nil || len(c.Deliveries) != 0 {
			t.Fatalf("Claim = %+v, %v, want none", c, err)
		}
		if err := g.Requeue(ctx); err != nil {
			t.Fatal(err)
		}
		rdb.HSet(ctx, q.Key()+"msg", "garbled", "\xff")

		got, err := q.Stats(ctx)
		if got.Next.IsZero() || err != nil {
			t.Errorf("Stats = %+v, %v, want a time for Next", got, err)
		}
		got.Next = time.Time{}
		if want := (listq.Stats{Ready: 1, Delayed: 1, Parked: 1, Leased: 1, Dead: 1}); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
		for _, want := range []listq.Info{
			{Place: "leased", Deliveries: 1},
			{Place: "dead", Deliveries: 1, Note: "why"},
			{Place: "delayed", Deliveries: 1, Attempts: 1, Note: "an error"},
		} {
			id := want.Place
			if id == "delayed" {
				id = "nacked"
			}
			got, err := q.Get(ctx, id)
			if err != nil || got.ID != id || got.Task != "task" || got.Lock != "lock of "+id || got.MaxWait != time.Hour || got.Headers["a"] != "b" ||
				got.Place != want.Place || got.Deliveries != want.Deliveries || got.Attempts != want.Attempts || got.Note != want.Note ||
				time.Since(got.Accepted) > time.Minute {
				t.Errorf("Get(%q) = %+v, %v, want %+v", id, got, err, want)
			}
		}
		if got, err := q.Get(ctx, "garbled"); err == nil || got.ID != "garbled" || got.Place != "ready" {
			t.Errorf("Get of what cannot be decoded = %+v, %v, want an error and the rest", got, err)
		}
		if _, err := q.Get(ctx, "nobody"); !errors.Is(err, listq.ErrUnknown) {
			t.Errorf("Get of no request = %v, want ErrUnknown", err)
		}
		if _, err := q.Get(ctx, ""); !errors.Is(err, listq.ErrInvalid) {
			t.Errorf("Get of no id = %v, want ErrInvalid", err)
		}
		dead, err := q.Dead(ctx, 10)
		if err != nil || len(dead) != 1 || dead[0].ID != "dead" || time.Since(dead[0].Time) > time.Minute {
			t.Errorf("Dead = %v, %v", dead, err)
		}
	})
}

// No more dead requests are kept than MaxDead, a while after the last has died: also if
// many die at once.
func TestMaxDeadHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, most = 2000, 100
		q := listq.New(redistest.Mini(t), "q", listq.Config{MaxDead: most})
		many(t, q, n)
		var ran atomic.Int64
		all := make(chan struct{})
		consume(t, q, listq.ConsumeConfig{Workers: 100}, func(ctx context.Context, d *listq.Delivery) error {
			if ran.Add(1) == n {
				close(all)
			}
			return d.Bury(ctx, "why")
		})
		<-all
		time.Sleep(10 * time.Second)
		if got := stats(t, q).Dead; got != most {
			t.Errorf("%d dead are kept, want %d", got, most)
		}
	})
}
