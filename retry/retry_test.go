package retry_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/retry"
)

const (
	ms      = time.Millisecond
	longest = time.Duration(math.MaxInt64)
)

// delays plays a loop whose tries take no time and returns its delays, at most n.
func delays(b retry.Backoff, n int) []time.Duration {
	var got []time.Duration
	var elapsed time.Duration
	for attempt := 1; len(got) < n; attempt++ {
		delay, ok := b.Next(attempt, elapsed)
		if !ok {
			break
		}
		got = append(got, delay)
		elapsed += delay
	}
	return got
}

func TestDelays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		b    retry.Backoff
		want []time.Duration // six, or fewer if it gives up
	}{
		{retry.Constant(0), []time.Duration{0, 0, 0, 0, 0, 0}},
		{retry.Constant(ms), []time.Duration{ms, ms, ms, ms, ms, ms}},
		{retry.Constant(longest), []time.Duration{longest, longest, longest, longest, longest, longest}},
		{retry.Exponential(ms, 10*ms), []time.Duration{ms, 2 * ms, 4 * ms, 8 * ms, 10 * ms, 10 * ms}},
		{retry.Exponential(ms, ms), []time.Duration{ms, ms, ms, ms, ms, ms}},
		{retry.Exponential(ms, 4*ms), []time.Duration{ms, 2 * ms, 4 * ms, 4 * ms, 4 * ms, 4 * ms}},
		{retry.Exponential(longest/2, longest), []time.Duration{longest / 2, longest - 1, longest, longest, longest, longest}},
		{retry.Exponential(longest/2+1, longest), []time.Duration{longest/2 + 1, longest, longest, longest, longest, longest}},
		{retry.DecorrelatedJitter(ms, ms), []time.Duration{ms, ms, ms, ms, ms, ms}},
		{retry.Jitter(retry.Constant(ms), 0), []time.Duration{ms, ms, ms, ms, ms, ms}},
		{retry.Jitter(retry.Constant(0), 1), []time.Duration{0, 0, 0, 0, 0, 0}},
		{retry.Limit(retry.Constant(ms), 1), nil},
		{retry.Limit(retry.Constant(ms), 4), []time.Duration{ms, ms, ms}},
		{retry.Limit(retry.Limit(retry.Constant(ms), 2), 4), []time.Duration{ms}},
		{retry.Jitter(retry.Limit(retry.Constant(ms), 3), 0), []time.Duration{ms, ms}},
		{retry.Within(retry.Constant(ms), 0), nil},
		{retry.Within(retry.Constant(4*ms), 10*ms), []time.Duration{4 * ms, 4 * ms, 2 * ms}},
		{retry.Within(retry.Constant(5*ms), 10*ms), []time.Duration{5 * ms, 5 * ms}},
		{retry.Within(retry.Constant(longest), ms), []time.Duration{ms}},
		{retry.Within(retry.Constant(ms), longest), []time.Duration{ms, ms, ms, ms, ms, ms}},
		{retry.Within(retry.Limit(retry.Constant(ms), 3), longest), []time.Duration{ms, ms}},
		{retry.Limit(retry.Within(retry.Exponential(ms, 8*ms), 6*ms), 9), []time.Duration{ms, 2 * ms, 3 * ms}},
	} {
		if got := delays(tt.b, 6); !slices.Equal(got, tt.want) {
			t.Errorf("delays of %v = %v, want %v", tt.b, got, tt.want)
		}
	}
}

