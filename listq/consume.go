package listq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/retry"
)

// Handler does the work of a delivery. If it has not settled the delivery
// itself, nil acknowledges it; an error, or a panic, counts a failed attempt and
// brings it back after [ConsumeConfig.Backoff]. Handlers run concurrently.
// A settlement of the handler's own that Redis refused is no failed attempt: it is
// tried once more, and if that fails, too, the request runs again when its lease ends.
//
// The context ends with the cause [ErrStale] when the request is no longer this
// worker's, and with [ErrDraining] when the drain timeout is over; a handler that
// then returns an error counts nothing, and its request runs again elsewhere.
type Handler func(ctx context.Context, d *Delivery) error

var defaultBackoff = retry.FullJitter(time.Second, 10*time.Minute)

// ConsumeConfig of a [Queue.Consume]. The zero value is good.
type ConsumeConfig struct {
	// Backoff says how long a failed request waits, given the number of its
	// attempts and its age ([Delivery.Age], which a scheduled delay and all waits are part
	// of); when it gives up, the request is dead. Defaults to 1 s, doubling up to
	// 10 min, with full jitter: with the default MaxAttempts a request that always
	// fails is dead after about 78 minutes on average. One that panics is logged, and the
	// default asked instead.
	Backoff retry.Backoff
	// DrainTimeout is how long Consume lets running handlers finish after its
	// context ended, before it ends theirs. Defaults to 10 s; negative: no time, they
	// are ended at once.
	DrainTimeout time.Duration
	// LineEnds is called when a request with a lock was acknowledged and nobody follows
	// it here ([Delivery.Follows]): no other one of that lock came with the answer, or
	// what came goes back to the queue. It must not block. Defaults to nothing.
	LineEnds func(lock string)
	// MaxAttempts is how often a request may fail before it is dead. 0 is the default,
	// 25; negative: no limit. ([Delivery.Nack] takes 0 as no limit.)
	MaxAttempts int
	// Probe is called in a goroutine of its own when the queue does not know
	// whether a lock with requests in line is free; its context ends with the drain
	// timeout. Defaults to promoting the oldest; package delayq looks at the lock
	// first.
	Probe func(ctx context.Context, lock string)
	// Slots are a worker pool shared with other Consume calls, in place of Workers:
	// best on queues of one Redis, as a claim holds free slots until it is answered.
	// Defaults to a pool of its own.
	Slots *Slots
	// Workers is how many handlers may run at once. Defaults to 10. A claim brings as
	// many requests, or up to 128 if they are quick, but none after the first MiB. That,
	// and one request more, must come within the client's ReadTimeout, or the answer is
	// lost each time, until they are dead.
	Workers int
}

func (c ConsumeConfig) withDefaults(q *Queue) ConsumeConfig {
	def(&c.DrainTimeout, 10*time.Second)
	def(&c.MaxAttempts, 25)
	def(&c.Workers, 10)
	if c.Workers < 1 {
		panic(fmt.Sprintf("listq: ConsumeConfig.Workers is %d, less than 1", c.Workers))
	}
	c.DrainTimeout = max(c.DrainTimeout, 0)
	c.MaxAttempts = max(c.MaxAttempts, 0)
	if c.Slots == nil {
		c.Slots = NewSlots(c.Workers)
	}
	if c.Backoff == nil {
		c.Backoff = defaultBackoff
	}
	if c.Probe == nil {
		c.Probe = func(ctx context.Context, lock string) {
			if err := q.Promote(context.WithoutCancel(ctx), lock); err != nil { // Consume waits for it
				q.cfg.Logger.WarnContext(ctx, "a probe failed; it will be due again", "queue", q.name, "lock", lock, "error", err)
			}
		}
	}
	return c
}

// Consume runs handler on the queue's requests until ctx ends. Then it claims no
// more, lets running handlers finish for the drain timeout, ends their contexts,
// waits for them, and returns nil. While Redis cannot be reached it goes on
// trying, with a client that was closed too, and what fails shows only in
// [Config.Logger]. Handlers must heed their contexts: Consume does not return before they do.
//
// Several processes may consume one queue, and one process may call Consume
// several times. It panics if handler is nil or a value of cfg is out of range.
func (q *Queue) Consume(ctx context.Context, cfg ConsumeConfig, handler Handler) error {
	if handler == nil {
		panic("listq: Consume with a nil handler")
	}
	c := q.consumer(ctx, cfg.withDefaults(q))
	defer c.end(nil)
	defer c.limit(ctx)()
	c.handler = handler

	var renewing sync.WaitGroup
	renewed, stop := context.WithCancel(c.base)
	c.running.Go(func() { q.warnOfEviction(ctx) })
	renewing.Go(func() { c.renew(renewed) })
	c.feed(ctx)
	c.drain()
	stop()
	renewing.Wait()
	return nil
}

