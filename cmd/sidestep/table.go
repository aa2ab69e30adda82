package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// style is how to print on an output: colours only on a terminal.
type style struct{ colours bool }

func styleOf(w io.Writer) style {
	_, no := os.LookupEnv("NO_COLOR")
	_, ok := terminal(w)
	return style{colours: ok && !no && os.Getenv("TERM") != "dumb"}
}

func (s style) paint(t string, c ...text.Color) string {
	if !s.colours {
		return t
	}
	return text.Colors(c).EscapeSeq() + t + text.Reset.EscapeSeq()
}

func (s style) good(t string) string  { return s.paint(t, text.FgGreen) }
func (s style) bad(t string) string   { return s.paint(t, text.FgRed, text.Bold) }
func (s style) warn(t string) string  { return s.paint(t, text.FgYellow) }
func (s style) faint(t string) string { return s.paint(t, text.Faint) }
func (s style) bold(t string) string  { return s.paint(t, text.Bold) }

// mark is the verdict on a promise.
func (s style) mark(ok bool) string {
	if ok {
		return s.good("✓")
	}
	return s.bad("✗ BROKEN")
}

// newTable returns a table that all reports look like.
func newTable(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleRounded)
	t.Style().Options.SeparateRows = false
	t.Style().Format.Header = text.FormatDefault
	return t
}

// write prints the report for people.
func (r *report) write(w io.Writer, s style) {
	fmt.Fprintf(w, "%s %s, via %s, %s, %s, %s, %s\n", s.bold("replay of"), s.bold(r.Input), r.Via, r.Policy,
		plural(r.Workers, "worker"), plural(r.Processes, "process"), r.Server)
	t := newTable(w)
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 3, WidthMax: 76}})
	r.rowsOfRequests(t, s)
	t.AppendSeparator()
	r.rowsOfPromises(t, s)
	t.AppendSeparator()
	r.rowsOfTime(t, s)
	t.Render()
	r.writeNotes(w, s)
}

func (r *report) rowsOfRequests(t table.Writer, s style) {
	t.AppendRow(table.Row{s.bold("requests"), s.bold(number(r.Requests)), fmt.Sprintf("%s; the longest, %q, has %s", plural(r.Keys, "key"), r.LongestKey, number(r.LongestCount))})
	t.AppendRow(table.Row{"  done", number(r.Done), ""})
	if r.Locked > 0 {
		t.AppendRow(table.Row{"  failed: locked", number(r.Locked), fmt.Sprintf("the lock was held, and the policy is %s (retry after %v at most)", r.Policy, short(r.RetryAfter))})
	}
	if r.Failed > 0 {
		t.AppendRow(table.Row{"  failed: error", s.warn(number(r.Failed)), "see below"})
	}
	if r.Dead > 0 {
		t.AppendRow(table.Row{"  dead", s.warn(number(r.Dead)), "see below"})
	}
	if n := r.Stored + r.NotMade; n > 0 {
		t.AppendRow(table.Row{"  unfinished", s.warn(number(n)), fmt.Sprintf("%s in Redis, %s not made", number(r.Stored), number(r.NotMade))})
	}
	deferred := ""
	if r.Deferred > 0 {
		deferred = fmt.Sprintf("%s by callers; %s deferrals in all", number(r.DeferredByDo), number(r.Deferrals))
	}
	t.AppendRow(table.Row{"deferred", number(r.Deferred), deferred})
	if r.Delivered > 0 {
		t.AppendRow(table.Row{"deliveries", fmt.Sprintf("%.2f", r.PerRequest), fmt.Sprintf("per request that workers claimed (%s)", number(r.Delivered))})
	}
	if r.RanAgain > 0 || len(r.Cut) > 0 {
		cut := 0
		for _, n := range r.Cut {
			cut += n
		}
		t.AppendRow(table.Row{"ran again", s.warn(number(r.RanAgain)), fmt.Sprintf("delivery is at least once; %s cut short", plural(cut, "section"))})
	}
}

