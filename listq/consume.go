package listq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/retry"
)

// Handler does the work of a delivery. If it has not settled the delivery
// itself, nil acknowledges it; an error, or a panic, counts a failed attempt and
// brings it back after [ConsumeConfig.Backoff]. Handlers run concurrently.
//
// The context ends with the cause [ErrStale] when the request is no longer this
// worker's, and with [ErrDraining] when the drain timeout is over; a handler that
// then returns an error counts nothing, and its request runs again elsewhere.
type Handler func(ctx context.Context, d *Delivery) error

// ConsumeConfig of a [Queue.Consume]. The zero value is good.
type ConsumeConfig struct {
	// Backoff says how long a failed request waits, given the number of its
	// attempts and the time since it was accepted; when it gives up, the request
	// is dead. Defaults to 1 s, doubling up to 10 min, with full jitter.
	Backoff retry.Backoff
	// DrainTimeout is how long Consume lets running handlers finish after its
	// context ended, before it ends theirs. Defaults to 10 s; negative: none.
	DrainTimeout time.Duration
	// MaxAttempts is how often a request may fail before it is dead. Defaults to
	// 25; negative: no limit.
	MaxAttempts int
	// Probe is called in a goroutine of its own when the queue does not know
	// whether a lock with requests in line is free. Defaults to promoting the
	// oldest; package delayq looks at the lock first.
	Probe func(ctx context.Context, lock string)
	// Slots are a worker pool shared with other Consume calls, in place of Workers.
	Slots *Slots
	// Workers is how many handlers may run at once. Defaults to 10.
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
		c.Backoff = retry.FullJitter(time.Second, 10*time.Minute)
	}
	if c.Probe == nil {
		c.Probe = func(ctx context.Context, lock string) {
			if err := q.Promote(ctx, lock); err != nil {
				q.cfg.Logger.WarnContext(ctx, "a probe failed; it will be due again", "queue", q.name, "lock", lock, "error", err)
			}
		}
	}
	return c
}

// Consume runs handler on the queue's requests until ctx ends. Then it claims no
// more, lets running handlers finish for the drain timeout, ends their contexts,
// waits for them, and returns nil. While Redis cannot be reached it goes on
// trying. Handlers must heed their contexts: Consume does not return before they do.
//
// Several processes may consume one queue, and one process may call Consume
// several times. It panics if handler is nil or a value of cfg is out of range.
func (q *Queue) Consume(ctx context.Context, cfg ConsumeConfig, handler Handler) error {
	if handler == nil {
		panic("listq: Consume with a nil handler")
	}
	cfg = cfg.withDefaults(q)
	base := context.WithoutCancel(ctx)
	c := &consumer{
		queue: q, cfg: cfg, handler: handler, base: base,
		token: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		acks: make(chan *Delivery, script.Bound), active: make(map[*Delivery]context.CancelCauseFunc),
	}
	q.warnOfEviction(ctx)

	helpers, stop := context.WithCancel(base)
	var helping sync.WaitGroup
	helping.Go(func() { c.ackAll() })
	helping.Go(func() { c.renew(helpers) })
	c.feed(ctx)
	c.drain()
	close(c.acks)
	stop()
	helping.Wait()
	return nil
}

// Move brings what is due back into the queue, until ctx ends, without consuming
// anything: the work of [Queue.Claim] with n = 0 at the right times. What nobody
// could announce it notices within [Config.Poll]. probe answers probes; nil
// promotes. It returns nil. Package delayq builds its claimer on it.
func (q *Queue) Move(ctx context.Context, probe func(ctx context.Context, lock string)) error {
	cfg := ConsumeConfig{Probe: probe, Slots: &Slots{freed: make(chan struct{})}}.withDefaults(q)
	c := &consumer{queue: q, cfg: cfg, base: context.WithoutCancel(ctx), kick: make(chan struct{}, 1)}
	c.feed(ctx)
	c.running.Wait()
	return nil
}

// consumer is one call of Consume.
type consumer struct {
	queue   *Queue
	cfg     ConsumeConfig
	handler Handler
	base    context.Context // the caller's values, without its end

	token chan struct{} // somebody said: look; nil: not listening
	kick  chan struct{} // a slot is free, or requests are known to be ready
	more  atomic.Bool   // the last answer said that ready is not empty
	acks  chan *Delivery

	running sync.WaitGroup // handlers and probes

	mu     sync.Mutex // guards the field below
	active map[*Delivery]context.CancelCauseFunc
}

