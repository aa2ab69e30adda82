//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/chaos"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

// wreak runs chaos to its end and returns the report of its only topology.
func wreak(t *testing.T, args ...string) (int, *chaos.Result, string) {
	t.Helper()
	redistest.Real(t) // skips, or fails where it is required
	file := filepath.Join(t.TempDir(), "report.json")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	status := run(ctx, append([]string{"chaos", "-json", file}, args...), strings.NewReader(""), &out, &errOut)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("chaos %v: exit status %d, %v\n%s%s", args, status, err, &out, &errOut)
	}
	var rs []*chaos.Result
	if err := json.Unmarshal(text, &rs); err != nil || len(rs) != 1 {
		t.Fatalf("chaos %v: %v\n%s", args, err, text)
	}
	return status, rs[0], out.String()
}

// Real processes on a real server are harmed for some seconds, and every promise
// is kept. The longer form of this test is the command.
func TestChaos(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes some ten seconds")
	}
	svg := filepath.Join(t.TempDir(), "timeline.svg")
	status, r, out := wreak(t, "-topology", "standalone", "-duration", "6s", "-seed", "1", "-svg", svg)
	if status != exitOK || !r.OK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	if r.FaultsDone < 5 || r.Kills < 3 || r.Accepted == 0 || r.Done != r.Accepted || r.History.Acquires == 0 {
		t.Errorf("this was no chaos: %d faults, %d kills, %d of %d done\n%s", r.FaultsDone, r.Kills, r.Done, r.Accepted, out)
	}
	if sum := r.Accepted + r.RanInCall + r.Refused + r.Ambiguous + r.Unanswered; sum != r.Requests {
		t.Errorf("%d requests, but %d accounted for", r.Requests, sum)
	}
	if text, err := os.ReadFile(svg); err != nil || !strings.Contains(string(text), `<path class="done" d="M`) {
		t.Errorf("the picture shows no section, or %v", err)
	}
}

// What is broken on purpose is found, by the account that is meant for it.
func TestChaosFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes tens of seconds")
	}
	for _, tt := range []struct {
		how, faults string
		found       func(r *chaos.Result) bool
	}{
		{chaos.BreakAck, "kill-worker", func(r *chaos.Result) bool { return r.Lost > 0 }},
		{chaos.BreakContext, "stop", func(r *chaos.Result) bool { return len(r.Overlaps) > 0 }},
		{chaos.BreakFence, "stop", func(r *chaos.Result) bool { return r.StaleLet > 0 }},
	} {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			for _, seed := range []string{"1", "2", "3"} { // harm can miss
				status, r, out := wreak(t, "-topology", "standalone", "-duration", "4s", "-seed", seed, "-faults", tt.faults, "-break", tt.how)
				if !tt.found(r) {
					continue
				}
				if status != exitBroken || r.OK || !strings.Contains(out, "BROKEN") {
					t.Errorf("exit status %d, want %d\n%s", status, exitBroken, out)
				}
				return
			}
			t.Error("it was not found")
		})
	}
}

// However the command ends, none of its processes stays; and unless it is killed,
// none of its files.
func TestChaosCleansUp(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	redistest.Real(t)
	for _, tt := range []struct {
		sig    syscall.Signal
		status int
	}{{syscall.SIGINT, exitInterrupted}, {syscall.SIGTERM, exitInterrupted}, {syscall.SIGKILL, -1}} {
		dir, err := os.MkdirTemp("", "sidestep")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		cmd := exec.Command(os.Args[0], "chaos", "-topology", "quorum", "-dir", dir)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		limit := time.Now().Add(40 * time.Second)
		wait := func(what string, until func() bool) {
			t.Helper()
			for !until() {
				<-tick.C
				if time.Now().After(limit) {
					_ = cmd.Process.Kill()
					t.Fatalf("%v: %s: not in time\n%s", tt.sig, what, &out)
				}
			}
		}
		wait("servers and members run", func() bool {
			books, _ := filepath.Glob(filepath.Join(dir, "*", "*.jsonl"))
			return len(books) == 6 && len(processesIn(t, dir)) >= 4
		})
		_ = cmd.Process.Signal(tt.sig)
		_ = cmd.Wait() // the status is looked at below
		if got := cmd.ProcessState.ExitCode(); got != tt.status {
			t.Errorf("%v: exit status %d, want %d\n%s", tt.sig, got, tt.status, &out)
		}
		wait("no process is left", func() bool { return len(processesIn(t, dir)) == 0 })
		if left, err := os.ReadDir(dir); tt.sig != syscall.SIGKILL && (err != nil || len(left) > 0) {
			t.Errorf("%v: left in the folder: %v, %v", tt.sig, left, err)
		}
	}
}

// processesIn returns the processes that have a file of the folder open, or name
// it in their arguments.
func processesIn(t *testing.T, dir string) (all []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if p == fmt.Sprint("/proc/", os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		// The command itself names the folder as well, but not what is in it.
		in := bytes.Contains(args, []byte(dir+"/"))
		files, _ := filepath.Glob(filepath.Join(p, "fd", "*"))
		for _, f := range files {
			to, _ := os.Readlink(f)
			in = in || strings.HasPrefix(to, dir+"/")
		}
		if in {
			all = append(all, p)
		}
	}
	return all
}

// Without servers there is no run, and that is said.
func TestChaosWithoutServers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	got := runCommand(t, "", "chaos")
	if got.status != exitUnusable || !strings.Contains(got.errOut, "no redis-server in PATH") {
		t.Errorf("exit status %d, want %d\n%s%s", got.status, exitUnusable, got.out, got.errOut)
	}
}