// TestBounds draws each random delay many times and looks at the range met and
// the average.
func TestBounds(t *testing.T) {
	t.Parallel()
	const draws = 20_000
	for _, tt := range []struct {
		b         retry.Backoff
		attempt   int
		low, high time.Duration
		mean      time.Duration
	}{
		{retry.FullJitter(10*ms, time.Second), 1, 0, 10 * ms, 5 * ms},
		{retry.FullJitter(10*ms, time.Second), 4, 0, 80 * ms, 40 * ms},
		{retry.FullJitter(10*ms, time.Second), 8, 0, time.Second, 500 * ms},
		{retry.FullJitter(10*ms, time.Second), math.MaxInt, 0, time.Second, 500 * ms},
		{retry.FullJitter(1, longest), math.MaxInt, 0, longest, longest / 2},
		{retry.DecorrelatedJitter(10*ms, time.Second), 1, 10 * ms, 30 * ms, 20 * ms},
		{retry.DecorrelatedJitter(10*ms, time.Second), 2, 10 * ms, 90 * ms, 35 * ms},
		{retry.DecorrelatedJitter(10*ms, time.Second), 3, 10 * ms, 270 * ms, 57500 * time.Microsecond},
		{retry.DecorrelatedJitter(longest/2, longest), 9, longest / 2, longest, 0},
		{retry.Jitter(retry.Constant(100*ms), 0.2), 1, 80 * ms, 100 * ms, 90 * ms},
		{retry.Jitter(retry.Exponential(10*ms, time.Second), 0.5), 2, 10 * ms, 20 * ms, 15 * ms},
		{retry.Jitter(retry.Constant(longest), 1), 1, 0, longest, longest / 2},
		{retry.Within(retry.FullJitter(10*ms, time.Second), 20*ms), 8, 0, 20 * ms, 0},
		{retry.Default(), 1, 0, 10 * ms, 5 * ms},
	} {
		low, high, sum := longest, time.Duration(0), 0.0
		for range draws {
			delay, ok := tt.b.Next(tt.attempt, 0)
			if !ok {
				t.Fatalf("%v: Next(%d, 0) gave up", tt.b, tt.attempt)
			}
			low, high, sum = min(low, delay), max(high, delay), sum+float64(delay)
		}
		if low < tt.low || high > tt.high {
			t.Errorf("%v: Next(%d, 0) from %v to %v, want from %v to %v", tt.b, tt.attempt, low, high, tt.low, tt.high)
		}
		mean := time.Duration(sum / draws)
		if tt.mean == 0 {
			continue // not known
		}
		// One percent is more than a standard error for each of these, so five
		// percent happen by chance less than once in a million runs.
		if off := math.Abs(float64(mean-tt.mean)) / float64(tt.mean); off > 0.05 {
			t.Errorf("%v: Next(%d, 0) is %v on average, want %v", tt.b, tt.attempt, mean, tt.mean)
		}
	}
}

// TestDecorrelatedLikeChain compares the 6th delay with that of the chain as it
// was published, which remembers the previous one.
func TestDecorrelatedLikeChain(t *testing.T) {
	t.Parallel()
	const draws = 50_000
	base, most := 10*ms, 300*ms
	b := retry.DecorrelatedJitter(base, most)
	uniform := retry.FullJitter(longest, longest) // any source of numbers
	var got, want []time.Duration
	for range draws {
		delay, _ := b.Next(6, 0)
		got = append(got, delay)
		prev := base
		for range 6 {
			r, _ := uniform.Next(1, 0)
			prev = min(most, base+time.Duration(float64(r)/float64(longest)*float64(3*prev-base)))
		}
		want = append(want, prev)
	}
	slices.Sort(got)
	slices.Sort(want)
	for _, q := range []float64{0.1, 0.25, 0.5, 0.75, 0.85} {
		g, w := got[int(q*draws)], want[int(q*draws)]
		if off := math.Abs(float64(g-w)) / float64(w); off > 0.1 {
			t.Errorf("quantile %v of the 6th delay = %v, want about %v", q, g, w)
		}
	}
}

// TestSharedValue: two loops that use one value each have the whole budget, in
// tries and in time, however much the other has used up.
func TestSharedValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.Within(retry.Limit(retry.Constant(time.Second), 5), 10*time.Second)
		loop := func() (tries int, took time.Duration) {
			start := time.Now()
			for attempt := 1; ; attempt++ {
				delay, ok := b.Next(attempt, time.Since(start))
				if !ok {
					return attempt, time.Since(start)
				}
				time.Sleep(delay)
			}
		}
		time.Sleep(time.Minute) // the value grows old before it is used
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 3 * time.Second)
				for range 2 {
					if tries, took := loop(); tries != 5 || took != 4*time.Second {
						t.Errorf("loop = %d tries in %v, want 5 in 4s", tries, took)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	b := retry.Limit(retry.Within(retry.Jitter(retry.DecorrelatedJitter(ms, time.Second), 0.5), time.Minute), 1000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for attempt := 1; attempt < 200; attempt++ {
				if delay, ok := b.Next(attempt, 0); !ok || delay < 0 || delay > time.Second {
					t.Errorf("Next(%d, 0) = %v, %v, want at most 1s, true", attempt, delay, ok)
				}
			}
		})
	}
	wg.Wait()
}