// Move brings what is due back into the queue, until ctx ends, without consuming
// anything: the work of [Queue.Claim] with n = 0 at the right times. What becomes
// due earlier than all that it knows of, it notices within [Config.Poll]: it
// leaves the tokens that say so to the consumers. probe answers probes, in a
// goroutine each; nil promotes. It returns nil. Package delayq builds its claimer
// on it.
func (q *Queue) Move(ctx context.Context, probe func(ctx context.Context, lock string)) error {
	c := q.consumer(ctx, ConsumeConfig{Probe: probe, Slots: new(Slots)}.withDefaults(q))
	defer c.end(nil)
	defer c.limit(ctx)()
	c.feed(ctx)
	c.drain()
	return nil
}

// consumer is one call of Consume or Move.
type consumer struct {
	queue   *Queue
	cfg     ConsumeConfig
	handler Handler

	base context.Context // the caller's values, without its end
	late context.Context // ends when the drain timeout is over: the handlers' contexts come from it
	end  context.CancelCauseFunc

	id        string        // names it among all consumers
	listening atomic.Bool   // its waker runs
	token     chan struct{} // somebody said: look
	kick      chan struct{} // a slot is kept for this consumer, or ready is known not to be empty
	calm      chan struct{} // more has become false
	pressing  chan struct{} // there is enough to do for an exchange beside the one under way
	more      atomic.Bool   // ready is known not to be empty: no token is needed
	acks      chan finished
	place     *seat // at the pool of slots
	ahead     ahead

	running sync.WaitGroup // handlers, probes, and what hands back requests
	acking  sync.WaitGroup // ackAll, which takes over from the feeder and ends when acks is closed

	mu      sync.Mutex // guards the fields below
	active  map[*Delivery]context.CancelCauseFunc
	watched time.Time       // when the leases' ends are looked at next
	gone    <-chan struct{} // closed when what was given back last is in the queue; nil: nothing was

	hurry chan struct{} // a lease ends before that, or has to be renewed sooner than the next time
}

func (q *Queue) consumer(ctx context.Context, cfg ConsumeConfig) *consumer {
	c := &consumer{
		queue: q, cfg: cfg, base: context.WithoutCancel(ctx),
		id: feederID(), token: make(chan struct{}, 1), kick: make(chan struct{}, 1), calm: make(chan struct{}, 1), pressing: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		acks: make(chan finished, 2*script.Bound), active: make(map[*Delivery]context.CancelCauseFunc),
	}
	c.place = cfg.Slots.seat(c.kick)
	c.late, c.end = context.WithCancelCause(c.base)
	return c
}

// hearsOffers tells whether requests may be offered to it: not to a single worker, who takes
// one after the other, nor to one that could not tell that a request is done already.
func (c *consumer) hearsOffers() bool { return c.cfg.Slots.size > 1 && c.queue.cfg.Resend > 0 }

// grace is how long commands may go on after the end that they were meant for:
// a claim after Consume was told to stop, a settlement after the drain timeout.
const grace = 2 * time.Second

// settling returns a context for a settlement: it ends when the drain timeout is
// over, but not before the grace.
func (c *consumer) settling() (context.Context, context.CancelFunc) {
	return outlive(c.base, c.late, grace)
}

// outlive returns a child of base that ends d after ctx does.
func outlive(base, ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(base)
	stop := context.AfterFunc(ctx, func() {
		sleep(out, d)
		cancel()
	})
	return out, func() {
		stop()
		cancel()
	}
}

func deliveries(bad []undecodable) []*Delivery {
	out := make([]*Delivery, len(bad))
	for i, b := range bad {
		out[i] = b.Delivery
	}
	return out
}

// handBack requeues claimed requests, at most 128, in one command.
func (c *consumer) handBack(ctx context.Context, all []*Delivery) {
	if len(all) == 0 {
		return
	}
	var codes []script.Code
	err := persist(ctx, func() time.Duration { return longest(all) }, func() (err error) {
		codes, err = c.queue.script.Requeue(ctx, leases(all))
		return err
	})
	c.settled(ctx, "requeue", all, codes, err)
}