func (r *report) rowsOfPromises(t table.Writer, s style) {
	t.AppendRow(table.Row{"lost", number(r.Lost), s.mark(r.Lost == 0) + " every request is accounted for"})
	t.AppendRow(table.Row{"overlaps", number(len(r.Overlaps)), fmt.Sprintf("%s %s, one at a time under each key", s.mark(len(r.Overlaps) == 0), plural(r.Sections, "section"))})
	t.AppendRow(table.Row{"fence order", number(len(r.Disorders)), s.mark(len(r.Disorders) == 0) + " fences grow from section to section of a key"})
	balance := "done + failed + dead + unfinished = requests"
	if r.Unbalanced != "" {
		balance = r.Unbalanced
	}
	t.AppendRow(table.Row{"ledger", "", s.mark(r.Unbalanced == "") + " " + balance})
	mark, about := s.faint("·"), "direct calls race: this only informs"
	if r.Via == "queue" {
		mark, about = s.good("✓"), "each key's requests ran in the order of the input"
		if r.Inversions > 0 {
			mark, about = s.warn("!"), "requests started after a later line of their key"
		}
	}
	if r.WorstCount > 0 {
		about += fmt.Sprintf(" (most: %q, %d)", r.WorstKey, r.WorstCount)
	}
	t.AppendRow(table.Row{"inversions", number(r.Inversions), mark + " " + about})
}

func (r *report) rowsOfTime(t table.Writer, s style) {
	times := ""
	if r.Ideal > 0 {
		times = fmt.Sprintf("%.1f × the ideal %v; ", float64(r.Makespan)/float64(r.Ideal), short(r.Ideal))
	}
	t.AppendRow(table.Row{s.bold("makespan"), s.bold(short(r.Makespan).String()), times + number(int(r.PerSecond)) + " done/s"})
	t.AppendRow(table.Row{"in sections", short(r.InSections), fmt.Sprintf("of the longest key: %v", short(r.LongestActive))})
	t.AppendRow(table.Row{"wait", short(r.Wait.P50), r.Wait.String()})
	if r.Via == "direct" && r.Blocked.Count > 0 {
		t.AppendRow(table.Row{"call", short(r.Blocked.P50), r.Blocked.String()})
	}
	if r.HandOver.Count > 0 {
		t.AppendRow(table.Row{"hand-over", short(r.HandOver.P50), r.HandOver.String()})
	}
}

func (r *report) writeNotes(w io.Writer, s style) {
	for _, c := range mostFirst(r.Reasons) {
		fmt.Fprintf(w, "failed or dead, %s ×: %s\n", number(c.n), c.text)
	}
	for _, c := range mostFirst(r.Cut) {
		fmt.Fprintf(w, "section cut short, %s ×: %s\n", number(c.n), c.text)
	}
	for _, c := range mostFirst(r.Faults) {
		fmt.Fprintf(w, "fault dealt with, %s ×: %s\n", number(c.n), c.text)
	}
	for _, d := range r.Deaths {
		fmt.Fprintln(w, s.warn("process died: ")+d)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, s.warn("note: ")+n)
	}
	const shown = 10
	for i, o := range r.Overlaps {
		if i == shown {
			break
		}
		fmt.Fprintf(w, "%s key %q: %s began %v before %s ended\n", s.bad("overlap:"), o.Key, o.Second, o.By, o.First)
	}
	for i, d := range r.Disorders {
		if i == shown {
			break
		}
		fmt.Fprintf(w, "%s key %q: %s has fence %d after %d\n", s.bad("fence:"), d.Key, d.ID, d.Fence, d.Before)
	}
	for _, id := range r.LostIDs {
		fmt.Fprintf(w, "%s %s\n", s.bad("lost:"), id)
	}
	if r.Lingering > 0 {
		fmt.Fprintf(w, "%s %s done, but still in Redis: they would have run again\n", s.warn("note:"), plural(r.Lingering, "request"))
	}
	if n := len(r.Bad); n > 0 {
		fmt.Fprintf(w, "%s left out of the input\n", plural(n, "bad line"))
	}
}

// String lists what the middle column does not show.
func (p percentiles) String() string {
	return fmt.Sprintf("p50 %v · p90 %v · p99 %v · max %v", short(p.P50), short(p.P90), short(p.P99), short(p.Max))
}

// short rounds a duration for reading.
func short(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

// number writes n with commas.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes n things.
func plural(n int, thing string) string {
	switch {
	case n == 1:
	case thing == "process":
		thing += "es"
	default:
		thing += "s"
	}
	return number(n) + " " + thing
}
