package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
)

// soakOptions are the flags of soak.
type soakOptions struct {
	duration time.Duration
	redis    string
	rate     float64
	seed     uint64
	json     bool
	leak     string // for tests
}

const soakLong = `Soak keeps the library busy for a long time and looks whether anything grows.

The load is mixed: inline sections and tasks under all three policies on a few
contended locks and on names that never come again, waiters that give up in
line, locks whose holders never release them or are clients of another library,
requests that are cancelled, rescheduled, fail, panic or die of their failures,
and processes that come and go, every second one without a word. All of it runs
in this process, in several crews with clients of their own.

At each of some hundred moments it measures this process (heap after a garbage
collection, goroutines, open files) and the server (memory, clients, keys of
each kind, members of the queue's own keys). The first third of the time is for
warming up; then the median of the last third may not exceed that of the middle
third by more than a bound, which each line of the report names (fences and ids
of finished requests are remembered for a while after each call: they count as if
the machine had kept the rate). At the end the
load stops, all leases and memories run out, and nothing may be left but the
dead, which are capped.

Without -redis it starts a redis-server of its own; with it, the server should
have nothing else to do.

Exit status: 0 all flat; 1 something grew, was left behind, or a request was
lost; 2 wrong usage, no Redis; 130 interrupted.`

func soakCommand() *cobra.Command {
	opt := soakOptions{duration: time.Hour, rate: 150}
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Keep the library busy for an hour, and see whether anything grows",
		Long:  soakLong,
		Example: `  sidestep soak
  sidestep soak -duration 20s -json
  sidestep soak -redis redis://localhost:6379/9 -rate 500`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opt.check(); err != nil {
				return err
			}
			return soakMain(cmd, opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVar(&opt.duration, "duration", opt.duration, "how long the load lasts")
	f.Float64Var(&opt.rate, "rate", opt.rate, "calls a second")
	f.StringVar(&opt.redis, "redis", "", "URL of a Redis: redis://, rediss:// or unix:// (default: one of its own)")
	f.Uint64Var(&opt.seed, "seed", 0, "seed of the load (default: random)")
	f.BoolVar(&opt.json, "json", false, "print the report as JSON")
	f.StringVar(&opt.leak, "leak", "", "leak something on purpose: "+leakKinds)
	_ = f.MarkHidden("leak") // the flag exists
	return cmd
}

func (o *soakOptions) check() error {
	switch {
	case o.duration < 5*time.Second:
		return fmt.Errorf("-duration %v is less than 5s", o.duration)
	case !(o.rate >= 1 && o.rate <= 1e5):
		return fmt.Errorf("-rate %v is not from 1 to 100000", o.rate)
	case o.leak != "" && o.leak != leakKinds:
		return fmt.Errorf("-leak %q is not %q", o.leak, leakKinds)
	}
	return nil
}

// soakReport is what a soak came to. Durations in JSON are nanoseconds.
type soakReport struct {
	Server   string           `json:"server"`
	Seed     uint64           `json:"seed"`
	Asked    time.Duration    `json:"asked_ns"`
	Took     time.Duration    `json:"took_ns"` // of load
	Samples  int              `json:"samples"`
	Counts   map[string]int64 `json:"counts"`
	Metrics  []metric         `json:"metrics"`
	Left     map[string]int64 `json:"left"` // after the end, but for what may stay
	Lost     []string         `json:"lost"` // accepted, not done, and nowhere
	Notes    []string         `json:"notes,omitempty"`
	Verdict  string           `json:"verdict"` // "flat" or "not flat"
	stopped  bool
	problems int
}

func soakMain(cmd *cobra.Command, opt soakOptions) error {
	if opt.seed == 0 {
		opt.seed = rand.Uint64()
	}
	r, err := soak(cmd.Context(), opt, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if opt.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		r.write(out)
	}
	switch {
	case r.stopped:
		return &exitError{status: exitInterrupted}
	case r.problems > 0:
		return &exitError{exitBroken, fmt.Sprintf("soak: %d findings", r.problems)}
	}
	return nil
}

// soak runs the load, and judges what it measured. What it has to say meanwhile
// goes to errOut.
func soak(ctx context.Context, opt soakOptions, errOut io.Writer) (*soakReport, error) {
	url := opt.redis
	if url == "" {
		own, err := startRedis()
		if err != nil {
			return nil, err
		}
		defer own.stop()
		url = own.url
	}
	srv, err := openServer(ctx, url, false)
	if err != nil {
		return nil, err
	}
	defer srv.close()
	rdb, err := srv.client(2)
	if err != nil {
		return nil, err
	}
	defer rdb.Close()

	prefix := newPrefix("soak")
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_, _ = clean(ctx, rdb, prefix) // the server is to be ours alone; most of it expires anyway
	}()
	l := newLoad(srv, prefix, opt)
	m := &meter{rdb: rdb, prefix: prefix, load: l}
	if _, err := m.sample(ctx); err != nil { // scripts, connections and buffers of the meter itself
		return nil, err
	}
	began := time.Now()
	running, stop := context.WithTimeout(ctx, opt.duration)
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { l.run(running) })
	samples, notes := m.watch(running, opt.duration, errOut)
	all.Wait()
	took := time.Since(began)

	r := &soakReport{
		Server: srv.name, Seed: opt.seed, Asked: opt.duration, Took: min(took, opt.duration), Samples: len(samples),
		Counts: l.counted(), Notes: append(notes, l.notes()...), stopped: ctx.Err() != nil,
	}
	r.Metrics = judge(samples)
	if !r.stopped {
		r.Lost = l.lost(ctx, rdb)
		if r.Left, err = m.settle(ctx, l.longest()); err != nil {
			r.Notes = append(r.Notes, "what is left is not known: "+err.Error())
		}
	}
	r.conclude()
	return r, nil
}

