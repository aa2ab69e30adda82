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
