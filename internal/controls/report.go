package main

import (
	"fmt"
	"os"
	"strings"
)

// The table stands between these lines.
const (
	begin = "<!-- written by go run ./internal/controls -->"
	end   = "<!-- end -->"
)

// rewrite replaces the table in a file.
func rewrite(file string, outcomes []Outcome) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table, between %q and %q", file, begin, end)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+table(outcomes)+end+after), 0o644)
}

// table writes what catches what.
func table(outcomes []Outcome) string {
	var b strings.Builder
	b.WriteString("\n| control | rule that is broken | file | caught by | not by | s |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, o := range outcomes {
		caught := list(o.Caught)
		switch {
		case o.Err != nil:
			caught = "**error**: " + o.Err.Error()
		case len(o.Caught) == 0:
			caught = "**nothing**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.0f |\n", o.Name, o.Rule, o.File, caught, list(o.Missed), o.Took.Seconds())
	}
	b.WriteString("\n")
	return b.String()
}

// list names tests, their folder only where it changes.
func list(tests []string) string {
	var b strings.Builder
	at := ""
	for i, t := range tests {
		folder, name, _ := strings.Cut(t, ":")
		if i > 0 {
			b.WriteString(", ")
		}
		if folder != at {
			at = folder
			b.WriteString(strings.TrimPrefix(folder+": ", ".: "))
		}
		b.WriteString(name)
	}
	return b.String()
}
