package listq_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestConsumeRunsWhatWasPushed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		const n = 200
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		for i := range n {
			if _, err := q.Push(ctx, &listq.Request{ID: fmt.Sprint(i), Lock: fmt.Sprint("k", i%7)}); err != nil {
				t.Fatal(err)
			}
		}
		var ran atomic.Int64
		err := q.Consume(ctx, listq.ConsumeConfig{Workers: 8}, func(_ context.Context, d *listq.Delivery) error {
			if ran.Add(1) == n {
				stop()
			}
			return nil
		})
		if err != nil || ran.Load() != n {
			t.Errorf("Consume = %v after %d of %d requests", err, ran.Load(), n)
		}
	})
}
