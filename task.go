package sidestep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// Codec turns payloads into bytes and back. It must be safe for concurrent use.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the default [Codec]: encoding/json.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// Request is what a handler can know of the request it runs: [RequestFrom].
type Request struct {
	// ID names the request. It stays the same however often it is deferred or
	// runs again, so it is what to recognise a repetition by.
	ID string
	// Queue and Task are the names of both; Key is the lock, "" for none.
	Queue, Task, Key string
	// Deliveries counts the claims by workers, this one included; 0 in a direct call.
	Deliveries int
	// Attempts counts the failures so far.
	Attempts int
	// Deferrals counts how often the request met a held lock.
	Deferrals int
	// Accepted is when it was stored, or a moment before, by the server's clock; zero in a direct call.
	Accepted time.Time
	// Headers are what [WithHeaders] and [QueueConfig.Headers] gave. Must not be changed.
	Headers map[string]string
}

type requestKey struct{}

// RequestFrom returns the request that a handler with this context, which must not be
// nil, runs, or nil outside of one.
func RequestFrom(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// Outcome is what a [Task.Do] came to. Deferred is an outcome and no error: the
// request was accepted and will run, unless the receipt says that it is a duplicate.
type Outcome struct {
	// Deferred is the receipt if the request was stored, or nil if it ran.
	Deferred *Receipt
	// Fence is the fencing token under which it ran; 0 if it did not or needs no lock.
	Fence int64
	// Waited is how long it took from the call to the start, or to the deferral.
	Waited time.Duration
}

// Receipt is the promise that a stored request will run.
type Receipt struct {
	// ID names the request, for [Queue.Cancel] and its like.
	ID string
	// Queue and Task are the names of both; Key is the lock, "" for none. From
	// [Queue.Reschedule] and [Queue.Promote], Task and Key are empty.
	Queue, Task, Key string
	// Due is when the request runs at the latest, if its lock is then free and a
	// worker too, by the server's clock. Zero for the normal path: at once. Once an
	// earlier request of the same line was due and its lock was still held, the lock is
	// looked at again when its TTL has passed, or after a minute: of a release that nobody
	// tells of, that may be later.
	Due time.Time
	// Duplicate tells that a request of this ID was accepted before and left as
	// it is ([WithID]). If that was cancelled, is dead or has finished a short while
	// ago, nothing will run. Task, Key and Due are this call's, not that request's.
	Duplicate bool
}

// Task is one kind of work: one handler for the first call, for the queue, and
// for what comes back from deferral. It is safe for concurrent use. Make one with
// [NewTask].
type Task[T any] struct {
	name    string
	queue   *Queue
	key     func(T) string
	handler func(context.Context, *lock.Lock, T) error
	cfg     taskConfig
}

var defaultBackoff = retry.FullJitter(time.Second, 10*time.Minute)

type taskConfig struct {
	policy       Policy
	backoff      retry.Backoff
	maxAttempts  int
	maxDeferrals int
	maxWait      time.Duration
	timeout      time.Duration
	strict       bool
}

// TaskOption is an option of [NewTask].
type TaskOption func(*taskConfig)

// WhenLocked is the policy of workers that meet a held lock. Defaults to
// Defer(5 s). A retry blocks the worker for as long. A policy without a deferral
// makes the conflict a failed attempt. It panics if p is nil or invalid.
func WhenLocked(p Policy) TaskOption {
	if _, err := planOf(p); err != nil {
		panic("sidestep: WhenLocked: " + err.Error())
	}
	return func(c *taskConfig) { c.policy = p }
}

// Backoff says how long a failed request waits before it runs again, given the
// number of its attempts and the time since it was accepted, by the server's clock; when
// it gives up, the request is dead. The delay of [Task.EnqueueIn] and all that the
// request waits for are part of that time: [retry.Within] less than that tries once.
// Defaults to 1 s doubling up to 10 min, with full jitter. It panics if b is nil.
func Backoff(b retry.Backoff) TaskOption {
	if noBackoff(b) {
		panic("sidestep: Backoff with nil")
	}
	return func(c *taskConfig) { c.backoff = b }
}

// MaxAttempts is how often a request may fail before it is dead. Defaults to 25, which
// with the default [Backoff] takes about 78 minutes on average; 0: no limit, unlike in
// [listq.ConsumeConfig]. It panics if n is negative.
func MaxAttempts(n int) TaskOption {
	notNegative("MaxAttempts", n)
	return func(c *taskConfig) { c.maxAttempts = n }
}

// MaxDeferrals is how often a request may meet a held lock before a worker makes
// it dead; the direct call that deferred it counts, too. Defaults to 0: no limit.
// It panics if n is negative.
func MaxDeferrals(n int) TaskOption {
	notNegative("MaxDeferrals", n)
	return func(c *taskConfig) { c.maxDeferrals = n }
}

// MaxWait is the age, counted from when it was accepted, at which a request is dead
// instead of standing in line for its lock. A scheduled delay and backoffs count, too:
// give it more than the delay of [Task.EnqueueIn]. Only the oldest in line is looked at:
// one behind it does not run once it is over its MaxWait, but it is dead only when it has
// become the oldest. What stands in no line is not looked at. Defaults to 0: none. It
// panics if d is negative.
func MaxWait(d time.Duration) TaskOption {
	notNegative("MaxWait", d)
	return func(c *taskConfig) { c.maxWait = d }
}

// Timeout ends the context of a worker's handler after d, with the cause
// [context.DeadlineExceeded]. Defaults to 0: none. Direct calls have their
// caller's context. It panics if d is negative.
func Timeout(d time.Duration) TaskOption {
	notNegative("Timeout", d)
	return func(c *taskConfig) { c.timeout = d }
}

// StrictOrder keeps a failed request at the head of its lock's line while it
// waits for its next attempt, or for the locks' Redis to answer: none of that lock's
// other requests in this queue runs meanwhile. By default it steps out of line, so that one bad request does
// not stop its lock for its whole backoff.
func StrictOrder() TaskOption { return func(c *taskConfig) { c.strict = true } }

func notNegative[T ~int | ~int64](name string, v T) {
	if v < 0 {
		panic(fmt.Sprintf("sidestep: %s is negative (%v)", name, v))
	}
}

// NewTask makes a task of a queue. name identifies it among the queue's tasks, in
// every process; key returns the lock that a payload needs, "" for none; handler
// does the work, with the lock held (lk is nil if it needs none).
//
// The handler's contract: nil means done. In a worker, an error, a panic or the end of its
// goroutine (runtime.Goexit) means run again after the backoff; from [Task.Do] an error is returned, and nothing is tried
// again. Its context ends when the lock or the request is lost. It must expect to run
// more than once: compare lk.Fence or the request's ID where that matters.
//
// A worker's handler has the payload as it is decoded: with [JSON], for example, without
// its unexported fields, and with invalid UTF-8 replaced. The key is that of the payload
// which the call was given, so it must not depend on what encoding loses.
//
// It panics if queue, key or handler is nil, name is empty, or the queue has a
// task of that name.
func NewTask[T any](queue *Queue, name string, key func(T) string, handler func(ctx context.Context, lk *lock.Lock, v T) error, opts ...TaskOption) *Task[T] {
	switch {
	case queue == nil:
		panic("sidestep: NewTask with a nil queue")
	case name == "":
		panic("sidestep: NewTask with an empty name")
	case key == nil:
		panic("sidestep: NewTask with a nil key function")
	case handler == nil:
		panic("sidestep: NewTask with a nil handler")
	}
	t := &Task[T]{
		name: name, queue: queue, key: key, handler: handler,
		cfg: taskConfig{
			policy: Defer(5 * time.Second), backoff: defaultBackoff, maxAttempts: 25,
		},
	}
	for _, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("sidestep: NewTask: task %q has a nil option", name))
		}
		o(&t.cfg)
	}
	queue.add(name, t)
	return t
}

