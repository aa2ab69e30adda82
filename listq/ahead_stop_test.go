package listq_test

import (
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
		ran, stop, release := consumeUntilStuck(t, q, workers)
		go stop()
		synctest.Wait()
		if s := stats(t, q); s.Leased != workers || int64(s.Ready) != n-ran.Load() {
			t.Errorf("after %d of %d began: %+v, want %d leased, the rest ready", ran.Load(), n, s, workers)
		}
		if d := claim(t, q); d.Deliveries != 1 {
			t.Errorf("a request that was handed back has Deliveries %d, want 1", d.Deliveries)
		}
		release()
		stop()
		if got := ran.Load(); got != 300+workers-1 {
			t.Errorf("%d requests have begun, want %d: some after the stop", got, 300+workers-1)
		}
	})
}
