package fence_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// refusals are fences that every guard refuses before it looks at the register.
var refusals = []struct {
	name  string
	fence int64
	want  error
}{
	{"zero", 0, fence.ErrInvalid},
	{"negative", -1, fence.ErrInvalid},
	{"the smallest", math.MinInt64, fence.ErrInvalid},
	{"not exact in Lua", 1<<53 + 1, fence.ErrInvalid},
	{"the largest", math.MaxInt64, fence.ErrInvalid},
	{"a year ahead", time.Now().AddDate(1, 0, 0).UnixMicro(), fence.ErrAhead},
	{"more than a day ahead", time.Now().Add(fence.DefaultMaxAhead + time.Hour).UnixMicro(), fence.ErrAhead},
}

// isStale checks that err is the refusal of a fence by a register.
func isStale(t *testing.T, call string, err error, resource string, f, seen int64) {
	t.Helper()
	e, ok := errors.AsType[*fence.StaleError](err)
	if !ok || !errors.Is(err, fence.ErrStale) {
		t.Errorf("%s = %v, want a *StaleError", call, err)
		return
	}
	if want := (fence.StaleError{Resource: resource, Fence: f, Seen: seen}); *e != want {
		t.Errorf("%s: %+v, want %+v", call, *e, want)
	}
}

func TestValid(t *testing.T) {
	t.Parallel()
	for _, r := range refusals {
		if err := fence.Valid(r.fence, 0); !errors.Is(err, r.want) {
			t.Errorf("Valid(%s) = %v, want %v", r.name, err, r.want)
		}
	}
	now := time.Now()
	for _, c := range []struct {
		name     string
		fence    int64
		maxAhead time.Duration
		ok       bool
	}{
		{"the first", 1, 0, true},
		{"now", now.UnixMicro(), 0, true},
		{"within a day", now.Add(23 * time.Hour).UnixMicro(), 0, true},
		{"beyond a bound", now.Add(time.Hour).UnixMicro(), time.Minute, false},
		{"within a bound", now.Add(time.Hour).UnixMicro(), 2 * time.Hour, true},
		{"no bound", 1 << 53, -1, true},
	} {
		if err := fence.Valid(c.fence, c.maxAhead); (err == nil) != c.ok {
			t.Errorf("Valid(%s) = %v, want ok %v", c.name, err, c.ok)
		}
	}

	err := fence.Valid(now.Add(time.Hour).UnixMicro(), time.Minute)
	e, ok := errors.AsType[*fence.AheadError](err)
	if !ok || e.MaxAhead != time.Minute || e.Ahead < 59*time.Minute || e.Ahead > time.Hour {
		t.Errorf("an hour ahead of a bound of a minute: %+v", err)
	}
}
