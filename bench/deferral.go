package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
)

// Requests that need a lock, and workers that must not wait for one: each way
// of putting a request back for later.

// crowd is the work: requests by the number of their lock.
type crowd struct {
	e       *env
	locks   []int
	workers int
	hold    time.Duration
	delay   time.Duration
	bound   time.Duration

	tries atomic.Int64 // deliveries to a worker, refused ones included

	mu   sync.Mutex // guards the fields below
	runs [][]section
	left int
	all  chan struct{} // closed when all have run
}

// oneLock is all requests on one lock.
func oneLock(e *env, n int) *crowd {
	return newCrowd(e, make([]int, n), e.time(10*time.Second, 3*time.Second))
}

// skewed spreads requests over locks: the k-th gets a share of 1/k^0.7.
func skewed(e *env, n, locks int) *crowd {
	weights, sum := make([]float64, locks), 0.0
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -0.7)
		sum += weights[i]
	}
	all := make([]int, 0, n)
	for i, w := range weights {
		for range int(w / sum * float64(n)) {
			all = append(all, i)
		}
	}
	for len(all) < n {
		all = append(all, len(all)%locks)
	}
	rng := rand.New(rand.NewPCG(1, 2)) // the same for everyone
	rng.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	return newCrowd(e, all, e.time(14*time.Second, 4*time.Second))
}

func newCrowd(e *env, locks []int, bound time.Duration) *crowd {
	return &crowd{
		e: e, locks: locks, workers: 16, hold: 5 * time.Millisecond, delay: time.Second, bound: bound,
		runs: make([][]section, slices.Max(locks)+1), left: len(locks), all: make(chan struct{}),
	}
}

// ideal is the least that any order can take: the busiest lock's work, or all
// work shared among the workers.
func (c *crowd) ideal() time.Duration {
	counts := make([]int, len(c.runs))
	for _, l := range c.locks {
		counts[l]++
	}
	return c.hold * time.Duration(max(slices.Max(counts), (len(c.locks)+c.workers-1)/c.workers))
}

func (c *crowd) lockOf(i int) string { return "account:" + strconv.Itoa(c.locks[i]) }

// run is a request's section.
func (c *crowd) run(i int) {
	s := section{Worker: i, Entry: time.Now().UnixNano()}
	time.Sleep(c.hold)
	s.Exit = time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[c.locks[i]] = append(c.runs[c.locks[i]], s)
	if c.left--; c.left == 0 {
		close(c.all)
	}
}

// measure lets a consumer that was given all requests work them off.
func (c *crowd) measure(consume func(ctx context.Context) error) (values, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	commands, began := c.e.wire.commands.Load(), time.Now()
	consumed := make(chan error, 1)
	go func() { consumed <- consume(ctx) }()
	var err error
	select {
	case <-c.all:
	case <-time.After(c.bound):
	case err = <-consumed:
		return nil, errors.Join(errNotFinished, err)
	}
	took, sent := time.Since(began), c.e.wire.commands.Load()-commands
	cancel()
	err = <-consumed
	c.mu.Lock()
	defer c.mu.Unlock()
	finished, overlaps, out, pairs := 0, 0, 0.0, 0.0
	for _, runs := range c.runs {
		slices.SortFunc(runs, func(a, b section) int { return int(a.Entry - b.Entry) })
		order := make([]int, len(runs))
		for i, s := range runs {
			order[i] = s.Worker
			if i > 0 && s.Entry < runs[i-1].Exit {
				overlaps++
			}
		}
		n := float64(len(runs))
		finished += len(runs)
		out += inversions(order) * n * (n - 1) / 2
		pairs += n * (n - 1) / 2
	}
	n := float64(len(c.locks))
	return values{
		"makespan/ideal": float64(took) / float64(c.ideal()), "makespan s": took.Seconds(),
		"deliveries/request": float64(c.tries.Load()) / n, "inversions %": 100 * out / max(pairs, 1),
		"finished": float64(finished), "overlaps": float64(overlaps), "commands/request": float64(sent) / n,
	}, err
}

// oneLockRequests is how many stand before one lock.
const oneLockRequests = 400

func deferralScenarios() []scenario {
	metrics := []metric{
		{"makespan/ideal", true},
		{"makespan s", true},
		{"deliveries/request", true},
		{"inversions %", true},
		{"finished", false},
		{"overlaps", true},
		{"commands/request", true},
	}
	rows := func(open func(e *env) *crowd, peers ...struct {
		name, note string
		run        func(c *crowd) (values, error)
	},
	) []peer {
		var out []peer
		for _, p := range peers {
			out = append(out, peer{name: p.name, note: p.note, run: func(e *env) (values, error) { return p.run(open(e)) }})
		}
		return out
	}
	type row = struct {
		name, note string
		run        func(c *crowd) (values, error)
	}
	own := row{"sidestep", "Defer(1 s)", deferSidestep}
	fixed := row{"fixed release", "back after 1 s, as a job of Laravel's WithoutOverlapping", deferByHand(false)}
	jittered := row{"jittered release", "back after up to 1 s, at random", deferByHand(true)}
	retried := row{"asynq, lock and retry", "eager; the handler tries the lock, and the task comes back after 1 s", deferAsynq}
	return []scenario{
		{
			name:  "defer/one-lock",
			title: "400 requests on one lock, 5 ms each, 16 workers, put back for 1 s if it is held",
			about: "The ideal is 400 times 5 ms. A run is cut off after five times the ideal: its makespan is then more than what stands here. " +
				"Inversions are the pairs of requests that ran in another order than they came.",
			rounds:  2,
			metrics: metrics,
			peers:   rows(func(e *env) *crowd { return oneLock(e, e.n(oneLockRequests, 60)) }, own, fixed, jittered, retried),
			targets: []target{
				{metric: "makespan/ideal", atMost: 1.2},
				{metric: "deliveries/request", atLeast: 1, atMost: 1.1},
				{metric: "inversions %", zero: true},
				{metric: "overlaps", zero: true},
			},
		},
		{
			name:    "defer/100-locks",
			title:   "10,000 requests on 100 locks with a skew, 5 ms each, 16 workers, put back for 1 s",
			about:   "The ideal is the busiest lock's own work: it has a tenth of the requests. A run is cut off after 14 s.",
			rounds:  1,
			metrics: metrics,
			peers:   rows(func(e *env) *crowd { return skewed(e, e.n(10_000, 400), e.n(100, 20)) }, own, jittered, retried),
			targets: []target{
				{metric: "makespan/ideal", atMost: 1.2},
				{metric: "deliveries/request", atLeast: 1, atMost: 1.1},
				{metric: "inversions %", zero: true},
				{metric: "overlaps", zero: true},
			},
		},
	}
}