// settled records the answer to a settlement of several deliveries.
func (c *consumer) settled(ctx context.Context, verb string, all []*Delivery, codes []script.Code, err error) {
	for i, d := range all {
		if err == nil && d.open(codes[i]) {
			settle := map[string]func(context.Context) error{"ack": d.Ack, "requeue": d.Requeue}[verb]
			c.report(d, settle(ctx))
			continue
		}
		if err != nil {
			c.report(d, fmt.Errorf("listq: %s %q in %q: %w", verb, d.ID, c.queue.name, err))
			continue
		}
		if d.settle(func() error { return nil }) == nil {
			c.report(d, d.concluded(ctx, verb, codes[i], nil))
		}
	}
}

// report logs a settlement that failed: the request will run again.
func (c *consumer) report(d *Delivery, err error) {
	switch {
	case err == nil || errors.Is(err, ErrSettled):
	case errors.Is(err, ErrStale):
		c.queue.cfg.Logger.InfoContext(c.base, "a request was no longer this worker's", "queue", c.queue.name, "id", d.ID, "error", err)
	default:
		c.queue.cfg.Logger.WarnContext(c.base, "not settled; the request runs again when its lease ends",
			"queue", c.queue.name, "id", d.ID, "error", err)
	}
}

var errExited = errors.New("handler ended its goroutine (runtime.Goexit)")

// start runs the handler of a delivery in a goroutine of its own, and after it
// those of what was claimed ahead.
func (c *consumer) start(d *Delivery) {
	c.running.Go(func() { c.work(d) })
}

func (c *consumer) work(d *Delivery) {
	for d != nil {
		d = c.run(d)
	}
}

// run runs the handler of a delivery, and returns the one to run next in its slot.
func (c *consumer) run(d *Delivery) (next *Delivery) {
	ctx, cancel := context.WithCancelCause(c.late)
	c.mu.Lock()
	c.active[d] = cancel
	left := d.left()
	soon := left < time.Until(c.watched)
	c.mu.Unlock()
	returned, began := false, time.Now()
	if soon || left < c.queue.cfg.Lease*2/3 { // the answer came late, or it was handed over
		signal(c.hurry)
	}
	err := errExited
	defer func() {
		cause := context.Cause(ctx)
		cancel(nil)
		next = c.finish(d, err, cause, time.Since(began))
		if !returned && next != nil { // this goroutine ends
			c.running.Go(func() { c.work(next) })
		}
	}()
	err = c.handle(ctx, d)
	returned = true
	return nil
}

// handle calls the handler and turns a panic into an error.
func (c *consumer) handle(ctx context.Context, d *Delivery) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		stack := debug.Stack()
		c.queue.cfg.Logger.ErrorContext(ctx, "handler panicked", "queue", c.queue.name, "id", d.ID, "panic", v, "stack", string(stack))
		if h := c.queue.cfg.Hooks.Panic; h != nil {
			h(ctx, d, v, stack)
		}
		err = fmt.Errorf("panic: %v", v)
	}()
	return c.handler(ctx, d)
}

// finished is a delivery to be acknowledged: how long its handler ran, and whether
// its slot is free.
type finished struct {
	*Delivery
	ran   time.Duration
	freed bool
}

// finish settles a delivery, unless its handler did. It returns the one to run
// next in its slot, or gives that back.
func (c *consumer) finish(d *Delivery, err, cause error, ran time.Duration) (next *Delivery) {
	if !d.Settled() {
		if err == nil && d.unsettled() == nil {
			d.settling.Store(true)
			next = c.following()
			c.acks <- finished{d, ran, next == nil}      // whose receiver gives the slot back
			if next != nil && !c.ahead.startable(next) { // that took long
				c.giveBack([]*Delivery{next})
				c.cfg.Slots.put(1)
				return nil
			}
			return next
		}
		c.report(d, c.failed(d, err, cause))
	}
	c.done(d)
	if next = c.following(); next == nil {
		c.cfg.Slots.put(1)
	}
	return next
}

// following takes what was claimed ahead, unless its slot is another's by now.
func (c *consumer) following() *Delivery {
	if c.place.wanted() {
		return nil
	}
	return c.ahead.next()
}

// done takes a delivery off the list of those to renew.
func (c *consumer) done(d *Delivery) {
	d.stored()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, d)
}

