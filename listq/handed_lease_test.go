package listq

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// While a deployment shortens Config.Lease, a request may be handed over with the lease of
// a consumer that has the old one. Who takes it extends it to its own, so it counts on no more.
func TestHandedOverWithAnothersLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		before := New(rdb, "q", Config{Poll: 10 * time.Second})
		if _, err := before.claimNext(t.Context(), &before.lanes[0], 1, hearing{wake: true}, nil); err != nil { // it listens
			t.Fatal(err)
		}
		if _, err := before.Push(t.Context(), &Request{ID: "a"}); err != nil {
			t.Fatal(err)
		}
		q := New(rdb, "q", Config{Lease: time.Second, Poll: 10 * time.Second})
		q.anchor.Store(before.anchor.Load())
		v, err := rdb.LPop(t.Context(), q.script.Keys().Wake()).Result()
		if err != nil {
			t.Fatal(err)
		}
		h, ok, err := script.ParseHanded(v)
		if err != nil || !ok {
			t.Fatalf("ParseHanded = %v, %v", ok, err)
		}
		d, err := q.handed(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Extend(t.Context()); err != nil { // in Redis it now ends in a second
			t.Fatal(err)
		}
		time.Sleep(1001 * time.Millisecond)
		c, err := before.Claim(t.Context(), 1)
		if err != nil || len(c.Deliveries) != 1 {
			t.Fatalf("Claim = %+v, %v, want the request", c, err)
		}
		if left := d.left(); left > 0 {
			t.Errorf("another has the request, and its first worker counts on its lease for %v more", left)
		}
	})
}
