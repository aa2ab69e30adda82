package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/chaos"
)

// chaosOptions are the flags of chaos.
type chaosOptions struct {
	chaos.Options

	topologies, faults string
	json, svg          string
}

const chaosLong = `Chaos starts redis-servers of its own (redis-server must be in PATH), worker and
client processes, and a nemesis that harms them as its seed says: processes are
killed, or stopped for longer than their leases; connections are cut, go silent,
or lose a reply; servers are killed and restarted, stalled, or replaced by their
replica. Then it accounts for every accepted request and every section.

Clients enqueue requests and make direct calls that defer. Sections do the worst
that a handler can do: they write without a look at their context, to a register
that checks fences, on a server that nobody harms. Each process writes down what
it does in a file of its own, which survives it.

Topologies, one after another (-topology takes one or more, with commas):

  standalone      One server, appendfsync always.
  sentinel        A master, a replica, three sentinels. Accepting a request waits
                  for the replica (listq.Config.Wait), so that a failover loses none.
  sentinel-async  The same without that wait: what a failover loses is counted.
  quorum          Locks on a majority of three servers, the queue on one of them.
  cluster         Three masters, a queue of three partitions.

What the report means:

  accepted        Stored, as the caller was told. Each must run: lost must be 0.
  ambiguous       The caller got an error, or no answer, and it ran. That is allowed.
  done again      Sections that came to their end beyond the first of a request.
                  Delivery is at least once; the fault that explains it is named.
  masters replaced
                  By their replica, when the sentinels took them for dead. What
                  such a master accepted after the replica last had all counts as
                  lost to replication, where accepting does not wait. If it went on
                  to serve beside the new one, a note says so, with the overlaps.
  overlaps        Pairs of sections of one lock of which both were still valid: the
                  context had not ended, and the lease had not run out. Must be 0.
  stale writes    Writes with an older fence than one seen before. Let through: must
                  be 0. Without the fence: how many of the same would have passed.
  history         Fences grow from each hold to those that were asked for after it,
                  and windows of the history have an order that a model of lock and
                  register allows (porcupine). One that has none is drawn.
  recovery        From a fault to the end of the next section, of any process.
  runs again      From the death of a worker until its requests began anew.

Exit status: 0 all promises kept; 1 a promise broken; 2 wrong usage, or no
servers; 130 interrupted.`

func chaosCommand() *cobra.Command {
	opt := chaosOptions{
		Options: chaos.Options{
			Duration: 20 * time.Second, Every: 300 * time.Millisecond, Seed: 1,
			Workers: 4, Clients: 2, Handlers: 4, Rate: 30, Quiet: 3,
		},
		topologies: "all",
	}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Harm real processes and servers, and account for every request and section",
		Long:  chaosLong,
		Example: `  sidestep chaos
  sidestep chaos -topology sentinel -duration 1m -seed 7
  sidestep chaos -topology standalone,quorum -faults kill-worker,stop
  sidestep chaos -json report.json -svg timeline.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return chaosMain(cmd, opt) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.topologies, "topology", opt.topologies, "all, or some of "+strings.Join(chaos.Topologies, ","))
	f.DurationVar(&opt.Duration, "duration", opt.Duration, "how long each topology is harmed")
	f.DurationVar(&opt.Every, "every", opt.Every, "time between two faults, on average")
	f.Uint64Var(&opt.Seed, "seed", opt.Seed, "fixes which faults come when, and the workload")
	f.StringVar(&opt.faults, "faults", "", "the kinds of faults, with commas (default: all that the topology has)")
	f.IntVar(&opt.Workers, "workers", opt.Workers, "worker processes")
	f.IntVar(&opt.Clients, "clients", opt.Clients, "client processes")
	f.Float64Var(&opt.Rate, "rate", opt.Rate, "requests per second of each client")
	f.StringVar(&opt.Scratch, "dir", "", "where the servers keep their data (default: in memory, if there is a /dev/shm)")
	f.StringVar(&opt.json, "json", "", "write the report to this file, as JSON")
	f.StringVar(&opt.svg, "svg", "", "draw the timeline into this file")
	f.StringVar(&opt.Break, "break", "", "break a promise on purpose, to see it found: "+strings.Join(chaos.Breaks, ", "))
	_ = f.MarkHidden("break") // the flag exists
	return cmd
}

// check returns what is wrong with the flags, and fills in what they say.
func (o *chaosOptions) check() (topologies []string, err error) {
	topologies = chaos.Topologies
	if o.topologies != "all" {
		topologies = strings.Split(o.topologies, ",")
	}
	for _, t := range topologies {
		if !slices.Contains(chaos.Topologies, t) {
			return nil, fmt.Errorf("-topology %q is none of all, %s", t, strings.Join(chaos.Topologies, ", "))
		}
	}
	if o.faults != "" {
		o.Faults = strings.Split(o.faults, ",")
	}
	for _, k := range o.Faults {
		if !slices.Contains(chaos.FaultKinds(), k) {
			return nil, fmt.Errorf("-faults %q is none of %s", k, strings.Join(chaos.FaultKinds(), ", "))
		}
	}
	switch {
	case o.Duration < time.Second || o.Duration > time.Hour:
		return nil, fmt.Errorf("-duration %v is not from 1s to 1h", o.Duration)
	case o.Every < 10*time.Millisecond:
		return nil, fmt.Errorf("-every %v is less than 10ms", o.Every)
	case o.Workers < 1 || o.Workers > 32:
		return nil, fmt.Errorf("-workers %d is not from 1 to 32", o.Workers)
	case o.Clients < 1 || o.Clients > 32:
		return nil, fmt.Errorf("-clients %d is not from 1 to 32", o.Clients)
	case !(o.Rate > 0 && o.Rate <= 1000):
		return nil, fmt.Errorf("-rate %v is not above 0 and up to 1000", o.Rate)
	case o.Break != "" && !slices.Contains(chaos.Breaks, o.Break):
		return nil, fmt.Errorf("-break %q is none of %s", o.Break, strings.Join(chaos.Breaks, ", "))
	}
	return topologies, nil
}

// chaosMain runs the topologies and prints the report.
func chaosMain(cmd *cobra.Command, opt chaosOptions) error {
	topologies, err := opt.check()
	if err != nil {
		return err
	}
	errOut := cmd.ErrOrStderr()
	began := time.Now()
	opt.Say = func(format string, args ...any) {
		fmt.Fprintf(errOut, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	var results []*chaos.Result
	for _, t := range topologies {
		opt.Topology = t
		r, err := chaos.Run(cmd.Context(), opt.Options)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if opt.json != "" {
		err = toFile(opt.json, func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(results)
		})
	}
	if opt.svg != "" {
		err = errors.Join(err, toFile(opt.svg, func(w io.Writer) error { return chaos.Draw(w, results) }))
	}
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	writeChaos(out, styleOf(out), results, time.Since(began))
	if slices.ContainsFunc(results, func(r *chaos.Result) bool { return !r.OK }) {
		return &exitError{status: exitBroken}
	}
	return nil
}

// toFile writes a file.
func toFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Close() // the first error is the one to report
		return fmt.Errorf("%s: %w", name, err)
	}
	return f.Close()
}