// Name returns the task's name.
func (t *Task[T]) Name() string { return t.name }

// CallOption is an option of [Task.Do] and [Task.Enqueue].
type CallOption func(*callConfig)

type callConfig struct {
	id      string
	named   bool // id is the caller's
	headers map[string]string
}

// WithID names the request, so that it is stored once however often it is sent: until
// it is finished, and for at least [listq.Config.Resend] after that. With
// [QueueConfig.Partitions] that holds among the requests of one partition. The ID has 1
// to 255 bytes without control characters; an empty one is an error that matches
// [ErrInvalid]. Without this option it is a [listq.NewID].
func WithID(id string) CallOption { return func(c *callConfig) { c.id, c.named = id, true } }

// WithHeaders adds headers to the request.
func WithHeaders(h map[string]string) CallOption {
	return func(c *callConfig) {
		if c.headers == nil {
			c.headers = make(map[string]string, len(h))
		}
		maps.Copy(c.headers, h)
	}
}

// Do runs the handler on v here and now, under its lock, or follows the policy
// if the lock is held: it fails with [ErrLocked], waits, or stores the request
// and returns its receipt in [Outcome.Deferred]. It returns the handler's error,
// or what kept it from running; see [Acquirer.Do]. [Outcome.Fence] tells whether a
// handler that needs a lock ran.
//
// Deferring takes two more round trips. After an error of the network there the
// request may have been stored. An ID keeps it from being stored twice, but a repeated
// Do may run it here, and the stored one runs later all the same: to repeat the call
// safely, use [Task.Enqueue] with the ID.
func (t *Task[T]) Do(ctx context.Context, v T, p Policy, opts ...CallOption) (Outcome, error) {
	pl, err := planOf(p)
	if err != nil {
		return Outcome{}, t.errorf("do", err)
	}
	req, named, err := t.request(ctx, v, opts)
	if err != nil {
		return Outcome{}, t.errorf("do", err)
	}
	info := &Request{ID: req.ID, Queue: t.queue.name, Task: t.name, Key: req.Lock, Headers: req.Headers}
	a := t.queue.acq
	out, err := a.run(ctx, section{
		key: req.Lock, plan: pl, request: info,
		fn: func(ctx context.Context, lk *lock.Lock) error {
			return t.handler(context.WithValue(ctx, requestKey{}, info), lk, v)
		},
	})
	o := Outcome{Fence: out.fence, Waited: out.waited}
	if out.refused == nil {
		return o, err
	}
	a.conflict(ctx, req.Lock, out.refused, p, info)
	if !pl.parks && !pl.delays {
		return o, err
	}
	if cause := context.Cause(ctx); cause != nil {
		if !errors.Is(err, cause) { // it ended after the refusal
			err = t.errorf("defer", fmt.Errorf("%w (%w)", cause, err))
		}
		return o, err
	}
	r, err := t.queue.postpone(ctx, req, pl)
	if err != nil {
		return o, t.errorf("defer", stored(ctx, err))
	}
	r.Duplicate = r.Duplicate && named
	o.Deferred = &r
	if r.Duplicate {
		return o, nil
	}
	a.stats.deferred.Add(1)
	if h := a.cfg.Hooks.Deferred; h != nil {
		h(ctx, DeferredEvent{Request: info, Receipt: r})
	}
	return o, nil
}

