package listq

import (
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
)

// What is claimed ahead is what handlers are going to finish in two round trips.
func TestPace(t *testing.T) {
	t.Parallel()
	const most = 2 * script.Bound
	ran := func(all ...time.Duration) func(*pace) {
		return func(p *pace) {
			for _, d := range all {
				p.ended(d)
			}
		}
	}
	claimed := func(took time.Duration) func(*pace) { return func(p *pace) { p.claimed(took) } }
	pause := func(p *pace) { p.paused = true }
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		does           []func(*pace)
		slots, waiting int
		want           int
	}{
		"nothing is known yet":                     {nil, 4, 0, 0},
		"twice a round trip over the mean":         {[]func(*pace){claimed(2 * ms), ran(ms, 3*ms)}, 4, 0, 8},
		"less what waits":                          {[]func(*pace){claimed(2 * ms), ran(ms, 3*ms)}, 4, 3, 5},
		"more waits than that":                     {[]func(*pace){claimed(2 * ms), ran(ms, 3*ms)}, 4, 9, 0},
		"the handlers before the last claim count": {[]func(*pace){ran(ms, 3*ms), claimed(2 * ms)}, 4, 0, 8},
		"until one has ended since":                {[]func(*pace){ran(ms, 3*ms), claimed(2 * ms), ran(ms)}, 4, 0, 16},
		"a claim in which none ended":              {[]func(*pace){ran(ms, 3*ms), claimed(2 * ms), claimed(3 * ms)}, 4, 0, 12},
		"as long as two round trips":               {[]func(*pace){claimed(2 * ms), ran(4 * ms)}, 4, 0, 4},
		"longer":                                   {[]func(*pace){claimed(2 * ms), ran(4*ms + 1)}, 4, 0, 0},
		"no round trip counts more than patience":  {[]func(*pace){claimed(time.Second), ran(ms)}, 4, 0, 40},
		"two claims at most":                       {[]func(*pace){claimed(2 * ms), ran(1)}, 4, 0, most},
		"handlers that take no time":               {[]func(*pace){claimed(2 * ms), ran(0)}, 4, 1, most - 1},
		"paused":                                   {[]func(*pace){claimed(2 * ms), ran(0), pause}, 4, 0, 0},
	} {
		p := pace{mean: time.Hour}
		for _, do := range tt.does {
			do(&p)
		}
		if got := p.want(tt.slots, tt.waiting); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// Up to a tenth is taken off, and nothing is added.
func TestJitter(t *testing.T) {
	t.Parallel()
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jitter(time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 900*time.Millisecond || most > time.Second || most-least < 50*time.Millisecond {
		t.Errorf("from %v to %v, want from 900ms to 1s", least, most)
	}
}
