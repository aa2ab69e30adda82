package listq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// cutting is a hook that fails every command while it is on.
type cutting struct{ on atomic.Bool }

func (*cutting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *cutting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.on.Load() {
			err := errors.New("cut")
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (*cutting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// More was finished during an outage than one command acknowledges: the rest follows at
// once, and with it the next requests of its locks.
func TestRestOfTheFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		opt := *rdb.Options()
		own := redis.NewClient(&opt)
		defer own.Close()
		cut := &cutting{}
		own.AddHook(cut)
		q := listq.New(own, "q", listq.Config{})
		const n = 200
		for i := range n {
			push(t, q, &listq.Request{ID: fmt.Sprint("a", i), Lock: fmt.Sprint(i)})
		}
		for i := range n {
			push(t, q, &listq.Request{ID: fmt.Sprint("b", i), Lock: fmt.Sprint(i)})
		}
		release, over := make(chan struct{}), make(chan struct{})
		var mu sync.Mutex
		var first, last time.Time
		seconds := 0
		consume(t, q, listq.ConsumeConfig{Workers: n + 10}, func(_ context.Context, d *listq.Delivery) error {
			if d.ID[0] == 'a' {
				<-release
				return nil
			}
			mu.Lock()
			last = time.Now()
			if seconds++; seconds == 1 {
				first = last
			}
			mu.Unlock()
			<-over // it takes a while
			return nil
		})
		time.Sleep(time.Second)
		cut.on.Store(true)
		close(release)
		time.Sleep(5 * time.Second)
		cut.on.Store(false)
		time.Sleep(20 * time.Second)
		mu.Lock()
		if d := last.Sub(first); seconds != n || d > 500*time.Millisecond {
			t.Errorf("%d of %d began, the last %v after the first, want all at once: there are slots for them", seconds, n, d)
		}
		mu.Unlock()
		close(over)
	})
}
