package listq

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// What is claimed ahead is what handlers are going to finish in two round trips.
func TestPace(t *testing.T) {
	t.Parallel()
	const most = 6 * script.Bound
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
		"six claims at most":                       {[]func(*pace){claimed(2 * ms), ran(1)}, 4, 0, most},
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

// Tries again wait for up to 25 ms, twice that each time, and a second at most.
func TestBackoffOfTries(t *testing.T) {
	t.Parallel()
	for try, limit := range map[int]time.Duration{1: 25, 2: 50, 3: 100, 6: 800, 7: 1000, 11: 1000, 12: 1000, 80: 1000} {
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			d := backoff(try)
			least, most = min(least, d), max(most, d)
		}
		limit *= time.Millisecond
		if least < time.Millisecond || most > limit+time.Millisecond || most < limit/2 {
			t.Errorf("after %d tries: from %v to %v, want from 1ms to %v", try, least, most, limit+time.Millisecond)
		}
	}
}

// A note keeps up to 1,024 bytes, and is not cut within a letter.
func TestClip(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ note, want string }{
		{strings.Repeat("a", 1024), strings.Repeat("a", 1024)},
		{strings.Repeat("a", 1025), strings.Repeat("a", 1024)},
		{strings.Repeat("a", 1023) + "é", strings.Repeat("a", 1023)},
		{strings.Repeat("\xff", 1024), strings.Repeat("\xff", 1024)},
	} {
		if got := clip(tt.note); got != tt.want {
			t.Errorf("clip of %d bytes: %d, want %d", len(tt.note), len(got), len(tt.want))
		}
	}
}

// While what is claimed ahead is enough, there is no exchange without a reason.
func TestEnoughToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(redistest.Mini(t), "q", Config{})
		for name, tt := range map[string]struct {
			ahead, done    int
			lock           string
			due, exchanges bool
		}{
			"enough":                          {ahead: 150, done: script.Bound/2 - 1},
			"something is due":                {ahead: 150, due: true, exchanges: true},
			"nothing to do":                   {due: true, exchanges: true},
			"as much as would come":           {ahead: 128, exchanges: true},
			"half a batch to acknowledge":     {ahead: 150, done: script.Bound / 2, exchanges: true},
			"a lock's turn to be handed over": {ahead: 150, done: 1, lock: "x", exchanges: true},
		} {
			c := q.consumer(t.Context(), ConsumeConfig{Workers: 1}.withDefaults(q))
			c.place.take(1, false) // no slot is free
			f := c.feeder(t.Context())
			f.pace = pace{took: time.Millisecond} // 256, less what waits
			f.more.Store(true)
			for range tt.ahead {
				f.ahead.add([]*Delivery{leased(q, "", time.Hour)})
			}
			for range tt.done {
				f.done = append(f.done, leased(q, tt.lock, time.Hour))
			}
			before := q.lanes[0].claims
			f.turn(t.Context(), tt.due)
			if got := q.lanes[0].claims > before; got != tt.exchanges {
				t.Errorf("%s: exchange %t, want %t", name, got, tt.exchanges)
			}
			if want := tt.exchanges && tt.ahead > 0; f.impatient != want {
				t.Errorf("%s: impatience runs: %t, want %t", name, f.impatient, want)
			}
			c.end(nil)
		}
	})
}

// Of two answers it is not known which is the later one, so the earlier time counts;
// an answer alone is the last word.
func TestAlarmOfTwoLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := New(rdb, "q", Config{Poll: 10 * time.Second})
		c := q.consumer(t.Context(), ConsumeConfig{}.withDefaults(q))
		defer c.end(nil)
		f := c.feeder(t.Context())
		left := func(others int) time.Duration {
			f.under = others
			if _, err := f.exchange(t.Context(), lane0, 0, 0); err != nil {
				t.Fatal(err)
			}
			f.under = 0
			return time.Until(f.alarm)
		}
		f.alarm = time.Now().Add(time.Second)
		if d := left(1); d != time.Second {
			t.Errorf("with another under way it looks in %v, want 1s as before", d)
		}
		if d := left(0); d < 9*time.Second {
			t.Errorf("alone it looks in %v, want a poll", d)
		}
		f.alarm = time.Time{} // it has gone off
		if d := left(1); d < 9*time.Second {
			t.Errorf("after the alarm it looks in %v, want a poll", d)
		}
		f.alarm = time.Now().Add(time.Hour)
		if d := left(1); d > 10*time.Second {
			t.Errorf("a poll comes in %v", d)
		}
		f.timer.Stop()
	})
}
