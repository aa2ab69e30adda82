package delayq_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A request that is parked more often than it may be is dead instead, and its
// reason says why.
func TestParkingIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := listq.New(redistest.Mini(t), "q", listq.Config{})
		q := delayq.New(list)
		if _, err := list.Push(t.Context(), &listq.Request{ID: "a", Lock: "k"}); err != nil {
			t.Fatal(err)
		}
		for try := 1; try <= 3; try++ {
			d := claim(t, list)
			if err := q.ParkDelivery(t.Context(), d, time.Hour, 2); err != nil {
				t.Fatalf("ParkDelivery, time %d: %v", try, err)
			}
			if err := q.Hint(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		dead, err := list.Dead(t.Context(), 10)
		if err != nil || len(dead) != 1 || dead[0].ID != "a" {
			t.Errorf("Dead = %+v, %v, want a", dead, err)
		}
		if info, err := q.Get(t.Context(), "a"); err != nil || info.Note != "deferrals" {
			t.Errorf("Get = %+v, %v, want a note that says deferrals", info, err)
		}
	})
}
