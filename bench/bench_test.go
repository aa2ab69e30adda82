package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// mainEnv makes this program the command.
const mainEnv = "SIDESTEP_BENCH_MAIN"

func TestMain(m *testing.M) {
	if childMain() { // scenarios start this program again
		return
	}
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for _, tt := range []struct{ p, want float64 }{{0, 1}, {0.2, 1}, {0.5, 3}, {0.8, 4}, {0.81, 5}, {0.99, 5}, {1, 5}} {
		if got := percentile(values, tt.p); got != tt.want {
			t.Errorf("percentile(%v, %v) = %v, want %v", values, tt.p, got, tt.want)
		}
	}
	if got := percentile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("percentile of nothing = %v, want NaN", got)
	}
	if values[0] != 5 {
		t.Error("percentile changed its argument")
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("median of 3, 1, 2 = %v, want 2", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of 4, 1, 3, 2 = %v, want 2.5", got)
	}
}

func TestJain(t *testing.T) {
	for _, tt := range []struct {
		shares []float64
		want   float64
	}{{[]float64{7, 7, 7, 7}, 1}, {[]float64{9, 0, 0}, 1.0 / 3}, {[]float64{1, 2}, 0.9}} {
		if got := jain(tt.shares); !near(got, tt.want) {
			t.Errorf("jain(%v) = %v, want %v", tt.shares, got, tt.want)
		}
	}
}

func TestInversions(t *testing.T) {
	for _, tt := range []struct {
		order []int
		want  float64
	}{{nil, 0}, {[]int{1}, 0}, {[]int{0, 1, 2, 3}, 0}, {[]int{3, 2, 1, 0}, 1}, {[]int{1, 0, 2}, 1.0 / 3}, {[]int{2, 3, 0, 1}, 4.0 / 6}} {
		if got := inversions(tt.order); !near(got, tt.want) {
			t.Errorf("inversions(%v) = %v, want %v", tt.order, got, tt.want)
		}
	}
}

func TestRatios(t *testing.T) {
	got := ratios([]float64{4, 9, 5}, []float64{2, 3, 0, 8})
	if len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("ratios = %v, want [2 3]: round by round, without what cannot be compared", got)
	}
}

func TestAnalyse(t *testing.T) {
	const ms = 1e6
	all := []section{
		{Worker: 1, Asked: 0, Entry: 3 * ms, Exit: 4 * ms},
		{Worker: 0, Asked: 0, Entry: 0, Exit: 2 * ms},
		{Worker: 0, Asked: 2 * ms, Entry: 3.5 * ms, Exit: 5 * ms},
	}
	p := analyse(all, 2)
	if p.overlaps != 1 {
		t.Errorf("overlaps = %d, want 1", p.overlaps)
	}
	if !near(p.gapP99, 1000) || !near(p.waitP99, 3) || !near(p.perSecond, 600) || !near(p.jain, 0.9) || !near(p.leastOfMean, 2.0/3) {
		t.Errorf("analyse = %+v", p)
	}
}

func TestTargets(t *testing.T) {
	s := scenario{metrics: []metric{{"rate", false}, {"lag", true}}}
	peers := []peerResult{
		{Peer: ours, Rounds: map[string][]float64{"rate": {30, 20}, "lag": {2, 2}}},
		{Peer: "a", Rounds: map[string][]float64{"rate": {10, 10}, "lag": {9, 9}}},
		{Peer: "b", Rounds: map[string][]float64{"rate": {20, 5}, "lag": {4, 4}}},
		{Peer: "by hand", Limit: true, Rounds: map[string][]float64{"rate": {99, 99}, "lag": {1, 1}}},
	}
	for _, tt := range []struct {
		t     target
		value float64
		holds bool
	}{
		{target{metric: "rate", over: bestPeer, atLeast: 2.7}, 2.75, true}, // b's: 30/20 and 20/5
		{target{metric: "lag", over: bestPeer, atMost: 0.4}, 0.5, false},
		{target{metric: "lag", over: "by hand", atMost: 2}, 2, true},
		{target{metric: "lag", zero: true}, 2, false},
		{target{metric: "lag", atLeast: 1, atMost: 3}, 2, true},
	} {
		got, ok := tt.t.judge(s, peers)
		if !ok || !near(got.Value, tt.value) || got.Holds != tt.holds {
			t.Errorf("%s: %v, %v, want %v, %v", got.Text, got.Value, got.Holds, tt.value, tt.holds)
		}
	}
	if _, ok := (target{metric: "rate", of: "c"}).judge(s, peers); ok {
		t.Error("a target of a peer that was not run was judged")
	}
}

