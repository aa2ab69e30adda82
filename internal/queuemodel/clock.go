package queuemodel

import (
	"fmt"
	"hash/maphash"
)

// Clock is a case of the model of who wakes in time for what is due: the token,
// the timekeeper, and everybody's timer and poll. Time goes by in ticks, and what
// can be done in no time is done before the next.
type Clock struct {
	Feeders, Requests int   // at most 3 each
	Slack, Poll       uint8 // in ticks
	Ticks             uint8 // of the run; requests come in its first six

	Deaths, Tokens, Yields uint8 // how often a feeder dies, a token is lost, a feeder stops

	Off ClockRules
}

// ClockRules switches rules off. The zero value is docs/queue.md.
type ClockRules struct {
	SilentHead  bool // what becomes due first pushes no token
	KeepClock   bool // a claim does not take the clock for something that is due earlier
	SilentYield bool // who stops leaves his clock, and pushes no token
}

// ClockResult is what a check of the clock found.
type ClockResult struct {
	States int
	Late   uint8    // in ticks, at worst
	Trace  []string // the steps to it
}

type clockFeeder struct{ alive, token, timer uint8 }

// clockState is the keys wake, clock and delayed, and the feeders.
type clockState struct {
	now                    uint8
	due                    [3]uint8 // 0: not yet there; done: claimed
	wake                   uint8
	keeper, until          uint8 // keeper: 1 and up; 0: none
	f                      [3]clockFeeder
	deaths, tokens, yields uint8
	late                   uint8 // the worst so far
}

const done = 255

// CheckClock goes through all states of a case.
func CheckClock(c Clock) ClockResult {
	first := clockState{now: 1, deaths: c.Deaths, tokens: c.Tokens, yields: c.Yields}
	for i := range c.Feeders {
		first.f[i] = clockFeeder{alive: 1, timer: 1 + c.Poll}
	}
	seed := maphash.MakeSeed()
	seen := map[uint64]struct{}{maphash.Comparable(seed, first): {}}
	from := []origin{{}}
	level := []clockState{first}
	var r ClockResult
	worst := int32(0)
	for at := int32(0); len(level) > 0; {
		var next []clockState
		for _, s := range level {
			for k, st := range c.next(s) {
				h := maphash.Comparable(seed, st.clockState)
				if _, old := seen[h]; old {
					continue
				}
				seen[h] = struct{}{}
				from = append(from, origin{at, uint8(k)})
				next = append(next, st.clockState)
				if late := max(st.late, st.overdue()); late > r.Late {
					r.Late, worst = late, int32(len(from)-1)
				}
			}
			at++
		}
		level = next
	}
	r.States = len(seen)
	g := graph{from: from}
	s := first
	for _, k := range g.path(worst) {
		st := c.next(s)[k]
		if st.label != "" {
			r.Trace = append(r.Trace, st.label)
		}
		s = st.clockState
	}
	return r
}

type clockStep struct {
	clockState
	label string
}

// head is what is due first; done if nothing is.
func (s *clockState) head() uint8 {
	first := uint8(done)
	for _, d := range s.due {
		if d != 0 {
			first = min(first, d)
		}
	}
	return first
}

// overdue is for how long something has been due that nobody claimed.
func (s *clockState) overdue() uint8 { return minusTicks(s.now, s.head()) }

func minusTicks(a, b uint8) uint8 { return a - min(a, b) }

// claim is what a claim does with what is due and with the clock. The feeder's
// timer is then set.
func (c *Clock) claim(s *clockState, i int) {
	s.late = max(s.late, s.overdue())
	for k, d := range s.due {
		if d != 0 && d <= s.now {
			s.due[k] = done
		}
	}
	me := uint8(1 + i)
	f := &s.f[i]
	f.token, f.timer = 0, s.now+c.Poll
	head := s.head()
	if head == done {
		if s.keeper == me {
			s.keeper, s.until = 0, 0
		}
		return
	}
	if s.keeper == 0 || s.keeper == me || s.until <= s.now || head < s.until && !c.Off.KeepClock {
		s.keeper, s.until = me, head
		f.timer = min(f.timer, head)
	} else {
		f.timer = min(f.timer, head+c.Slack)
	}
}

func (c *Clock) next(s clockState) (steps []clockStep) {
	emit := func(t clockState, format string, args ...any) {
		label := ""
		if format != "" {
			label = fmt.Sprintf("%d: ", s.now) + fmt.Sprintf(format, args...)
		}
		steps = append(steps, clockStep{t, label})
	}
	for k := range c.Requests {
		if s.due[k] != 0 || s.now > 6 {
			continue
		}
		for _, in := range []uint8{1, 2, 4, 7} {
			t := s
			t.due[k] = s.now + in
			if t.due[k] < s.head() && !c.Off.SilentHead {
				t.wake = 1
			}
			emit(t, "schedule(%d) for %d", k+1, t.due[k])
		}
		break
	}
	alive, urgent := 0, false
	for _, f := range s.f {
		alive += int(f.alive)
	}
	for i, f := range s.f {
		if f.alive == 0 {
			continue
		}
		if s.wake == 1 && f.token == 0 {
			urgent = true
			t := s
			t.wake, t.f[i].token = 0, 1
			emit(t, "f%d takes the token", i+1)
		}
		if f.token == 1 || f.timer <= s.now {
			urgent = true
			t := s
			c.claim(&t, i)
			emit(t, "f%d: claim; its timer is at %d, f%d keeps the time until %d", i+1, t.f[i].timer, t.keeper, t.until)
		}
		if s.deaths > 0 && alive > 1 {
			t := s
			t.deaths--
			t.f[i] = clockFeeder{}
			emit(t, "f%d dies", i+1)
		}
		if s.yields > 0 && alive > 1 && f.token == 0 {
			t := s
			t.yields--
			t.f[i] = clockFeeder{}
			if !c.Off.SilentYield {
				t.wake = 1
				if t.keeper == uint8(1+i) {
					t.keeper, t.until = 0, 0
				}
			}
			emit(t, "f%d: yield", i+1)
		}
	}
	if s.wake == 1 && s.tokens > 0 {
		t := s
		t.tokens--
		t.wake = 0
		emit(t, "the token is lost")
	}
	if !urgent && s.now < c.Ticks {
		t := s
		t.now++
		emit(t, "")
	}
	return steps
}
