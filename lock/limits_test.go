package lock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A context that shares its timer still ends in time, and has its caller's values
// and not its caller's end.
func TestLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		caller, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		cancel()
		var s limits
		timers := make(map[context.Context]bool)
		for range 100 {
			now := time.Now()
			ctx := s.limit(caller, now)
			timers[ctx.(limited).Context] = true
			if ctx.Err() != nil || ctx.Value(key{}) != "value" {
				t.Fatalf("error %v, value %v", ctx.Err(), ctx.Value(key{}))
			}
			end, _ := ctx.Deadline()
			if left := end.Sub(now); left > connectTimeout || left < connectTimeout*9/10 {
				t.Fatalf("it ends in %v", left)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if len(timers) != 10 {
			t.Errorf("%d timers in a second, want 10", len(timers))
		}
		child, stop := context.WithTimeout(s.limit(caller, time.Now()), time.Hour)
		defer stop()
		start := time.Now()
		<-child.Done()
		if took := time.Since(start); took > connectTimeout {
			t.Errorf("what is derived from it ended after %v", took)
		}
	})
}