func TestWireCountsCommands(t *testing.T) {
	c := &countedConn{wire: new(wire)}
	requests := "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$11\r\n*2\r\n$1\r\nxyz\r\n"
	for i := range requests { // cut anywhere
		c.follow([]byte(requests[i : i+1]))
	}
	c.follow([]byte(requests))
	if got := c.wire.commands.Load(); got != 4 {
		t.Errorf("%d commands counted, want 4", got)
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 2: "2", 0.951: "0.95", 26.04: "26.0", 951.4: "951", 12_345: "12.3k", 370_100: "370k", 0.0123: "0.012"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
}

// A body is as long in JSON as it is, quotes aside, and brings its numbers back.
func TestBody(t *testing.T) {
	for _, want := range [][2]int64{{0, 0}, {1, -1}, {math.MaxInt64, math.MinInt64}} {
		body := bodyOf(want[0], want[1])
		text, err := json.Marshal(string(body))
		if err != nil || len(text) != bodySize+2 {
			t.Errorf("%d bytes in JSON (%v), want %d", len(text), err, bodySize+2)
		}
		if a, b := numbersOf(body); a != want[0] || b != want[1] {
			t.Errorf("numbersOf(bodyOf(%v)) = %d, %d", want, a, b)
		}
	}
	if a, _ := numbersOf([]byte("short")); a != math.MinInt64 {
		t.Errorf("a body that is none has the number %d", a)
	}
}

func TestMissedBoundShows(t *testing.T) {
	for _, tt := range []struct {
		x, bound float64
		want     string
	}{{0.947, 0.95, "0.947"}, {0.94996, 0.95, "0.94996"}, {0.9, 0.95, "0.90"}, {1.503, 1.5, "1.503"}, {3.24, 1.5, "3.24"}, {700.4, 700, "700.4"}, {1, 0, "1"}} {
		if got := apart(tt.x, tt.bound); got != tt.want {
			t.Errorf("apart(%v, %v) = %q, want %q", tt.x, tt.bound, got, tt.want)
		}
	}
	s := scenario{metrics: []metric{{"rate", false}}}
	peers := []peerResult{{Peer: ours, Rounds: map[string][]float64{"rate": {0.947}}}}
	if got, _ := (target{metric: "rate", atLeast: 0.95}).judge(s, peers); got.Holds || got.Figure != "0.947" {
		t.Errorf("judged %+v, want a miss by 0.947", got)
	}
}

func TestScenariosAreConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if seen[s.name] || s.title == "" || s.about == "" || len(s.metrics) == 0 || len(s.peers) == 0 {
			t.Errorf("scenario %q is named twice or lacks something", s.name)
		}
		seen[s.name] = true
		known := func(name string) bool {
			for _, p := range s.peers {
				if p.name == name {
					return true
				}
			}
			return name == "" || name == bestPeer
		}
		for _, tg := range s.targets {
			found := false
			for _, m := range s.metrics {
				found = found || m.name == tg.metric
			}
			if !found || !known(tg.of) || !known(tg.over) {
				t.Errorf("%s: target %+v names what is not there", s.name, tg)
			}
		}
	}
	for _, c := range charts {
		if !seen[c.scenario] {
			t.Errorf("chart %s is of scenario %q, which is not there", c.file, c.scenario)
		}
	}
}

