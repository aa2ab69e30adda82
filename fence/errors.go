package fence

import (
	"errors"
	"fmt"
	"time"
)

// DefaultMaxAhead is how far ahead of the local clock a fence may be unless a
// guard is told otherwise. It is wide enough for a clock in the wrong time zone,
// and it is the longest that a false fence can keep a resource shut.
const DefaultMaxAhead = 24 * time.Hour

// maxFence is the largest fence: beyond it Lua's numbers are not exact. The
// clock gets there in 2255.
const maxFence = 1 << 53

var (
	// ErrStale is returned, always in the form of a *StaleError, when the
	// resource has seen a larger fence: the caller is not the last holder any
	// more. Nothing was read or written.
	ErrStale = errors.New("fence: a later holder was here before")

	// ErrAhead is returned, always in the form of an *AheadError, for a fence
	// that is too far ahead of the local clock. Nothing was sent.
	ErrAhead = errors.New("fence: too far ahead of the local clock")

	// ErrInvalid is returned for an argument that no call can succeed with, such
	// as fence 0; the error's text names the argument. Nothing was sent.
	ErrInvalid = errors.New("fence: invalid argument")
)

// StaleError says which fence a resource refused, and why. It matches
// [ErrStale].
type StaleError struct {
	Resource string // the resource's name or key; "" from Applied
	Fence    int64  // the fence that was refused; 0 from Applied
	Seen     int64  // the largest fence that the resource has seen; 0 if not known
}

// Error implements error.
func (e *StaleError) Error() string {
	if e.Fence == 0 {
		return "fence: no row was changed: a later holder was here before, or there is no such row"
	}
	return fmt.Sprintf("fence: %q refuses %d, it has seen %d", e.Resource, e.Fence, e.Seen)
}

// Is reports whether target is [ErrStale].
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// AheadError says how far a fence is ahead of the local clock: one of the two
// clocks is wrong, that of the lock's server when it minted the fence or the
// local one. It matches [ErrAhead].
type AheadError struct {
	Resource string        // the resource's name or key; "" from Valid
	Fence    int64         // the fence that was refused
	Ahead    time.Duration // how far it is ahead
	MaxAhead time.Duration // how far it may be
}

// Error implements error.
func (e *AheadError) Error() string {
	of := ""
	if e.Resource != "" {
		of = fmt.Sprintf(" of %q", e.Resource)
	}
	return fmt.Sprintf("fence: %d%s is %v ahead of the local clock, more than %v",
		e.Fence, of, e.Ahead.Round(time.Millisecond), e.MaxAhead)
}

// Is reports whether target is [ErrAhead].
func (e *AheadError) Is(target error) bool { return target == ErrAhead }

// Valid returns nil if a guard would look at the fence. Zero, negative and
// numbers above 2^53 give an error that matches [ErrInvalid]; a fence more than
// maxAhead ahead of the local clock gives an [*AheadError]. A maxAhead of 0
// means [DefaultMaxAhead], a negative one any distance.
//
// All guards call it. It is exported for those who check fences themselves, with
// a predicate or in another store.
func Valid(fence int64, maxAhead time.Duration) error { return valid("", fence, maxAhead) }

func valid(resource string, fence int64, maxAhead time.Duration) error {
	switch {
	case fence <= 0:
		return fmt.Errorf("%w: fence %d is not positive: nobody holds that", ErrInvalid, fence)
	case fence > maxFence:
		return fmt.Errorf("%w: fence %d is larger than 2^53", ErrInvalid, fence)
	case maxAhead < 0:
		return nil
	case maxAhead == 0:
		maxAhead = DefaultMaxAhead
	}
	if ahead := time.Until(time.UnixMicro(fence)); ahead > maxAhead {
		return &AheadError{Resource: resource, Fence: fence, Ahead: ahead, MaxAhead: maxAhead}
	}
	return nil
}

func invalid(what string) error { return fmt.Errorf("%w: %s", ErrInvalid, what) }
