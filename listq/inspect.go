package listq

import (
	"context"
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
)

// Stats is how many requests of a queue are where. The places are counted one after
// the other: what moves meanwhile may be counted twice, or not at all.
type Stats struct {
	// Ready requests wait for a worker. What was just cancelled or rescheduled is
	// counted until a worker passes it.
	Ready int
	// Delayed requests wait for a time.
	Delayed int
	// Parked requests stand in line for a lock.
	Parked int
	// Leased requests are with a worker.
	Leased int
	// Dead requests will not run unless they are revived.
	Dead int
	// Next is when the first delayed request is due, or the first line's lock is
	// looked at, by the server's clock; zero: nothing is. If it is in the past, no
	// consumer runs.
	Next time.Time
}

// Stats counts the queue's requests, in one round trip.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	s, err := q.script.Sizes(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("listq: sizes of %q: %w", q.name, err)
	}
	return Stats{Ready: s.Ready, Delayed: s.Delayed, Parked: s.Parked, Leased: s.Leased, Dead: s.Dead, Next: s.Next}, nil
}

// Info is what the queue knows of a request.
type Info struct {
	Request
	// Place is where it is: "ready", "delayed", "parked", "leased" or "dead".
	Place string
	// Deliveries, Attempts and Deferrals are those of [Delivery].
	Deliveries, Attempts, Deferrals int
	// Accepted is when it was pushed, scheduled or parked, or revived since, by
	// the server's clock.
	Accepted time.Time
	// Note is why it is dead, or else the note of its last Nack or Delay: its handler's
	// error, or what kept it from running. May be empty.
	Note string
}

// Get looks at a request, in one round trip. It returns [ErrUnknown] if the queue
// does not have it: it is finished, or never was, or another process offers it to a
// worker and has not stored it yet. With any other error, such as
// that of a request which cannot be decoded, Info is as complete as can be.
func (q *Queue) Get(ctx context.Context, id string) (Info, error) {
	if err := CheckID(id); err != nil {
		return Info{}, fmt.Errorf("listq: get: %w", err)
	}
	s, body, ok, err := q.script.Get(ctx, id)
	switch {
	case err != nil:
		return Info{}, fmt.Errorf("listq: get %q from %q: %w", id, q.name, err)
	case !ok:
		return Info{}, fmt.Errorf("%w: %q in %q", ErrUnknown, id, q.name)
	}
	info := Info{
		Place: s.Place, Deliveries: s.Deliveries, Attempts: s.Attempts, Deferrals: s.Deferrals,
		Accepted: s.Accepted, Note: s.Note,
	}
	if info.Request, err = decode(id, body); err != nil {
		err = fmt.Errorf("listq: get %q from %q: %w", id, q.name, script.UnreadableError{Err: err})
	}
	info.Lock, info.MaxWait = s.Lock, s.MaxWait
	return info, err
}

// Death is the death of a request.
type Death struct {
	// ID names the request.
	ID string
	// Time is when it died, by the server's clock.
	Time time.Time
}

// Dead returns the n requests that died last, the latest first, in one round
// trip; none if n is not positive. [Queue.Get] tells why, [Queue.Revive] brings one back.
func (q *Queue) Dead(ctx context.Context, n int) ([]Death, error) {
	dead, err := q.script.Dead(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("listq: the dead of %q: %w", q.name, err)
	}
	out := make([]Death, len(dead))
	for i, d := range dead {
		out[i] = Death(d)
	}
	return out, nil
}
