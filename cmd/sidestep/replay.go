package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/sidestep-go/sidestep"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	policy    policySpec
	workers   int
	processes int
	work      time.Duration
	lease     time.Duration
	stall     time.Duration
	via       string
	redis     string
	strict    bool
	json      bool

	started func(*crew) // for tests: the crew can work
}

func defaultReplayOptions() replayOptions {
	return replayOptions{
		policy:  policySpec{defers: true, delay: time.Second},
		workers: 16, processes: 1,
		work: time.Millisecond, lease: 10 * time.Second, stall: time.Minute,
		via: "queue",
	}
}

const replayLong = `Replay reads JSON Lines from FILE ("-": standard input) and makes each line a
request that must run alone under its key. Then it checks, from what every
section recorded by one clock and not from what the locks say, that all the
promises were kept.

A line is an object with an "id", unlike that of any other line, and a "key",
both strings or numbers; its other fields travel along as the payload. A line
that cannot be a request is reported with its number and left out. The input is
read whole before anything runs.

  -via queue    Each line is enqueued, those of one key in the order of the input.
                Workers run them; one that meets a held lock follows the policy.
  -via direct   Callers, as many as workers, take the lines in order and call
                Do with the policy; what they defer is run by the workers.

Policies: fail, retry:DUR, defer:DUR, and retry:DUR,defer:DUR. On the queue a
policy that gives up makes a failed attempt, which the queue repeats.

What the report means:

  overlaps      Pairs of sections of one key of which the later began before the
                earlier had ended. Must be 0.
  fence order   Along each key, in the order in which its sections began, the
                fencing token must grow from each section to the next.
  lost          Accepted, and neither done nor explained nor in Redis. Must be 0.
  ran again     Sections completed beyond the first of a request. Delivery is at
                least once: a process that dies can make it more.
  inversions    Requests whose first section began after the first section of a
                request of the same key that stands on a later line. The queue
                keeps this at 0; direct calls race, so there it only informs.
  deliveries    How often workers claimed a request, per request that they claimed.
  wait          From the call (enqueueing, or Do) to the begin of the first section.
  call          How long callers were in Do, from the call to its answer.
  hand-over     From the end of a section to the begin of the next one of its
                key, if that was called for before the end.
  ideal         The longer of: the work on the key that has most, and all work
                divided by the workers (and callers, if they are beside them).
                The makespan is from the first call to the last end.

A run has keys of its own in Redis and removes them in the end. An interrupt
ends it with a report on what has been done.

Exit status: 0 all promises kept (requests that their policy made fail are
counted, and no broken promise); 1 a promise broken, or accepted requests that
never ran; 2 wrong usage or input, no Redis, or the output cannot be written;
130 interrupted.`

