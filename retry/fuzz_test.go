package retry_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/retry"
)

// FuzzConstructors: a constructor panics, with the package's name, exactly for
// what its comment excludes; all else makes a backoff that prints itself.
func FuzzConstructors(f *testing.F) {
	f.Add(int64(1), int64(2), 0.5, 3)
	f.Add(int64(0), int64(-1), -0.1, 0)
	f.Add(int64(math.MaxInt64), int64(math.MinInt64), math.Inf(1), math.MinInt)
	f.Add(int64(2), int64(1), 1.0, 1)
	f.Add(int64(1), int64(math.MaxInt64), math.NaN(), math.MaxInt)
	f.Fuzz(func(t *testing.T, base, most int64, fraction float64, tries int) {
		b, m := time.Duration(base), time.Duration(most)
		inner := retry.Constant(time.Second)
		for _, c := range []struct {
			name string
			make func() retry.Backoff
			ok   bool
		}{
			{"Constant", func() retry.Backoff { return retry.Constant(b) }, base >= 0},
			{"Exponential", func() retry.Backoff { return retry.Exponential(b, m) }, base > 0 && m >= b},
			{"FullJitter", func() retry.Backoff { return retry.FullJitter(b, m) }, base > 0 && m >= b},
			{"DecorrelatedJitter", func() retry.Backoff { return retry.DecorrelatedJitter(b, m) }, base > 0 && m >= b},
			{"Jitter", func() retry.Backoff { return retry.Jitter(inner, fraction) }, fraction >= 0 && fraction <= 1},
			{"Limit", func() retry.Backoff { return retry.Limit(inner, tries) }, tries >= 1},
			{"Within", func() retry.Backoff { return retry.Within(inner, b) }, base >= 0},
		} {
			var made retry.Backoff
			r := panics(func() { made = c.make() })
			if (r == nil) != c.ok {
				t.Errorf("%s(%v, %v, %v, %d): panic %v, want one %t", c.name, b, m, fraction, tries, r, !c.ok)
			}
			if r != nil && !strings.HasPrefix(fmt.Sprint(r), "retry: "+c.name) {
				t.Errorf("%s panics with %v", c.name, r)
			}
			if r == nil && fmt.Sprint(made) == "" {
				t.Errorf("%s prints as nothing", c.name)
			}
		}
	})
}