// Enqueue stores the request on the normal path: workers run it as soon as one
// is free and it is its turn for its lock. It takes one round trip; without a lock two, if the
// queue is idle: then its handler may run before Enqueue returns. After an error that
// matches [ErrAmbiguous] the request may have been stored: to repeat the call safely,
// give it the ID of the Receipt, which is set then, by [WithID].
func (t *Task[T]) Enqueue(ctx context.Context, v T, opts ...CallOption) (Receipt, error) {
	req, named, err := t.request(ctx, v, opts)
	if err != nil {
		return Receipt{}, t.errorf("enqueue", err)
	}
	list, added := t.queue.part(req).list, 1
	if named {
		added, err = list.Push(ctx, req)
	} else {
		err = list.PushNew(ctx, req)
	}
	if err != nil {
		return t.unstored(ctx, req, err)
	}
	r := t.receipt(req)
	r.Duplicate = added == 0
	return r, nil
}

// EnqueueIn stores the request so that it is due d from now. A negative d is
// [ErrInvalid]. Otherwise it is [Task.Enqueue].
func (t *Task[T]) EnqueueIn(ctx context.Context, d time.Duration, v T, opts ...CallOption) (Receipt, error) {
	return t.schedule(ctx, v, opts, func(p *partition, r *listq.Request) (delayed, error) { return p.delay.ScheduleIn(ctx, r, d) })
}

