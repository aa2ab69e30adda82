package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/chaos"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

// asCommand makes the test binary be the command, so that what is tested is
// compiled as the tests are: with the race detector, for example.
const asCommand = "SIDESTEP_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(memberEnv) != "" || os.Getenv(chaos.MemberEnv) != "" || os.Getenv(asCommand) != "" {
		main()
	}
	redistest.Main(m)
}

const sample = "../../examples/data/etcd-changes.jsonl"

// result is what a run of the command left behind.
type result struct {
	status      int
	out, errOut string
}

// runCommand runs a command line to its end, in this process.
func runCommand(t *testing.T, in string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	var out, errOut bytes.Buffer
	status := run(ctx, args, strings.NewReader(in), &out, &errOut)
	return result{status, out.String(), errOut.String()}
}

// replayed runs replay with -json and returns its report, which must be of
// success.
func replayed(t *testing.T, in string, args ...string) *report {
	t.Helper()
	got := runCommand(t, in, append([]string{"replay", "-json"}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(got.out), &r); err != nil {
		t.Fatalf("replay %v: %v\n%s%s", args, err, got.out, got.errOut)
	}
	if got.status != exitOK || !r.OK {
		t.Fatalf("replay %v: exit status %d\n%s%s", args, got.status, got.out, got.errOut)
	}
	return &r
}

// requests returns n lines over so many keys.
func requests(n, keys int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"id":"r%d","key":"k%d","n":%d}`+"\n", i, i%keys, i)
	}
	return b.String()
}

// head returns the first n lines of the sample.
func head(t *testing.T, n int) string {
	t.Helper()
	all, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.SplitAfterN(string(all), "\n", n+1)[:n], "")
}

// realRedis starts a redis-server and returns its URL, or skips.
func realRedis(t *testing.T) string {
	t.Helper()
	redistest.Real(t) // skips, or fails where it is required
	return "unix://" + redistest.NewServer(t).Socket
}

// servers runs fn with the flags that choose each kind of server.
func servers(t *testing.T, fn func(t *testing.T, flags ...string)) {
	t.Helper()
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		fn(t)
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		fn(t, "-redis", realRedis(t))
	})
}

func TestDemo(t *testing.T) {
	servers(t, func(t *testing.T, flags ...string) {
		got := runCommand(t, "", append([]string{"demo", "-limit", "3m"}, flags...)...)
		if got.status != exitOK {
			t.Fatalf("exit status %d\n%s%s", got.status, got.out, got.errOut)
		}
		if strings.Contains(got.out, "\x1b") {
			t.Error("control sequences in piped output")
		}
		for _, want := range []string{
			"is refused after", "has the lock, retry after", "after waiting", "its request is stored", "runs on worker-",
			"✓ 495 requests = ", "; 0 ran twice", " 0 overlapped", "0 exceptions",
		} {
			if !strings.Contains(got.out, want) {
				t.Errorf("no %q in\n%s", want, got.out)
			}
		}
		if strings.Contains(got.out, "BROKEN") {
			t.Errorf("the ledger does not balance:\n%s", got.out)
		}
	})
}

// A demo that does not get on ends all the same, and says so.
func TestDemoLimit(t *testing.T) {
	t.Parallel()
	got := runCommand(t, "", "demo", "-limit", "300ms")
	if got.status != exitBroken || !strings.Contains(got.errOut, "took too long") {
		t.Errorf("exit status %d, want %d and why\n%s%s", got.status, exitBroken, got.out, got.errOut)
	}
}

var allPolicies = []string{"fail", "retry:10s", "defer:1s", "retry:5ms,defer:1s"}

func TestReplayPolicies(t *testing.T) {
	servers(t, func(t *testing.T, flags ...string) {
		for _, policy := range allPolicies {
			for _, via := range []string{"queue", "direct"} {
				args := append([]string{"-policy", policy, "-via", via, "-work", "2ms", "-"}, flags...)
				r := replayed(t, requests(40, 4), args...)
				if r.Requests != 40 || r.Done+r.Locked != 40 || r.Keys != 4 {
					t.Errorf("%s, via %s: %+v", policy, via, *r)
				}
				if r.Locked > 0 && (policy != "fail" || via != "direct") {
					t.Errorf("%s, via %s: %d refused", policy, via, r.Locked)
				}
				if policy == "fail" && via == "direct" && r.Locked == 0 {
					t.Errorf("16 callers on 4 locks, and none was refused")
				}
				if via == "queue" && r.Inversions != 0 {
					t.Errorf("%s, via queue: %d inversions", policy, r.Inversions)
				}
				if r.DeferredByDo > 0 != (via == "direct" && strings.Contains(policy, "defer")) {
					t.Errorf("%s, via %s: %d deferred by callers", policy, via, r.DeferredByDo)
				}
			}
		}
	})
}

func TestReplaySample(t *testing.T) {
	servers(t, func(t *testing.T, flags ...string) {
		n := 150
		if len(flags) > 0 {
			n = 1000
		}
		for _, via := range []string{"queue", "direct"} {
			r := replayed(t, head(t, n), append([]string{"-work", "0", "-via", via, "-"}, flags...)...)
			if r.Done != n || r.RanAgain != 0 {
				t.Errorf("via %s: %d of %d done, %d again", via, r.Done, n, r.RanAgain)
			}
		}
	})
}

func TestReplayProcesses(t *testing.T) {
	servers(t, func(t *testing.T, flags ...string) {
		for _, via := range []string{"queue", "direct"} {
			r := replayed(t, requests(100, 5), append([]string{"-processes", "4", "-via", via, "-"}, flags...)...)
			if r.Done != 100 || r.Processes != 4 || len(r.Deaths) != 0 {
				t.Errorf("via %s: %+v", via, *r)
			}
		}
	})
}

// A process that dies loses nothing: its requests run again in the others.
func TestReplayDeath(t *testing.T) {
	t.Parallel()
	for _, via := range []string{"queue", "direct"} {
		lines, _, err := readLines(strings.NewReader(requests(300, 6)))
		if err != nil {
			t.Fatal(err)
		}
		opt := defaultReplayOptions()
		opt.via, opt.processes, opt.work, opt.lease = via, 3, 5*time.Millisecond, time.Second
		opt.started = func(c *crew) {
			time.AfterFunc(100*time.Millisecond, c.members[1].kill)
		}
		r, err := replay(t.Context(), opt, lines, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if !r.OK || r.Done != 300 || len(r.Deaths) != 1 || !strings.Contains(r.Deaths[0], "signal: killed") {
			t.Errorf("via %s: OK = %t, %d done, deaths %q; %+v", via, r.OK, r.Done, r.Deaths, *r)
		}
	}
}

// An interrupt ends a run with a report in which nothing is missing.
func TestReplayInterrupt(t *testing.T) {
	t.Parallel()
	lines, _, err := readLines(strings.NewReader(requests(1000, 50)))
	if err != nil {
		t.Fatal(err)
	}
	for _, processes := range []int{1, 3} {
		for _, via := range []string{"queue", "direct"} {
			ctx, interrupt := context.WithCancel(t.Context())
			opt := defaultReplayOptions()
			opt.via, opt.processes, opt.work = via, processes, 50*time.Millisecond
			opt.started = func(*crew) { time.AfterFunc(500*time.Millisecond, interrupt) }
			r, err := replay(ctx, opt, lines, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK || !r.Interrupt || r.Done == 0 || r.Done+r.Stored+r.NotMade != 1000 {
				t.Errorf("%d processes, via %s: %+v", processes, via, *r)
			}
		}
	}
}

func TestReplayBadLines(t *testing.T) {
	t.Parallel()
	in := requests(3, 1) + "oops\n" + `{"id":"r1","key":"again"}` + "\n" + requests(5, 1)[len(requests(3, 1)):]
	got := runCommand(t, in, "replay", "-work", "0", "-")
	if got.status != exitOK || !strings.Contains(got.out, "2 bad lines left out") {
		t.Errorf("exit status %d\n%s%s", got.status, got.out, got.errOut)
	}
	for _, want := range []string{"standard input:4: bad JSON", `standard input:5: id "r1" is that of line 2`} {
		if !strings.Contains(got.errOut, want) {
			t.Errorf("no %q in\n%s", want, got.errOut)
		}
	}
	if r := replayed(t, in, "-work", "0", "-"); r.Done != 5 || len(r.Bad) != 2 {
		t.Errorf("%d done, %d bad, want 5 and 2", r.Done, len(r.Bad))
	}
	got = runCommand(t, in, "replay", "-strict", "-")
	if got.status != exitUnusable || got.out != "" || !strings.Contains(got.errOut, "2 bad lines, and -strict") {
		t.Errorf("with -strict: exit status %d\n%s%s", got.status, got.out, got.errOut)
	}
}

func TestReplayNothing(t *testing.T) {
	t.Parallel()
	if r := replayed(t, "\n", "-"); r.Requests != 0 {
		t.Errorf("%+v", *r)
	}
	if got := runCommand(t, "", "replay", "-"); got.status != exitOK {
		t.Errorf("exit status %d\n%s%s", got.status, got.out, got.errOut)
	}
}

// What a run leaves in Redis is nothing, and what was there it leaves alone.
func TestReplayCleansUp(t *testing.T) {
	t.Parallel()
	url := realRedis(t)
	rdb, err := address{URL: url}.client(1)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	for _, name := range []string{"k0", "mine", "sidestep:{replay}:ready"} {
		if err := rdb.Set(t.Context(), name, "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := replayed(t, requests(20, 2), "-redis", url, "-via", "direct", "-")
	if r.KeysRemoved == 0 {
		t.Error("no keys were removed")
	}
	if got := runCommand(t, "", "demo", "-redis", url); got.status != exitOK {
		t.Errorf("demo: exit status %d\n%s%s", got.status, got.out, got.errOut)
	}
	names, err := rdb.Keys(t.Context(), "*").Result()
	if err != nil || len(names) != 3 {
		t.Errorf("left in Redis: %q, %v", names, err)
	}
}

// full takes so many bytes, and no more.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), f.room)
	f.room -= n
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"version", "help replay", "replay -work 0 -", "replay -work 0 -json -", "demo"} {
		for _, room := range []int{0, 30} {
			var errOut bytes.Buffer
			status := run(t.Context(), strings.Fields(args), strings.NewReader(requests(3, 1)), &full{room}, &errOut)
			if room == 30 && args == "version" {
				continue // may fit
			}
			if status != exitUnusable || !strings.Contains(errOut.String(), syscall.ENOSPC.Error()) {
				t.Errorf("sidestep %s, with room for %d bytes: exit status %d, want %d and why\n%s", args, room, status, exitUnusable, &errOut)
			}
		}
	}
}

// A payload is stored as it is: escaped, this one would be too large.
func TestReplayDoesNotEscape(t *testing.T) {
	t.Parallel()
	in := fmt.Sprintf(`{"id":"r","key":"k","page":"%s"}`+"\n", strings.Repeat("<>&", 300_000))
	for _, via := range []string{"queue", "direct"} {
		if r := replayed(t, in, "-work", "0", "-via", via, "-"); r.Done != 1 || len(r.Bad) != 0 {
			t.Errorf("via %s: %d done, %d bad lines, want 1 and 0", via, r.Done, len(r.Bad))
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"", exitOK, "Available Commands"},
		{"version", exitOK, "sidestep "},
		{"demo -help", exitOK, "-redis"},
		{"replay --help", exitOK, "inversions"},
		{"replay", exitUnusable, "one FILE"},
		{"replay a b", exitUnusable, "one FILE"},
		{"replay " + missing, exitUnusable, "no such file"},
		{"replay -policy never -", exitUnusable, "none of fail"},
		{"replay -via air -", exitUnusable, "neither queue nor direct"},
		{"replay -workers 2 -processes 3 -", exitUnusable, "-workers 2"},
		{"replay -processes 0 -", exitUnusable, "-processes 0"},
		{"replay -work -1s -", exitUnusable, "-work"},
		{"replay -lease 1ms -", exitUnusable, "-lease"},
		{"replay -stall 0s -", exitUnusable, "-stall"},
		{"replay -nonsense -", exitUnusable, "nonsense"},
		{"replay -redis http://x -", exitUnusable, "-redis"},
		{"replay -redis unix:///nowhere.sock -", exitUnusable, "redis at /nowhere.sock"},
		{"replay -redis unix:///nowhere.sock -processes 2 -", exitUnusable, "redis at /nowhere.sock"},
		{"demo extra", exitUnusable, "extra"},
		{"demo -limit -1s", exitUnusable, "-limit -1s"},
		{"help", exitOK, "Available Commands"},
		{"help replay", exitOK, "inversions"},
		{"help nope", exitUnusable, "unknown command"},
		{"help demo extra", exitUnusable, "unknown command"},
		{"chaos -help", exitOK, "recovery"},
		{"chaos extra", exitUnusable, "extra"},
		{"chaos -topology ring", exitUnusable, "-topology \"ring\""},
		{"chaos -faults flood", exitUnusable, "-faults \"flood\""},
		{"chaos -duration 1ms", exitUnusable, "-duration 1ms"},
		{"chaos -workers 0", exitUnusable, "-workers 0"},
		{"chaos -break all", exitUnusable, "-break \"all\""},
		{"exec", exitUnusable, "unknown command"},
	} {
		got := runCommand(t, "", strings.Fields(tt.args)...)
		if got.status != tt.status || !strings.Contains(got.out+got.errOut, tt.want) {
			t.Errorf("sidestep %s: exit status %d, want %d and %q\n%s%s", tt.args, got.status, tt.status, tt.want, got.out, got.errOut)
		}
	}
}
