package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chart is one picture: a metric of a scenario, a bar per peer.
type chart struct {
	file, title string
	scenario    string
	metric      string
	log         bool    // a logarithmic axis, where the peers are far apart
	all         float64 // who finished fewer requests was cut off: its bar would be longer
}

// charts are those of docs/performance.md and the README.
var charts = []chart{
	{"bench-lock-cycle.svg", "Free locks: cycles per second, 64 goroutines", "lock/cycle-64", "cycles/s", false, 0},
	{"bench-lock-local.svg", "One lock, 8 goroutines of one process: sections per second", "lock/hand-off-1", "sections/s", false, 0},
	{"bench-lock-wait.svg", "One lock, 4 processes of 4 goroutines, 1 ms inside: wait p99, ms (log)", "lock/hand-off-4x4", "wait p99 ms", true, 0},
	{"bench-queue-consume.svg", "Consume and acknowledge, 8 workers: requests per second (log)", "queue/consume", "requests/s", true, 0},
	{"bench-queue-latency.svg", "Idle queue, two processes: enqueue to handler, p50, µs (log)", "queue/idle-latency-apart", "p50 µs", true, 0},
	{"bench-defer.svg", "400 requests on one lock: makespan over ideal", "defer/one-lock", "makespan/ideal", false, oneLockRequests},
}

// readReport reads what -json wrote.
func readReport(file string) (report, error) {
	var rep report
	if file == "" {
		return rep, errors.New("-json must name the report of an earlier run")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return rep, err
	}
	if err := json.Unmarshal(text, &rep); err != nil {
		return rep, fmt.Errorf("%s: %w", file, err)
	}
	return rep, nil
}

// whole tells what a report lacks for a document: what was measured coarsely or in
// part would stand there as if it were everything.
func (r report) whole() error {
	if r.Quick {
		return errors.New("the report is of a run with -quick")
	}
	var missing []string
	for _, s := range scenarios() {
		i := slices.IndexFunc(r.Results, func(r result) bool { return r.Scenario == s.name })
		if i < 0 {
			missing = append(missing, s.name)
			continue
		}
		for _, p := range s.peers {
			if !slices.ContainsFunc(r.Results[i].Peers, func(r peerResult) bool { return r.Peer == p.name }) {
				missing = append(missing, s.name+": "+p.name)
			}
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("the report is not whole, it lacks %s", strings.Join(missing, "; "))
}

// The tables in performance.md stand between these.
const tablesBegin, tablesEnd = "<!-- tables -->\n", "<!-- end of tables -->"

// document draws the charts of a report into a folder and puts its tables into
// the folder's performance.md.
func document(rep report, dir string) error {
	if err := rep.whole(); err != nil {
		return err
	}
	file := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(text), tablesBegin)
	_, tail, ok2 := strings.Cut(rest, tablesEnd)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no place for tables", file)
	}
	var out strings.Builder
	out.WriteString(head + tablesBegin)
	fmt.Fprintf(&out, "Measured on %s.\n\n", rep.Machine)
	for _, s := range scenarios() {
		for _, r := range rep.Results {
			if r.Scenario == s.name {
				r.Targets = judgeAll(s, r.Peers) // claims may be newer than the report
				printMarkdown(&out, r)
			}
		}
	}
	out.WriteString(tablesEnd + tail)
	if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
		return err
	}
	for _, c := range charts {
		i := slices.IndexFunc(rep.Results, func(r result) bool { return r.Scenario == c.scenario })
		if i < 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.draw(rep.Results[i])), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const (
	left, right, top = 230, 90, 44 // margins; the longest name has 34 letters
	width, rowHeight = 760, 26
	blue, orange     = "#2f6fb0", "#d9822b"
	grey, ink        = "#9aa3ab", "#24292f"
)

// draw makes bars of the medians, whiskers from the least to the most, and the
// limits in grey.
func (c chart) draw(r result) string {
	var rows []peerResult
	least, most := math.Inf(1), 0.0
	for _, p := range r.Peers {
		if v := p.Rounds[c.metric]; len(v) > 0 && slices.Min(v) > 0 {
			rows = append(rows, p)
			least, most = min(least, slices.Min(v)), max(most, slices.Max(v))
		}
	}
	scale := func(x float64) float64 { return x / most * (width - left - right) }
	if c.log {
		floor := math.Floor(math.Log10(least))
		if math.Log10(least)-floor < 0.15 { // no bar without length
			floor--
		}
		scale = func(x float64) float64 {
			return (math.Log10(x) - floor) / (math.Log10(most) - floor) * (width - left - right)
		}
	}
	height := top + rowHeight*len(rows) + 14
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
		`font-family="system-ui, sans-serif" font-size="13" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<title>%s</title>`+"\n", html.EscapeString(c.title))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="12" y="24" font-size="15" font-weight="600" fill="%s">%s</text>`+"\n", ink, html.EscapeString(c.title))
	for i, p := range rows {
		v := p.Rounds[c.metric]
		y := top + rowHeight*i
		colour := grey
		switch {
		case isOurs(p.Peer):
			colour = orange
		case !p.Limit:
			colour = blue
		}
		mid, lo, hi := scale(median(v)), scale(slices.Min(v)), scale(slices.Max(v))
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`+"\n", left-8, y+15, ink, html.EscapeString(p.Peer))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>`+"\n", left, y+3, max(mid, 1), rowHeight-9, colour)
		if hi-lo > 1 {
			fmt.Fprintf(&b, `<path d="M%.1f %dH%.1f" stroke="%s" stroke-width="1.5"/>`+"\n", left+lo, y+11, left+hi, ink)
		}
		label := number(median(v))
		if f := p.Rounds["finished"]; c.all > 0 && len(f) > 0 && slices.Min(f) < c.all {
			label = "> " + label
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s">%s</text>`+"\n", left+max(mid, hi)+6, y+15, ink, html.EscapeString(label))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
