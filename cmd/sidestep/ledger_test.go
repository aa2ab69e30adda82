package main

import (
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	// A section of a key: line, begin, end, fence.
	type s struct {
		key               string
		line              int
		begin, end, fence int64
	}
	for _, tt := range []struct {
		name                            string
		in                              []s
		overlaps, disorders, inversions int
	}{
		{"none", nil, 0, 0, 0},
		{"one after another", []s{{"a", 1, 10, 20, 1}, {"a", 2, 20, 30, 2}, {"a", 3, 31, 32, 9}}, 0, 0, 0},
		{"keys side by side", []s{{"a", 1, 10, 20, 5}, {"b", 2, 10, 20, 5}, {"b", 3, 20, 21, 6}}, 0, 0, 0},
		{"reported out of order", []s{{"a", 2, 20, 30, 2}, {"a", 1, 10, 20, 1}}, 0, 0, 0},
		{"overlap by one", []s{{"a", 1, 10, 20, 1}, {"a", 2, 19, 30, 2}}, 1, 0, 0},
		{"one within another, and one after that within", []s{{"a", 1, 10, 100, 1}, {"a", 2, 20, 30, 2}, {"a", 3, 40, 50, 3}}, 2, 0, 0},
		{"begin together", []s{{"a", 1, 10, 20, 1}, {"a", 2, 10, 20, 2}}, 1, 0, 0},
		{"fence goes back", []s{{"a", 1, 10, 20, 7}, {"a", 2, 20, 30, 6}, {"a", 3, 30, 40, 8}}, 0, 1, 0},
		{"fence stays", []s{{"a", 1, 10, 20, 7}, {"a", 2, 20, 30, 7}}, 0, 1, 0},
		{"no fence", []s{{"a", 1, 10, 20, 0}}, 0, 1, 0},
		{"below the highest so far", []s{{"a", 1, 10, 20, 7}, {"a", 2, 20, 30, 5}, {"a", 3, 30, 40, 6}}, 0, 2, 0},
		{"overtaken", []s{{"a", 2, 10, 20, 1}, {"a", 1, 20, 30, 2}, {"a", 3, 30, 40, 3}}, 0, 0, 1},
		{"all backwards", []s{{"a", 3, 10, 20, 1}, {"a", 2, 20, 30, 2}, {"a", 1, 30, 40, 3}}, 0, 0, 2},
		{"again counts once", []s{{"a", 1, 10, 20, 1}, {"a", 2, 20, 30, 2}, {"a", 1, 30, 40, 3}}, 0, 0, 0},
	} {
		var in []section
		for _, x := range tt.in {
			in = append(in, section{id: x.key + string(rune('0'+x.line)), key: x.key, line: x.line, begin: x.begin, end: x.end, fence: x.fence})
		}
		f := check(in)
		if len(f.overlaps) != tt.overlaps || len(f.disorders) != tt.disorders || f.inversions != tt.inversions {
			t.Errorf("%s: check found %d overlaps, %d disorders, %d inversions, want %d, %d, %d", tt.name,
				len(f.overlaps), len(f.disorders), f.inversions, tt.overlaps, tt.disorders, tt.inversions)
		}
	}
}

// story records events of the form "process kind id", at times 1, 2, 3, ….
func story(l *ledger, process int, events ...event) {
	for _, e := range events {
		if e.At == 0 {
			e.At = int64(len(l.sections)*10 + 1)
		}
		l.record(process, e)
	}
}

func twoLines() []line {
	return []line{{number: 1, id: "a", key: "k"}, {number: 2, id: "b", key: "k"}}
}

func ran(id string, number, begin, end, fence int64) []event {
	return []event{
		{Kind: kindCalled, ID: id, At: begin - 1},
		{Kind: kindBegin, ID: id, At: begin, Section: number, Fence: fence, Deliveries: 1},
		{Kind: kindEnd, ID: id, At: end, Section: number},
	}
}

