package sidestep

import (
	"context"
	"time"
)

// Hooks are told what happens, for metrics and traces. They are called from the
// goroutine in which it happens and must neither block nor panic: in a worker, a panic
// in Ran or Conflict counts as the handler's failure; one in a goroutine of the queue's
// own, as Dead may be called from, ends the process. Nil ones are not called. Events may
// grow fields.
type Hooks struct {
	// Conflict is called when a call met a held lock and its policy gave up
	// waiting: before it fails or defers.
	Conflict func(ctx context.Context, e ConflictEvent)
	// Deferred is called when a request was stored because its lock was held.
	Deferred func(ctx context.Context, e DeferredEvent)
	// Ran is called when a section or a handler has returned and its lock is
	// released or passed on to the line's next request (a relay: [lock.Relay]).
	Ran func(ctx context.Context, e RanEvent)
	// Dead is called by the process whose command made a request dead; by none for one
	// that a release finds over its MaxWait in a queue which its process did not make
	// ([Config.Queues]).
	Dead func(ctx context.Context, e DeadEvent)
}

// ConflictEvent tells of a held lock.
type ConflictEvent struct {
	Key        string        // the lock, as the call named it
	Owner      string        // who holds it
	RetryAfter time.Duration // what was left of its TTL
	Policy     Policy        // what the call does now
	Request    *Request      // nil for [Acquirer.Do]
}

// DeferredEvent tells of a request that was stored because its lock was held.
type DeferredEvent struct {
	Request *Request
	Receipt Receipt // by a worker: only ID, Queue, Task and Key are set
}

// RanEvent tells of a section or a handler that ran.
type RanEvent struct {
	Key     string        // the lock, "" for none
	Fence   int64         // of the lock, 0 for none
	Wait    time.Duration // from the call to the start
	Took    time.Duration // from the start to the release, or to passing the lock on
	Err     error         // what it came to; a recovered panic is an error here
	Request *Request      // nil for [Acquirer.Do]
}

// DeadEvent tells of a request that will not run unless it is revived.
type DeadEvent struct {
	Queue, ID string
	// Reason is "attempts: " and the last error, "deferrals", "max wait", "crash loop"
	// ([listq.Config.MaxDeliveries]), "unknown task " and its name in quotes, or
	// "undecodable payload: " and why; "undecodable: " if all of it cannot be read.
	Reason string
}
