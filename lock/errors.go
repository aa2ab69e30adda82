package lock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
)

var (
	// ErrLocked is returned by TryAcquire, Acquire, Do and TryDo, always in the
	// form of a *LockedError, when another holds the lock.
	ErrLocked = errors.New("lock: held by another")

	// ErrNotHeld is returned by Extend, Release, Hold, Do, TryDo, Adopt and Disown
	// when the lock was lost: its lease ran out, or another took it. It is also the
	// cause with which the context of a held section ends.
	ErrNotHeld = errors.New("lock: not held")

	// ErrClosed is returned by the acquiring methods of a Locker after Close,
	// and by those that were waiting when it was closed.
	ErrClosed = errors.New("lock: locker is closed")

	// ErrUnavailable is returned by every method that talks to Redis, always in
	// the form of an *UnavailableError, when Redis gave no usable answer.
	ErrUnavailable = errors.New("lock: redis is unavailable")

	// ErrAmbiguous is returned, in the form of an *UnavailableError with Sent
	// set, when the command may have run although no answer came, or none to an
	// earlier attempt: go-redis repeats commands, and reports the last one. The Locker
	// gives back in the background what such a call may have taken.
	ErrAmbiguous = errors.New("lock: outcome is unknown")

	// ErrInvalid is returned for an argument that no call can succeed with; the
	// error's text names the argument. Nothing was sent.
	ErrInvalid = errors.New("lock: invalid argument")
)

// errMaxHold is the cause when MaxHold ended a section.
var errMaxHold = fmt.Errorf("%w: held for longer than MaxHold", ErrNotHeld)

// errLate says that an answer came after the lease it speaks of had run out.
var errLate = errors.New("the answer came later than the lease lasts")

// LockedError says who holds a lock. It matches [ErrLocked].
type LockedError struct {
	Key   string // the lock's key: prefix and name
	Owner string // the holder's label; "" if a client of another library holds it

	// RetryAfter is a hint: how much of the holder's lease was left. A holder
	// that extends its lease keeps the lock for longer, one that releases it
	// for less. 0 means that the lease has no end or that it is not known.
	RetryAfter time.Duration
}

// Error implements error.
func (e *LockedError) Error() string {
	owner := e.Owner
	if owner == "" {
		owner = "an unknown owner"
	} else if quoted := strconv.Quote(owner); quoted[1:len(quoted)-1] != owner {
		owner = quoted // others chose it: it must not forge a line of a log
	}
	return fmt.Sprintf("lock: %q is held by %s", e.Key, owner)
}

// Is reports whether target is [ErrLocked].
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// UnavailableError says that Redis could not be asked, or did not answer in
// time, or answered with an error. It matches [ErrUnavailable] and, if the
// command may have run, [ErrAmbiguous]; it never matches [ErrLocked].
type UnavailableError struct {
	Op   string // "acquire", "adopt", "extend", "release", "look", "inspect" or "revoke"
	Key  string // the lock's key: prefix and name
	Sent bool   // the command may have run: it was sent, and no answer came, to this or an earlier attempt
	Err  error  // the cause, as go-redis reported it

	// Nodes says what kept the nodes of a quorum from taking part, one by one;
	// those that did are left out. Nil without a quorum.
	Nodes []NodeError
}

// NodeError is what one node of a quorum said, or that it said nothing in time.
type NodeError struct {
	Node int // index of its client in the call of NewQuorum
	Err  error
}

// Error implements error.
func (e *NodeError) Error() string { return fmt.Sprintf("node %d: %v", e.Node, e.Err) }

// Unwrap returns the cause.
func (e *NodeError) Unwrap() error { return e.Err }

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("lock: %s %q: %v", e.Op, e.Key, e.Err)
}

// Is reports whether target is [ErrUnavailable] or, if Sent, [ErrAmbiguous].
func (e *UnavailableError) Is(target error) bool {
	return target == ErrUnavailable || e.Sent && target == ErrAmbiguous
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// unavailable wraps an error of go-redis.
func unavailable(op, key string, err error) *UnavailableError {
	e := &UnavailableError{Op: op, Key: key, Sent: maybeRan(err), Err: err}
	if short, ok := errors.AsType[*shortError](err); ok {
		e.Nodes = short.nodes
	}
	return e
}

// maybeRan reports whether a command that failed with err may have run. An
// error reply, a failed dial and a full pool are definite: it did not, unless that was not
// its first attempt.
func maybeRan(err error) bool {
	if short, ok := errors.AsType[*shortError](err); ok {
		return short.kept || short.any(maybeRan)
	}
	if attempts.Repeated(err) {
		return true
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		return false
	}
	return !attempts.Unsent(err)
}

// mayHold reports whether a failed acquire is worth a release. It says yes more
// often than maybeRan: what go-redis says of connections is not taken for proof.
func mayHold(err error) bool {
	if short, ok := errors.AsType[*shortError](err); ok {
		return short.kept || short.any(mayHold)
	}
	var reply redis.Error
	return attempts.Repeated(err) || !errors.As(err, &reply) && !errors.Is(err, redis.ErrClosed)
}

// cutShort is the error of a call that ended because its context did. held is
// nil if nobody is known to hold the lock.
func cutShort(ctx context.Context, key string, held *LockedError) error {
	if held == nil {
		return fmt.Errorf("lock: acquire %q: %w", key, context.Cause(ctx))
	}
	return fmt.Errorf("lock: waiting for %q: %w (%w)", key, context.Cause(ctx), held)
}

// cutOff is the error of a single command whose context ended.
func cutOff(ctx context.Context, op string, k *keys) error {
	return fmt.Errorf("lock: %s %q: %w", op, k.lock, context.Cause(ctx))
}

func invalid(what string) error { return fmt.Errorf("%w: %s", ErrInvalid, what) }