// failed settles a delivery whose handler returned an error. A handler whose
// context was ended failed because of that, so it costs no attempt.
func (c *consumer) failed(d *Delivery, err, cause error) error {
	ctx, cancel := c.settling()
	defer cancel()
	if errors.Is(cause, ErrStale) || errors.Is(cause, ErrDraining) {
		return d.Requeue(ctx) // as stale, most likely it is refused, which is how its lock's next is found
	}
	if again := d.unsettled(); again != nil {
		return again(ctx) // by its handler's rules, and not by those of c.cfg
	}
	delay, ok := c.backoff(ctx, d)
	if !ok {
		return d.Bury(ctx, "attempts: "+err.Error())
	}
	return d.Nack(ctx, max(delay, 0), c.cfg.MaxAttempts, err.Error())
}

// backoff asks c.cfg.Backoff, and the default one if that panics: nothing above it
// recovers.
func (c *consumer) backoff(ctx context.Context, d *Delivery) (delay time.Duration, ok bool) {
	defer func() {
		if v := recover(); v != nil {
			c.queue.cfg.Logger.ErrorContext(ctx, "backoff panicked", "queue", c.queue.name, "id", d.ID, "panic", v, "stack", string(debug.Stack()))
			delay, ok = defaultBackoff.Next(d.Attempts+1, d.Age())
		}
	}()
	return c.cfg.Backoff.Next(d.Attempts+1, d.Age())
}

// acked records the answer to an acknowledgement.
func (c *consumer) acked(ctx context.Context, batch []*Delivery, codes []script.Code, err error) {
	c.settled(ctx, "ack", batch, codes, err)
	for _, d := range batch {
		c.done(d)
	}
}

// ackAll acknowledges what the handlers finish after the feeder has ended, and
// before that what it left.
func (f *feeder) ackAll() {
	for {
		if len(f.done) == 0 {
			x, ok := <-f.acks
			if !ok {
				return
			}
			f.gather(x)
		}
		f.ackSome()
	}
}

// ackSome acknowledges a batch. If that fails, what is finished by then has one grace
// more, and what follows none of its own.
func (f *feeder) ackSome() {
	ctx, cancel := f.settling()
	defer func() { cancel() }()
	for failed := 0; len(f.done) > 0; failed++ {
		if failed == 1 {
			cancel()
			ctx, cancel = f.settling()
		}
		n := min(len(f.done), script.Bound)
		err := f.ack(ctx, f.done[:n])
		f.done = f.done[n:]
		if err == nil {
			return
		}
		f.gather()
	}
}

func (c *consumer) ack(ctx context.Context, batch []*Delivery) error {
	var codes []script.Code
	var buried []script.Buried
	err := persist(ctx, func() time.Duration { return longest(batch) }, func() (err error) {
		codes, _, buried, err = c.queue.script.Ack(ctx, c.queue.cfg.Resend, leases(batch))
		return err
	})
	c.queue.buried(ctx, buried)
	c.follow(batch, nil)
	c.acked(ctx, batch, codes, err)
	return err
}

func leases(all []*Delivery) []script.Lease {
	out := make([]script.Lease, len(all))
	for i, d := range all {
		out[i] = d.lease
	}
	return out
}

// longest returns how long the last of the leases has to run.
func longest(all []*Delivery) time.Duration {
	left := all[0].left()
	for _, d := range all[1:] {
		left = max(left, d.left())
	}
	return left
}

// renew extends the leases of all that is running, every third of a lease, and
// ends the context of a handler whose lease is lost. The extension runs beside
// the watch on the leases' ends, which must not wait for an answer of Redis.
func (c *consumer) renew(ctx context.Context) {
	every := c.queue.cfg.Lease / 3
	extend, watch := time.NewTimer(every), time.NewTimer(c.expire())
	defer extend.Stop()
	defer watch.Stop()
	at := time.Now().Add(every) // of the next extension
	extendIn := func(d time.Duration) {
		at = time.Now().Add(d)
		extend.Reset(d)
	}
	var answer chan error // nil: no extension is under way
	failing, soon := false, false
	for {
		select {
		case <-ctx.Done():
			if answer == nil {
				return
			}
			if err := <-answer; err != nil && !failing {
				c.queue.cfg.Logger.InfoContext(c.base, "leases were not extended, and need it no more", "queue", c.queue.name, "error", err)
			}
			return
		case <-c.hurry:
			left := c.expire()
			watch.Reset(left)
			if soon = answer != nil; !soon {
				extendIn(min(left/3, time.Until(at)))
			}
		case <-watch.C:
			watch.Reset(c.expire())
		case <-extend.C:
			answer = make(chan error, 1)
			go func() { answer <- c.extend(ctx) }()
		case err := <-answer:
			answer = nil
			next := every
			if err != nil {
				next = max(every/8, 5*time.Millisecond)
				if !failing {
					c.queue.cfg.Logger.WarnContext(ctx, "leases were not extended; trying on", "queue", c.queue.name, "error", err)
				}
			}
			failing = err != nil
			if soon {
				left := c.expire()
				watch.Reset(left)
				next, soon = min(left/3, next), false
			}
			extendIn(next)
		}
	}
}

