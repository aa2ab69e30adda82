package retry

import (
	"fmt"
	"time"
)

// Limit returns a backoff that waits as b does and gives up after the given
// number of tries, the first one included: with 3 there are up to three tries
// and two delays, with 1 there is no retry at all. It panics if b is nil or
// tries is less than 1; there is no number for "unlimited", which is b itself.
func Limit(b Backoff, tries int) Backoff {
	if none(b) {
		panic("retry: Limit of a nil Backoff")
	}
	if tries < 1 {
		panic(fmt.Sprintf("retry: Limit to %d tries, which is less than 1", tries))
	}
	return limit{b, tries}
}

type limit struct {
	b     Backoff
	tries int
}

func (l limit) Next(attempt int, elapsed time.Duration) (time.Duration, bool) {
	if max(attempt, 1) >= l.tries {
		return 0, false
	}
	return l.b.Next(attempt, elapsed)
}

func (l limit) String() string {
	if l.tries == 1 {
		return fmt.Sprintf("%v, 1 try", l.b)
	}
	return fmt.Sprintf("%v, %d tries", l.b, l.tries)
}

// Within returns a backoff that waits as b does for at most d since the first
// try. A delay that would end after d is shortened to end at d, so that the last
// try begins just then; once d has passed it gives up. A lock that is freed late
// in the time allowed is thus still met, rather than
// missed because the next delay happened to be long.
//
// The time counts from the first try of each loop, not from the call of Within,
// and it bounds when the last try begins, not how long that takes: for that, use
// a context. In a queue it counts from when the request was accepted. Zero gives up after the first try. It panics if b is nil or d is
// negative.
func Within(b Backoff, d time.Duration) Backoff {
	if none(b) {
		panic("retry: Within of a nil Backoff")
	}
	if d < 0 {
		panic(fmt.Sprintf("retry: Within a negative duration %v", d))
	}
	return within{b, d}
}

type within struct {
	b Backoff
	d time.Duration
}

func (w within) Next(attempt int, elapsed time.Duration) (time.Duration, bool) {
	left := w.d - max(elapsed, 0)
	if left <= 0 {
		return 0, false
	}
	delay, ok := w.b.Next(attempt, elapsed)
	return min(delay, left), ok
}

func (w within) String() string { return fmt.Sprintf("%v, within %v", w.b, w.d) }
