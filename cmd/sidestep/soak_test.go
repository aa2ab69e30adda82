package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// soaked runs soak in a process of its own, whose heap, goroutines and files are
// nobody else's, and returns its report and exit status.
func soaked(t *testing.T, args ...string) (*soakReport, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"soak", "-json", "-redis", realRedis(t)}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // the status is looked at by the caller
	var r soakReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("soak %v: %v\n%s%s", args, err, &out, &errOut)
	}
	return &r, cmd.ProcessState.ExitCode()
}

// Under a mixed load nothing grows, nothing is left behind, and nothing is lost.
func TestSoakIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	t.Parallel()
	r, status := soaked(t, "-duration", "20s", "-rate", "100")
	if status != exitOK || r.Verdict != "flat" {
		t.Errorf("exit status %d, verdict %q: %+v", status, r.Verdict, *r)
	}
	for _, kind := range []string{ // the load has had all that it is made of
		"call", "party crashed", "inline fail", "inline retry", "defer", "retry then defer", "defer not before", "enqueue", "enqueue in",
		"cancel", "cancel in line", "never released", "foreign holder", "handed over", "several at once",
		"request done", "request cancelled", "request dead",
	} {
		if r.Counts[kind] == 0 {
			t.Errorf("no %q in %v", kind, r.Counts)
		}
	}
}

// What leaks is noticed, whatever it is.
func TestSoakNoticesLeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	t.Parallel()
	r, status := soaked(t, "-duration", "10s", "-leak", "all")
	if status != exitBroken || r.Verdict != "not flat" {
		t.Errorf("exit status %d, verdict %q, want %d and not flat", status, r.Verdict, exitBroken)
	}
	grew := make(map[string]bool)
	for _, m := range r.Metrics {
		grew[m.Name] = !m.Flat
	}
	want := []string{
		"heap bytes", "goroutines", "server bytes", "server clients", "mailboxes", "keys: lock", "keys: fence", "keys: line",
		"keys: parked flag", "queue: bodies", "queue: states", "queue: held", "queue: gone",
	}
	if openFiles() >= 0 {
		want = append(want, "open files")
	}
	for _, name := range want {
		if !grew[name] {
			t.Errorf("%s is called flat: %+v", name, r.Metrics)
		}
	}
	for _, name := range []string{"keys: lock", "keys: fence", "keys: line", "keys: parked flag", "queue: held", "bodies of none", "states of none"} {
		if r.Left[name] == 0 {
			t.Errorf("%s: none left, although they were leaked", name)
		}
	}
}

func TestSoakJudges(t *testing.T) {
	t.Parallel()
	noise := []float64{0, 40, -30, 10, -20, 30, -10, 20}
	for _, tt := range []struct {
		name string
		at   func(i int) float64
		flat bool
	}{
		{"nothing", func(int) float64 { return 0 }, true},
		{"flat", func(int) float64 { return 1000 }, true},
		{"noise", func(i int) float64 { return 1000 + noise[i%len(noise)] }, true},
		{"warming up", func(i int) float64 { return float64(min(i, 30)) * 100 }, true},
		{"shrinking", func(i int) float64 { return 1e6 - float64(i) }, true},
		{"a spike", func(i int) float64 { return map[bool]float64{true: 1e9}[i == 80] }, true},
		{"steady growth", func(i int) float64 { return float64(i) }, false},
		{"growth under noise", func(i int) float64 { return 1000 + 5*float64(i) + noise[i%len(noise)] }, false},
		{"a step", func(i int) float64 { return map[bool]float64{true: 100}[i > 70] }, false},
	} {
		samples := make([]readings, 99)
		for i := range samples {
			samples[i] = readings{"x": tt.at(i)}
		}
		if got := judge(samples); len(got) != 1 || got[0].Flat != tt.flat {
			t.Errorf("%s: %+v, want flat %t", tt.name, got, tt.flat)
		}
	}
	if got := judge(make([]readings, 11)); got != nil {
		t.Errorf("judge of too few samples = %v, want nil", got)
	}
}

func TestSoakUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"soak -duration 1s":             "-duration 1s",
		"soak -rate 0":                  "-rate 0",
		"soak -leak nothing":            "-leak",
		"soak extra":                    "extra",
		"soak -redis unix:///nowhere.s": "redis at /nowhere.s",
	} {
		got := runCommand(t, "", strings.Fields(args)...)
		if got.status != exitUnusable || !strings.Contains(got.errOut, want) {
			t.Errorf("sidestep %s: exit status %d, want %d and %q\n%s", args, got.status, exitUnusable, want, got.errOut)
		}
	}
}
