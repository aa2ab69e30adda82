package listq_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A consumer that ends while requests wait for its slots hands them back at once,
// uncounted, and not only when its handlers have come to an end.
func TestStopWithRequestsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{})
		const n, workers = 1000, 4
		many(t, q, n)
		var ran atomic.Int64
		stuck, release := make(chan struct{}), make(chan struct{})
		stop := consume(t, q, listq.ConsumeConfig{Workers: workers}, func(context.Context, *listq.Delivery) error {
			switch i := ran.Add(1); {
			case i == 300:
				close(stuck)
				fallthrough
			case i > 300:
				<-release
			}
			return nil
		})
		<-stuck
		synctest.Wait()
		if s := stats(t, q); s.Leased <= workers {
			t.Fatalf("%d requests are leased to %d workers: nothing was claimed ahead, which this test is about", s.Leased, workers)
		}
		go stop()
		synctest.Wait()
		if s := stats(t, q); s.Leased != workers || int64(s.Ready) != n-ran.Load() {
			t.Errorf("after %d of %d began: %+v, want %d leased, the rest ready", ran.Load(), n, s, workers)
		}
		if d := claim(t, q); d.Deliveries != 1 {
			t.Errorf("a request that was handed back has Deliveries %d, want 1", d.Deliveries)
		}
		close(release)
		stop()
		if got := ran.Load(); got != 300+workers-1 {
			t.Errorf("%d requests have begun, want %d: some after the stop", got, 300+workers-1)
		}
	})
}
