package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
)

// demoLimit bounds the whole demo, unless -limit does.
const demoLimit = 19 * time.Second

func demoCommand() *cobra.Command {
	var url string
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the three policies side by side",
		Long: `Demo lets five callers run into the same held lock, once under each policy, and
shows what each of them gets. Then it repeats that with some hundred requests,
and closes with a ledger in which every request must be found again.

All that it prints is what the library did. It ends by itself within 20 s; the
exit status is 1 if the ledger does not balance. On a terminal of 80 × 24 or
more the first part is drawn live; elsewhere it prints lines.`,
		Example: `  sidestep demo
  sidestep demo -redis redis://localhost:6379`,
		Args: func(cmd *cobra.Command, args []string) error {
			if limit <= 0 {
				return fmt.Errorf("-limit %v is not positive", limit)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), url, limit, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&url, "redis", "", "URL of a Redis: redis://, rediss:// or unix:// (default: one in memory)")
	cmd.Flags().DurationVar(&limit, "limit", demoLimit, "end by then, with status 1, however slow the machine is")
	return cmd
}

// errTooSlow ends a demo that takes too long.
var errTooSlow = errors.New("the demo took too long")

// demo runs all of it and returns an error unless the ledger balances.
func demo(ctx context.Context, url string, limit time.Duration, out io.Writer) error {
	outer := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooSlow)
	defer cancel()
	s := styleOf(out)
	first, err := collision(ctx, url, out, s)
	if err != nil {
		return err
	}
	reports := []*report{first}
	if ctx.Err() == nil {
		rush, err := rush(ctx, url, out, s)
		if err != nil {
			return err
		}
		reports = append(reports, rush...)
	}
	balanced := writeTotals(out, s, reports)
	switch {
	case outer.Err() != nil:
		return &exitError{status: exitInterrupted}
	case ctx.Err() != nil:
		return &exitError{exitBroken, context.Cause(ctx).Error()}
	case !balanced:
		return &exitError{exitBroken, "the ledger does not balance"}
	}
	return nil
}

// The first part: five callers, one after another, meet one lock.
const (
	demoCallers = 5
	demoWorkers = 3
	demoWork    = 600 * time.Millisecond
	demoGap     = 180 * time.Millisecond
	demoLease   = 3 * time.Second
	demoKey     = "invoice:7"
)

// demoPanels are the policies in the order in which they are shown.
var demoPanels = []struct{ policy, code, says string }{
	{"fail", "Fail()", "the caller is told at once: who has it, when to retry"},
	{"retry:10s", "RetryFor(10s)", "the caller waits in line, and is handed the lock"},
	{"defer:5s", "Defer(5s)", "the caller goes on; a worker runs it on release"},
}

// collision plays the first part. Every caller and worker has a Locker of its
// own, as if it were a process of its own.
func collision(ctx context.Context, url string, out io.Writer, s style) (*report, error) {
	srv, err := openServer(ctx, url, false)
	if err != nil {
		return nil, err
	}
	defer srv.close()
	rdb, err := srv.client(len(demoPanels) * (demoCallers + demoWorkers))
	if err != nil {
		return nil, err
	}
	defer rdb.Close()
	prefix := newPrefix("demo")
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = clean(ctx, rdb, prefix) // the keys expire, too
	}()

	var lines []line
	for _, p := range demoPanels {
		for c := range demoCallers {
			lines = append(lines, line{number: c + 1, id: demoID(p.policy, c), key: p.policy + " " + demoKey})
		}
	}
	l := newLedger(lines, nil)
	v := newView(out, s, srv.name)

	running, stop := context.WithCancel(ctx)
	defer stop()
	var workers, callers sync.WaitGroup
	var peers []*worker
	process := 0
	join := func(panel int, name string) (*worker, error) {
		process++
		number := process
		w, err := newWorker(job{
			Prefix: prefix + demoPanels[panel].policy + ":", Name: name, Policy: demoPanels[panel].policy,
			Workers: 1, Work: demoWork, Lease: demoLease,
		}, rdb, func(e event) {
			l.record(number, e)
			v.event(panel, name, e)
		})
		if err == nil {
			peers = append(peers, w)
		}
		return w, err
	}
	defer func() {
		for _, w := range peers {
			w.close()
		}
	}()
	for p, panel := range demoPanels {
		if panel.policy != "defer:5s" {
			continue
		}
		for i := range demoWorkers {
			w, err := join(p, fmt.Sprintf("worker-%d", i+1))
			if err != nil {
				return nil, err
			}
			workers.Go(func() { _ = w.run(running, nil) })
		}
	}
	v.start()
	for p, panel := range demoPanels {
		for c := range demoCallers {
			w, err := join(p, fmt.Sprintf("api-%d", c+1))
			if err != nil {
				return nil, err
			}
			callers.Go(func() {
				if pause(running, demoGap*time.Duration(c)) == nil {
					w.call(running, call{ID: demoID(panel.policy, c), Key: demoKey})
				}
			})
		}
	}
	e := ending{}
	select {
	case <-l.settled:
	case <-ctx.Done():
		e = ending{interrupted: true}
	}
	if ctx.Err() == nil {
		callers.Wait()
	}
	stop()
	callers.Wait()
	workers.Wait()
	v.stop()
	left := make(map[string]bool)
	for _, p := range demoPanels {
		ids, err := stored(context.WithoutCancel(ctx), rdb, prefix+p.policy+":", queueName)
		if err != nil {
			return nil, err
		}
		for id := range ids {
			left[id] = true
		}
	}
	return newReport(replayOptions{via: "direct", workers: demoCallers, work: demoWork}, srv.name, l, left, e), nil
}

