package sidestep

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
)

// LockedError says who holds a lock and when it makes sense to try again. It
// matches [ErrLocked].
type LockedError = lock.LockedError

// The errors of this package are those of the packages it is made of, under one
// roof: a value matches in both.
var (
	// ErrLocked is returned, as a [*LockedError], when the lock was held until
	// the policy gave up. If the caller's context ended the wait, the same error
	// matches that context's cause as well.
	ErrLocked = lock.ErrLocked
	// ErrNotHeld is returned when the lock was lost while the section ran. It is
	// the cause with which the section's context ended, before anyone else could
	// hold the lock.
	ErrNotHeld = lock.ErrNotHeld
	// ErrUnavailable is returned when Redis could not be reached or refused the
	// command.
	ErrUnavailable = lock.ErrUnavailable
	// ErrAmbiguous is returned when a command was sent and its answer never came, or
	// not before a context ended that a method of a task or a queue was given: it may
	// have been applied. So it may if an earlier attempt had no answer, or one that is not
	// known: go-redis repeats commands, and reports the last attempt.
	ErrAmbiguous = lock.ErrAmbiguous
	// ErrClosed is returned when the [lock.Locker] was closed.
	ErrClosed = lock.ErrClosed
	// ErrStale is the cause with which a handler's context ends when its request
	// passed to another worker or was cancelled.
	ErrStale = listq.ErrStale
	// ErrDraining is the cause with which a handler's context ends when the drain
	// timeout of its queue is over.
	ErrDraining = listq.ErrDraining
	// ErrRunning is returned when a request cannot be rescheduled because a worker
	// has it or it is dead.
	ErrRunning = delayq.ErrRunning
	// ErrUnknown is returned when a request is not in the queue.
	ErrUnknown = delayq.ErrUnknown
	// ErrNotReplicated is returned when a request was stored, and fewer replicas than
	// [listq.Config.Wait] asks for confirmed it in time. It matches ErrUnavailable and
	// ErrAmbiguous too: the request runs unless a failover loses it.
	ErrNotReplicated = listq.ErrNotReplicated
	// ErrInvalid is returned for arguments that cannot be used, before anything is
	// sent. The error's text names the argument.
	ErrInvalid = listq.ErrInvalid
)

// invalidError makes an error that matches [lock.ErrInvalid] match [ErrInvalid].
type invalidError struct{ error }

func (e invalidError) Is(target error) bool { return target == ErrInvalid }
func (e invalidError) Unwrap() error        { return e.error }

// storeError is an error of the queue's Redis. It matches [ErrUnavailable] and,
// if the command may have run, [ErrAmbiguous].
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

func (e storeError) Is(target error) bool {
	var reply redis.Error
	definite := !attempts.Repeated(e.error) && (errors.As(e.error, &reply) || attempts.Unsent(e.error))
	return target == ErrUnavailable || target == ErrAmbiguous && !definite
}

// ambiguousError is the error of a command that was sent when its context ended.
type ambiguousError struct{ error }

func (e ambiguousError) Is(target error) bool { return target == ErrAmbiguous }
func (e ambiguousError) Unwrap() error        { return e.error }

// stored gives an error of the packages that store requests the form that this
// package promises: it matches one of its errors, or the cause of ctx; or it says that what
// is stored cannot be decoded.
func stored(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrRunning):
		return err
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		if errors.Is(err, script.ErrUnanswered) {
			return ambiguousError{err}
		}
		return err
	}
	if _, ok := errors.AsType[script.UnreadableError](err); ok {
		return err // Redis has answered
	}
	return storeError{err}
}
