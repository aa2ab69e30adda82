package listq_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func batch(n int) []*listq.Request {
	out := make([]*listq.Request, n)
	for i := range out {
		out[i] = &listq.Request{Task: "task", Payload: []byte(`{"n":1}`)}
	}
	return out
}

// One request per round trip.
func BenchmarkPush(b *testing.B) {
	q := listq.New(redistest.Real(b), "q", listq.Config{})
	b.ReportAllocs()
	for b.Loop() {
		push(b, q, &listq.Request{Task: "task", Payload: []byte(`{"n":1}`)})
	}
}

// One hundred requests: pushed and claimed in one command each, then
// acknowledged one by one.
func BenchmarkPushClaimAck100(b *testing.B) {
	q := listq.New(redistest.Real(b), "q", listq.Config{})
	b.ReportAllocs()
	for b.Loop() {
		push(b, q, batch(100)...)
		c, err := q.Claim(b.Context(), 100)
		if err != nil || len(c.Deliveries) != 100 {
			b.Fatalf("Claim(100) = %d deliveries, %v", len(c.Deliveries), err)
		}
		for _, d := range c.Deliveries {
			if err := d.Ack(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// The time per request of a consumer with a full queue and a handler that does
// nothing.
func BenchmarkConsume(b *testing.B) {
	q := listq.New(redistest.Real(b), "q", listq.Config{})
	var ran atomic.Int64
	full := make(chan struct{}, 1)
	stop := consume(b, q, listq.ConsumeConfig{Workers: 64}, func(context.Context, *listq.Delivery) error {
		if ran.Add(1)%100 == 0 {
			full <- struct{}{}
		}
		return nil
	})
	defer stop()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n%100 == 0 {
			push(b, q, batch(100)...)
			if n >= 500 { // keep about that many ahead
				<-full
			}
		}
		n++
	}
	for ran.Load() < int64(n) {
		<-full
	}
}

// From the call of Push to the start of the handler of an idle consumer.
func BenchmarkLatency(b *testing.B) {
	q := listq.New(redistest.Real(b), "q", listq.Config{})
	started := make(chan struct{})
	stop := consume(b, q, listq.ConsumeConfig{Workers: 4}, func(context.Context, *listq.Delivery) error {
		started <- struct{}{}
		return nil
	})
	defer stop()
	b.ReportAllocs()
	for b.Loop() {
		push(b, q, &listq.Request{})
		<-started
	}
}
