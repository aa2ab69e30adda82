package listq_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// The lease of a request ends under its worker; another one claims it, meets the
// lock that the first still has, and parks it. The first releases the lock and is
// told of the queue; its acknowledgement is stale, and so it is the one to promote.
func TestStaleSettlementPromotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Lease: time.Second})
		push(t, q, &listq.Request{ID: "a", Lock: "k"})
		late := claim(t, q)
		time.Sleep(2 * time.Second)
		now := claim(t, q)
		err := now.Settle(t.Context(), "park", func(ctx context.Context, s *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
			return s.Park(ctx, l, time.Hour, 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := late.Ack(t.Context()); !errors.Is(err, listq.ErrStale) {
			t.Errorf("Ack by the late worker = %v, want ErrStale", err)
		}
		if d := claim(t, q); d.ID != "a" {
			t.Errorf("Claim = %q, want a", d.ID)
		}
	})
}

// A feeder that stops leaves no clock behind that others would rely on, and a
// token, so that one of them looks at once.
func TestStoppedFeederLeavesATokenAndNoClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Poll: time.Hour})
		keys := q.Script().Keys()
		e := script.Entry{ID: "a", Body: "not looked at yet"}
		if _, _, err := q.Script().Schedule(t.Context(), e, script.In(time.Hour)); err != nil {
			t.Fatal(err)
		}
		stop := consume(t, q, listq.ConsumeConfig{}, func(context.Context, *listq.Delivery) error { return nil })
		synctest.Wait()
		if rdb.Exists(t.Context(), keys.Clock()).Val() != 1 {
			t.Error("nobody keeps the time while the feeder runs")
		}
		stop()
		if rdb.Exists(t.Context(), keys.Clock()).Val() != 0 {
			t.Error("the feeder that stopped still keeps the time")
		}
		if n := rdb.LLen(t.Context(), keys.Wake()).Val(); n != 1 {
			t.Errorf("%d tokens are left, want one", n)
		}
	})
}
