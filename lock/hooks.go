package lock

import (
	"context"
	"time"
)

// Hooks are functions that a [Locker] calls as things happen, for metrics and
// traces. Nil ones are not called. They run on the goroutine that made the
// thing happen, which may be the caller's or one of the Locker's, and they must
// neither block nor panic, nor call methods of the lock that they are told of; several may
// run at once.
type Hooks struct {
	// Acquired is called before an acquiring call returns with the lock.
	Acquired func(context.Context, AcquiredEvent)

	// Refused is called before an acquiring call returns without the lock
	// because another holds it, waits that were cut short included. It is not
	// called when Redis was unavailable.
	Refused func(context.Context, RefusedEvent)

	// Extended is called after the lease of a lock was extended, by Extend or
	// by the watchdog of Hold.
	Extended func(context.Context, ExtendedEvent)

	// Released is called once as the holder releases a lock, by handing it on
	// within the process or with a command.
	Released func(context.Context, ReleasedEvent)

	// Lost is called once for a lock that was lost while it was watched (in
	// Hold, Do, TryDo) or waited for in this process, or whose Extend or
	// Release found it gone; or that was left to run out, which is noticed later:
	// after up to a minute, a fiftieth of its lease, and Config.LapseDelay.
	Lost func(context.Context, LostEvent)
}

// AcquiredEvent tells of a lock that was acquired.
type AcquiredEvent struct {
	Key    string
	Fence  int64
	Waited time.Duration // from the call to the lock
}

// RefusedEvent tells of a lock that was not acquired.
type RefusedEvent struct {
	Key    string
	Owner  string // of the holder, as last seen
	Waited time.Duration
}

// ExtendedEvent tells of a lease that was extended.
type ExtendedEvent struct {
	Key   string
	Slack time.Duration // what was left of the old lease: near 0, the lock was nearly lost
}

// ReleasedEvent tells of a lock that was released.
type ReleasedEvent struct {
	Key   string
	Fence int64
	Held  time.Duration
}

// LostEvent tells of a lock that was lost.
type LostEvent struct {
	Key   string
	Fence int64
	Held  time.Duration // until it was noticed
	Err   error         // matches ErrNotHeld
}
