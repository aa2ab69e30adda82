package retry

import (
	"fmt"
	"time"
)

// Jitter returns a backoff that shortens each delay of b by a random part of up
// to the given fraction:
//
//	delay(n) = a random duration from (1 - fraction) · b(n) to b(n)
//
// With Constant(100ms) and 0.2 every delay lies between 80ms and 100ms. It never
// lengthens one, so whatever bounds b keeps bounding the result, and it gives up
// when b does. It panics if b is nil or fraction is not from 0 to 1; zero changes
// nothing, and 1 around [Exponential] is [FullJitter].
//
// With 0.5 around [Exponential] it is "Equal Jitter" of Marc Brooker,
// "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
func Jitter(b Backoff, fraction float64) Backoff {
	if none(b) {
		panic("retry: Jitter of a nil Backoff")
	}
	if !(fraction >= 0 && fraction <= 1) { // so that NaN is refused too
		panic(fmt.Sprintf("retry: Jitter by the fraction %v, which is not from 0 to 1", fraction))
	}
	return jitter{b, fraction}
}

type jitter struct {
	b        Backoff
	fraction float64
}

func (j jitter) Next(attempt int, elapsed time.Duration) (time.Duration, bool) {
	delay, ok := j.b.Next(attempt, elapsed)
	if !ok || delay <= 0 {
		return delay, ok
	}
	part := time.Duration(float64(delay) * j.fraction)
	if part < 0 || part > delay { // a float64 rounds the longest durations up
		part = delay
	}
	return between(delay-part, delay), true
}

func (j jitter) String() string { return fmt.Sprintf("%v, jitter %v", j.b, j.fraction) }
