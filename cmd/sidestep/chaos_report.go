package main

import (
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/chaos"
)

// writeChaos prints the account for people: a column for each topology.
func writeChaos(w io.Writer, s style, results []*chaos.Result, took time.Duration) {
	faults := 0
	for _, r := range results {
		faults += r.FaultsDone
	}
	fmt.Fprintf(w, "%s %s in %v, seed %d\n", s.bold("chaos:"), plural(faults, "fault"), short(took), results[0].Seed)
	t := newTable(w)
	t.SetColumnConfigs(rightAligned(2, 1+len(results)))
	head := table.Row{""}
	for _, r := range results {
		head = append(head, r.Topology)
	}
	t.AppendHeader(head)
	row := func(name string, cell func(r *chaos.Result) string) {
		line := table.Row{name}
		for _, r := range results {
			line = append(line, cell(r))
		}
		t.AppendRow(line)
	}
	count := func(name string, n func(r *chaos.Result) int) {
		row(name, func(r *chaos.Result) string { return number(n(r)) })
	}
	zero := func(name string, n func(r *chaos.Result) int) {
		row(name, func(r *chaos.Result) string {
			if n(r) == 0 {
				return s.good("✓") + " 0"
			}
			return s.bad("✗ BROKEN " + number(n(r)))
		})
	}
	row(s.bold("faults"), func(r *chaos.Result) string { return s.bold(number(r.FaultsDone)) })
	count("processes killed", func(r *chaos.Result) int { return r.Kills })
	t.AppendSeparator()
	row(s.bold("requests"), func(r *chaos.Result) string { return s.bold(number(r.Requests)) })
	count("  accepted", func(r *chaos.Result) int { return r.Accepted })
	count("  ran in the call", func(r *chaos.Result) int { return r.RanInCall })
	count("  refused", func(r *chaos.Result) int { return r.Refused })
	count("  ambiguous, ran", func(r *chaos.Result) int { return r.Ambiguous })
	count("  client killed", func(r *chaos.Result) int { return r.Unanswered })
	count("accepted, done", func(r *chaos.Result) int { return r.Done })
	count("done again", func(r *chaos.Result) int { return r.Again })
	count("sections", func(r *chaos.Result) int { return r.Sections })
	count("  cut short", func(r *chaos.Result) int { return r.CutShort })
	t.AppendSeparator()
	zero("lost", func(r *chaos.Result) int { return r.Lost + r.Unfinished + r.Dead })
	row("lost to replication", func(r *chaos.Result) string {
		if r.Topology != chaos.SentinelAsync {
			return s.faint("–")
		}
		return s.warn(number(r.Replication))
	})
	row("masters replaced", func(r *chaos.Result) string {
		if len(r.Replaced) == 0 {
			return s.faint("–")
		}
		return number(len(r.Replaced))
	})
	zero("valid overlaps", func(r *chaos.Result) int { return len(r.Overlaps) })
	zero("fence order", func(r *chaos.Result) int { return len(r.Disorders) })
	zero("stale, let through", func(r *chaos.Result) int { return r.StaleLet })
	count("stale, refused", func(r *chaos.Result) int { return r.StaleRefused })
	count("stale without fence", func(r *chaos.Result) int { return r.StaleWithout })
	zero("history", func(r *chaos.Result) int { return len(r.History.Violations) })
	row("  holds / windows", func(r *chaos.Result) string {
		undecided := ""
		if n := r.History.Undecided; n > 0 {
			undecided = s.warn(fmt.Sprintf(" (%d undecided)", n))
		}
		return number(r.History.Acquires) + " / " + number(r.History.Windows) + undecided
	})
	t.AppendSeparator()
	row("runs again, p50", func(r *chaos.Result) string { return s.ofTimes(r.Rerun.Count, r.Rerun.P50) })
	row("  max", func(r *chaos.Result) string { return s.ofTimes(r.Rerun.Count, r.Rerun.Max) })
	row("  undisturbed, max", func(r *chaos.Result) string { return s.ofTimes(r.Calm.Count, r.Calm.Max) })
	row("  within lease+100ms", func(r *chaos.Result) string {
		text := fmt.Sprintf("%d of %d", r.Calm.Count-r.Over, r.Calm.Count)
		if r.Over > 0 {
			return s.warn(text)
		}
		return text
	})
	row("queue empty after", func(r *chaos.Result) string { return short(r.Drained).String() })
	t.Render()
	writeFaults(w, s, results)
	for _, r := range results {
		writeChaosNotes(w, s, r)
	}
	for _, r := range results {
		writeBroken(w, s, r)
	}
}

