package delayq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/client"
	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// ErrRunning is returned by [Queue.Reschedule] for a request that is with a
// worker, or dead.
var ErrRunning = errors.New("delayq: the request is running or dead")

// ErrUnknown is returned by [Queue.Reschedule] for a request that is not in the
// queue. It is [listq.ErrUnknown].
var ErrUnknown = listq.ErrUnknown

// Looker looks at locks. A [github.com/sidestep-go/sidestep/lock.Locker] is one.
type Looker interface {
	// Look tells whether the lock is held, and if so, for how much longer unless
	// it is extended: a tenth of a second or less if its end may be announced to
	// nobody. In the same step it registers the queue, by its key, to be
	// named to whoever releases the lock.
	Look(ctx context.Context, name, queue string) (left time.Duration, held bool, err error)
}

// Queue is the delayed side of a [listq.Queue]. It is safe for concurrent use.
// Make one with [New].
type Queue struct {
	list   *listq.Queue
	script *script.Queue
}

// New returns the delay queue of a list queue: the two share their requests. It
// panics if q is nil.
func New(q *listq.Queue) *Queue {
	if q == nil {
		panic("delayq: New with a nil queue")
	}
	return &Queue{list: q, script: q.Script()}
}

// List returns the queue whose requests these are.
func (q *Queue) List() *listq.Queue { return q.list }

// Receipt is the promise that an accepted request will run.
type Receipt struct {
	// ID names the request.
	ID string
	// Due is when the request runs at the latest if its lock is then free, by the
	// server's clock. Once an earlier request of the same line was due and its lock was
	// still held, the lock is looked at again when its TTL has passed, or after a minute:
	// of a release that nobody tells of, that may be later.
	Due time.Time
	// Duplicate tells that a request of this ID was accepted before: it was left
	// as it is, and Due is of no meaning.
	Duplicate bool
}

// ScheduleIn accepts a request that is due d from now by the server's clock. It
// takes one round trip. A negative d is [listq.ErrInvalid]. See [listq.Queue.Push] for
// IDs and repetition.
func (q *Queue) ScheduleIn(ctx context.Context, r *listq.Request, d time.Duration) (Receipt, error) {
	d, err := delay(d)
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: schedule in %q: %w", q.list.Name(), err)
	}
	return q.accept(ctx, "schedule", r, script.In(d), q.script.Schedule)
}

// ScheduleAt accepts a request that is due at t by the server's clock; if that is
// past, at once. A year after 9999 is [listq.ErrInvalid]. Otherwise it is [Queue.ScheduleIn].
func (q *Queue) ScheduleAt(ctx context.Context, r *listq.Request, t time.Time) (Receipt, error) {
	switch y := t.Year(); {
	case y < 1970:
		t = time.UnixMilli(0)
	case y > 9999:
		return Receipt{}, fmt.Errorf("delayq: schedule in %q: %w: time is after the year 9999", q.list.Name(), listq.ErrInvalid)
	}
	t = t.Add(time.Millisecond - time.Nanosecond) // the score is in whole milliseconds, and early is worse than late
	return q.accept(ctx, "schedule", r, script.At(t), q.script.Schedule)
}

// Delay accepts a request that met a held lock and is to wait out its whole
// delay, in no line: it is due d from now, and the conflict is counted. Otherwise
// it is [Queue.ScheduleIn].
func (q *Queue) Delay(ctx context.Context, r *listq.Request, d time.Duration) (Receipt, error) {
	d, err := delay(d)
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: delay in %q: %w", q.list.Name(), err)
	}
	return q.accept(ctx, "delay", r, script.In(d), func(ctx context.Context, e script.Entry, due script.Due) (script.Code, time.Time, error) {
		e.Deferrals = 1
		return q.script.Schedule(ctx, e, due)
	})
}