// EnqueueAt stores the request so that it is due at a time, by the server's
// clock; at once if that has passed. Otherwise it is [Task.Enqueue].
func (t *Task[T]) EnqueueAt(ctx context.Context, at time.Time, v T, opts ...CallOption) (Receipt, error) {
	return t.schedule(ctx, v, opts, func(p *partition, r *listq.Request) (delayed, error) { return p.delay.ScheduleAt(ctx, r, at) })
}

func (t *Task[T]) schedule(ctx context.Context, v T, opts []CallOption, fn func(*partition, *listq.Request) (delayed, error)) (Receipt, error) {
	req, named, err := t.request(ctx, v, opts)
	if err != nil {
		return Receipt{}, t.errorf("enqueue", err)
	}
	d, err := fn(t.queue.part(req), req)
	if err != nil {
		return t.unstored(ctx, req, err)
	}
	r := t.receipt(req)
	r.Due, r.Duplicate = d.Due, d.Duplicate && named
	return r, nil
}

// request makes and checks the request for v. named tells that its ID is the caller's:
// one that was made here is new, whatever a command that was sent again answers.
func (t *Task[T]) request(ctx context.Context, v T, opts []CallOption) (_ *listq.Request, named bool, err error) {
	var c callConfig
	if f := t.queue.cfg.Headers; f != nil {
		c.headers = maps.Clone(f(ctx))
	}
	for _, o := range opts {
		if o == nil {
			return nil, false, fmt.Errorf("%w: nil option", ErrInvalid)
		}
		o(&c)
	}
	payload, err := t.queue.cfg.Codec.Marshal(v)
	if err != nil {
		return nil, false, fmt.Errorf("%w: encode the payload: %w", ErrInvalid, err)
	}
	if !c.named {
		if c.id, err = listq.NewID(); err != nil {
			return nil, false, err
		}
	}
	req := &listq.Request{ID: c.id, Task: t.name, Lock: t.key(v), Payload: payload, Headers: c.headers, MaxWait: t.cfg.maxWait}
	if req.Lock != "" {
		if err := t.queue.acq.locker.CheckName(req.Lock); err != nil {
			return nil, false, invalidError{err}
		}
	}
	return req, c.named, t.queue.part(req).list.Check(req)
}

func (t *Task[T]) receipt(r *listq.Request) Receipt {
	return Receipt{ID: r.ID, Queue: t.queue.name, Task: t.name, Key: r.Lock}
}

// unstored is what a request comes to that was not stored, as far as is known.
func (t *Task[T]) unstored(ctx context.Context, r *listq.Request, err error) (Receipt, error) {
	err = t.errorf("enqueue", stored(ctx, err))
	if !errors.Is(err, ErrAmbiguous) {
		return Receipt{}, err
	}
	return Receipt{ID: r.ID}, err
}

func (t *Task[T]) errorf(verb string, err error) error {
	return fmt.Errorf("sidestep: %s %s/%s: %w", verb, t.queue.name, t.name, err)
}

// work runs a delivery of this task in a worker and settles it, unless nil or a
// plain error is to settle it.
func (t *Task[T]) work(ctx context.Context, p *partition, d *listq.Delivery) error {
	returned := false
	defer func() {
		v := recover()
		if returned {
			return
		}
		err := errExited
		if v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
		if ctx.Err() == nil {
			_ = t.failed(ctx, d, err) // the queue tries again what this could not
		}
		if v != nil {
			panic(v) // the queue keeps the stack and goes on
		}
	}()
	err := t.run(ctx, p, d)
	returned = true
	return err
}

var errExited = errors.New("handler ended its goroutine (runtime.Goexit)")

