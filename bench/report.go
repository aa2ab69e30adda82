package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// number prints a value with three digits that count.
func number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return ""
	case a >= 100_000:
		return strconv.FormatFloat(x/1000, 'f', 0, 64) + "k"
	case a >= 10_000:
		return strconv.FormatFloat(x/1000, 'f', 1, 64) + "k"
	case a >= 100 || x == math.Trunc(x):
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 0.1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	default:
		return strconv.FormatFloat(x, 'g', 2, 64)
	}
}

// apart prints a value that misses a bound, with as many digits as show it.
func apart(x float64, bounds ...float64) string {
	out := number(x)
	for digits := 3; digits < 18; digits++ {
		if !slices.ContainsFunc(bounds, func(b float64) bool { return number(b) == out || strconv.FormatFloat(b, 'g', digits, 64) == out }) {
			break
		}
		out = strconv.FormatFloat(x, 'g', digits, 64)
	}
	return out
}

// cell prints a median, and the least and the most if they differ.
func cell(rounds []float64) string {
	if len(rounds) == 0 {
		return ""
	}
	mid := number(median(rounds))
	lo, hi := number(slices.Min(rounds)), number(slices.Max(rounds))
	if lo == hi {
		return mid
	}
	return mid + " (" + lo + "–" + hi + ")"
}

// printResult prints a scenario as a table: medians with the least and the most
// of the rounds, and how the first column compares with sidestep's.
func printResult(w io.Writer, r result) {
	fmt.Fprintf(w, "\n%s [%s, %.0f s]\n", r.Title, r.Scenario, r.Seconds)
	if r.About != "" {
		fmt.Fprintln(w, wrap(r.About, 110))
	}
	header := []string{""}
	for _, m := range r.Metrics {
		header = append(header, m.Name)
	}
	var reference []float64
	main := ""
	if len(r.Metrics) > 0 {
		main = r.Metrics[0].Name
	}
	for _, p := range r.Peers {
		if p.Peer == ours {
			reference = p.Rounds[main]
		}
	}
	if reference != nil {
		header = append(header, "sidestep/this")
	}
	rows := [][]string{header}
	for _, p := range r.Peers {
		name := p.Peer
		if p.Limit {
			name = "= " + name
		}
		row := []string{name}
		for _, m := range r.Metrics {
			row = append(row, cell(p.Rounds[m.Name]))
		}
		if reference != nil {
			row = append(row, number(median(ratios(reference, p.Rounds[main]))))
		}
		rows = append(rows, row)
	}
	printTable(w, rows)
	for _, p := range r.Peers {
		if p.Note != "" {
			fmt.Fprintf(w, "  %s: %s\n", p.Peer, p.Note)
		}
	}
	for _, p := range r.Peers {
		if p.Error != "" {
			fmt.Fprintf(w, "  %-11s  %s: %s\n", "FAILED", p.Peer, p.Error)
		}
	}
	for _, t := range r.Targets {
		verdict := "holds"
		if !t.Holds {
			verdict = "FALLS SHORT"
		}
		fmt.Fprintf(w, "  %-11s  %s: %s\n", verdict, t.Text, t.Figure)
	}
}

// printMarkdown prints a scenario's table and claims for a document.
func printMarkdown(w io.Writer, r result) {
	fmt.Fprintf(w, "### %s\n\n%s\n\n", r.Title, r.About)
	head, line := "| |", "| --- |"
	for _, m := range r.Metrics {
		head += " " + m.Name + " |"
		line += " ---: |"
	}
	fmt.Fprintln(w, head)
	fmt.Fprintln(w, line)
	for _, p := range r.Peers {
		name := p.Peer
		switch {
		case p.Limit:
			name = "*" + name + "*"
		case isOurs(name):
			name = "**" + name + "**"
		}
		fmt.Fprintf(w, "| %s |", name)
		for _, m := range r.Metrics {
			fmt.Fprintf(w, " %s |", cell(p.Rounds[m.Name]))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	var notes []string
	for _, p := range r.Peers {
		if p.Note != "" {
			notes = append(notes, p.Peer+": "+p.Note)
		}
	}
	if notes != nil {
		fmt.Fprintf(w, "Settings. %s.\n\n", strings.Join(notes, ". "))
	}
	lines := 0
	for _, p := range r.Peers {
		if p.Error != "" {
			fmt.Fprintf(w, "- **failed**: %s: %s\n", p.Peer, strings.Join(strings.Fields(p.Error), " ")) // on one line
			lines++
		}
	}
	for _, t := range r.Targets {
		verdict := "holds"
		if !t.Holds {
			verdict = "**not yet**"
		}
		fmt.Fprintf(w, "- %s: %s: %s\n", verdict, t.Text, t.Figure)
	}
	if lines+len(r.Targets) > 0 {
		fmt.Fprintln(w)
	}
}

func printTable(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 {
				line.WriteString("  " + c + pad)
			} else {
				line.WriteString("  " + pad + c)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// wrap breaks text into lines.
func wrap(text string, width int) string {
	var out strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case at == 0:
			out.WriteString("  ")
			at = 2
		case at+1+n > width:
			out.WriteString("\n  ")
			at = 2
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(word)
		at += n
	}
	return out.String()
}
