package listq

import (
	"context"
	"time"
)

// The stored form, for the fuzz test.
var (
	Encode = encode
	Decode = decode
)

// Ahead is how much is claimed ahead of so many slots when a claim took so long,
// and handlers run for mean.
func Ahead(mean, took time.Duration, slots int) int {
	p := pace{took: took}
	p.ended(mean)
	return p.want(slots, 0)
}

// Keep claims n requests for a consumer that has so many free slots. It returns the
// ids of those that are kept to be started later, and whether it goes on to claim
// ahead. The handlers must not return.
func (q *Queue) Keep(ctx context.Context, h Handler, free, n int) (ids []string, calm bool, err error) {
	cons := q.consumer(ctx, ConsumeConfig{Workers: free}.withDefaults(q))
	cons.handler = h
	f := cons.feeder(ctx)
	x, err := f.exchange(ctx, cons.place.take(free, false), n)
	f.handOut(ctx, x)
	for _, d := range cons.ahead.close() {
		ids = append(ids, d.ID)
	}
	cons.end(ErrDraining)
	cons.drain()
	return ids, !f.pace.paused, err
}
