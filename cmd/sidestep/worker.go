package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// drainTimeout is how long running sections may take to end with the run.
const drainTimeout = 5 * time.Second

// job is what a process of a run has to know.
type job struct {
	Server  address       `json:"server"`
	Prefix  string        `json:"prefix"` // of all keys of the run
	Name    string        `json:"name"`   // of the process, for those who meet its locks
	Policy  string        `json:"policy"`
	Direct  bool          `json:"direct"`
	Workers int           `json:"workers"` // and callers, if direct
	Work    time.Duration `json:"work"`
	Lease   time.Duration `json:"lease"`
}

// call is a request on its way to a caller or a worker.
type call struct {
	ID   string          `json:"id,omitempty"`
	Key  string          `json:"key"`
	Body json.RawMessage `json:"body"`
}

// worker does a job in one process: it runs what the queue holds, and makes
// direct calls.
type worker struct {
	job
	policy   sidestep.Policy
	queue    *sidestep.Queue
	task     *sidestep.Task[call]
	locker   *lock.Locker
	emit     func(event)
	sections atomic.Int64
}

// newWorker prepares a job. It sends nothing.
func newWorker(j job, rdb redis.UniversalClient, emit func(event)) (*worker, error) {
	spec, err := parsePolicy(j.Policy)
	if err != nil {
		return nil, err
	}
	w := &worker{job: j, policy: spec.policy(), emit: emit}
	log := slog.New(faultLog{emit: emit})
	w.locker = lock.New(rdb, lock.Config{Prefix: j.Prefix, Owner: j.Name, TTL: j.Lease, Logger: log})
	acq := sidestep.New(w.locker, sidestep.Config{
		Logger: log,
		Hooks: sidestep.Hooks{
			Deferred: w.deferred,
			Dead: func(_ context.Context, e sidestep.DeadEvent) {
				emit(event{Kind: kindDead, At: now(), ID: e.ID, Text: e.Reason})
			},
		},
	})
	w.queue = sidestep.NewQueue(acq, rdb, queueName, sidestep.QueueConfig{
		Codec:        plainJSON{},
		Workers:      j.Workers,
		DrainTimeout: drainTimeout,
		Storage:      listq.Config{Prefix: j.Prefix, Lease: j.Lease},
	})
	w.task = sidestep.NewTask(w.queue, "replay", func(c call) string { return c.Key }, w.section,
		sidestep.WhenLocked(w.policy),
		sidestep.Backoff(retry.FullJitter(10*time.Millisecond, time.Second)),
	)
	return w, nil
}

// queueName is the name of a run's queue, below the run's own prefix.
const queueName = "replay"

// close lets go of the locks' subscription.
func (w *worker) close() { _ = w.locker.Close() } // its error is always nil

// run works until ctx ends, and then lets what is running end. Calls are taken
// from calls, which nobody needs to close.
func (w *worker) run(ctx context.Context, calls <-chan call) error {
	var all sync.WaitGroup
	var err error
	all.Go(func() { err = w.queue.Run(ctx) })
	if w.Direct {
		for range w.Workers {
			all.Go(func() {
				for {
					select {
					case c := <-calls:
						w.call(ctx, c)
					case <-ctx.Done():
						return
					}
				}
			})
		}
	}
	w.emit(event{Kind: kindReady, At: now()})
	all.Wait()
	return err
}

// call makes a request here and now.
func (w *worker) call(ctx context.Context, c call) {
	id := c.ID
	c.ID = ""
	w.emit(event{Kind: kindCalled, At: now(), ID: id})
	out, err := w.task.Do(ctx, c, w.policy, sidestep.WithID(id))
	answer := event{Kind: kindRan, At: now(), ID: id}
	locked, isLocked := errors.AsType[*sidestep.LockedError](err)
	switch {
	case err == nil && out.Deferred != nil:
		answer.Kind = kindDeferred
	case err == nil:
	case ctx.Err() != nil:
		answer.Kind, answer.Text = kindStopped, err.Error()
	case isLocked:
		answer.Kind, answer.Owner, answer.RetryAfter = kindLocked, locked.Owner, locked.RetryAfter
	default:
		answer.Kind, answer.Text = kindFailed, err.Error()
	}
	w.emit(answer)
}

// section is the handler: it takes its time and keeps the record.
func (w *worker) section(ctx context.Context, lk *lock.Lock, _ call) (err error) {
	begin := now()
	r := sidestep.RequestFrom(ctx)
	number := w.sections.Add(1)
	w.emit(event{Kind: kindBegin, At: begin, ID: r.ID, Section: number, Fence: lk.Fence(), Deliveries: r.Deliveries})
	err = pause(ctx, w.Work)
	end := event{Kind: kindEnd, ID: r.ID, Section: number}
	if err != nil {
		end.Text = err.Error()
	}
	end.At = now()
	w.emit(end)
	return err
}

// deferred records what a worker puts back; callers have their answer.
func (w *worker) deferred(_ context.Context, e sidestep.DeferredEvent) {
	if e.Request.Deliveries > 0 {
		w.emit(event{Kind: kindPostponed, At: now(), ID: e.Request.ID, Deliveries: e.Request.Deliveries})
	}
}

// pause takes d, or less if ctx ends, whose cause it then returns.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// faultLog is a [slog.Handler] that reports what the library logs: faults that
// it deals with itself.
type faultLog struct{ emit func(event) }

func (faultLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (h faultLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			text += ": " + a.Value.String()
		}
		return true
	})
	h.emit(event{Kind: kindFault, At: now(), Text: text})
	return nil
}

func (h faultLog) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h faultLog) WithGroup(string) slog.Handler      { return h }

// memberName is how a process is called by those who meet its locks.
func memberName(number int) string { return fmt.Sprintf("process %d, pid %d", number, os.Getpid()) }