// feed is the feeder: it claims for the free slots when there is reason to.
func (c *consumer) feed(ctx context.Context) {
	wakerCtx, stop := context.WithCancel(ctx)
	var waking sync.WaitGroup
	if c.token != nil && !c.queue.cfg.PollOnly {
		waking.Go(func() { c.wake(wakerCtx) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	for due := false; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			continue
		case <-c.token:
			due = true
		case <-timer.C:
			due = true
		case <-c.kick:
		}
		n := c.cfg.Slots.take(script.Bound)
		if n == 0 && !due {
			continue
		}
		claimed, err := c.queue.Claim(c.base, n)
		if err != nil {
			c.cfg.Slots.put(n)
			failures++
			if failures == 1 {
				c.queue.cfg.Logger.WarnContext(ctx, "claims fail; trying on", "queue", c.queue.name, "error", err)
			}
			timer.Reset(backoff(failures))
			due = false
			continue
		}
		if failures > 0 {
			c.queue.cfg.Logger.InfoContext(ctx, "claims succeed again", "queue", c.queue.name, "failures", failures)
			failures = 0
		}
		due = false
		c.cfg.Slots.put(n - len(claimed.Deliveries))
		for _, lock := range claimed.Probes {
			c.running.Go(func() { c.cfg.Probe(c.base, lock) })
		}
		for _, d := range claimed.Deliveries {
			c.start(d)
		}
		c.more.Store(claimed.More)
		if claimed.More && len(claimed.Deliveries) < n {
			signal(c.kick) // those passed over were parked; the rest is behind them
		}
		wait := jitter(c.queue.cfg.Poll)
		if claimed.Wait >= 0 {
			wait = min(wait, claimed.Wait)
		}
		timer.Reset(wait)
	}
	stop()
	waking.Wait()
	ctx, cancel := context.WithTimeout(c.base, 2*time.Second)
	defer cancel()
	if err := c.queue.script.Yield(ctx, c.queue.feed.Feeder); err != nil {
		c.queue.cfg.Logger.WarnContext(ctx, "the clock was not handed over; the others notice within their poll",
			"queue", c.queue.name, "error", err)
	}
}

// freed gives a slot back, and claims for it if there is something to claim.
func (c *consumer) freed() {
	c.cfg.Slots.put(1)
	if c.more.Load() {
		signal(c.kick)
	}
}

// start runs the handler of a delivery in a goroutine of its own.
func (c *consumer) start(d *Delivery) {
	ctx, cancel := context.WithCancelCause(c.base)
	c.mu.Lock()
	c.active[d] = cancel
	c.mu.Unlock()
	c.running.Go(func() {
		err := c.handle(ctx, d)
		cause := context.Cause(ctx)
		cancel(nil)
		if err == nil && !d.Settled() {
			c.acks <- d // gives the slot back
			return
		}
		if !d.Settled() {
			c.failed(d, err, cause)
		}
		c.done(d)
		c.freed()
	})
}

// done takes a settled delivery off the list of those to renew.
func (c *consumer) done(d *Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, d)
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

// failed settles a delivery whose handler returned an error.
func (c *consumer) failed(d *Delivery, err, cause error) {
	if errors.Is(cause, ErrStale) {
		return // nothing to settle: it is another's
	}
	var settling error
	if errors.Is(cause, ErrDraining) {
		settling = d.Requeue(c.base)
	} else {
		attempt := d.Attempts + 1
		delay, ok := c.cfg.Backoff.Next(attempt, time.Since(d.Accepted))
		if ok {
			settling = d.Nack(c.base, delay, c.cfg.MaxAttempts, err.Error())
		} else {
			settling = d.Bury(c.base, "attempts: "+err.Error())
		}
	}
	c.report(d, settling)
}

// report logs a settlement that failed: the request will run again.
func (c *consumer) report(d *Delivery, err error) {
	if err != nil && !errors.Is(err, ErrSettled) {
		c.queue.cfg.Logger.WarnContext(c.base, "not settled; the request runs again when its lease ends, unless it is another's",
			"queue", c.queue.name, "id", d.ID, "error", err)
	}
}

// ackAll acknowledges what the handlers finished: all that came in while the
// last answer was under way goes in one command.
func (c *consumer) ackAll() {
	for d := range c.acks {
		batch := append(make([]*Delivery, 0, script.Bound), d)
	gather:
		for len(batch) < script.Bound {
			select {
			case d, ok := <-c.acks:
				if !ok {
					break gather
				}
				batch = append(batch, d)
			default:
				break gather
			}
		}
		c.ack(batch)
	}
}

func (c *consumer) ack(batch []*Delivery) {
	leases := make([]script.Lease, len(batch))
	latest := time.Time{}
	for i, d := range batch {
		leases[i] = d.lease
		if e := d.LeaseExpires(); e.After(latest) {
			latest = e
		}
	}
	for try := 1; ; try++ {
		codes, more, buried, err := c.queue.script.Ack(c.base, c.queue.cfg.Resend, leases)
		if err == nil {
			c.queue.dead(c.base, buried)
			c.more.Store(more)
			for i, d := range batch {
				if err := d.acked(c.base, codes[i]); err != nil {
					c.report(d, err)
				}
			}
			break
		}
		var reply redis.Error
		wait := backoff(try)
		if errors.As(err, &reply) && !passing(reply) || time.Now().Add(wait).After(latest) {
			for _, d := range batch {
				c.report(d, fmt.Errorf("listq: ack %q in %q: %w", d.ID, c.queue.name, err))
			}
			break
		}
		sleep(c.base, wait)
	}
	for _, d := range batch {
		c.done(d)
	}
	c.cfg.Slots.put(len(batch))
	if c.more.Load() {
		signal(c.kick)
	}
}

// acked records the answer to an ack that was not sent through Settle.
func (d *Delivery) acked(ctx context.Context, code script.Code) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		return ErrSettled
	}
	d.settled = true
	return d.concluded(ctx, "ack", code, nil)
}

