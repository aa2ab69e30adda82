package listq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/script"
)

// Delivery is a claimed request. It is settled once, by one of Ack, Nack, Bury
// and Requeue: the first that is applied wins, and the others return
// [ErrSettled]. It is safe for concurrent use.
//
// The methods that settle try again while Redis does not answer, until ctx is
// done or the lease has run out. They return [ErrStale] if the request is no
// longer this worker's; then nothing was changed.
type Delivery struct {
	Request
	// Deliveries counts the claims of this request, this one included.
	Deliveries int
	// Attempts counts the failures of its handler.
	Attempts int
	// Deferrals counts how often it met a held lock.
	Deferrals int
	// Accepted is when it was pushed, by the server's clock.
	Accepted time.Time

	queue *Queue
	lease script.Lease
	until atomic.Int64 // end of the lease by this process's clock, ns since 1970

	mu      sync.Mutex // held while a settlement is under way; guards the field below
	settled bool
}

// Queue returns the queue that the request was claimed from.
func (d *Delivery) Queue() *Queue { return d.queue }

// LeaseExpires returns when the lease ends at the earliest, by this process's
// clock.
func (d *Delivery) LeaseExpires() time.Time { return time.Unix(0, d.until.Load()) }

// Settled tells whether the delivery has been settled.
func (d *Delivery) Settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled
}

// Ack removes the request: it is done. If it has a lock, the next request in
// line for that lock gets its turn.
func (d *Delivery) Ack(ctx context.Context) error {
	return d.Settle(ctx, "ack", func(ctx context.Context, q *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		codes, _, buried, err := q.Ack(ctx, d.queue.cfg.Resend, []script.Lease{l})
		if err != nil {
			return 0, nil, err
		}
		return codes[0], buried, nil
	})
}

// Nack counts a failed attempt and brings the request back after delay, or makes
// it dead if that was the last of maxAttempts (0: no limit). note, such as the
// error, is kept with it. If it has a lock, it leaves that lock's line
// meanwhile.
func (d *Delivery) Nack(ctx context.Context, delay time.Duration, maxAttempts int, note string) error {
	return d.nack(ctx, delay, maxAttempts, note, false)
}

// NackStrict is Nack for requests whose order within their lock matters more
// than that others run: while it waits, nobody else of that lock's line gets the
// turn.
func (d *Delivery) NackStrict(ctx context.Context, delay time.Duration, maxAttempts int, note string) error {
	return d.nack(ctx, delay, maxAttempts, note, true)
}

func (d *Delivery) nack(ctx context.Context, delay time.Duration, most int, note string, strict bool) error {
	if delay < 0 {
		return fmt.Errorf("listq: nack: %w: delay is negative (%v)", ErrInvalid, delay)
	}
	return d.Settle(ctx, "nack", func(ctx context.Context, q *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		return q.Nack(ctx, l, delay, script.Attempt, most, strict, clip(note))
	})
}

// Bury makes the request dead at once, for the given reason: it can never
// succeed.
func (d *Delivery) Bury(ctx context.Context, reason string) error {
	return d.Settle(ctx, "bury", func(ctx context.Context, q *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		return q.Bury(ctx, l, clip(reason))
	})
}

// Requeue puts the request back at the head of the queue, as if it had not been
// claimed.
func (d *Delivery) Requeue(ctx context.Context) error {
	return d.Settle(ctx, "requeue", func(ctx context.Context, q *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		codes, err := q.Requeue(ctx, []script.Lease{l})
		if err != nil {
			return 0, nil, err
		}
		return codes[0], nil, nil
	})
}

// Extend makes the lease last for [Config.Lease] from now. Handlers under
// Consume need not call it.
func (d *Delivery) Extend(ctx context.Context) error {
	sent := time.Now()
	codes, err := d.queue.script.Extend(ctx, d.queue.cfg.Lease, []script.Lease{d.lease})
	if err != nil {
		return fmt.Errorf("listq: extend %q in %q: %w", d.ID, d.queue.name, err)
	}
	if codes[0] != script.Done {
		return fmt.Errorf("listq: extend %q in %q: %w", d.ID, d.queue.name, ErrStale)
	}
	d.extended(sent)
	return nil
}

func (d *Delivery) extended(sent time.Time) { d.until.Store(sent.Add(d.queue.cfg.Lease).UnixNano()) }

// Settle settles the delivery by fn, for package delayq. verb is for the error.
func (d *Delivery) Settle(ctx context.Context, verb string,
	fn func(context.Context, *script.Queue, script.Lease) (script.Code, []script.Buried, error),
) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		return ErrSettled
	}
	for try := 1; ; try++ {
		code, buried, err := fn(ctx, d.queue.script, d.lease)
		if err == nil {
			d.settled = true
			return d.concluded(ctx, verb, code, buried)
		}
		wait := backoff(try)
		var reply redis.Error
		if ctx.Err() != nil || errors.As(err, &reply) && !passing(reply) || time.Now().Add(wait).After(d.LeaseExpires()) {
			return fmt.Errorf("listq: %s %q in %q: %w", verb, d.ID, d.queue.name, err)
		}
		sleep(ctx, wait)
	}
}

// concluded says what a script's answer means. A worker that was late may have
// released the request's lock, and been told so; then nobody else promotes.
func (d *Delivery) concluded(ctx context.Context, verb string, code script.Code, buried []script.Buried) error {
	d.queue.dead(ctx, buried)
	if code != script.Stale {
		return nil
	}
	if h := d.queue.cfg.Hooks.Stale; h != nil {
		h(ctx, d)
	}
	if d.Lock != "" {
		if err := d.queue.Promote(ctx, d.Lock); err != nil {
			d.queue.cfg.Logger.WarnContext(ctx, "the next request in line was not promoted; its probe will",
				"queue", d.queue.name, "lock", d.Lock, "error", err)
		}
	}
	return fmt.Errorf("listq: %s %q in %q: %w", verb, d.ID, d.queue.name, ErrStale)
}

// passing tells whether an error reply of Redis may be gone when tried again.
func passing(err redis.Error) bool {
	for _, prefix := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "OOM", "NOREPLICAS", "MISCONF"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// clip bounds a note, which is stored with the request.
func clip(note string) string { return note[:min(len(note), 1024)] }

// backoff is the pause after the given number of failed tries: up to 25 ms,
// doubling to 1 s, with full jitter.
func backoff(try int) time.Duration {
	return rand.N(min(25*time.Millisecond<<min(try-1, 10), time.Second)) + time.Millisecond
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
