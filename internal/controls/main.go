// Controls breaks the code one rule at a time and looks whether a test fails.
//
// Each control of table.go is a small patch of one file, which is applied to what
// the compiler sees and to nothing else, and the tests that should then fail. A
// patch that does not apply exactly once is an error, so that controls follow the
// code or are missed.
//
//	go run ./internal/controls            each until a test catches it: what CI runs
//	go run ./internal/controls -all       all tests of each
//	go run ./internal/controls -all -write docs/controls.md
//	go run ./internal/controls -run gate  only controls whose names match
//
// It is to be run from the folder of the module.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Control is one rule broken.
type Control struct {
	Name  string // unique
	Rule  string // that is broken
	File  string // from the folder of the module
	Old   string // stands in the file exactly once
	New   string
	Tests []string // folder:Test; the first is what CI runs
}

// Outcome is what the tests said of a control.
type Outcome struct {
	Control
	Caught []string // the tests that failed
	Missed []string // those that did not
	Took   time.Duration
	Err    error // it could not be tried
}

func main() {
	all := flag.Bool("all", false, "run all tests of each control, not only until one catches")
	jobs := flag.Int("j", 2, "how many to try at once")
	match := flag.String("run", "", "only controls whose names match this regular expression")
	write := flag.String("write", "", "write the table into this file")
	flag.Parse()
	only, err := regexp.Compile(*match)
	if err != nil {
		fatal(err)
	}
	began := time.Now()
	outcomes, err := try(".", only, *all, *jobs, os.Stdout)
	if err != nil {
		fatal(err)
	}
	bad := 0
	for _, o := range outcomes {
		if o.Err != nil || len(o.Caught) == 0 {
			bad++
			fmt.Println(&o) // once more, where whoever sees only the end finds it
		}
	}
	fmt.Printf("%d controls in %ds, %d not caught\n", len(outcomes), int(time.Since(began).Seconds()), bad)
	if *write != "" {
		if err := rewrite(*write, outcomes); err != nil {
			fatal(err)
		}
	}
	if bad > 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "controls:", err)
	os.Exit(1)
}

// try tries the controls whose names match, several at once, in order of the table.
func try(root string, only *regexp.Regexp, all bool, jobs int, log io.Writer) ([]Outcome, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "controls")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	scripts, swapped := newLive(root, tmp), newSwap(root)
	var picked []Control
	for _, c := range controls {
		if only.MatchString(c.Name) {
			picked = append(picked, c)
		}
	}
	out := make([]Outcome, len(picked))
	next := make(chan int)
	var mu sync.Mutex // of log
	var running sync.WaitGroup
	for range max(jobs, 1) {
		running.Go(func() {
			for i := range next {
				out[i] = picked[i].try(scripts, swapped, filepath.Join(tmp, fmt.Sprint(i)), all)
				mu.Lock()
				fmt.Fprintln(log, &out[i])
				mu.Unlock()
			}
		})
	}
	for i := range picked {
		next <- i
	}
	close(next)
	running.Wait()
	return out, nil
}

// String is one line.
func (o *Outcome) String() string {
	what := "caught by " + strings.Join(o.Caught, ", ")
	switch {
	case o.Err != nil:
		what = "ERROR " + o.Err.Error()
	case len(o.Caught) == 0:
		what = "NOT CAUGHT by " + strings.Join(o.Missed, ", ")
	case len(o.Missed) > 0:
		what += "; not by " + strings.Join(o.Missed, ", ")
	}
	return fmt.Sprintf("%5.1fs  %s: %s", o.Took.Seconds(), o.Name, what)
}

// patched is the file with the rule broken.
func (c *Control) patched(root string) ([]byte, error) {
	src, err := os.ReadFile(filepath.Join(root, c.File))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(src, []byte(c.Old)); n != 1 {
		return nil, fmt.Errorf("%s has the text to replace %d times, want once: %q", c.File, n, c.Old)
	}
	before, after, _ := strings.Cut(string(src), c.Old)
	line, after, _ := strings.Cut(after, "\n")
	// The lines that follow stay where they are, so that nobody who imports it sees a difference.
	gone := max(strings.Count(c.Old, "\n")-strings.Count(c.New, "\n"), 0)
	return []byte(before + c.New + line + strings.Repeat("\n", 1+gone) + after), nil
}

// try runs the control's tests on the patched code.
func (c *Control) try(scripts *live, swapped *swap, tmp string, all bool) Outcome {
	o := Outcome{Control: *c}
	began := time.Now()
	o.Err = o.attempt(scripts, swapped, tmp, all)
	o.Took = time.Since(began)
	return o
}

