package script

import (
	"testing"
	"time"
)

// What is offered was accepted no later than it is sent, by the server's clock: whoever takes
// it counts its lease from then. Until when it may be offered counts the other way round.
func TestOfferCountsItsLeaseEarly(t *testing.T) {
	sent, server := time.Now(), time.UnixMilli(1_700_000_000_000)
	r := &resting{
		sent: sent, answered: sent.Add(30 * time.Millisecond), server: server,
		until: server.Add(time.Second), lease: 2 * time.Second,
	}
	h, ok := r.offer(Entry{ID: "a", Body: "b"}, sent.Add(100*time.Millisecond))
	if want := server.Add(69 * time.Millisecond); !ok || !h.Accepted.Equal(want) || h.Lease != r.lease || h.Token != "o1700000000069" {
		t.Errorf("offered %+v, %v, want accepted at %v", h, ok, want)
	}
	for after, want := range map[time.Duration]bool{999 * time.Millisecond: true, time.Second: false} {
		if _, ok := r.offer(Entry{ID: "a"}, sent.Add(after)); ok != want {
			t.Errorf("%v later it is offered: %v, want %v", after, ok, want)
		}
	}
}