func replayCommand() *cobra.Command {
	opt := defaultReplayOptions()
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run the lines of a file under their locks, and check every promise",
		Long:  replayLong,
		Example: `  sidestep replay examples/data/etcd-changes.jsonl
  sidestep replay -policy retry:200ms,defer:5s -via direct changes.jsonl
  sidestep replay -redis redis://localhost:6379 -processes 4 -workers 32 changes.jsonl
  sidestep replay -redis unix:///run/redis.sock -json changes.jsonl
  zcat changes.gz | sidestep replay -strict -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("replay needs one FILE (%q is standard input)", "-")
			}
			return opt.check()
		},
		RunE: func(cmd *cobra.Command, args []string) error { return replayMain(cmd, args[0], opt) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&opt.policy, "policy", "when the lock is taken: fail, retry:DUR, defer:DUR, or retry:DUR,defer:DUR")
	f.StringVar(&opt.via, "via", opt.via, "queue or direct")
	f.IntVar(&opt.workers, "workers", opt.workers, "how many requests run at once, over all processes")
	f.IntVar(&opt.processes, "processes", opt.processes, "how many processes they are spread over")
	f.DurationVar(&opt.work, "work", opt.work, "how long each request holds its lock")
	f.StringVar(&opt.redis, "redis", "", "URL of a Redis: redis://, rediss:// or unix:// (default: one in memory)")
	f.DurationVar(&opt.lease, "lease", opt.lease, "how long locks and deliveries outlive a process that dies")
	f.DurationVar(&opt.stall, "stall", opt.stall, "give up when nothing has happened for so long")
	f.BoolVar(&opt.strict, "strict", false, "a bad line ends the command before anything runs")
	f.BoolVar(&opt.json, "json", false, "print the report as JSON")
	return cmd
}

// check returns what is wrong with the flags.
func (o *replayOptions) check() error {
	switch {
	case o.via != "queue" && o.via != "direct":
		return fmt.Errorf("-via %q is neither queue nor direct", o.via)
	case o.processes < 1 || o.processes > 256:
		return fmt.Errorf("-processes %d is not from 1 to 256", o.processes)
	case o.workers < o.processes || o.workers > 4096:
		return fmt.Errorf("-workers %d is not from -processes, %d, to 4096", o.workers, o.processes)
	case o.work < 0:
		return fmt.Errorf("-work %v is negative", o.work)
	case o.lease < 100*time.Millisecond:
		return fmt.Errorf("-lease %v is less than 100ms", o.lease)
	case o.stall <= 0:
		return fmt.Errorf("-stall %v is not positive", o.stall)
	}
	return nil
}

// replayMain reads the input, runs it, and prints the report.
func replayMain(cmd *cobra.Command, file string, opt replayOptions) error {
	in := cmd.InOrStdin()
	name := "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read
		in, name = f, filepath.Base(file)
	}
	lines, bad, err := readLines(in)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	errOut := cmd.ErrOrStderr()
	const shown = 20
	for i, b := range bad {
		if i == shown {
			fmt.Fprintf(errOut, "and %d more bad lines\n", len(bad)-shown)
			break
		}
		fmt.Fprintf(errOut, "%s:%d: %s\n", name, b.Line, b.Reason)
	}
	if opt.strict && len(bad) > 0 {
		return fmt.Errorf("%s: %d bad lines, and -strict", name, len(bad))
	}
	r, err := replay(cmd.Context(), opt, lines, errOut)
	if err != nil {
		return err
	}
	r.Input, r.Bad = name, bad
	out := cmd.OutOrStdout()
	if opt.json {
		err = r.writeJSON(out)
	} else {
		r.write(out, styleOf(out))
	}
	if err != nil {
		return err
	}
	return r.verdict()
}

// replay runs the lines and returns the report. Progress goes to errOut if that
// is a terminal.
func replay(ctx context.Context, opt replayOptions, lines []line, errOut io.Writer) (*report, error) {
	srv, err := openServer(ctx, opt.redis, opt.processes > 1)
	if err != nil {
		return nil, err
	}
	defer srv.close()
	rdb, err := srv.client(opt.workers)
	if err != nil {
		return nil, err
	}
	defer rdb.Close()

	bar := newProgress(errOut, len(lines))
	l := newLedger(lines, bar.set)
	j := job{
		Server: srv.address, Prefix: newPrefix("replay"), Policy: opt.policy.String(),
		Direct: opt.via == "direct", Workers: opt.workers, Work: opt.work, Lease: opt.lease,
	}
	// An end of the run by interrupt must still see the keys removed.
	clear := func() (int, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return clean(ctx, rdb, j.Prefix)
	}
	c, err := startCrew(ctx, j, opt.processes, srv, l)
	if err != nil {
		_, _ = clear() // the first error is the one to report
		return nil, err
	}
	if opt.started != nil {
		opt.started(c)
	}

	fed, stopFeeding := context.WithCancel(ctx)
	var feeding sync.WaitGroup
	if j.Direct {
		feeding.Go(func() { feedCalls(fed, lines, c) })
	} else if err := enqueueAll(fed, j, rdb, lines, l, &feeding); err != nil {
		stopFeeding()
		c.stop()
		return nil, err
	}
	ending := await(ctx, l, c, opt.stall)
	stopFeeding()
	feeding.Wait()
	c.stop()
	bar.close()

	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	left, err := stored(look, rdb, j.Prefix, queueName)
	if err != nil {
		ending.notes = append(ending.notes, "cannot tell what is left in the queue: "+err.Error())
	}
	removed, err := clear()
	if err != nil {
		ending.notes = append(ending.notes, fmt.Sprintf("keys that begin with %s are left: %v", j.Prefix, err))
	}
	r := newReport(opt, srv.name, l, left, ending)
	r.Deaths = c.deaths()
	r.KeysRemoved = removed
	return r, nil
}

// ending says how a run came to its end.
type ending struct {
	interrupted bool
	notes       []string
}

// await returns when every request is settled, or there is no use in waiting.
func await(ctx context.Context, l *ledger, c *crew, stall time.Duration) ending {
	t := time.NewTicker(min(stall, time.Second))
	defer t.Stop()
	for {
		select {
		case <-l.settled:
			return ending{}
		case <-ctx.Done():
			return ending{interrupted: true, notes: []string{"interrupted"}}
		case <-c.gone:
			return ending{notes: []string{"no process is left"}}
		case <-t.C:
			if quiet := l.quiet(); quiet > stall {
				return ending{notes: []string{fmt.Sprintf("gave up: nothing has happened for %v", quiet.Round(time.Millisecond))}}
			}
		}
	}
}

// feedCalls hands the lines to whoever can make calls, in order.
func feedCalls(ctx context.Context, lines []line, c *crew) {
	for _, l := range lines {
		select {
		case c.calls <- call{ID: l.id, Key: l.key, Body: l.body}:
		case <-c.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

// enqueueAll puts the lines on the queue: several at a time, and those of one key
// in order.
func enqueueAll(ctx context.Context, j job, rdb redis.UniversalClient, lines []line, l *ledger, feeding *sync.WaitGroup) error {
	j.Name = memberName(0)
	w, err := newWorker(j, rdb, func(e event) { l.record(0, e) })
	if err != nil {
		return err
	}
	lanes := make([][]line, min(j.Workers, 16))
	for _, in := range lines {
		h := fnv.New32a()
		_, _ = io.WriteString(h, in.key) // never fails
		i := h.Sum32() % uint32(len(lanes))
		lanes[i] = append(lanes[i], in)
	}
	var lanesDone sync.WaitGroup
	for _, lane := range lanes {
		lanesDone.Go(func() {
			for _, in := range lane {
				if ctx.Err() != nil {
					return
				}
				w.enqueue(ctx, in)
			}
		})
	}
	feeding.Go(func() {
		lanesDone.Wait()
		w.close()
	})
	return nil
}

// enqueue puts a line on the queue. It tries for a while: with an ID that is safe.
func (w *worker) enqueue(ctx context.Context, in line) {
	w.emit(event{Kind: kindCalled, At: now(), ID: in.id})
	var err error
	for attempt := range 10 {
		_, err = w.task.Enqueue(ctx, call{Key: in.key, Body: in.body}, sidestep.WithID(in.id))
		if err == nil || errors.Is(err, sidestep.ErrInvalid) {
			break
		}
		if pause(ctx, time.Duration(attempt)*100*time.Millisecond) != nil {
			w.emit(event{Kind: kindStopped, At: now(), ID: in.id})
			return
		}
	}
	if err != nil {
		w.emit(event{Kind: kindFailed, At: now(), ID: in.id, Text: err.Error()})
	}
}
