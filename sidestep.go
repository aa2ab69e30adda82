package sidestep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/client"
	"github.com/sidestep-go/sidestep/internal/reports"
	"github.com/sidestep-go/sidestep/lock"
)

// Config of an [Acquirer]. The zero value is good.
type Config struct {
	// Hooks are told what happens. Defaults to none.
	Hooks Hooks
	// Logger is told of faults that are dealt with. Contention is normal and not
	// logged. Defaults to none.
	Logger *slog.Logger
	// Queues is where to find queues that wait for a lock and that this program
	// did not make by [NewQueue], with this Acquirer or another of its Locker, to tell
	// them of its release. Defaults to the Redis of the locks. It is only about
	// promptness: those queues look by themselves when the holder's TTL has passed.
	Queues redis.UniversalClient
}

// Acquirer runs sections of code under locks. It is safe for concurrent use.
// Make one with [New].
type Acquirer struct {
	locker *lock.Locker
	cfg    Config
	known  *registry // shared by the Acquirers of the locker
	stats  counters
}

type counters struct{ ran, failed, conflicts, deferred, lost atomic.Int64 }

// New returns an Acquirer that takes its locks from locker, which the caller
// closes. It panics if locker is nil.
func New(locker *lock.Locker, cfg Config) *Acquirer {
	if locker == nil {
		panic("sidestep: New with a nil locker")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if client.IsNil(cfg.Queues) {
		cfg.Queues = locker.Client()
	}
	a := &Acquirer{locker: locker, cfg: cfg, known: &registry{queues: make(map[string][]*delayq.Queue)}}
	if kept, ok := reports.Shared(locker, a.known).(*registry); ok {
		a.known = kept
	}
	locker.OnFreed(func(key string, queues []string) {
		if len(queues) == 0 { // their names are lost
			queues = a.known.names()
		}
		a.tell(context.Background(), queues, key, nil)
	})
	return a
}

// Locker returns the locker that the Acquirer takes its locks from.
func (a *Acquirer) Locker() *lock.Locker { return a.locker }

// Stats counts what an [Acquirer] has done since it was made, in this process.
type Stats struct {
	Ran       int64 // sections and handlers that returned nil
	Failed    int64 // those that returned an error or panicked
	Conflicts int64 // calls and deliveries that met a held lock until their policy gave up waiting
	Deferred  int64 // requests stored because their lock was held
	Lost      int64 // sections whose own lock was lost while they ran
}

// Stats returns the counts so far.
func (a *Acquirer) Stats() Stats {
	return Stats{
		Ran: a.stats.ran.Load(), Failed: a.stats.failed.Load(), Conflicts: a.stats.conflicts.Load(),
		Deferred: a.stats.deferred.Load(), Lost: a.stats.lost.Load(),
	}
}

// Do runs fn while it holds the lock named key, here and now, or follows the
// policy if the lock is held. It returns fn's error; or, if fn did not run,
// [ErrLocked], [ErrUnavailable], [ErrClosed], [ErrInvalid], or ctx's cause. A [*LockedError] of fn's own, such as
// from a Do inside it, looks the same: compare its Key, which is [lock.Config.Prefix] and
// key, or note whether fn ran.
//
// The lock is extended for as long as fn runs. fn's context ends, with the cause
// [ErrNotHeld], before anyone else can hold the lock; then Do's error matches
// ErrNotHeld too. lk gives the fencing token, with which a store can refuse a
// holder that was paused and comes too late. A panic in fn releases the lock and
// goes on.
func (a *Acquirer) Do(ctx context.Context, key string, p InlinePolicy, fn func(ctx context.Context, lk *lock.Lock) error) error {
	if fn == nil {
		return fmt.Errorf("sidestep: do %q: %w: nil function", key, ErrInvalid)
	}
	if key == "" {
		return fmt.Errorf("sidestep: do: %w: empty key", ErrInvalid)
	}
	pl, err := planOf(p)
	if err != nil {
		return fmt.Errorf("sidestep: do %q: %w", key, err)
	}
	out, err := a.run(ctx, section{key: key, plan: pl, fn: fn})
	if out.refused != nil {
		a.conflict(ctx, key, out.refused, p, nil)
	}
	return err
}

// section is code to run under a lock.
type section struct {
	key     string // "" for no lock
	plan    plan
	fn      func(ctx context.Context, lk *lock.Lock) error
	request *Request      // nil: none
	queue   *delayq.Queue // the queue that will promote by itself, nil for none
	passes  bool          // the queue brings the next request: the lock may be passed on to it
}

// relay says whether a worker's section passes its lock on.
func (s *section) relay() lock.Option {
	if s.passes {
		return lock.Relay(s.queue.List().Key())
	}
	return lock.LastOfRelay(s.queue.List().Key())
}

// outcome is what became of a section.
type outcome struct {
	entered bool
	refused *LockedError // the lock was held until the plan gave up
	fence   int64
	waited  time.Duration
}

// run runs a section under its lock, and tells the queues that wait for the lock
// of its release.
func (a *Acquirer) run(ctx context.Context, s section) (out outcome, err error) {
	called := time.Now()
	var started time.Time
	var held *lock.Lock
	var own error // fn's
	enter := func(ctx context.Context, lk *lock.Lock) error {
		started = time.Now()
		if held = lk; lk != nil {
			reports.Take(lk) // hint tells
		}
		out.entered, out.fence, out.waited = true, lk.Fence(), started.Sub(called)
		own = s.fn(ctx, lk)
		return own
	}
	returned := false
	defer func() {
		if !out.entered {
			return
		}
		took := time.Since(started)
		a.hint(ctx, s.key, s.queue, held)
		seen := err
		if !returned {
			seen = errPanicked
		}
		a.count(seen, errors.Is(seen, ErrNotHeld) && more(err, own)) // what fn itself returns is of other locks
		if h := a.cfg.Hooks.Ran; h != nil {
			h(ctx, RanEvent{Key: s.key, Fence: out.fence, Wait: out.waited, Took: took, Err: seen, Request: s.request})
		}
	}()
	switch {
	case s.key == "" && ctx.Err() != nil:
		err = context.Cause(ctx)
	case s.key == "":
		err = enter(ctx, nil)
	case s.queue == nil && s.plan.backoff == nil:
		err = a.locker.TryDo(ctx, s.key, enter)
	case s.queue == nil:
		err = a.locker.Do(ctx, s.key, s.plan.backoff, enter)
	case s.plan.backoff == nil:
		err = a.locker.TryDo(ctx, s.key, enter, s.relay())
	default:
		err = a.locker.Do(ctx, s.key, s.plan.backoff, enter, s.relay())
	}
	returned = true
	if err != nil && !out.entered {
		if held, ok := errors.AsType[*LockedError](err); ok {
			out.refused = held
			out.waited = time.Since(called)
		}
		if errors.Is(err, lock.ErrInvalid) {
			err = invalidError{err}
		}
	}
	return out, err
}

var errPanicked = errors.New("sidestep: the section panicked")

func (a *Acquirer) count(err error, lost bool) {
	if lost {
		a.stats.lost.Add(1)
	}
	if err != nil {
		a.stats.failed.Add(1)
	} else {
		a.stats.ran.Add(1)
	}
}

func (a *Acquirer) conflict(ctx context.Context, key string, e *LockedError, p Policy, r *Request) {
	a.stats.conflicts.Add(1)
	if h := a.cfg.Hooks.Conflict; h != nil {
		h(ctx, ConflictEvent{Key: key, Owner: e.Owner, RetryAfter: e.RetryAfter, Policy: p, Request: r})
	}
}

// hintTimeout bounds the telling of queues: their probes do the same later.
const hintTimeout = 2 * time.Second

// hint tells the queues that a release named, but for the one that will promote
// by itself, that the lock is free; all that are known, if their names were lost. What
// the section itself has released early was told of then.
func (a *Acquirer) hint(ctx context.Context, key string, own *delayq.Queue, released *lock.Lock) {
	if released == nil || !reports.Taken(released) {
		return
	}
	names := released.Reported()
	if released.ReportLost() {
		names = a.known.names()
	}
	a.tell(ctx, names, key, own)
}

// tell tells queues that a lock may be free, all at once: one that does not answer
// keeps nothing from the others, and all together take no longer than hintTimeout. own,
// which may be nil, is not told, but another queue of its name is.
func (a *Acquirer) tell(ctx context.Context, names []string, key string, own *delayq.Queue) {
	if len(names) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintTimeout)
	defer cancel()
	var telling sync.WaitGroup
	tell := func(name string, hint func() error) {
		telling.Go(func() {
			if err := hint(); err != nil {
				a.cfg.Logger.WarnContext(ctx, "a queue was not told of a release; it will look by itself", "queue", name, "key", key, "error", err)
			}
		})
	}
	for _, name := range names {
		queues := a.known.named(name)
		for _, q := range queues {
			if own != nil && sameQueue(q, own) {
				continue
			}
			tell(name, func() error { return q.Hint(ctx, key) })
		}
		if len(queues) == 0 && a.cfg.Queues != nil {
			tell(name, func() error { return delayq.HintKey(ctx, a.cfg.Queues, name, key) })
		}
	}
	telling.Wait()
}