// renew extends the leases of all that is running, every third of a lease, and
// ends the context of a handler whose lease is lost.
func (c *consumer) renew(ctx context.Context) {
	every := c.queue.cfg.Lease / 3
	t := time.NewTimer(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		next := every
		if !c.extend() {
			next = max(every/8, 5*time.Millisecond)
		}
		t.Reset(min(next, c.expire()))
	}
}

// extend extends the leases of all that is running and tells whether Redis
// answered.
func (c *consumer) extend() bool {
	c.mu.Lock()
	all := make([]*Delivery, 0, len(c.active))
	for d := range c.active {
		all = append(all, d)
	}
	c.mu.Unlock()
	answered := true
	for len(all) > 0 {
		batch := all[:min(len(all), script.Bound)]
		all = all[len(batch):]
		leases := make([]script.Lease, len(batch))
		for i, d := range batch {
			leases[i] = d.lease
		}
		ctx, cancel := context.WithTimeout(c.base, c.queue.cfg.Lease/3)
		sent := time.Now()
		codes, err := c.queue.script.Extend(ctx, c.queue.cfg.Lease, leases)
		cancel()
		if err != nil {
			c.queue.cfg.Logger.WarnContext(c.base, "leases were not extended; trying on", "queue", c.queue.name, "error", err)
			answered = false
			continue
		}
		for i, d := range batch {
			if codes[i] == script.Done {
				d.extended(sent)
			} else {
				c.end(d, ErrStale)
			}
		}
	}
	return answered
}

// expire ends the context of handlers whose lease has run out unrenewed, and
// returns how long until the next one would.
func (c *consumer) expire() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	next := c.queue.cfg.Lease
	for d, cancel := range c.active {
		left := d.LeaseExpires().Sub(now)
		if left <= 0 {
			cancel(ErrStale)
		} else {
			next = min(next, left)
		}
	}
	return next
}

func (c *consumer) end(d *Delivery, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.active[d]; cancel != nil {
		cancel(cause)
	}
}

// drain waits for the handlers: for the drain timeout as they are, then with
// their contexts ended.
func (c *consumer) drain() {
	t := time.AfterFunc(c.cfg.DrainTimeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, cancel := range c.active {
			cancel(ErrDraining)
		}
	})
	defer t.Stop()
	c.running.Wait()
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