func (s style) ofTimes(n int, d time.Duration) string {
	if n == 0 {
		return s.faint("–")
	}
	return short(d).String()
}

// writeFaults prints what was done, and how long it took to go on after it.
func writeFaults(w io.Writer, s style, results []*chaos.Result) {
	fmt.Fprintf(w, "\n%s\n", s.bold("Faults, and the longest time until a section of any process came to its end:"))
	t := newTable(w)
	t.SetColumnConfigs(rightAligned(2, 1+len(results)))
	head := table.Row{""}
	for _, r := range results {
		head = append(head, r.Topology)
	}
	t.AppendHeader(head)
	for _, kind := range chaos.FaultKinds() {
		row, any := table.Row{kind}, false
		for _, r := range results {
			n := 0
			for _, f := range r.Faults {
				if f.Kind == kind && f.Err == "" {
					n++
				}
			}
			cell := s.faint("–")
			if n > 0 {
				any = true
				cell = fmt.Sprintf("%d × %8v", n, short(r.Recovery[kind].Max))
			}
			row = append(row, cell)
		}
		if any {
			t.AppendRow(row)
		}
	}
	t.Render()
}

// writeChaosNotes prints what may be of interest, and at its end, where nobody
// overlooks it, what is broken.
func writeChaosNotes(w io.Writer, s style, r *chaos.Result) {
	note := func(how string, format string, args ...any) {
		fmt.Fprintf(w, "%s: %s\n", how, fmt.Sprintf(format, args...))
	}
	for _, n := range r.Notes {
		note(s.warn(r.Topology), "%s", n)
	}
	for _, c := range mostFirst(r.Because) {
		note(s.faint(r.Topology), "done again, %s ×: %s", number(c.n), c.text)
	}
	if r.Late > 0 {
		note(s.faint(r.Topology), "a context was seen to go on after its lease had run out, %d ×, by %v at most: the process had been stopped", r.Late, short(r.Latest))
	}
	if r.Still > 500*time.Millisecond {
		note(s.warn(r.Topology), "the machine stood still for %v: times measured over it mean little", short(r.Still))
	}
	nothing := make(map[string]int)
	for _, f := range r.Faults {
		if f.Err != "" {
			nothing[f.Kind+": "+f.Err]++
		}
	}
	for _, c := range mostFirst(nothing) {
		note(s.faint(r.Topology), "came to nothing and is not counted, %s ×: %s", number(c.n), c.text)
	}
}

// writeBroken prints which promises were broken, and by what.
func writeBroken(w io.Writer, s style, r *chaos.Result) {
	note := func(what string, format string, args ...any) {
		fmt.Fprintf(w, "%s: %s\n", s.bad(r.Topology+": "+what), fmt.Sprintf(format, args...))
	}
	for _, d := range r.Deaths {
		note("died", "%s", d)
	}
	const shown = 10
	for _, o := range r.Overlaps[:min(shown, len(r.Overlaps))] {
		note("overlap", "%s: %s began %v before the end of %s", o.Key, o.Second, short(o.By), o.First)
	}
	for _, o := range r.Disorders[:min(shown, len(r.Disorders))] {
		note("fence", "%s: %s after %s", o.Key, o.Second, o.First)
	}
	for _, v := range r.History.Violations[:min(shown, len(r.History.Violations))] {
		note("history", "%s: %s: %s %s", v.Key, v.Rule, v.Text, v.File)
	}
	for _, id := range r.LostIDs {
		note("lost", "%s", id)
	}
	for _, b := range r.Broken {
		note("BROKEN", "%s", b)
	}
}