// testServer starts a server, or skips the test if there is none to start.
func testServer(t *testing.T) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("REDISTEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("redis-server is not installed")
	}
	srv, err := startServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.stop)
	return srv
}

func TestAnotherServerIsNotUsed(t *testing.T) {
	srv := testServer(t)
	if err := srv.check(); err != nil {
		t.Errorf("its own server: %v", err)
	}
	other := &server{addr: srv.addr, admin: srv.admin, cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	if err := other.check(); err == nil {
		t.Error("a server that another process runs was taken for its own")
	}
}

// A round that failed gives no values, and the failure shows in every form of the report.
func TestFailuresShow(t *testing.T) {
	e := &env{server: testServer(t), quick: true}
	rounds := 0
	s := scenario{
		name: "test", title: "Test", about: "Nothing.", metrics: []metric{{"rate", false}},
		peers: []peer{{name: "broken", run: func(*env) (values, error) {
			if rounds++; rounds == 2 {
				return values{"rate": 7}, errors.New("it\nbroke")
			}
			return values{"rate": 1}, nil
		}}},
	}
	r, err := runScenario(t.Context(), e, s, 0, 3, func(string) bool { return true }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Peers[0].Rounds["rate"]; len(got) != 1 || got[0] != 1 {
		t.Errorf("values %v, want [1]: the failed round's are none, and no other follows it", got)
	}
	var text, markdown strings.Builder
	printResult(&text, r)
	printMarkdown(&markdown, r)
	if want := "broken: it\nbroke"; !strings.Contains(text.String(), want) {
		t.Errorf("%q is not in the text:\n%s", want, &text)
	}
	if want := "- **failed**: broken: it broke\n\n"; !strings.Contains(markdown.String(), want) {
		t.Errorf("%q is not in the Markdown:\n%s", want, &markdown)
	}
	if err := (report{Results: []result{r}}).failed(); err == nil || !strings.Contains(err.Error(), "test: broken") {
		t.Errorf("the run ended with %v, want an error that names the peer", err)
	}
}

func TestOrderAlternates(t *testing.T) {
	e := &env{server: testServer(t), quick: true}
	var order string
	s := scenario{name: "test"}
	for _, name := range []string{"a", "b"} {
		s.peers = append(s.peers, peer{name: name, run: func(*env) (values, error) {
			order += name
			return nil, nil
		}})
	}
	for turn := range 2 {
		if _, err := runScenario(t.Context(), e, s, turn, 2, func(string) bool { return true }, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if order != "abba"+"baab" {
		t.Errorf("the peers came in the order %s, want abbabaab", order)
	}
}

// What cannot be meant is refused before a server is started, with 2.
func TestWrongCalls(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string // in the message
	}{
		{"-scenario lock/cycl,lok", `"lok"`},
		{"-scenario lock,,queue", `begins with ""`},
		{"-peer redsync,nobody", `"nobody"`},
		{"-peer redsync,", `has "" in`},
		{"-scenario lock -peer asynq", `"asynq"`},
		{"-rounds -1", "negative"},
		{"lock/cycle-1", `"lock/cycle-1"`},
		{"-nothing", "-nothing"},
		{"-json no/such/folder/f.json", "no/such/folder"},
		{"-cpuprofile no/such/folder/f", "no/such/folder"},
	} {
		err := run(t.Context(), strings.Fields(tt.args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tt.want) || exitCode(err) != 2 {
			t.Errorf("bench %s: %v (exit %d), want 2 and a message with %s", tt.args, err, exitCode(err), tt.want)
		}
	}
	if err := checkNames(scenarios(), "lock/cycle, queue/", "redsync, rmq,hand"); err != nil {
		t.Errorf("a call that is right was refused: %v", err)
	}
}

// A run that is told to end writes what it has finished, leaves nothing behind,
// and ends with 130.
func TestInterrupt(t *testing.T) {
	testServer(t) // or skip
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		temp, file := t.TempDir(), filepath.Join(t.TempDir(), "report.json")
		cmd := exec.CommandContext(t.Context(), exe, "-quick", "-scenario", "lock", "-peer", "redsync", "-json", file)
		cmd.Env = append(os.Environ(), mainEnv+"=1", "TMPDIR="+temp)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "Free lock: ") { // the first scenario's table: it is finished
				if err := cmd.Process.Signal(sig); err != nil {
					t.Error(err)
				}
			}
		}
		err = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%v: exit %d (%v), want 130", sig, code, err)
		}
		rep, err := readReport(file)
		if err != nil || len(rep.Results) == 0 || rep.Results[0].Scenario != "lock/cycle-1" || len(rep.Results) == len(lockScenarios()) {
			t.Errorf("%v: the report has %d scenarios (%v), want the finished ones", sig, len(rep.Results), err)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%v: left behind: %v, %v", sig, left, err)
		}
	}
}