// Park accepts a request that met a held lock, in line for that lock (r.Lock,
// not empty). Its lock is looked at when somebody says that it was released, and
// after d at the latest. The caller must call [Queue.Register] afterwards: a release
// that came before this call announced nothing.
func (q *Queue) Park(ctx context.Context, r *listq.Request, d time.Duration) (Receipt, error) {
	if r != nil && r.Lock == "" {
		return Receipt{}, fmt.Errorf("delayq: park in %q: %w: the request names no lock", q.list.Name(), listq.ErrInvalid)
	}
	d, err := delay(d)
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: park in %q: %w", q.list.Name(), err)
	}
	return q.accept(ctx, "park", r, script.In(d), q.script.ParkNew)
}

// delay checks a delay. What is longer than a century is cut to one: the
// scripts' milliseconds have room for no more than three.
func delay(d time.Duration) (time.Duration, error) {
	if d < 0 {
		return 0, fmt.Errorf("%w: delay is negative (%v)", listq.ErrInvalid, d)
	}
	return min(d, 100*365*24*time.Hour), nil
}

func (q *Queue) accept(ctx context.Context, verb string, r *listq.Request, due script.Due,
	fn func(context.Context, script.Entry, script.Due) (script.Code, time.Time, error),
) (Receipt, error) {
	e, err := q.list.Entry(r)
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: %s in %q: %w", verb, q.list.Name(), err)
	}
	code, at, err := fn(ctx, e, due)
	if err != nil {
		return Receipt{ID: e.ID}, fmt.Errorf("delayq: %s in %q: %w", verb, q.list.Name(), err)
	}
	return Receipt{ID: e.ID, Due: at, Duplicate: code == script.Already}, nil
}

// ParkDelivery settles a delivery that met a held lock: it counts a deferral, and
// the request stands in line for its lock, in the place it had. Its lock is
// looked at when somebody says that it was released, and after the given time at
// the latest. After maxDeferrals (0: no limit) it is dead instead. The caller must
// call [Queue.Register] afterwards. It returns the errors of [listq.Delivery].
func (q *Queue) ParkDelivery(ctx context.Context, d *listq.Delivery, after time.Duration, maxDeferrals int) error {
	if d.Lock == "" {
		return fmt.Errorf("delayq: park in %q: %w: the request names no lock", q.list.Name(), listq.ErrInvalid)
	}
	after, err := delay(after)
	if err != nil {
		return fmt.Errorf("delayq: park in %q: %w", q.list.Name(), err)
	}
	return d.Settle(ctx, "park", func(ctx context.Context, s *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		return s.Park(ctx, l, after, maxDeferrals)
	})
}

// DelayDelivery settles a delivery that is to wait out its whole delay: it counts
// a deferral, and the request is due after that time, out of its lock's line
// meanwhile. After maxDeferrals (0: no limit) it is dead instead. It returns the
// errors of [listq.Delivery].
func (q *Queue) DelayDelivery(ctx context.Context, d *listq.Delivery, after time.Duration, maxDeferrals int) error {
	after, err := delay(after)
	if err != nil {
		return fmt.Errorf("delayq: delay in %q: %w", q.list.Name(), err)
	}
	return d.Settle(ctx, "delay", func(ctx context.Context, s *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		return s.Nack(ctx, l, after, script.Deferral, maxDeferrals, false, "deferred")
	})
}

// Register closes the gap between meeting a held lock and parking. It looks at the
// lock and registers the queue with it, in one step: its release will then tell.
// If the lock is free by now, the oldest request in line gets its turn at once; if its
// lease is about to end, the lock is looked at then.
func (q *Queue) Register(ctx context.Context, looker Looker, lock string) error {
	if looker == nil {
		return fmt.Errorf("delayq: look at lock %q for %q: %w: nil Looker", lock, q.list.Name(), listq.ErrInvalid)
	}
	left, held, err := looker.Look(ctx, lock, q.list.Key())
	switch {
	case err != nil:
		return fmt.Errorf("delayq: look at lock %q for %q: %w", lock, q.list.Name(), err)
	case !held:
		return q.Hint(ctx, lock)
	case left <= soon:
		return q.rearm(ctx, lock, left)
	}
	return nil
}