func TestLedger(t *testing.T) {
	opt := defaultReplayOptions()
	for _, tt := range []struct {
		name   string
		events []event
		stored []string
		ending ending
		want   func(r *report) bool
		ok     bool
	}{
		{
			"both done", append(ran("a", 1, 10, 20, 1), ran("b", 2, 20, 30, 2)...), nil,
			ending{},
			func(r *report) bool { return r.Done == 2 && r.PerRequest == 1 && r.Makespan == 21 }, true,
		},
		{
			"one lost", append(ran("a", 1, 10, 20, 1), event{Kind: kindCalled, ID: "b", At: 5}), nil,
			ending{},
			func(r *report) bool { return r.Lost == 1 && r.LostIDs[0] == "b" }, false,
		},
		{
			"lost stays lost when interrupted", append(ran("a", 1, 10, 20, 1), event{Kind: kindCalled, ID: "b", At: 5}), nil,
			ending{interrupted: true},
			func(r *report) bool { return r.Lost == 1 }, false,
		},
		{
			"one stuck in Redis", append(ran("a", 1, 10, 20, 1), event{Kind: kindCalled, ID: "b", At: 5}),
			[]string{"b"},
			ending{},
			func(r *report) bool { return r.Stored == 1 && r.Lost == 0 }, false,
		},
		{
			"interrupted with one in Redis", append(ran("a", 1, 10, 20, 1), event{Kind: kindCalled, ID: "b", At: 5}),
			[]string{"b"},
			ending{interrupted: true},
			func(r *report) bool { return r.Stored == 1 }, true,
		},
		{
			"interrupted before the second", ran("a", 1, 10, 20, 1), nil,
			ending{interrupted: true},
			func(r *report) bool { return r.NotMade == 1 }, true,
		},
		{
			"overlap", append(ran("a", 1, 10, 20, 1), ran("b", 2, 15, 30, 2)...), nil,
			ending{},
			func(r *report) bool { return len(r.Overlaps) == 1 && r.Overlaps[0].By == 5 }, false,
		},
		{
			"fences out of order", append(ran("a", 1, 10, 20, 2), ran("b", 2, 20, 30, 1)...), nil,
			ending{},
			func(r *report) bool { return len(r.Disorders) == 1 }, false,
		},
		{
			"ran again", append(append(ran("a", 1, 10, 20, 1), ran("b", 2, 20, 30, 2)...), ran("a", 3, 30, 40, 3)...), nil,
			ending{},
			func(r *report) bool { return r.RanAgain == 1 && r.Done == 2 }, true,
		},
		{
			"an end without a begin", append(ran("a", 1, 10, 20, 1), append(ran("b", 2, 20, 30, 2), event{Kind: kindEnd, ID: "b", At: 40, Section: 9})...), nil,
			ending{},
			func(r *report) bool { return strings.Contains(r.Unbalanced, "never began") }, false,
		},
		{
			"an id that nobody sent", append(ran("a", 1, 10, 20, 1), append(ran("b", 2, 20, 30, 2), event{Kind: kindCalled, ID: "z"})...), nil,
			ending{},
			func(r *report) bool { return strings.Contains(r.Unbalanced, "unknown id") }, false,
		},
		{
			"refused and failed",
			[]event{
				{Kind: kindCalled, ID: "a", At: 5},
				{Kind: kindLocked, ID: "a", At: 6, Owner: "x", RetryAfter: time.Second},
				{Kind: kindCalled, ID: "b", At: 5},
				{Kind: kindFailed, ID: "b", At: 6, Text: "no"},
			},
			nil,
			ending{},
			func(r *report) bool {
				return r.Locked == 1 && r.Failed == 1 && r.Reasons["no"] == 1 && r.RetryAfter == time.Second
			}, true,
		},
		{
			"failed, and done after all", append(ran("a", 1, 10, 20, 1), append([]event{{Kind: kindFailed, ID: "b", At: 6, Text: "no"}}, ran("b", 2, 20, 30, 2)...)...), nil,
			ending{},
			func(r *report) bool { return r.Done == 2 && r.Failed == 0 }, true,
		},
	} {
		l := newLedger(twoLines(), nil)
		story(l, 1, tt.events...)
		left := make(map[string]bool)
		for _, id := range tt.stored {
			left[id] = true
		}
		r := newReport(opt, "none", l, left, tt.ending)
		if !tt.want(r) || r.OK != tt.ok {
			t.Errorf("%s: OK = %t, want %t; %+v", tt.name, r.OK, tt.ok, *r)
		}
	}
}

// A section whose process died is over when that is noticed: another one before
// that is an overlap, and one after it is not.
func TestLedgerDeath(t *testing.T) {
	for _, tt := range []struct {
		begin    int64
		overlaps int
	}{{49, 1}, {50, 0}} {
		l := newLedger(twoLines(), nil)
		story(l, 1, ran("b", 1, 5, 9, 1)...)
		story(l, 1, ran("a", 2, 10, 20, 2)[:2]...)
		l.died(1, 50)
		story(l, 2, ran("a", 1, tt.begin, 60, 3)...)
		r := newReport(defaultReplayOptions(), "none", l, nil, ending{})
		if len(r.Overlaps) != tt.overlaps || r.Done != 2 || r.RanAgain != 0 || r.Cut["its process died"] != 1 || r.Unbalanced != "" {
			t.Errorf("rerun at %d: %d overlaps, want %d; %+v", tt.begin, len(r.Overlaps), tt.overlaps, *r)
		}
	}
}

func TestLedgerSettles(t *testing.T) {
	var seen []int
	l := newLedger(twoLines(), func(n int) { seen = append(seen, n) })
	story(l, 1, ran("a", 1, 10, 20, 1)...)
	select {
	case <-l.settled:
		t.Fatal("settled with one request open")
	default:
	}
	story(l, 1, ran("a", 2, 20, 30, 2)...) // again: changes nothing
	story(l, 1, event{Kind: kindDead, ID: "b", At: 40, Text: "attempts"})
	<-l.settled
	if len(seen) != 2 || seen[1] != 2 {
		t.Errorf("progress was %v, want [1 2]", seen)
	}
	<-newLedger(nil, nil).settled
}

func TestPercentile(t *testing.T) {
	var ds []time.Duration
	for i := 1; i <= 100; i++ {
		ds = append(ds, time.Duration(i))
	}
	for _, tt := range []struct {
		p    float64
		want time.Duration
	}{{0.5, 50}, {0.9, 90}, {0.99, 99}, {1, 100}, {0, 1}} {
		if got := percentile(ds, tt.p); got != tt.want {
			t.Errorf("percentile(1…100, %v) = %d, want %d", tt.p, got, tt.want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("percentile of nothing = %d", got)
	}
	if got := percentile(ds[:1], 0.99); got != 1 {
		t.Errorf("percentile of one = %d", got)
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", 1234567: "1,234,567", -12: "-12"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestLongFlags(t *testing.T) {
	got := strings.Join(longFlags(strings.Fields("replay -policy fail --via direct -h - -5 -work=0 -- -file")), " ")
	if want := "replay --policy fail --via direct -h - -5 --work=0 -- -file"; got != want {
		t.Errorf("longFlags = %q, want %q", got, want)
	}
}