func (o *Outcome) attempt(scripts *live, swapped *swap, tmp string, all bool) error {
	root := scripts.root
	src, err := o.patched(root)
	if err != nil {
		return err
	}
	file := filepath.Join(tmp, o.File)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // tests of all controls would be some gigabytes
	if err := os.WriteFile(file, src, 0o600); err != nil {
		return err
	}
	try := func(folder string, tests []string) ([]string, error) { return scripts.run(tmp, folder, tests) }
	if !strings.HasSuffix(o.File, ".lua") {
		overlay, err := writeOverlay(tmp, map[string]string{filepath.Join(root, o.File): file})
		if err != nil {
			return err
		}
		try = func(folder string, tests []string) ([]string, error) {
			binary, err := swapped.compile(tmp, o.File, file, folder)
			if err != nil {
				return run(root, overlay, folder, tests)
			}
			return runBinary(binary, root, folder, tests)
		}
	}
	if all {
		return o.tried(try, o.Tests)
	}
	// One that catches will do. Some breaks show only if goroutines or faults happen
	// to meet, so the first test may be needed again.
	for _, t := range append(slices.Clone(o.Tests), o.Tests[0], o.Tests[0]) {
		if err := o.tried(try, []string{t}); err != nil || len(o.Caught) > 0 {
			return err
		}
	}
	return nil
}

// tried runs some of the control's tests, by try, which returns those that fail.
func (o *Outcome) tried(try func(folder string, tests []string) ([]string, error), tests []string) error {
	byFolder := map[string][]string{}
	var folders []string
	for _, t := range tests {
		folder, name, _ := strings.Cut(t, ":")
		if byFolder[folder] == nil {
			folders = append(folders, folder)
		}
		byFolder[folder] = append(byFolder[folder], name)
	}
	for _, folder := range folders {
		failed, err := try(folder, byFolder[folder])
		if err != nil {
			return err
		}
		for _, t := range byFolder[folder] {
			switch t = folder + ":" + t; {
			case slices.Contains(failed, t):
				o.Caught = append(o.Caught, t)
			case slices.Contains(failed, t+hung):
				o.Caught = append(o.Caught, t+hung)
			default:
				o.Missed = append(o.Missed, t)
			}
		}
	}
	return nil
}

// hung follows the name of a test that did not come to an end: it took the
// process down with it, or half a minute.
const hung = " (no end)"

// event is a line of go test -json.
type event struct{ Action, Test, Output string }

// quickly makes the compiler, which is most of the work, take half its time: what
// is broken is broken without inlining as well, and nobody debugs it.
const quickly = "-gcflags=github.com/sidestep-go/sidestep/...=-l -dwarf=false"

// spare lets the compiler take a fifth less time, for more memory.
const spare = "GOGC=400"

// run returns which tests of a folder failed.
func run(root, overlay, folder string, tests []string) (failed []string, err error) {
	cmd := exec.Command("go", "test", "-json", "-vet=off", quickly, "-count=1", "-timeout=30s", "-overlay="+overlay,
		"-ldflags=-s -w", "-run", "^("+strings.Join(tests, "|")+")$", "./"+folder)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), spare)
	out, _ := cmd.Output() // the events tell
	ran, ended := map[string]bool{}, map[string]bool{}
	built := true
	var last string
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", folder, err)
		}
		name, _, sub := strings.Cut(e.Test, "/")
		switch {
		case e.Action == "build-fail":
			built = false
		case e.Action == "build-output":
			last += e.Output
		case e.Action == "run":
			ran[name] = true
		case sub || name == "":
		case e.Action == "fail":
			failed = append(failed, folder+":"+name)
			fallthrough
		case e.Action == "pass" || e.Action == "skip":
			ended[name] = true
		}
	}
	if !built {
		return nil, fmt.Errorf("%s does not compile: %s", folder, last)
	}
	return verdict(folder, tests, failed, ran, ended, false)
}

// verdict adds the tests that did not end. broken says that the process ended with an
// error.
func verdict(folder string, tests, failed []string, ran, ended map[string]bool, broken bool) ([]string, error) {
	for _, t := range tests {
		if ran[t] && !ended[t] { // it hangs, or took the process down
			failed = append(failed, folder+":"+t+hung)
		}
	}
	for _, t := range tests {
		if !ran[t] && len(failed) == 0 {
			if broken {
				return []string{folder + ":" + t + hung}, nil // it did not even start
			}
			return nil, fmt.Errorf("%s has no test %s", folder, t)
		}
	}
	return failed, nil
}