func TestWithinElapsed(t *testing.T) {
	t.Parallel()
	b := retry.Within(retry.Constant(4*ms), 10*ms)
	for _, tt := range []struct {
		elapsed, delay time.Duration
		ok             bool
	}{
		{-1, 4 * ms, true},
		{math.MinInt64, 4 * ms, true},
		{0, 4 * ms, true},
		{6 * ms, 4 * ms, true},
		{7 * ms, 3 * ms, true},
		{10*ms - 1, 1, true},
		{10 * ms, 0, false},
		{longest, 0, false},
	} {
		if delay, ok := b.Next(1, tt.elapsed); delay != tt.delay || ok != tt.ok {
			t.Errorf("%v: Next(1, %v) = %v, %v, want %v, %v", b, tt.elapsed, delay, ok, tt.delay, tt.ok)
		}
	}
}

func TestBackoffFunc(t *testing.T) {
	t.Parallel()
	fibonacci := retry.BackoffFunc(func(attempt int, _ time.Duration) (time.Duration, bool) {
		a, b := time.Duration(0), ms
		for range attempt {
			a, b = b, a+b
		}
		return a, true
	})
	want := []time.Duration{ms, ms, 2 * ms, 3 * ms, 5 * ms}
	if got := delays(retry.Limit(fibonacci, 6), 9); !slices.Equal(got, want) {
		t.Errorf("delays = %v, want %v", got, want)
	}
}

