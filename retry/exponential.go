package retry

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Exponential returns a backoff that doubles the delay from try to try:
//
//	delay(n) = min(max, base · 2ⁿ⁻¹)
//
// With (10ms, 1s): 10ms, 20ms, 40ms, 80ms, 160ms, 320ms, 640ms, 1s, 1s, … It
// never gives up and never overflows: however large n is, the delay stays at
// max. Callers that began together stay together; see [FullJitter]. It panics
// if base is not positive or max is less than base.
func Exponential(base, max time.Duration) Backoff {
	checkRange("Exponential", base, max)
	return exponential{base, max}
}

type exponential struct{ base, max time.Duration }

func (e exponential) Next(attempt int, _ time.Duration) (time.Duration, bool) {
	return doubled(e.base, e.max, attempt), true
}

func (e exponential) String() string { return fmt.Sprintf("exponential(%v..%v)", e.base, e.max) }

// FullJitter returns a backoff that waits a random time below the one of
// [Exponential]:
//
//	delay(n) = a random duration from 0 to min(max, base · 2ⁿ⁻¹), both included
//
// With (10ms, 1s) the averages are 5ms, 10ms, 20ms, 40ms, 80ms, 160ms, 320ms,
// 500ms, 500ms, … A delay may be zero. It never gives up and never overflows:
// the upper bound stays at max. It panics if base is not positive or max is less
// than base.
//
// The formula is "Full Jitter" of Marc Brooker, "Exponential Backoff and
// Jitter", AWS Architecture Blog, 2015. In the simulation there, of many callers
// that compete for one thing, it needs the fewest tries, and slightly more time than
// [DecorrelatedJitter].
func FullJitter(base, max time.Duration) Backoff {
	checkRange("FullJitter", base, max)
	return fullJitter{base, max}
}

type fullJitter struct{ base, max time.Duration }

func (f fullJitter) Next(attempt int, _ time.Duration) (time.Duration, bool) {
	return between(0, doubled(f.base, f.max, attempt)), true
}

func (f fullJitter) String() string { return fmt.Sprintf("full jitter(%v..%v)", f.base, f.max) }

// DecorrelatedJitter returns a backoff whose delay is drawn between base and
// three times a delay drawn in the same way for the try before, never shorter
// than base:
//
//	delay(0) = base
//	delay(n) = min(max, a random duration from base to 3 · delay(n-1), both included)
//
// With (10ms, 1s) the first delay is at most 30ms and 20ms on average, the
// second at most 90ms and 35ms on average, the third at most 270ms and 57ms on
// average. It never comes back at once. It never gives up and never overflows:
// delays stay at max or below. It panics if base is not positive or max is less
// than base.
//
// The formula is "Decorrelated Jitter" of Marc Brooker, "Exponential Backoff
// and Jitter", AWS Architecture Blog, 2015, where it remembers the previous
// delay. A value without memory cannot; it draws the whole chain afresh for each
// call. The n-th delay has exactly the distribution of the chain's n-th delay;
// all that is lost is the dependence between successive delays of one loop, by
// which a long delay tended to follow a long one. The chain forgets where it
// began, so from the 512th try on, 512 steps are drawn: a call costs that many
// random numbers at most, a few microseconds.
func DecorrelatedJitter(base, max time.Duration) Backoff {
	checkRange("DecorrelatedJitter", base, max)
	return decorrelatedJitter{base, max}
}

// chainSteps bounds the chain that DecorrelatedJitter draws. The chain climbs
// slowly: its logarithm grows by ln 3 - 1 = 0.1 a step on average. By this many
// steps it has settled for any max up to a million times base.
const chainSteps = 512

type decorrelatedJitter struct{ base, max time.Duration }

func (d decorrelatedJitter) Next(attempt int, _ time.Duration) (time.Duration, bool) {
	delay := d.base
	for range min(max(attempt, 1), chainSteps) {
		delay = min(d.max, between(d.base, triple(delay)))
	}
	return delay, true
}

func (d decorrelatedJitter) String() string {
	return fmt.Sprintf("decorrelated jitter(%v..%v)", d.base, d.max)
}

// doubled returns min(max, base·2^(attempt-1)) without overflow.
func doubled(base, max time.Duration, attempt int) time.Duration {
	d := base
	for ; attempt > 1 && d < max; attempt-- {
		if d > max/2 {
			return max
		}
		d *= 2
	}
	return d
}

// triple returns 3·d, or the longest duration if that is less.
func triple(d time.Duration) time.Duration {
	const longest = time.Duration(1<<63 - 1)
	if d > longest/3 {
		return longest
	}
	return 3 * d
}

// between returns a random duration from low to high, both included.
func between(low, high time.Duration) time.Duration {
	return low + time.Duration(rand.Uint64N(uint64(high-low)+1))
}

func checkRange(name string, base, max time.Duration) {
	if base <= 0 {
		panic(fmt.Sprintf("retry: %s with base %v, which is not positive", name, base))
	}
	if max < base {
		panic(fmt.Sprintf("retry: %s with max %v, which is less than base %v", name, max, base))
	}
}