// registry is the queues that are told of what a Locker's Acquirers release, whichever of
// them a queue was made with.
type registry struct {
	mu     sync.RWMutex               // guards the field below
	queues map[string][]*delayq.Queue // by key: one name may be used on several servers
}

// register makes a queue known as one to tell of releases, in place of an earlier
// one of the same name on the same client.
func (r *registry) register(q *delayq.Queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := q.List().Key()
	others := slices.DeleteFunc(slices.Clone(r.queues[key]), func(o *delayq.Queue) bool { return sameQueue(o, q) })
	r.queues[key] = append(others, q)
}

// names returns those of all queues.
func (r *registry) names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.queues))
}

// named returns the queues of a name.
func (r *registry) named(name string) []*delayq.Queue {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.queues[name]
}

// alone tells whether no other queue has the name of this one. The lock knows queues by
// their names only: where it finds none but this one's, another may wait.
func (r *registry) alone(q *delayq.Queue) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.queues[q.List().Key()]) < 2
}

// sameQueue tells whether two queues have one name on one client.
func sameQueue(a, b *delayq.Queue) bool {
	return a == b || a.List().Key() == b.List().Key() && same(a.List().Script().Client(), b.List().Script().Client())
}

// more tells whether Hold joined anything to what fn returned, its own: that can be compared.
func more(err, own any) bool { return reflect.ValueOf(err).Comparable() && err != own }

// same tells whether two clients are one.
func same(a, b redis.UniversalClient) bool { return reflect.ValueOf(a).Comparable() && a == b }
