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
	return p.target(slots)
}

// Keep gives a claim's answer to a consumer that has free slots and asked for n
// requests. It returns the ids of those that are kept to be started later, and
// whether it goes on to claim ahead. The handlers must not return.
func (q *Queue) Keep(ctx context.Context, h Handler, free, n int, c Claimed) (ids []string, calm bool) {
	cons := q.consumer(ctx, ConsumeConfig{}.withDefaults(q))
	cons.handler = h
	calm = cons.accept(ctx, free, n, c, nil)
	for _, d := range cons.ahead.close() {
		ids = append(ids, d.ID)
	}
	cons.end(ErrDraining)
	cons.drain()
	return ids, calm
}
