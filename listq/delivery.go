package listq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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
// done or the lease has run out; an attempt under way ends with the Redis client's own
// timeouts. They return [ErrStale] if the request is no
// longer this worker's; then nothing was changed. A request that another worker,
// or a cancellation, has finished a short while ago ([Config.Resend]) counts as
// settled: that cannot be told from this call's own command, sent again by the
// Redis client. After any other error it is not known whether the request was
// settled; it may be tried again.
type Delivery struct {
	Request
	// Deliveries counts the claims of this request, this one included.
	Deliveries int
	// Attempts counts the failures of its handler.
	Attempts int
	// Deferrals counts how often it met a held lock.
	Deferrals int
	// Accepted is when it was pushed or scheduled, or revived since, by the
	// server's clock.
	Accepted time.Time
	// Follows says that it came with the acknowledgement of the last request of the
	// same lock: this consumer ran that, and now has the lock's turn again.
	Follows bool

	queue *Queue
	lease script.Lease
	until atomic.Pointer[time.Time]     // end of the lease by this process's clocks
	offer atomic.Pointer[script.Handed] // it was offered, and it is not known that it is stored
	lost  atomic.Bool                   // it is known to be another's, and the hook was told
	told  bool                          // the feeder's: an acknowledgement was sent, and not answered

	mu       sync.Mutex                      // held while a settlement is under way
	settling atomic.Bool                     // a settlement is under way, or done
	settled  atomic.Bool                     // written with mu held
	again    func(ctx context.Context) error // the last settlement by Settle, if it failed; guarded by mu
}

// Queue returns the queue that the request was claimed from.
func (d *Delivery) Queue() *Queue { return d.queue }

// LeaseExpires returns when the lease ends at the earliest, by this process's
// clock: it counts from before the claim, or the extension, was sent; of a request
// that was handed over as it was pushed, from no later than that.
func (d *Delivery) LeaseExpires() time.Time { return *d.until.Load() }