func demoID(policy string, caller int) string { return fmt.Sprintf("%s/%d", policy, caller+1) }

// rushPolicies are those of the second part.
var rushPolicies = []struct{ policy, code string }{
	{"fail", "Fail()"},
	{"retry:10s", "RetryFor(10s)"},
	{"defer:5s", "Defer(5s)"},
	{"retry:20ms,defer:5s", "20ms, then Defer"},
}

// rushKeys are the locks of ten requests in a row: one is in demand.
var rushKeys = [10]int{1, 1, 2, 1, 3, 1, 4, 2, 5, 6}

// rush plays the second part: the same requests under each policy.
func rush(ctx context.Context, url string, out io.Writer, s style) ([]*report, error) {
	const requests, locks, callers, work = 120, 6, 12, 5 * time.Millisecond
	fmt.Fprintf(out, "\n%s\n", s.bold(fmt.Sprintf("The same with %d requests for %d locks, from %d callers, %v each:", requests, locks, callers, work)))
	var lines []line
	for i := range requests {
		lines = append(lines, line{number: i + 1, id: fmt.Sprint(i + 1), key: fmt.Sprintf("account:%d", rushKeys[i%len(rushKeys)])})
	}
	t := newTable(out)
	t.AppendHeader(table.Row{"policy", "ran", "refused", "deferred", "later", "call p50", "max", "all done"})
	t.SetColumnConfigs(rightAligned(2, 8))
	var reports []*report
	for _, p := range rushPolicies {
		if ctx.Err() != nil {
			break
		}
		opt := defaultReplayOptions()
		opt.via, opt.redis, opt.work, opt.workers = "direct", url, work, callers
		if err := opt.policy.Set(p.policy); err != nil {
			return nil, err
		}
		r, err := replay(ctx, opt, lines, io.Discard)
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
		t.AppendRow(table.Row{
			p.code, number(r.Done - r.DeferredDone), number(r.Locked), number(r.DeferredByDo), number(r.DeferredDone),
			short(r.Blocked.P50), short(r.Blocked.Max), short(r.Makespan),
		})
	}
	t.Render()
	fmt.Fprintln(out, s.faint("  ran: in the call · later: deferred, then run by a worker · call: how long it took"))
	return reports, nil
}

func rightAligned(from, to int) (all []table.ColumnConfig) {
	for i := from; i <= to; i++ {
		all = append(all, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	return all
}

// writeTotals prints the ledger over all parts and tells whether it balances.
func writeTotals(out io.Writer, s style, reports []*report) bool {
	var sum report
	var other, overlaps, disorders int
	balanced := true
	for _, r := range reports {
		sum.Requests += r.Requests
		sum.Done += r.Done
		sum.Locked += r.Locked
		sum.DeferredByDo += r.DeferredByDo
		sum.DeferredDone += r.DeferredDone
		sum.RanAgain += r.RanAgain
		sum.Sections += r.Sections
		other += r.Failed + r.Dead + r.Stored + r.NotMade + r.Lost
		overlaps += len(r.Overlaps)
		disorders += len(r.Disorders)
		balanced = balanced && r.OK
	}
	inCall := sum.Done - sum.DeferredDone
	checks := []struct {
		ok   bool
		text string
	}{
		{
			other == 0 && sum.Requests == inCall+sum.Locked+sum.DeferredByDo,
			fmt.Sprintf("%s = %s ran in the call + %s refused by Fail + %s deferred",
				plural(sum.Requests, "request"), number(inCall), number(sum.Locked), number(sum.DeferredByDo)),
		},
		{
			sum.RanAgain == 0 && sum.DeferredDone == sum.DeferredByDo,
			fmt.Sprintf("%s deferred = %s ran later; %s ran twice", number(sum.DeferredByDo), number(sum.DeferredDone), number(sum.RanAgain)),
		},
		{overlaps == 0, fmt.Sprintf("%s, %d overlapped another of their lock", plural(sum.Sections, "section"), overlaps)},
		{disorders == 0, fmt.Sprintf("fencing tokens grew from holder to holder, %d exceptions", disorders)},
	}
	fmt.Fprintf(out, "\n%s\n", s.bold("The ledger:"))
	for _, c := range checks {
		balanced = balanced && c.ok
		fmt.Fprintf(out, "  %s %s\n", s.mark(c.ok), c.text)
	}
	for _, r := range reports {
		if !r.OK {
			r.writeNotes(out, s)
		}
	}
	return balanced
}