// run is work that a handler may leave by a panic or by the end of its goroutine.
func (t *Task[T]) run(ctx context.Context, p *partition, d *listq.Delivery) error {
	var v T
	if err := t.queue.cfg.Codec.Unmarshal(d.Payload, &v); err != nil {
		return d.Bury(ctx, "undecodable payload: "+err.Error())
	}
	info := &Request{
		ID: d.ID, Queue: t.queue.name, Task: t.name, Key: d.Lock, Deliveries: d.Deliveries,
		Attempts: d.Attempts, Deferrals: d.Deferrals, Accepted: d.Accepted, Headers: d.Headers,
	}
	own := ctx
	if f := t.queue.cfg.Context; f != nil {
		var cancel context.CancelFunc
		own, cancel = joined(ctx, f(ctx, d.Headers))
		defer cancel()
	}
	pl := t.cfg.policy.plan()
	a := t.queue.acq
	out, err := a.run(own, section{
		key: d.Lock, plan: pl, request: info, queue: p.delay,
		passes: d.Follows && !t.queue.minded.Load() && a.known.alone(p.delay),
		fn: func(ctx context.Context, lk *lock.Lock) error {
			ctx = context.WithValue(ctx, requestKey{}, info)
			if t.cfg.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, t.cfg.timeout)
				defer cancel()
			}
			return t.handler(ctx, lk, v)
		},
	})
	if err == nil || ctx.Err() != nil {
		return err // if the request is lost, or the drain over, the queue settles
	}
	switch {
	case out.refused != nil:
		a.conflict(own, d.Lock, out.refused, t.cfg.policy, info)
		if pl.parks || pl.delays {
			return t.queue.deferDelivery(own, ctx, p, d, t.cfg.maxDeferrals, pl, info)
		}
	case !out.entered && errors.Is(err, ErrInvalid):
		return d.Bury(ctx, err.Error())
	case !out.entered && own.Err() == nil:
		// Redis did not give the lock: that is no fault of the request.
		if errors.Is(err, ErrClosed) {
			a.cfg.Logger.WarnContext(ctx, "a worker's Locker is closed; requests that need a lock wait", "queue", t.queue.name, "id", d.ID)
		}
		if t.cfg.strict {
			return d.DelayStrict(ctx, unavailablePause, err.Error())
		}
		return d.Delay(ctx, unavailablePause, err.Error())
	}
	return t.failed(ctx, d, err)
}

// joined returns a context with the values of own, which may be nil, that ends when own
// or ctx does.
func joined(ctx, own context.Context) (context.Context, context.CancelFunc) {
	if own == nil {
		return ctx, func() {}
	}
	own, cancel := context.WithCancelCause(own)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return own, func() {
		stop()
		cancel(nil)
	}
}

// minds tells whether a conflict costs a request more than a delivery: an attempt, its
// place in line, or one of the deferrals that it has. Then no worker passes a lock on,
// since the queue may give the next request to another process, which meets the lock.
func (t *Task[T]) minds() bool { return !t.cfg.policy.plan().parks || t.cfg.maxDeferrals > 0 }

// failed settles a delivery whose handler failed.
func (t *Task[T]) failed(ctx context.Context, d *listq.Delivery, err error) error {
	delay, again := t.backoff(ctx, d)
	delay = max(delay, 0)
	switch {
	case !again:
		return d.Bury(ctx, "attempts: "+err.Error())
	case t.cfg.strict:
		return d.NackStrict(ctx, delay, t.cfg.maxAttempts, err.Error())
	}
	return d.Nack(ctx, delay, t.cfg.maxAttempts, err.Error())
}

// backoff asks the task's [Backoff]. In place of one that panics the default answers, so
// that the task's other settings hold.
func (t *Task[T]) backoff(ctx context.Context, d *listq.Delivery) (delay time.Duration, again bool) {
	defer func() {
		if v := recover(); v != nil {
			t.queue.acq.cfg.Logger.ErrorContext(ctx, "a task's backoff panicked; the default one is taken", "queue", t.queue.name, "task", t.name, "id", d.ID, "panic", v)
			delay, again = defaultBackoff.Next(d.Attempts+1, d.Age())
		}
	}()
	return t.cfg.backoff.Next(d.Attempts+1, d.Age())
}

// unavailablePause is how long a request waits whose lock's Redis gave no answer.
const unavailablePause = time.Second
