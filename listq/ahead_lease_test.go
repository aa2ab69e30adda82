package listq

import (
	"testing"
	"testing/synctest"
	"time"
)

// What waits for a slot past its lease is not started: it goes back, in its place.
func TestAheadLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a ahead
		first, second, third := leased(nil, "", time.Second), leased(nil, "", patience/2), leased(nil, "", time.Second)
		if back := a.add([]*Delivery{first, second, third}); len(back) != 0 {
			t.Fatalf("add returned %d, want none", len(back))
		}
		if got := a.next(); got != first {
			t.Fatal("the first is not the next")
		}
		time.Sleep(patience / 2)
		if got := a.next(); got != nil {
			t.Error("a request whose lease has run out would be started")
		}
		if back, wait := a.impatient(); len(back) != 0 || wait != patience/2 {
			t.Errorf("half of patience later, impatient = %d back, %v, want none, %v", len(back), wait, patience/2)
		}
		time.Sleep(patience / 2)
		if back, _ := a.impatient(); len(back) != 2 || back[0] != second || back[1] != third {
			t.Errorf("impatient returned %d, want the second and the third", len(back))
		}
	})
}
