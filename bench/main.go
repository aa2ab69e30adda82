// Command bench compares sidestep with other Go libraries, and each with what
// the same commands cost by hand. It starts a redis-server of its own.
//
//	go run ./bench                        # everything, in a quarter of an hour
//	go run ./bench -quick                 # everything, coarsely, in under two minutes: smaller than the titles say
//	go run ./bench -scenario lock/hand-off -peer sidestep,redsync
//	go run ./bench -json results.json     # the raw values of every round as well
//	go run ./bench -docs docs -json results.json   # docs/performance.md and its charts, of these
//
// Peers take turns, several rounds each, in alternating order, which every other
// scenario begins with the last of them. Ctrl-C ends the run after the peer under
// way, with what is finished written. Tables show the
// median of the rounds, with the least and the most in parentheses; rows that
// begin with "=" are done by hand and are the limit. Compare only what stands
// in one table: absolute figures are the machine's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report is what -json writes.
type report struct {
	Machine string   `json:"machine"`
	Quick   bool     `json:"quick"`
	Results []result `json:"results"`
}

func main() {
	if childMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		fmt.Fprintln(os.Stderr, "\nbench: ends after the peer under way; again: at once")
	})
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(exitCode(err))
}

// errUsage is what a call is refused with before anything is measured.
var errUsage = errors.New("usage")

// errInterrupted is the end of a run that was told to end before it was through.
var errInterrupted = errors.New("interrupted: not all was measured")

// exitCode is 2 if the call was wrong, 130 if the run was interrupted, and 1 if
// something failed, as with other commands.
func exitCode(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case errors.Is(err, errInterrupted):
		return 130
	}
	return 1
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("scenario", "", "run only those whose name begins with one of these, separated by commas")
	peers := flags.String("peer", "", "run only peers whose name contains one of these, separated by commas")
	file := flags.String("json", "", "write the values of every round to this file")
	quick := flags.Bool("quick", false, "coarsely, in under two minutes: smaller than the titles say, and judged by nothing")
	rounds := flags.Int("rounds", 0, "turns of each peer (default 1 to 7, most often 3, and 1 with -quick)")
	list := flags.Bool("list", false, "list the scenarios and end")
	docs := flags.String("docs", "", "put the tables and charts of the -json file into this folder's performance.md, and end")
	profile := flags.String("cpuprofile", "", "write a CPU profile of this process to this file")
	allocs := flags.String("memprofile", "", "write every allocation of this process to this file (and run slower)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %q is no flag, and nothing else is expected", errUsage, flags.Arg(0))
	}
	if *rounds < 0 {
		return fmt.Errorf("%w: -rounds %d is negative", errUsage, *rounds)
	}
	all := scenarios()
	if err := checkNames(all, *only, *peers); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *docs != "" {
		rep, err := readReport(*file)
		if err != nil {
			return err
		}
		return document(rep, *docs)
	}
	if *list {
		for _, s := range all {
			fmt.Fprintf(stdout, "%-24s %s\n", s.name, s.title)
		}
		return nil
	}
	if *rounds == 0 && *quick {
		*rounds = 1
	}
	for _, name := range []string{*file, *profile, *allocs} {
		if err := writable(name); err != nil { // better now than after ten minutes
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	srv, err := startServer()
	if err != nil {
		return err
	}
	defer func() { srv.stop() }()
	pinned := pin(srv.cmd.Process.Pid)
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // a broken profile shows
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}

	if *allocs != "" {
		runtime.MemProfileRate = 1
		defer func() {
			if err := writeAllocs(*allocs); err != nil {
				fmt.Fprintln(stderr, "bench:", err)
			}
		}()
	}

	rep := report{Quick: *quick, Machine: fmt.Sprintf("%d cores (%s), %s, Redis %s over loopback TCP, %s",
		runtime.NumCPU(), pinned, runtime.Version(), srv.version(), time.Now().Format("2 January 2006"))}
	fmt.Fprintln(stdout, rep.Machine)
	if *quick {
		fmt.Fprintln(stdout, "-quick: a tenth or less of the requests, waiters, keys and seconds that the titles name, and no verdicts")
	}
	progress := io.Discard
	if f, ok := stderr.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			progress = stderr
		}
	}
	var interrupted error
	for i, s := range all {
		if !matches(s.name, *only, strings.HasPrefix) {
			continue
		}
		if len(rep.Results) > 0 { // each has a server that nothing has been asked of yet
			srv.stop()
			next, err := startServer()
			if err != nil {
				return errors.Join(rep.write(*file), err)
			}
			srv = next
			pin(srv.cmd.Process.Pid)
		}
		r, err := runScenario(ctx, &env{server: srv, quick: *quick}, s, i, *rounds, func(name string) bool { return matches(name, *peers, strings.Contains) }, progress)
		if err != nil { // half a scenario compares nothing
			interrupted = err
			break
		}
		if len(r.Peers) == 0 {
			continue
		}
		printResult(stdout, r)
		rep.Results = append(rep.Results, r)
	}
	return errors.Join(rep.write(*file), rep.failed(), interrupted)
}

// write puts the report into a file, if one is named.
func (r report) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// failed names the peers whose measurement failed.
func (r report) failed() error {
	var names []string
	for _, s := range r.Results {
		for _, p := range s.Peers {
			if p.Error != "" {
				names = append(names, s.Scenario+": "+p.Peer)
			}
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("failed: %s", strings.Join(names, ", "))
}

func writeAllocs(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// writable tells whether a file, if one is named, can be written. It leaves what is in it.
func writable(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// checkNames refuses parts of -scenario and -peer that select nothing: a slip
// would else leave out what was asked for without a word.
func checkNames(all []scenario, only, peers string) error {
	for _, part := range parts(only) {
		if !slices.ContainsFunc(all, func(s scenario) bool { return part != "" && strings.HasPrefix(s.name, part) }) {
			return fmt.Errorf("-scenario: no name begins with %q; -list shows them", part)
		}
	}
	for _, part := range parts(peers) {
		named := func(p peer) bool { return part != "" && strings.Contains(p.name, part) }
		if !slices.ContainsFunc(all, func(s scenario) bool {
			return matches(s.name, only, strings.HasPrefix) && slices.ContainsFunc(s.peers, named)
		}) {
			return fmt.Errorf("-peer: no peer in these scenarios has %q in its name", part)
		}
	}
	return nil
}

// parts are those of a list that is separated by commas; none of an empty one.
func parts(list string) []string {
	if list == "" {
		return nil
	}
	all := strings.Split(list, ",")
	for i, part := range all {
		all[i] = strings.TrimSpace(part)
	}
	return all
}

// matches tells whether a name has one of a list's parts; all do if there are none.
func matches(name, list string, has func(name, part string) bool) bool {
	return list == "" || slices.ContainsFunc(parts(list), func(part string) bool { return has(name, part) })
}

// scenarios are all of them, in the order of the report.
func scenarios() []scenario {
	var all []scenario
	all = append(all, lockScenarios()...)
	all = append(all, queueScenarios()...)
	all = append(all, deferralScenarios()...)
	return append(all, growthScenarios()...)
}