// soon is within which the end of a lease is not left to its holder to announce.
const soon = 100 * time.Millisecond

// rearm makes the probe of a held lock due when its lease may be over.
func (q *Queue) rearm(ctx context.Context, lock string, left time.Duration) error {
	left = min(max(left, 0), time.Minute) + rand.N(10*time.Millisecond) + time.Millisecond
	if err := q.script.Rearm(ctx, lock, left); err != nil {
		return fmt.Errorf("delayq: set the probe of %q in %q: %w", lock, q.list.Name(), err)
	}
	return nil
}

// Hint tells the queue that a lock may be free. It may be repeated.
func (q *Queue) Hint(ctx context.Context, lock string) error { return q.list.Promote(ctx, lock) }

// HintKey is [Queue.Hint] for the queue with the given key, as a lock names it
// to its releaser ([listq.Queue.Key]), without knowing more of it. A request that
// turns out to have waited too long is dead then, but no hook is called.
func HintKey(ctx context.Context, rdb redis.UniversalClient, key, lock string) error {
	err := listq.CheckLock(lock)
	switch {
	case client.IsNil(rdb):
		err = fmt.Errorf("%w: nil client", listq.ErrInvalid)
	case err == nil:
		_, _, err = script.New(rdb, keys.Of(key)).Promote(ctx, lock)
	}
	if err != nil {
		return fmt.Errorf("delayq: promote %q in %s: %w", lock, key, err)
	}
	return nil
}

// Probe answers a probe that is due: it looks at the lock; if that is free, the
// oldest request in line gets its turn; else the probe is due again when the
// holder's TTL has passed, or after a minute, since a holder that is no client of
// ours tells nobody when it releases. An error is not final: the probe is due
// again after a second anyway.
func (q *Queue) Probe(ctx context.Context, looker Looker, lock string) error {
	if looker == nil {
		return fmt.Errorf("delayq: look at lock %q for %q: %w: nil Looker", lock, q.list.Name(), listq.ErrInvalid)
	}
	left, held, err := looker.Look(ctx, lock, q.list.Key())
	if err != nil {
		return fmt.Errorf("delayq: look at lock %q for %q: %w", lock, q.list.Name(), err)
	}
	if !held {
		return q.Hint(ctx, lock)
	}
	return q.rearm(ctx, lock, left)
}

// Cancel drops a request, wherever it is, and tells whether it was there. A
// handler that runs it learns so when its lease is next renewed, or settled:
// [listq.ErrStale]. It returns false, too, if the command was executed, its answer
// lost, and it was sent again.
func (q *Queue) Cancel(ctx context.Context, id string) (bool, error) {
	if err := listq.CheckID(id); err != nil {
		return false, fmt.Errorf("delayq: cancel: %w", err)
	}
	code, buried, err := q.script.Cancel(ctx, q.list.Resend(), id)
	if err != nil {
		return false, fmt.Errorf("delayq: cancel %q in %q: %w", id, q.list.Name(), err)
	}
	q.list.Settled(ctx, buried)
	return code == script.Done, nil
}

