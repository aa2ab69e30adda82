package listq_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

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

// The same where the consumer acknowledges: it says that the request was no longer
// its own, and promotes.
func TestStaleAcknowledgementPromotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var stale events
		other := listq.New(rdb, "q", listq.Config{})
		q := listq.New(rdb, "q", listq.Config{Hooks: listq.Hooks{Stale: func(_ context.Context, d *listq.Delivery) { stale.add(d.ID) }}})
		push(t, q, &listq.Request{ID: "a", Lock: "k"})
		passed := make(chan struct{})
		runs := 0
		stop := consume(t, q, listq.ConsumeConfig{Workers: 1}, func(context.Context, *listq.Delivery) error {
			if runs++; runs > 1 {
				return nil
			}
			rdb.ZAdd(t.Context(), q.Key()+"leased", redis.Z{Score: 1, Member: "a"}) // its lease ends
			now := claim(t, other)
			err := now.Settle(t.Context(), "park", func(ctx context.Context, s *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
				return s.Park(ctx, l, time.Hour, 0)
			})
			if err != nil {
				t.Error(err)
			}
			close(passed)
			return nil
		})
		<-passed
		time.Sleep(5 * time.Second)
		stop()
		if got := stale.list(); len(got) != 1 || got[0] != "a" {
			t.Errorf("Stale hook: %q, want a, once", got)
		}
		if runs != 2 {
			t.Errorf("a ran %d times, want twice: in its line it is the next", runs)
		}
		empty(t, rdb, q)
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
