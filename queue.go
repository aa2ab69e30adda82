package sidestep

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// QueueConfig of a [Queue]. The zero value is good. All processes that use a
// queue should use the same Codec, Partitions and Storage.
type QueueConfig struct {
	// Codec encodes payloads. Defaults to [JSON].
	Codec Codec
	// Context returns the context for a handler, given a request's headers: the
	// place to continue a trace. The handler's context ends when ctx does, too, even
	// if it is no child of that. Defaults to none; may return nil.
	Context func(ctx context.Context, headers map[string]string) context.Context
	// DrainTimeout is how long Run lets running handlers finish after its context
	// ended, before it ends theirs. Defaults to 10 s; negative: no time, they are ended
	// at once.
	DrainTimeout time.Duration
	// Headers returns headers for a request, given its caller's context: the place
	// to store a trace. Defaults to none.
	Headers func(ctx context.Context) map[string]string
	// Partitions spreads the queue over so many parts, by lock (or, for requests
	// without one, by ID), each on its own slot of a Cluster. Order and gate hold
	// per lock all the same. To change it, let the queue run empty first. An ID is
	// unique within a partition: sent with another lock it may be accepted again, and
	// Cancel, Get, Reschedule and Revive then act on one of the two. Each call of Run
	// polls each partition, and has a blocking connection for each.
	// Defaults to 1; at most 256.
	Partitions int
	// Storage configures the queue in Redis: leases, caps, the safety poll. Its
	// Logger and Hooks.Dead default to those of the Acquirer.
	Storage listq.Config
	// Workers is how many handlers run at once in one call of Run, which may be called
	// several times, also on one Queue. Defaults to 10.
	Workers int
}

// Queue is where requests wait for workers: the normal path, and the delay
// queue beside it. It is safe for concurrent use. Make one with [NewQueue].
type Queue struct {
	name  string
	acq   *Acquirer
	cfg   QueueConfig
	parts []*partition

	minded atomic.Bool // by some task: see worker

	mu    sync.RWMutex // guards the field below
	tasks map[string]worker
}

// partition is one part of a queue, in one slot.
type partition struct {
	list  *listq.Queue
	delay *delayq.Queue
}

// delayed is what storing a request with a due time tells.
type delayed = delayq.Receipt

// worker is a task, whatever its payload.
type worker interface {
	minds() bool // a conflict costs a request more than a delivery
	work(ctx context.Context, p *partition, d *listq.Delivery) error
}

// NewQueue returns the queue of that name on rdb, whose tasks take their locks
// from acq. rdb may be another Redis than that of the locks. It sends nothing. Make one
// Queue of a name in a process: a second one does not know the tasks of the first, and
// its workers bury the requests of those. It panics if acq or rdb is nil, or name or a
// value of cfg is out of range; see [listq.New].
func NewQueue(acq *Acquirer, rdb redis.UniversalClient, name string, cfg QueueConfig) *Queue {
	if acq == nil {
		panic("sidestep: NewQueue with a nil Acquirer")
	}
	if name == "" {
		panic("sidestep: NewQueue with an empty name")
	}
	if cfg.Codec == nil {
		cfg.Codec = JSON
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 1
	}
	if cfg.Partitions < 1 || cfg.Partitions > 256 {
		panic(fmt.Sprintf("sidestep: NewQueue with QueueConfig.Partitions %d, not 1 to 256", cfg.Partitions))
	}
	if cfg.Workers == 0 {
		cfg.Workers = 10
	}
	if cfg.Workers < 1 {
		panic(fmt.Sprintf("sidestep: NewQueue with QueueConfig.Workers %d, less than 1", cfg.Workers))
	}
	if cfg.Storage.Logger == nil {
		cfg.Storage.Logger = acq.cfg.Logger
	}
	if h := acq.cfg.Hooks.Dead; h != nil && cfg.Storage.Hooks.Dead == nil {
		cfg.Storage.Hooks.Dead = func(ctx context.Context, e listq.DeadEvent) {
			h(ctx, DeadEvent{Queue: name, ID: e.ID, Reason: e.Reason})
		}
	}
	q := &Queue{name: name, acq: acq, cfg: cfg, tasks: make(map[string]worker)}
	for i := range cfg.Partitions {
		part := name
		if cfg.Partitions > 1 {
			part += ":" + strconv.Itoa(i)
		}
		list := listq.New(rdb, part, cfg.Storage)
		p := &partition{list: list, delay: delayq.New(list)}
		acq.known.register(p.delay)
		q.parts = append(q.parts, p)
	}
	return q
}

// Name returns the queue's name.
func (q *Queue) Name() string { return q.name }

func (q *Queue) add(name string, w worker) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.tasks[name]; ok {
		panic(fmt.Sprintf("sidestep: NewTask: queue %q already has a task %q", q.name, name))
	}
	q.tasks[name] = w
	if w.minds() {
		q.minded.Store(true)
	}
}