// conclude counts what is wrong.
func (r *soakReport) conclude() {
	for _, m := range r.Metrics {
		if !m.Flat {
			r.problems++
		}
	}
	if len(r.Metrics) == 0 {
		r.Notes = append(r.Notes, "too few samples to compare")
		r.problems++
	}
	for _, n := range r.Left {
		if n != 0 {
			r.problems++
		}
	}
	r.problems += len(r.Lost) + int(r.Counts["fault"])
	r.Verdict = "flat"
	if r.problems > 0 {
		r.Verdict = "not flat"
	}
}

// write prints the report for people.
func (r *soakReport) write(out io.Writer) {
	fmt.Fprintf(out, "%v of load on %s, %d samples, seed %d\n", r.Took.Round(time.Second), r.Server, r.Samples, r.Seed)
	writeCounts(out, r.Counts)
	fmt.Fprintf(out, "\n%-22s %14s %14s %14s\n", "median of", "middle third", "last third", "at most")
	for _, m := range r.Metrics {
		verdict := "flat"
		if !m.Flat {
			verdict = "GREW"
		}
		fmt.Fprintf(out, "%-22s %14.0f %14.0f %14.0f  %s\n", m.Name, m.Middle, m.Last, m.Bound, verdict)
	}
	fmt.Fprintln(out, "\nleft when all had run out:")
	writeCounts(out, r.Left)
	fmt.Fprintf(out, "accepted and lost: %d %q\n", len(r.Lost), r.Lost)
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	fmt.Fprintln(out, "verdict:", r.Verdict)
}

// meter measures this process and the server.
type meter struct {
	rdb    *redis.Client
	prefix string
	load   *load
	past   []moment
}

// readings is one measurement, by name.
type readings map[string]float64

// sample measures now.
func (m *meter) sample(ctx context.Context) (readings, error) {
	s := readings{}
	if err := m.server(ctx, s); err != nil {
		return nil, err
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	s["heap bytes"] = float64(mem.HeapAlloc)
	s["goroutines"] = float64(runtime.NumGoroutine())
	if n := openFiles(); n >= 0 {
		s["open files"] = float64(n)
	}
	s["requests under way"] = float64(m.load.underWay())
	return s, nil
}

// watch takes samples until ctx ends.
func (m *meter) watch(ctx context.Context, d time.Duration, errOut io.Writer) (samples []readings, notes []string) {
	every := min(max(d/240, 250*time.Millisecond), 15*time.Second)
	t := time.NewTicker(every)
	defer t.Stop()
	began, told := time.Now(), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return samples, notes
		case <-t.C:
		}
		s, err := m.sample(ctx)
		switch {
		case ctx.Err() != nil:
			return samples, notes
		case err != nil:
			notes = append(notes, "no sample: "+err.Error())
			continue
		}
		m.even(s, m.load.opt.rate)
		samples = append(samples, s)
		if at := time.Since(began); at-told >= max(d/20, time.Second) {
			told = at
			fmt.Fprintf(errOut, "%v: %.0f calls, heap %.1f MB, %.0f goroutines, server %.1f MB, %.0f fences\n",
				at.Round(time.Second), float64(m.load.counts.get("call")), s["heap bytes"]/1e6, s["goroutines"], s["server bytes"]/1e6, s["keys: fence"])
		}
	}
}
