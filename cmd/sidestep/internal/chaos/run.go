package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"
	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/history"
	"github.com/sidestep-go/sidestep/lock"
)

// Options of a run. All must be set, but for Faults, Break and Say.
type Options struct {
	Topology string
	Duration time.Duration // of the harm
	Every    time.Duration // between the beginnings of two faults, on average
	Seed     uint64
	Faults   []string // the kinds to do; nil: all that the topology has
	Workers  int      // processes
	Clients  int      // processes
	Handlers int      // of each worker
	Rate     float64  // requests per second of each client
	Quiet    int      // workers that are killed in the end, while nothing else is harmed
	Break    string   // one of Breaks, to see that it is found out
	Dir      string   // for drawings of histories that break a rule
	Scratch  string   // where the servers keep their data; "": see [scratch]
	Say      func(format string, args ...any)
}

// drainLimit is how long what was accepted may take to run once all harm is over.
const drainLimit = 30 * time.Second

// Run does one run, and returns the account. An error means that there is none.
func Run(ctx context.Context, opt Options) (*Result, error) {
	if runtime.GOOS == "windows" {
		return nil, errors.New("chaos needs the signals of a Unix")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("chaos starts its own servers, and there is no redis-server in PATH")
	}
	if opt.Say == nil {
		opt.Say = func(string, ...any) {}
	}
	dir, err := os.MkdirTemp(cmp.Or(opt.Scratch, scratch()), "chaos") // short: the proxies' sockets are in there
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	srv, err := startServers(ctx, opt.Topology, dir)
	if srv != nil {
		defer srv.kill()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opt.Topology, err)
	}
	c, err := newCrew(opt, dir, srv)
	if c != nil {
		defer c.kill()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opt.Topology, err)
	}
	if err := await(ctx, 20*time.Second, "the members begin", c.begun); err != nil {
		return nil, fmt.Errorf("%s: %w %v", opt.Topology, err, c.deaths)
	}

	opt.Say("%s: %d workers, %d clients; harm for %v", opt.Topology, opt.Workers, opt.Clients, opt.Duration)
	h := fnv.New64a()
	_, _ = h.Write([]byte(opt.Topology)) // never fails
	n := &nemesis{
		servers: srv, crew: c, kinds: opt.Faults, every: opt.Every, busy: make(map[any]bool),
		rng: rand.New(rand.NewPCG(opt.Seed, h.Sum64())),
	}
	r := &Result{Topology: opt.Topology, Seed: opt.Seed, From: clock.Now()}
	watching, stopWatching := context.WithCancel(ctx)
	still := make(chan time.Duration, 1)
	go func() { still <- standstill(watching) }()
	replaced := make(chan []Replacement, 1)
	go func() { replaced <- srv.watch(watching) }()
	defer stopWatching()
	harm, cancel := context.WithTimeout(ctx, opt.Duration)
	n.run(harm)
	cancel()
	n.killInQuiet(ctx, opt.Quiet)
	r.Harmed = time.Duration(clock.Now() - r.From)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	opt.Say("%s: %d faults; all is put right, and what was accepted runs", opt.Topology, len(n.faults))
	c.finish(false)
	queue, rdb := overseer(srv)
	defer rdb.Close()
	began := clock.Now()
	if err := await(ctx, drainLimit, "the queue runs empty", func() bool {
		s, err := queue.Stats(ctx)
		return err == nil && s.Ready+s.Delayed+s.Parked+s.Leased == 0
	}); err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	r.Drained = time.Duration(clock.Now() - began)
	c.finish(true)
	c.following.Wait() // all have ended
	r.To = clock.Now()
	stopWatching()
	r.Still, r.Replaced = <-still, <-replaced
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := r.account(ctx, c, n, queue); err != nil {
		return nil, fmt.Errorf("%s: %w", opt.Topology, err)
	}
	r.History = history.Check(r.ops, history.Options{Dir: opt.Dir})
	r.judge()
	return r, nil
}

// standstill returns the longest time by which a timer was late, until ctx ends.
func standstill(ctx context.Context) (longest time.Duration) {
	const beat = 20 * time.Millisecond
	for ctx.Err() == nil {
		at := clock.Now()
		pause(ctx, beat)
		longest = max(longest, time.Duration(clock.Now()-at)-beat)
	}
	return longest
}

// scratch is where servers keep their data: in memory, if there is such a place.
// What a server has written to a file outlives its SIGKILL there as well, and
// whoever else keeps the disk busy stays out of the measurements.
func scratch() string {
	const memory = "/dev/shm"
	if dir, err := os.MkdirTemp(memory, "chaos"); err == nil {
		_ = os.Remove(dir) // it is empty
		return memory
	}
	return os.TempDir()
}

// begun tells whether every member has written something down.
func (c *crew) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lives {
		if info, err := os.Stat(l.notebook); err != nil || info.Size() == 0 {
			return false
		}
	}
	return true
}

// overseer returns the queue as this process sees it: not through the proxies,
// and without handlers.
func overseer(s *servers) (*sidestep.Queue, redis.UniversalClient) {
	w := s.way(nil)
	rdb, locks := w.clients()
	return newQueue(sidestep.New(w.locker(locks, lock.Config{}), sidestep.Config{}), rdb, s.kind, 1), rdb
}