// left returns how long the lease has to run by the clock that says less: the
// monotonic one may stand still while the machine sleeps, the other can be set
// back.
func (d *Delivery) left() time.Duration {
	until, now := *d.until.Load(), time.Now()
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// extended records a lease that began at sent, unless a later one is known.
func (d *Delivery) extended(sent time.Time) {
	until := sent.Add(d.queue.cfg.Lease)
	for {
		old := d.until.Load()
		if old != nil && !until.After(*old) || d.until.CompareAndSwap(old, &until) {
			return
		}
	}
}

// Age returns how long ago the request was accepted, by the server's clock, which need
// not agree with this process's: that counts from the last claim's answer on. Never
// negative.
func (d *Delivery) Age() time.Duration {
	age := time.Since(d.Accepted)
	if a := d.queue.anchor.Load(); a != nil {
		age = a.server.Sub(d.Accepted) + time.Since(a.answered)
	}
	return max(age, 0)
}

// Settled tells whether the delivery has been settled. It waits for a settlement
// that is under way.
func (d *Delivery) Settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled.Load()
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
// it dead if that was the last of maxAttempts (0: no limit). The first 1,024
// bytes of note, such as the error's text, are kept with it. If it has a lock, it
// leaves that lock's line meanwhile. A negative delay is an error that matches
// [ErrInvalid].
func (d *Delivery) Nack(ctx context.Context, delay time.Duration, maxAttempts int, note string) error {
	return d.back(ctx, "nack", delay, script.Attempt, maxAttempts, note, false)
}

// NackStrict is Nack for requests whose order within their lock matters more
// than that others run: while it waits, nobody else of that lock's line gets the
// turn.
func (d *Delivery) NackStrict(ctx context.Context, delay time.Duration, maxAttempts int, note string) error {
	return d.back(ctx, "nack", delay, script.Attempt, maxAttempts, note, true)
}

func (d *Delivery) back(ctx context.Context, verb string, delay time.Duration, cost script.Cost, most int, note string, strict bool) error {
	if delay < 0 {
		return fmt.Errorf("listq: %s: %w: delay is negative (%v)", verb, ErrInvalid, delay)
	}
	return d.Settle(ctx, verb, func(ctx context.Context, q *script.Queue, l script.Lease) (script.Code, []script.Buried, error) {
		return q.Nack(ctx, l, delay, cost, most, strict, clip(note))
	})
}

// Delay brings the request back after delay and counts nothing: something that
// is no fault of its own keeps it from running. note is kept as by Nack. If it
// has a lock, it leaves that lock's line meanwhile. A negative delay is an error
// that matches [ErrInvalid].
func (d *Delivery) Delay(ctx context.Context, delay time.Duration, note string) error {
	return d.back(ctx, "delay", delay, script.Nothing, 0, note, false)
}

// DelayStrict is Delay as NackStrict is Nack: while it waits, nobody else of its lock's
// line gets the turn.
func (d *Delivery) DelayStrict(ctx context.Context, delay time.Duration, note string) error {
	return d.back(ctx, "delay", delay, script.Nothing, 0, note, true)
}

// Bury makes the request dead at once, for the given reason (its first 1,024
// bytes): it can never succeed.
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

// Extend makes the lease last for [Config.Lease] from now, in one round trip, as a rule. It
// returns [ErrStale] if the request is settled or no longer this worker's.
// Handlers under Consume need not call it.
func (d *Delivery) Extend(ctx context.Context) error {
	sent := time.Now()
	code, err := script.Until(ctx, d.extend)
	if err != nil {
		return fmt.Errorf("listq: extend %q in %q: %w", d.ID, d.queue.name, err)
	}
	if code != script.Done {
		return fmt.Errorf("listq: extend %q in %q: %w", d.ID, d.queue.name, ErrStale)
	}
	d.extended(sent)
	return nil
}

// store sees to it that the request is stored, if it was offered and its push may not have
// come yet. If its lease ended long ago, it may have been finished, and forgotten.
func (d *Delivery) store(ctx context.Context) error {
	h := d.offer.Load()
	if h == nil || -d.left() >= d.queue.cfg.Resend {
		return nil
	}
	if err := d.queue.script.Confirm(ctx, *h); err != nil {
		return err
	}
	d.offer.Store(nil)
	return nil
}

// stored says that the request is known to be stored, or done.
func (d *Delivery) stored() {
	if d.offer.Swap(nil) != nil {
		d.queue.script.Stored(d.ID)
	}
}

// open reports whether code may say no more than that the request is not stored yet.
func (d *Delivery) open(code script.Code) bool { return code == script.Stale && d.offer.Load() != nil }

// storing is do for the request, and once more if that is open.
func storing[T any](ctx context.Context, d *Delivery, do func() (script.Code, T, error)) (code script.Code, v T, err error) {
	code, v, err = do()
	if err != nil || !d.open(code) {
		return code, v, err
	}
	if err = d.store(ctx); err != nil {
		return code, v, err
	}
	return do()
}

// extend extends the lease.
func (d *Delivery) extend(ctx context.Context) (script.Code, error) {
	code, _, err := storing(ctx, d, func() (script.Code, any, error) {
		codes, err := d.queue.script.Extend(ctx, d.queue.cfg.Lease, []script.Lease{d.lease})
		if err != nil {
			return 0, nil, err
		}
		return codes[0], nil, nil
	})
	return code, err
}

// Settle settles the delivery by fn, for package delayq. verb is for the error.
func (d *Delivery) Settle(ctx context.Context, verb string,
	fn func(context.Context, *script.Queue, script.Lease) (script.Code, []script.Buried, error),
) error {
	var code script.Code
	var buried []script.Buried
	err := d.settle(func() error {
		err := persist(ctx, d.left, func() (err error) {
			code, buried, err = storing(ctx, d, func() (script.Code, []script.Buried, error) { return fn(ctx, d.queue.script, d.lease) })
			return err
		})
		if err != nil {
			return fmt.Errorf("listq: %s %q in %q: %w", verb, d.ID, d.queue.name, err)
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, ErrSettled) {
			d.mu.Lock()
			d.again = func(ctx context.Context) error { return d.Settle(ctx, verb, fn) }
			d.mu.Unlock()
		}
		return err
	}
	return d.concluded(ctx, verb, code, buried)
}

// unsettled returns what settles the delivery as its handler tried to, or nil if it did
// not.
func (d *Delivery) unsettled() func(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.again
}

// settle marks the delivery as settled if fn succeeds. For as long as fn runs,
// the renewal knows that a lease which is gone may have been settled.
func (d *Delivery) settle(fn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled.Load() {
		return ErrSettled
	}
	d.settling.Store(true)
	if err := fn(); err != nil {
		d.settling.Store(false)
		return err
	}
	d.settled.Store(true)
	return nil
}

// concluded says what a script's answer means. It runs without d.mu, for the
// hooks' sake.
//
// If the answer is not that of a first settlement, the request may have been
// cancelled or leased anew meanwhile, and the next in line have met the lock
// that this worker had. It was this worker that was told so when it released the
// lock, so it promotes.
func (d *Delivery) concluded(ctx context.Context, verb string, code script.Code, buried []script.Buried) error {
	d.queue.buried(ctx, buried)
	if code == script.Stale || code == script.Already {
		if code == script.Stale {
			d.stale(ctx)
		}
		if d.Lock != "" && verb != "park" { // who parks did not have the lock
			if err := d.queue.Promote(ctx, d.Lock); err != nil {
				d.queue.cfg.Logger.WarnContext(ctx, "the next request in line was not promoted; its probe will",
					"queue", d.queue.name, "lock", d.Lock, "error", err)
			}
		}
	}
	if code == script.Stale {
		return fmt.Errorf("listq: %s %q in %q: %w", verb, d.ID, d.queue.name, ErrStale)
	}
	return nil
}

// stale calls the hook, once per delivery.
func (d *Delivery) stale(ctx context.Context) {
	if d.lost.CompareAndSwap(false, true) && d.queue.cfg.Hooks.Stale != nil {
		d.queue.cfg.Hooks.Stale(ctx, d)
	}
}

// persist calls fn until it succeeds. It gives up, with fn's last error, when
// ctx is done, when the next try would come later than in left, or when the
// error is one that stays.
func persist(ctx context.Context, left func() time.Duration, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil {
			return nil
		}
		wait := backoff(try)
		var reply redis.Error
		if errors.Is(err, redis.ErrClosed) || errors.As(err, &reply) && !passing(reply) || wait > left() {
			return err
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
	}
}

// passing tells whether an error reply of Redis may be gone when tried again.
func passing(err redis.Error) bool {
	for _, prefix := range []string{
		"LOADING", "READONLY", "UNBLOCKED", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "OOM", "NOREPLICAS", "MISCONF",
		"max number of clients",
	} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// clip bounds a note, which is stored with the request.
func clip(note string) string {
	if len(note) <= 1024 {
		return note
	}
	return strings.ToValidUTF8(note[:1024], "")
}

// backoff is the pause after the given number of failed tries: up to 25 ms,
// doubling to 1 s, with full jitter.
func backoff(try int) time.Duration {
	return rand.N(min(25*time.Millisecond<<min(try-1, 10), time.Second)) + time.Millisecond
}

// sleep returns after d, or when ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
