package listq_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A slot that another queue waits for goes there when its handler ends, though its own
// queue has claimed requests ahead.
func TestWantedSlotGoesToTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		busy, other := listq.New(rdb, "busy", listq.Config{}), listq.New(rdb, "other", listq.Config{})
		many(t, busy, 1000)
		var ran atomic.Int64
		var after events // what begins once the slot is free
		stuck, release := make(chan struct{}), make(chan struct{})
		work := func(_ context.Context, d *listq.Delivery) error {
			switch i := ran.Add(1); {
			case i == 300:
				close(stuck)
				<-release
			case i > 300:
				after.add(d.Queue().Name())
			}
			return nil
		}
		slots := listq.NewSlots(1)
		consume(t, busy, listq.ConsumeConfig{Slots: slots}, work)
		<-stuck
		synctest.Wait()
		if s := stats(t, busy); s.Leased < 20 {
			t.Fatalf("%d requests are leased: too few were claimed ahead, which this test is about", s.Leased)
		}
		push(t, other, &listq.Request{})
		consume(t, other, listq.ConsumeConfig{Slots: slots}, work) // it stands in line
		synctest.Wait()
		close(release)
		synctest.Wait()
		if at := slices.Index(after.list(), "other"); at < 0 || at > 3 {
			t.Errorf("the other queue's request was number %d to begin, want it among the next", at+1)
		}
	})
}