// sidestep

func deferSidestep(c *crowd) (values, error) {
	ctx := context.Background()
	rdb := c.e.client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer func() { _ = locker.Close() }() // always nil
	queue := sidestep.NewQueue(sidestep.New(locker, sidestep.Config{}), rdb, "bench", sidestep.QueueConfig{Workers: c.workers})
	task := sidestep.NewTask(queue, "work", c.lockOf, func(ctx context.Context, _ *lock.Lock, i int) error {
		c.tries.Add(int64(sidestep.RequestFrom(ctx).Deliveries)) // refused ones included
		c.run(i)
		return nil
	}, sidestep.WhenLocked(sidestep.Defer(c.delay)))
	for i := range c.locks { // in order
		if _, err := task.Enqueue(ctx, i); err != nil {
			return nil, err
		}
	}
	return c.measure(queue.Run)
}

// by hand

var popScript = redis.NewScript(`
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 100)
if #due > 0 then
  redis.call('ZREM', KEYS[2], unpack(due))
  redis.call('RPUSH', KEYS[1], unpack(due))
end
return redis.call('LPOP', KEYS[1])`)

// deferByHand is the recipe: who meets a held lock puts the request into a ZSET
// by time, and workers that look every 5 ms move what is due back.
func deferByHand(jitter bool) func(c *crowd) (values, error) {
	return func(c *crowd) (values, error) {
		rdb := c.e.client()
		defer rdb.Close()
		kit := &rawKit{rdb}
		for i := range c.locks {
			if err := rdb.RPush(context.Background(), "ready", i).Err(); err != nil {
				return nil, err
			}
		}
		return c.measure(func(ctx context.Context) error {
			return inWorkers(c.workers, func(int) error {
				for ctx.Err() == nil {
					i, err := popScript.Run(ctx, rdb, []string{"ready", "delayed"}, time.Now().UnixMilli()).Int()
					if errors.Is(err, redis.Nil) {
						pause(ctx, 5*time.Millisecond)
						continue
					}
					if err != nil {
						return ended(ctx, err)
					}
					c.tries.Add(1)
					h, err := kit.try(ctx, c.lockOf(i))
					switch {
					case errors.Is(err, errTaken):
						delay := c.delay
						if jitter {
							delay = rand.N(c.delay)
						}
						err = rdb.ZAdd(ctx, "delayed", redis.Z{Score: float64(time.Now().Add(delay).UnixMilli()), Member: i}).Err()
					case err == nil:
						c.run(i)
						err = h.unlock(context.WithoutCancel(ctx))
					}
					if err != nil {
						return ended(ctx, err)
					}
				}
				return nil
			})
		})
	}
}

// asynq

var errHeld = errors.New("the lock is held")

// deferAsynq tries a lock in the handler and lets the task be retried. That is
// no failure, so it costs no attempt.
func deferAsynq(c *crowd) (values, error) {
	kit, err := openAsynq(5*time.Millisecond, 50*time.Millisecond)(c.e.addr, &c.e.wire)
	if err != nil {
		return nil, err
	}
	defer kit.close()
	k, ok := kit.(*asynqKit)
	if !ok {
		return nil, fmt.Errorf("%T", kit)
	}
	locks := &rawKit{k.rdb}
	for i := range c.locks {
		if err := k.enqueue(context.Background(), []byte(strconv.Itoa(i))); err != nil {
			return nil, err
		}
	}
	return c.measure(func(ctx context.Context) error {
		srv := asynq.NewServerFromRedisClient(k.rdb, asynq.Config{
			Concurrency: c.workers, TaskCheckInterval: k.look, DelayedTaskCheckInterval: k.lookForDue, LogLevel: asynq.FatalLevel,
			RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return c.delay },
			IsFailure:      func(err error) bool { return !errors.Is(err, errHeld) },
		})
		err := srv.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
			i, err := strconv.Atoi(string(t.Payload()))
			if err != nil {
				return err
			}
			c.tries.Add(1)
			h, err := locks.try(ctx, c.lockOf(i))
			if errors.Is(err, errTaken) {
				return errHeld
			}
			if err != nil {
				return err
			}
			c.run(i)
			return h.unlock(context.WithoutCancel(ctx))
		}))
		if err != nil {
			return err
		}
		<-ctx.Done()
		srv.Shutdown()
		return nil
	})
}
