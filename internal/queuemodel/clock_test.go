package queuemodel

import (
	"strings"
	"testing"
	"time"
)

// Nothing is late while nobody dies; and less than the poll late if somebody
// does, or if a token is lost.
func TestClock(t *testing.T) {
	skipUnderRace(t)
	for _, tt := range []struct {
		name string
		c    Clock
		late uint8
	}{
		{"no fault", Clock{}, 0},
		{"a death", Clock{Deaths: 1}, 5},
		{"a lost token", Clock{Tokens: 1}, 5},
		{"a clean end", Clock{Yields: 1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.c
			c.Feeders, c.Requests, c.Slack, c.Poll, c.Ticks = 2, 2, 2, 6, 16
			if *long {
				c.Feeders, c.Requests = 3, 3
			}
			began := time.Now()
			r := CheckClock(c)
			t.Logf("%d states in %v, at worst %d late:\n%s", r.States, time.Since(began).Round(time.Millisecond), r.Late, strings.Join(r.Trace, "\n"))
			if r.Late > tt.late {
				t.Errorf("late by %d ticks, want at most %d", r.Late, tt.late)
			}
		})
	}
}

// clockWithoutARule are the cases in which something comes late.
var clockWithoutARule = []struct {
	instead string
	c       Clock
}{
	{"clock not taken by an earlier head", Clock{Off: ClockRules{KeepClock: true}}},
	{"a new head pushes no token", Clock{Off: ClockRules{SilentHead: true}}},
	{"a feeder that stops hands nothing over", Clock{Yields: 1, Off: ClockRules{SilentYield: true}}},
}

// Without any one of the clock's rules something is late that otherwise is not.
func TestEachRuleOfTheClockIsNeeded(t *testing.T) {
	skipUnderRace(t)
	for _, tt := range clockWithoutARule {
		t.Run(tt.instead, func(t *testing.T) {
			c := tt.c
			c.Feeders, c.Requests, c.Slack, c.Poll, c.Ticks = 2, 2, 2, 6, 16
			r := CheckClock(c)
			if r.Late == 0 {
				t.Fatalf("in none of %d states anything is late", r.States)
			}
			t.Logf("%d ticks late:\n%s", r.Late, strings.Join(r.Trace, "\n"))
		})
	}
}