// part returns the partition of a request: by its lock, so that the work on one
// lock stays in one place.
func (q *Queue) part(r *listq.Request) *partition {
	if len(q.parts) == 1 {
		return q.parts[0]
	}
	h := fnv.New32a()
	if r.Lock != "" {
		_, _ = h.Write([]byte(r.Lock)) // never fails
	} else {
		_, _ = h.Write([]byte(r.ID))
	}
	return q.parts[h.Sum32()%uint32(len(q.parts))]
}

// Run works on the queue until ctx ends: workers run what is ready, and the
// claimer brings back what was deferred, once it is due or its lock is released.
// Then it takes no more, lets running handlers finish for the drain timeout, ends
// their contexts, hands the rest back, and returns nil. It returns when all it
// started has ended, so handlers must heed their contexts. While Redis cannot be
// reached it goes on trying, with a client that was closed too, and what fails shows only
// in the Logger.
//
// A worker that meets a held lock does not block: it follows the task's policy,
// [WhenLocked]. A request whose task this Queue does not know is dead, with that
// reason: in a rolling deployment old workers do that to new tasks. [Queue.Revive] it
// afterwards.
func (q *Queue) Run(ctx context.Context) error {
	slots := listq.NewSlots(q.cfg.Workers)
	var running sync.WaitGroup
	errs := make([]error, len(q.parts))
	for i, p := range q.parts {
		running.Go(func() {
			errs[i] = p.list.Consume(ctx, listq.ConsumeConfig{
				DrainTimeout: q.cfg.DrainTimeout,
				LineEnds:     func(key string) { q.acq.locker.EndRelay(key, p.list.Key()) },
				Slots:        slots,
				Probe:        func(ctx context.Context, lock string) { q.probe(ctx, p, lock) },
			}, func(ctx context.Context, d *listq.Delivery) error {
				q.mu.RLock()
				w := q.tasks[d.Task]
				q.mu.RUnlock()
				if w == nil {
					return d.Bury(ctx, fmt.Sprintf("unknown task %q", d.Task))
				}
				return w.work(ctx, p, d)
			})
		})
	}
	running.Wait()
	q.endRelays(ctx)
	return errors.Join(errs...)
}

// endRelays releases the locks that were passed on to requests that this process does
// not run any more.
func (q *Queue) endRelays(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintTimeout)
	defer cancel()
	for _, p := range q.parts {
		q.acq.locker.EndRelays(ctx, p.list.Key())
	}
}

func (q *Queue) probe(ctx context.Context, p *partition, key string) {
	if err := p.delay.Probe(ctx, q.acq.locker, key); err != nil {
		q.acq.cfg.Logger.WarnContext(ctx, "a probe failed; it will be due again", "queue", q.name, "key", key, "error", err)
	}
}

// postpone stores a request that met a held lock in a direct call.
func (q *Queue) postpone(ctx context.Context, req *listq.Request, pl plan) (Receipt, error) {
	p := q.part(req)
	// What is stored is announced, also if nobody waits any more.
	d, err := script.Until(ctx, func(ctx context.Context) (d delayed, err error) {
		ctx = context.WithoutCancel(ctx)
		if pl.delays {
			d, err = p.delay.Delay(ctx, req, pl.delay)
		} else {
			d, err = p.delay.Park(ctx, req, pl.delay)
		}
		switch {
		case !pl.parks:
		case err == nil:
			q.announce(ctx, p, req.Lock)
		case errors.Is(stored(ctx, err), ErrAmbiguous): // it may be there; Redis has kept the caller for long enough
			go q.announce(ctx, p, req.Lock)
		}
		return d, err
	})
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{ID: req.ID, Queue: q.name, Task: req.Task, Key: req.Lock, Due: d.Due, Duplicate: d.Duplicate}, nil
}

// deferDelivery puts a claimed request that met a held lock back. The settlement
// lasts no longer than settle; ctx carries what the hook may want.
func (q *Queue) deferDelivery(ctx, settle context.Context, p *partition, d *listq.Delivery, most int, pl plan, info *Request) error {
	var err error
	if pl.delays {
		err = p.delay.DelayDelivery(settle, d, pl.delay, most)
	} else {
		err = p.delay.ParkDelivery(settle, d, pl.delay, most)
	}
	if pl.parks {
		q.announce(ctx, p, d.Lock)
	}
	if err != nil {
		return err
	}
	if most > 0 && d.Deferrals >= most {
		return nil // it is dead instead, as the hook for that was told
	}
	q.acq.stats.deferred.Add(1)
	if h := q.acq.cfg.Hooks.Deferred; h != nil {
		h(ctx, DeferredEvent{Request: info, Receipt: Receipt{ID: d.ID, Queue: q.name, Task: d.Task, Key: d.Lock}})
	}
	return nil
}

