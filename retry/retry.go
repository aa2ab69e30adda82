package retry

import "time"

// Backoff decides, after a try that did not succeed, how long to wait before
// the next one.
//
// Next is given attempt, the number of tries made so far (1 after the first),
// and elapsed, the time since the first one began. It returns the delay before
// the next try, zero for at once, never negative; or false if there shall be no
// next try, and the delay then means nothing. The result depends on the
// arguments and on chance alone, so a Backoff has no state, needs no reset and
// is safe for concurrent use; implementations must keep it so.
//
// The backoffs of this package treat an attempt below 1 as 1 and a negative
// elapsed as zero.
type Backoff interface {
	Next(attempt int, elapsed time.Duration) (delay time.Duration, ok bool)
}

// BackoffFunc makes an ordinary function a [Backoff]. The function must be a
// pure one, as described there.
type BackoffFunc func(attempt int, elapsed time.Duration) (delay time.Duration, ok bool)

// Next calls f.
func (f BackoffFunc) Next(attempt int, elapsed time.Duration) (time.Duration, bool) {
	return f(attempt, elapsed)
}

// none tells whether b is nil, or a function that is.
func none(b Backoff) bool {
	f, ok := b.(BackoffFunc)
	return b == nil || ok && f == nil
}

// String returns "func": what a function does cannot be printed.
func (f BackoffFunc) String() string { return "func" }

// Default returns the backoff for those who do not want to choose:
//
//	FullJitter(10*time.Millisecond, time.Second)
//
// The first ten tries spread over 1.6 seconds on average, later ones come twice
// a second. It never gives up by itself: end it with a context, or
// with [Limit] or [Within].
func Default() Backoff { return FullJitter(10*time.Millisecond, time.Second) }
