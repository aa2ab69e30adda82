package listq

import (
	"context"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
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
	x, err := f.exchange(ctx, lane0, cons.place.take(free, false), n)
	f.handOut(ctx, x)
	for _, d := range cons.ahead.close() {
		ids = append(ids, d.ID)
	}
	cons.end(ErrDraining)
	cons.drain()
	return ids, !f.pace.paused, err
}

// Turn makes one turn of a consumer whose handlers have been quick, and returns how
// many claims that took.
func (q *Queue) Turn(ctx context.Context, workers int, h Handler) int64 {
	cons := q.consumer(ctx, ConsumeConfig{Workers: workers}.withDefaults(q))
	cons.handler = h
	f := cons.feeder(ctx)
	f.pace = pace{took: time.Millisecond}
	f.more.Store(true)
	before := q.lanes[0].claims
	f.turn(ctx, true)
	made := q.lanes[0].claims - before
	cons.giveBack(cons.ahead.close())
	cons.acking.Go(f.ackAll)
	cons.drain()
	return made
}

// ClaimAndGiveBack claims n requests, and gives them back as one consumer does what
// it could not start.
func (q *Queue) ClaimAndGiveBack(ctx context.Context, n int) error {
	cons := q.consumer(ctx, ConsumeConfig{}.withDefaults(q))
	var all []*Delivery
	for len(all) < n {
		c, err := q.Claim(ctx, n-len(all))
		if err != nil {
			return err
		}
		all = append(all, c.Deliveries...)
	}
	cons.giveBack(all)
	cons.drain()
	return nil
}

// Started claims two requests, of which the first has been claimed ahead by the time
// the second is handed out and a slot has become free. It returns the ids in the
// order in which their handlers began.
func (q *Queue) Started(ctx context.Context) (ids []string, err error) {
	cons := q.consumer(ctx, ConsumeConfig{Workers: 1}.withDefaults(q))
	cons.handler = func(_ context.Context, d *Delivery) error {
		ids = append(ids, d.ID)
		return nil
	}
	f := cons.feeder(ctx)
	first, err := f.exchange(ctx, lane0, 0, 1)
	if err != nil {
		return nil, err
	}
	all, _ := q.decodeAll(ctx, first.claim)
	cons.ahead.add(all)
	second, err := f.exchange(ctx, lane0, 0, 1)
	f.handOut(ctx, second)
	f.gather(<-f.acks) // of the first
	f.startAhead(cons.place.take(1, false))
	cons.acking.Go(f.ackAll)
	cons.drain()
	return ids, err
}

// Wanted returns how many requests a consumer without a free slot claims with the
// acknowledgement of such with these locks.
func (q *Queue) Wanted(ctx context.Context, locks ...string) int {
	cons := q.consumer(ctx, ConsumeConfig{Workers: 1}.withDefaults(q))
	defer cons.end(nil)
	cons.place.take(1, false)
	f := cons.feeder(ctx)
	for _, l := range locks {
		f.done = append(f.done, &Delivery{Request: Request{Lock: l}})
	}
	_, n, _ := f.plan(false)
	return n
}

// Return gives back what a claim brought, as if it followed something.
func (q *Queue) Return(ctx context.Context, lineEnds func(lock string)) error {
	cons := q.consumer(ctx, ConsumeConfig{LineEnds: lineEnds}.withDefaults(q))
	c, err := q.Claim(ctx, 128)
	for _, d := range c.Deliveries {
		d.Follows = d.Lock != ""
	}
	cons.giveBack(c.Deliveries)
	cons.drain()
	return err
}

// TakeHere offers a request to the consumers of this Queue, and returns whether one took it.
func (q *Queue) TakeHere(h script.Handed) bool { return q.takeHere(h) }
