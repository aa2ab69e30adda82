package lockmodel_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/internal/lockmodel"
)

// limit is more states than any case here has.
const limit = 2_000_000

// shape is so many goroutines in each process.
func shape(n ...uint8) (g [3]uint8) {
	copy(g[:], n)
	return g
}

// The rules hold in every state of these cases: nobody enters beside a holder or
// with a fence that is not the largest yet.
func TestRulesHold(t *testing.T) {
	skipUnderRace(t)
	for name, c := range map[string]lockmodel.Case{
		"late copies":     {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), LateCopies: 2, Ticks: 3},
		"lost answers":    {TTL: 3, Claim: 2, Block: 2, Goroutines: shape(1, 1), LateCopies: 1, Resends: 1, Ticks: 4},
		"hand-over":       {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(2, 1), LateCopies: 1, Cancels: 1, Ticks: 2},
		"extend":          {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), Rounds: 2, Extends: 1, Ticks: 2},
		"subscriptions":   {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), Drops: 1, Ticks: 3},
		"death":           {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), Deaths: 1, LateCopies: 1, Ticks: 3},
		"three processes": {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1, 1), Ticks: 2},
		"a try":           {TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1, 1), OnlyTries: [3]bool{2: true}, Ticks: 2},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			r := lockmodel.Check(c, limit)
			t.Logf("%d states in %v", r.States, time.Since(began).Round(time.Millisecond))
			if r.Violation != "" {
				t.Errorf("%s:\n%s", r.Violation, strings.Join(r.Trace, "\n"))
			} else if !r.Complete {
				t.Errorf("more than %d states", limit)
			}
		})
	}
}

// Nobody waits for ever, nor longer than a claim lease and two grains of the timer
// for each process that died in line, where steps take no time.
func TestWaitingEnds(t *testing.T) {
	skipUnderRace(t)
	for name, c := range map[string]lockmodel.Case{
		"no fault":       {Goroutines: shape(1, 1, 1), MaxIdle: 1},
		"a death":        {Goroutines: shape(1, 1, 1), Deaths: 1, MaxIdle: 4},
		"a cancel":       {Goroutines: shape(1, 1, 1), Cancels: 1, LateCopies: 1, MaxIdle: 4},
		"a pause":        {Goroutines: shape(1, 1, 1), Pauses: 1, MaxIdle: 4},
		"a subscription": {Goroutines: shape(1, 1, 1), Drops: 1, MaxIdle: 4},
	} {
		t.Run(name, func(t *testing.T) {
			c.TTL, c.Claim, c.Block, c.Prompt = 8, 2, 2, true
			began := time.Now()
			r := lockmodel.Check(c, limit)
			t.Logf("%d states in %v; at most %d ticks idle", r.States, time.Since(began).Round(time.Millisecond), r.MaxIdle)
			if r.Violation != "" {
				t.Errorf("%s:\n%s", r.Violation, strings.Join(r.Trace, "\n"))
			} else if !r.Complete {
				t.Errorf("more than %d states", limit)
			}
		})
	}
}

// Without any one of the rules something breaks.
func TestEachRuleIsNeeded(t *testing.T) {
	skipUnderRace(t)
	prompt := lockmodel.Case{TTL: 8, Claim: 2, Block: 2, Prompt: true, Goroutines: shape(1, 1, 1)}
	with := func(c lockmodel.Case, change func(*lockmodel.Case)) lockmodel.Case { change(&c); return c }
	for _, tt := range []struct {
		rule string
		want string
		c    lockmodel.Case
	}{
		{"a grant counts by the anchor", "fences", lockmodel.Case{
			TTL: 3, Claim: 1, Block: 2, Goroutines: shape(1, 1), Ticks: 6,
			Off: lockmodel.Rules{CountFromReceipt: true},
		}},
		{"the anchor is the sending", "exclusion", lockmodel.Case{
			TTL: 3, Claim: 1, Block: 2, Goroutines: shape(1, 1), Ticks: 6,
			Off: lockmodel.Rules{AnchorAtArrival: true},
		}},
		{"the fence is the confirm's", "fences", lockmodel.Case{
			TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), LateCopies: 1, Ticks: 6,
			Off: lockmodel.Rules{ConfirmByExtend: true},
		}},
		{"a grant for the held token is ignored", "exclusion", lockmodel.Case{
			TTL: 2, Claim: 1, Block: 2, Goroutines: shape(1, 1), LateCopies: 1, Resends: 1, Ticks: 6,
			Off: lockmodel.Rules{ReleaseHeldGrant: true},
		}},
		{"a hand-over keeps the deadline", "exclusion", lockmodel.Case{
			TTL: 2, Claim: 1, Block: 2, Goroutines: shape(2, 1), Ticks: 6,
			Off: lockmodel.Rules{NewLeaseAtHandOff: true},
		}},
		{"the timer is the claim lease at most", "waiting", with(prompt, func(c *lockmodel.Case) {
			c.Deaths, c.MaxIdle, c.Off.TimerFromPTTL = 1, 4, true
		})},
		{"an early grant is kept", "waiting", with(prompt, func(c *lockmodel.Case) {
			c.MaxIdle, c.Off.DropEarlyGrants = 2, true
		})},
		{"a grant for nobody is given back", "waiting", with(prompt, func(c *lockmodel.Case) {
			c.Cancels, c.LateCopies, c.MaxIdle, c.Off.IgnoreUnknown = 1, 1, 3, true
		})},
		{"the line has no doubles", "the line grows", with(prompt, func(c *lockmodel.Case) {
			c.Off.LineIsList = true
		})},
		{"waiters leave a lapsed holder behind", "waiting", with(prompt, func(c *lockmodel.Case) {
			c.Goroutines, c.MaxIdle, c.Off.StayBehindLapsed = shape(2, 1, 1), 12, true
		})},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			began := time.Now()
			r := lockmodel.Check(tt.c, limit)
			if !strings.HasPrefix(r.Violation, tt.want) || len(r.Trace) == 0 {
				t.Fatalf("without it %d states are fine (%q, complete: %v), want a violation of %q", r.States, r.Violation, r.Complete, tt.want)
			}
			t.Logf("without it, after %d states in %v: %s\n%s", r.States, time.Since(began).Round(time.Millisecond), r.Violation, strings.Join(r.Trace, "\n"))
		})
	}
}

// skipUnderRace skips where the race detector would only cost a minute: nothing
// here is concurrent.
func skipUnderRace(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("nothing here is concurrent")
	}
}