// A bar that was cut off says so.
func TestChartOfCutOffRuns(t *testing.T) {
	row := func(name string, finished float64) peerResult {
		return peerResult{Peer: name, Rounds: map[string][]float64{"m": {5, 5}, "finished": {400, finished}}}
	}
	svg := (chart{metric: "m", all: 400}).draw(result{Peers: []peerResult{row("whole", 400), row("cut", 33)}})
	if strings.Count(svg, ">&gt; 5</text>") != 1 || strings.Count(svg, ">5</text>") != 1 {
		t.Errorf("one label of two should have a >:\n%s", svg)
	}
}

// Documents are made of whole reports only.
func TestDocumentRefusesParts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(file, []byte("head\n"+tablesBegin+tablesEnd+"tail\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	whole := func() report {
		var rep report
		for _, s := range scenarios() {
			r := result{Scenario: s.name, Title: s.title}
			for _, p := range s.peers {
				r.Peers = append(r.Peers, peerResult{Peer: p.name})
			}
			rep.Results = append(rep.Results, r)
		}
		return rep
	}
	quick, short, poor := whole(), whole(), whole()
	quick.Quick = true
	short.Results = short.Results[:len(short.Results)-1]
	poor.Results[0].Peers = poor.Results[0].Peers[1:]
	for want, rep := range map[string]report{"-quick": quick, "growth/consumers": short, "lock/cycle-1: sidestep": poor} {
		if err := document(rep, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	if err := document(whole(), dir); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "### 10 and 100 times the idle consumers") {
		t.Errorf("no tables (%v):\n%s", err, text)
	}
}

// TestEachScenario runs each of them coarsely: ours and what bounds it. The other
// libraries would take it minutes with the race detector, most of it in waiting for
// their polls.
func TestEachScenario(t *testing.T) {
	srv := testServer(t)
	e := &env{server: srv, quick: true}
	for _, s := range scenarios() {
		t.Run(strings.ReplaceAll(s.name, "/", "-"), func(t *testing.T) {
			if testing.Short() {
				t.Skip("takes a second or two")
			}
			r, err := runScenario(t.Context(), e, s, 0, 1, func(name string) bool {
				return slices.ContainsFunc(s.peers, func(p peer) bool { return p.name == name && (p.limit || isOurs(name)) })
			}, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range r.Peers {
				if p.Error != "" {
					t.Errorf("%s: %s", p.Peer, p.Error)
				}
				if s.name == "queue/memory" && isOurs(p.Peer) && len(p.Rounds["parked B"]) == 0 {
					t.Errorf("%s: no parked B", p.Peer)
				}
				if len(p.Rounds) == 0 || p.Peer != "one round trip" && len(p.Rounds[s.metrics[0].name]) == 0 {
					t.Errorf("%s: no %s", p.Peer, s.metrics[0].name)
				}
			}
			printResult(io.Discard, r)
		})
	}
}