// extend extends the leases of all that is running.
func (c *consumer) extend(ctx context.Context) (failed error) {
	c.mu.Lock()
	all := make([]*Delivery, 0, len(c.active))
	for d := range c.active {
		if !d.settled.Load() {
			all = append(all, d)
		}
	}
	c.mu.Unlock()
	for batch := range slices.Chunk(all, script.Bound) {
		ctx, cancel := context.WithTimeout(ctx, c.queue.cfg.Lease/3)
		sent := time.Now()
		codes, err := c.queue.script.Extend(ctx, c.queue.cfg.Lease, leases(batch))
		if err != nil {
			failed = err
			cancel()
			continue
		}
		for i, d := range batch {
			if !d.open(codes[i]) {
				c.answered(d, codes[i], sent)
				continue
			}
			sent := time.Now()
			if code, err := d.extend(ctx); err != nil {
				failed = err
			} else {
				c.answered(d, code, sent)
			}
		}
		cancel()
	}
	return failed
}

// answered takes in the answer to an extension.
func (c *consumer) answered(d *Delivery, code script.Code, sent time.Time) {
	switch {
	case code == script.Done:
		d.stored()
		d.extended(sent)
	case d.settling.Load(): // that is why; or the settlement will say so
	default:
		c.lose(d)
	}
}

// expire ends the context of handlers whose lease has run out unrenewed, and
// returns how long until the next one would, which is when to look again.
func (c *consumer) expire() time.Duration {
	var lost []*Delivery
	now, next := time.Now(), c.queue.cfg.Lease
	c.mu.Lock()
	for d := range c.active {
		switch left := d.left(); {
		case d.settled.Load() || d.lost.Load():
		case left <= 0 && d.settling.Load():
			next = min(next, c.queue.cfg.Lease/16) // unless that succeeds
		case left <= 0:
			lost = append(lost, d)
		default:
			next = min(next, left)
		}
	}
	c.watched = now.Add(next)
	c.mu.Unlock()
	for _, d := range lost {
		c.lose(d)
	}
	return next
}

// lose ends the context of a handler whose request is no longer its own.
func (c *consumer) lose(d *Delivery) {
	c.mu.Lock()
	cancel := c.active[d]
	c.mu.Unlock()
	if cancel != nil {
		cancel(ErrStale)
		d.stale(c.base)
	}
}

// limit ends the handlers' contexts when the drain timeout is over, which runs from the
// end of ctx, whatever Redis answers. What it returns takes that back.
func (c *consumer) limit(ctx context.Context) (stop func()) {
	over, cancel := outlive(c.base, ctx, c.cfg.DrainTimeout)
	keep := context.AfterFunc(over, func() { c.end(ErrDraining) })
	return func() {
		keep()
		cancel()
	}
}

// drain waits for the handlers and for what they finished to be acknowledged.
func (c *consumer) drain() {
	c.running.Wait()
	close(c.acks)
	c.acking.Wait()
}

// warnOfEviction looks once at the server's setting that can lose requests.
func (q *Queue) warnOfEviction(ctx context.Context) {
	v, err := q.script.Client().ConfigGet(ctx, "maxmemory-policy").Result()
	if err != nil {
		return // many services do not allow CONFIG; then their manual must tell
	}
	if p := v["maxmemory-policy"]; p != "" && !strings.HasPrefix(p, "noeviction") {
		q.cfg.Logger.WarnContext(ctx, "Redis may evict keys of the queue, silently: set maxmemory-policy to noeviction",
			"queue", q.name, "maxmemory-policy", p)
	}
}

// signal puts a token into a one-slot channel.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// jitter returns d less up to a tenth.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) }