func TestStringAndCompare(t *testing.T) {
	t.Parallel()
	tests := []struct {
		make func() retry.Backoff
		want string
	}{
		{func() retry.Backoff { return retry.Constant(ms) }, "constant(1ms)"},
		{func() retry.Backoff { return retry.Exponential(10*ms, time.Second) }, "exponential(10ms..1s)"},
		{func() retry.Backoff { return retry.FullJitter(10*ms, time.Second) }, "full jitter(10ms..1s)"},
		{retry.Default, "full jitter(10ms..1s)"},
		{func() retry.Backoff { return retry.DecorrelatedJitter(10*ms, time.Second) }, "decorrelated jitter(10ms..1s)"},
		{func() retry.Backoff { return retry.Jitter(retry.Constant(ms), 0.25) }, "constant(1ms), jitter 0.25"},
		{func() retry.Backoff { return retry.Limit(retry.Constant(ms), 1) }, "constant(1ms), 1 try"},
		{func() retry.Backoff { return retry.Limit(retry.Constant(ms), 3) }, "constant(1ms), 3 tries"},
		{
			func() retry.Backoff { return retry.Within(retry.Limit(retry.Constant(ms), 3), time.Minute) },
			"constant(1ms), 3 tries, within 1m0s",
		},
	}
	for _, tt := range tests {
		if got := fmt.Sprint(tt.make()); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
		if tt.make() != tt.make() {
			t.Errorf("two values of %v differ", tt.make())
		}
	}
	if f := retry.BackoffFunc(nil); f.String() != "func" {
		t.Errorf("BackoffFunc.String() = %q, want %q", f, "func")
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	c := retry.Constant(ms)
	for _, tt := range []struct {
		want string
		fn   func()
	}{
		{"retry: Constant by a negative duration -1ns", func() { retry.Constant(-1) }},
		{"retry: Exponential with base 0s, which is not positive", func() { retry.Exponential(0, ms) }},
		{"retry: Exponential with max 1ms, which is less than base 2ms", func() { retry.Exponential(2*ms, ms) }},
		{"retry: FullJitter with base -1ms, which is not positive", func() { retry.FullJitter(-ms, ms) }},
		{"retry: DecorrelatedJitter with max 0s, which is less than base 1ms", func() { retry.DecorrelatedJitter(ms, 0) }},
		{"retry: Jitter of a nil Backoff", func() { retry.Jitter(nil, 0.5) }},
		{"retry: Jitter of a nil Backoff", func() { retry.Jitter(retry.BackoffFunc(nil), 0.5) }},
		{"retry: Jitter by the fraction 1.5, which is not from 0 to 1", func() { retry.Jitter(c, 1.5) }},
		{"retry: Jitter by the fraction NaN, which is not from 0 to 1", func() { retry.Jitter(c, math.NaN()) }},
		{"retry: Limit of a nil Backoff", func() { retry.Limit(nil, 1) }},
		{"retry: Limit of a nil Backoff", func() { retry.Limit(retry.BackoffFunc(nil), 1) }},
		{"retry: Limit to 0 tries, which is less than 1", func() { retry.Limit(c, 0) }},
		{"retry: Within of a nil Backoff", func() { retry.Within(nil, ms) }},
		{"retry: Within of a nil Backoff", func() { retry.Within(retry.BackoffFunc(nil), ms) }},
		{"retry: Within a negative duration -1ms", func() { retry.Within(c, -ms) }},
	} {
		if got := panics(tt.fn); got != tt.want {
			t.Errorf("panic = %v, want %q", got, tt.want)
		}
	}
}

func panics(fn func()) (r any) {
	defer func() { r = recover() }()
	fn()
	return nil
}

// FuzzNext: whatever a loop reports, delays lie between zero and the most that
// the backoff allows, and limits hold.
func FuzzNext(f *testing.F) {
	f.Add(1, int64(0), int64(10*ms), int64(time.Second), 0.5)
	f.Add(math.MaxInt, int64(math.MaxInt64), int64(1), int64(math.MaxInt64), 1.0)
	f.Add(math.MinInt, int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), 0.0)
	f.Add(3, int64(5*ms), int64(math.MaxInt64/3), int64(math.MaxInt64), 0.999)
	f.Fuzz(func(t *testing.T, attempt int, elapsed, lowest, most int64, fraction float64) {
		if lowest <= 0 || most < lowest || !(fraction >= 0 && fraction <= 1) {
			t.Skip("refused by the constructors")
		}
		base, max, passed := time.Duration(lowest), time.Duration(most), time.Duration(elapsed)
		for _, b := range []retry.Backoff{
			retry.Constant(max),
			retry.Exponential(base, max),
			retry.FullJitter(base, max),
			retry.DecorrelatedJitter(base, max),
		} {
			for _, b := range []retry.Backoff{b, retry.Jitter(b, fraction), retry.Limit(b, math.MaxInt), retry.Within(b, max)} {
				delay, ok := b.Next(attempt, passed)
				if ok && (delay < 0 || delay > max) {
					t.Errorf("%v: Next(%d, %v) = %v, want from 0 to %v", b, attempt, passed, delay, max)
				}
				if strings.Contains(fmt.Sprint(b), "within") && ok && passed > 0 && passed+delay > max {
					t.Errorf("%v: Next(%d, %v) = %v, which ends too late", b, attempt, passed, delay)
				}
			}
		}
	})
}

func TestAttemptBelowOneIsTheFirst(t *testing.T) {
	for _, n := range []int{0, -1, math.MinInt} {
		if _, ok := retry.Limit(retry.Constant(ms), 1).Next(n, 0); ok {
			t.Errorf("Limit to 1 try goes on after attempt %d", n)
		}
		if d, ok := retry.Limit(retry.Constant(ms), 2).Next(n, 0); !ok || d != ms {
			t.Errorf("Limit to 2 tries: Next(%d) = %v, %v, want %v", n, d, ok, ms)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, bo := range []retry.Backoff{
		retry.Exponential(ms, time.Hour),
		retry.FullJitter(ms, time.Hour),
		retry.DecorrelatedJitter(ms, time.Hour),
	} {
		for _, attempt := range []int{1, 10, 1 << 30} {
			b.Run(fmt.Sprintf("%v/attempt=%d", bo, attempt), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bo.Next(attempt, 0)
				}
			})
		}
	}
}