// Reschedule makes a request that no worker has due d from now, whatever it
// waited for. It returns [ErrUnknown] and [ErrRunning] where that cannot be; a negative d
// is [listq.ErrInvalid]. With d 0
// the first in line gets its turn at once, unless another has it; one behind it keeps
// its place, and the lock is looked at; Due is then by this process's clock.
func (q *Queue) Reschedule(ctx context.Context, id string, d time.Duration) (Receipt, error) {
	if err := listq.CheckID(id); err != nil {
		return Receipt{}, fmt.Errorf("delayq: reschedule: %w", err)
	}
	d, err := delay(d)
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: reschedule %q: %w", id, err)
	}
	if d == 0 {
		if ok, err := q.promoteInLine(ctx, id); err != nil {
			return Receipt{}, fmt.Errorf("delayq: reschedule %q in %q: %w", id, q.list.Name(), err)
		} else if ok {
			return Receipt{ID: id, Due: time.Now()}, nil
		}
	}
	code, at, buried, err := q.script.Reschedule(ctx, id, script.In(d), uuid.NewString())
	if err != nil {
		return Receipt{}, fmt.Errorf("delayq: reschedule %q in %q: %w", id, q.list.Name(), err)
	}
	q.list.Settled(ctx, buried)
	switch code {
	case script.Stale:
		return Receipt{}, fmt.Errorf("%w: %q in %q", ErrUnknown, id, q.list.Name())
	case script.Refused:
		return Receipt{}, fmt.Errorf("%w: %q in %q", ErrRunning, id, q.list.Name())
	}
	return Receipt{ID: id, Due: at}, nil
}

// promoteInLine sees to a request that stands in line: taken out, it would come back to
// its place, behind nobody who has the turn. The first gets the turn, unless another has
// it; for the others the lock is looked at. It reports false if the request stands in no
// line.
func (q *Queue) promoteInLine(ctx context.Context, id string) (bool, error) {
	s, _, ok, err := q.script.Get(ctx, id)
	if err != nil || !ok || s.Place != "parked" {
		return false, err
	}
	first, err := q.script.Parked(ctx, s.Lock, 1)
	switch {
	case err != nil:
		return false, err
	case slices.Contains(first, id):
		_, buried, err := q.script.Promote(ctx, s.Lock)
		if err != nil {
			return false, err
		}
		q.list.Settled(ctx, buried)
		if slices.ContainsFunc(buried, func(b script.Buried) bool { return b.ID == id }) {
			return false, fmt.Errorf("%w: it has waited for too long", ErrRunning)
		}
		return true, nil
	}
	return true, q.script.Rearm(ctx, s.Lock, 0)
}

// Promote makes a request that no worker has due now. It still takes its lock
// like everyone. It is [Queue.Reschedule] with 0.
func (q *Queue) Promote(ctx context.Context, id string) (Receipt, error) {
	return q.Reschedule(ctx, id, 0)
}

// Get looks at a request, wherever it is: see [listq.Queue.Get].
func (q *Queue) Get(ctx context.Context, id string) (listq.Info, error) { return q.list.Get(ctx, id) }

// Line returns the IDs of the first n requests in line for a lock, the oldest
// first, in one round trip; none if n is not positive.
func (q *Queue) Line(ctx context.Context, lock string, n int) ([]string, error) {
	ids, err := q.script.Parked(ctx, lock, n)
	if err != nil {
		return nil, fmt.Errorf("delayq: the line for %q in %q: %w", lock, q.list.Name(), err)
	}
	return ids, nil
}

// Run is a claimer without workers: until ctx ends, it moves what is due onto
// the LIST and answers probes with looker, or, if that is nil, by promoting.
// Consumers do so by themselves; Run serves where requests are claimed by other
// means ([listq.Queue.Claim]), or in bursts. What becomes due earlier than all
// that Run knows of it notices within [listq.Config.Poll]. Probes that fail are
// logged to log (nil: not at all), other faults of Redis to [listq.Config.Logger];
// all are tried again. It returns nil when ctx has ended.
func (q *Queue) Run(ctx context.Context, looker Looker, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return q.list.Move(ctx, func(ctx context.Context, lock string) {
		var err error
		if looker != nil {
			err = q.Probe(ctx, looker, lock)
		} else {
			err = q.Hint(ctx, lock)
		}
		if err != nil {
			log.WarnContext(ctx, "a probe failed; it will be due again", "queue", q.list.Name(), "lock", lock, "error", err)
		}
	})
}