// announce closes the gap between meeting a held lock and parking.
func (q *Queue) announce(ctx context.Context, p *partition, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintTimeout)
	defer cancel()
	if err := p.delay.Register(ctx, q.acq.locker, key); err != nil {
		q.acq.cfg.Logger.WarnContext(ctx, "a parked request was not announced to its lock; its probe will look", "queue", q.name, "key", key, "error", err)
	}
}

// Cancel drops a request, wherever it is, and tells whether it was there. A
// handler that runs it is not awaited: its context ends, with the cause
// [ErrStale], when the lease is next renewed. It returns false, too, if the command was
// executed, its answer lost, and it was sent again.
func (q *Queue) Cancel(ctx context.Context, id string) (bool, error) {
	for _, p := range q.parts {
		if ok, err := p.delay.Cancel(ctx, id); ok || err != nil {
			return ok, stored(ctx, err)
		}
	}
	return false, nil
}

// Reschedule makes a waiting request due d from now, whatever it waited for. It
// returns [ErrUnknown] if there is none of that ID, and [ErrRunning] if a worker
// has it or it is dead. A negative d is [ErrInvalid].
func (q *Queue) Reschedule(ctx context.Context, id string, d time.Duration) (Receipt, error) {
	err := fmt.Errorf("%w: %q in %q", ErrUnknown, id, q.name)
	for _, p := range q.parts {
		var r delayed
		r, err = p.delay.Reschedule(ctx, id, d)
		if !errors.Is(err, ErrUnknown) {
			return Receipt{ID: r.ID, Queue: q.name, Due: r.Due}, stored(ctx, err)
		}
	}
	return Receipt{}, err
}

// Promote makes a waiting request due now. It still takes its lock like
// everyone, and if others stand in line before it, it keeps its place behind them, and
// the lock is looked at. Otherwise it is [Queue.Reschedule].
func (q *Queue) Promote(ctx context.Context, id string) (Receipt, error) {
	return q.Reschedule(ctx, id, 0)
}

// Revive makes a dead request start anew, with its counters at zero. It returns
// false if there is no dead request of that ID.
func (q *Queue) Revive(ctx context.Context, id string) (bool, error) {
	for _, p := range q.parts {
		if ok, err := p.list.Revive(ctx, id); ok || err != nil {
			return ok, stored(ctx, err)
		}
	}
	return false, nil
}

// QueueStats is how many requests of a queue are where, over all partitions.
type QueueStats = listq.Stats

// Info is what a queue knows of a request.
type Info = listq.Info

// Death is the death of a request.
type Death = listq.Death

// Stats counts the queue's requests by where they are, in one round trip per
// partition.
func (q *Queue) Stats(ctx context.Context) (QueueStats, error) {
	var all QueueStats
	for _, p := range q.parts {
		s, err := p.list.Stats(ctx)
		if err != nil {
			return QueueStats{}, stored(ctx, err)
		}
		all.Ready += s.Ready
		all.Delayed += s.Delayed
		all.Parked += s.Parked
		all.Leased += s.Leased
		all.Dead += s.Dead
		if all.Next.IsZero() || !s.Next.IsZero() && s.Next.Before(all.Next) {
			all.Next = s.Next
		}
	}
	return all, nil
}

// Get returns what the queue knows of a request, or [ErrUnknown]. Of one that cannot be
// decoded the error says why, and Info is as complete as can be.
func (q *Queue) Get(ctx context.Context, id string) (Info, error) {
	err := fmt.Errorf("%w: %q in %q", ErrUnknown, id, q.name)
	for _, p := range q.parts {
		var info Info
		info, err = p.list.Get(ctx, id)
		if !errors.Is(err, ErrUnknown) {
			return info, stored(ctx, err)
		}
	}
	return Info{}, err
}

// Dead returns the requests that died last, the latest first, at most n of each
// partition, in one round trip per partition; none if n is not positive. [Queue.Get]
// tells why.
func (q *Queue) Dead(ctx context.Context, n int) ([]Death, error) {
	var all []Death
	for _, p := range q.parts {
		dead, err := p.list.Dead(ctx, n)
		if err != nil {
			return nil, stored(ctx, err)
		}
		all = append(all, dead...)
	}
	slices.SortStableFunc(all, func(a, b Death) int { return b.Time.Compare(a.Time) })
	return all, nil
}

// Line returns the ids of the first n requests that stand in line for a lock, the
// next to run first; none if n is not positive. An empty key is [ErrInvalid].
func (q *Queue) Line(ctx context.Context, key string, n int) ([]string, error) {
	if err := q.acq.locker.CheckName(key); err != nil {
		return nil, fmt.Errorf("sidestep: line of %q: %w", q.name, invalidError{err})
	}
	ids, err := q.part(&listq.Request{Lock: key}).delay.Line(ctx, key, n)
	return ids, stored(ctx, err)
}
