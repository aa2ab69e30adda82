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

// measure enqueues all requests, in order, and lets a consumer work them off.
func (c *crowd) measure(l line) (values, error) {
	for i := range c.locks {
		if err := l.put(context.Background(), i); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	commands, began := c.e.wire.commands.Load(), time.Now()
	consumed := make(chan error, 1)
	go func() { consumed <- l.consume(ctx) }()
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

// released makes one request after the other while another client holds the lock, and
// measures from its release to the section.
func (c *crowd) released(l line) (values, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	consumed := make(chan error, 1)
	go func() { consumed <- l.consume(ctx) }()
	sleep(100 * time.Millisecond) // the consumer waits by then
	var lags []float64
	commands, end := c.e.wire.commands.Load(), time.Now().Add(c.e.time(6*time.Second, time.Second))
	for i := 0; i < len(c.locks) && time.Now().Before(end); i++ {
		leave, err := l.hold(ctx, c.lockOf(i))
		if err == nil {
			err = l.call(ctx, i)
		}
		if err != nil {
			return nil, err
		}
		sleep(30*time.Millisecond + rand.N(20*time.Millisecond))
		at := time.Now()
		if err := leave(); err != nil {
			return nil, err
		}
		for c.begun(i).IsZero() {
			if time.Since(at) > waitFor {
				return nil, errNotFinished
			}
			sleep(time.Millisecond)
		}
		lags = append(lags, float64(c.begun(i).Sub(at))/1e6)
		sleep(10 * time.Millisecond) // it is over
	}
	n := float64(len(lags))
	v := values{
		"p50 ms": percentile(lags, 0.5), "p99 ms": percentile(lags, 0.99), "samples": n,
		"deliveries/request": float64(c.tries.Load()) / n, "commands/request": float64(c.e.wire.commands.Load()-commands) / n,
	}
	cancel()
	return v, <-consumed
}

// begun returns when the i-th section began; zero: not yet.
func (c *crowd) begun(i int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.runs[0]; i < len(all) {
		return time.Unix(0, all[i].Entry)
	}
	return time.Time{}
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
	type row struct {
		name, note string
		open       way
	}
	rows := func(open func(e *env) *crowd, measure func(c *crowd, l line) (values, error), all ...row) []peer {
		var out []peer
		for _, p := range all {
			out = append(out, peer{name: p.name, note: p.note, run: func(e *env) (values, error) {
				c := open(e)
				l, err := p.open(c)
				if err != nil {
					return nil, err
				}
				defer l.close()
				return measure(c, l)
			}})
		}
		return out
	}
	own := row{"sidestep", "Defer(1 s)", deferSidestep}
	fixed := row{"fixed release", "back after 1 s, as a job of Laravel's WithoutOverlapping", deferByHand(time.Second, false)}
	jittered := row{"jittered release", "back after up to 1 s, at random", deferByHand(time.Second, true)}
	fixedEager := row{"fixed release, eager", "back after 20 ms", deferByHand(eagerly, false)}
	jitteredEager := row{"jittered release, eager", "back after up to 20 ms, at random", deferByHand(eagerly, true)}
	retried := row{"asynq, lock and retry", "eager; the handler tries the lock, and the task comes back after 1 s", deferAsynq}
	return []scenario{
		{
			name:  "defer/one-lock",
			title: "400 requests on one lock, 5 ms each, 16 workers, put back for 1 s if it is held",
			about: "All are enqueued before the workers start. The ideal is 400 times 5 ms. A run is cut off after five times the ideal: its makespan is then more than what stands here. " +
				"Those that come back after 20 ms pay for their makespan with deliveries. " +
				"Inversions are the pairs of requests that ran in another order than they came.",
			rounds:  2,
			metrics: metrics,
			peers:   rows(func(e *env) *crowd { return oneLock(e, e.n(oneLockRequests, 60)) }, (*crowd).measure, own, fixed, fixedEager, jittered, jitteredEager, retried),
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
			peers:   rows(func(e *env) *crowd { return skewed(e, e.n(10_000, 400), e.n(100, 20)) }, (*crowd).measure, own, jittered, jitteredEager, retried),
			targets: []target{
				{metric: "makespan/ideal", atMost: 1.2},
				{metric: "deliveries/request", atLeast: 1, atMost: 1.1},
				{metric: "inversions %", zero: true},
				{metric: "overlaps", zero: true},
			},
		},
		{
			name:  "defer/held",
			title: "A request whose lock another client holds: from the release to the section",
			about: "One at a time: another client takes the lock, the request is made and put back for 1 s, and after 30 to 50 ms the lock is released. " +
				"The commands are those of all three.",
			rounds:  1,
			metrics: []metric{{"p50 ms", true}, {"p99 ms", true}, {"samples", false}, {"deliveries/request", true}, {"commands/request", true}},
			peers:   rows(func(e *env) *crowd { return oneLock(e, e.n(200, 20)) }, (*crowd).released, own, fixed, fixedEager, jittered, jitteredEager, retried),
			targets: []target{
				{metric: "p50 ms", over: bestPeer, atMost: 1},
				{metric: "deliveries/request", atLeast: 1, atMost: 1.1},
			},
		},
	}
}

// line is a way of putting requests back, open on a server.
type line struct {
	put     func(ctx context.Context, i int) error // enqueue a request
	call    func(ctx context.Context, i int) error // make one whose lock is held
	hold    func(ctx context.Context, name string) (leave func() error, err error)
	consume func(ctx context.Context) error
	close   func()
}

// way opens a line.
type way func(c *crowd) (line, error)

// sidestep

func deferSidestep(c *crowd) (line, error) {
	rdb, rdb2 := c.e.client(), c.e.client()
	other := sidestep.New(lock.New(rdb2, lock.Config{}), sidestep.Config{}) // as that of another process
	locker := lock.New(rdb, lock.Config{})
	queue := sidestep.NewQueue(sidestep.New(locker, sidestep.Config{}), rdb, "bench", sidestep.QueueConfig{Workers: c.workers})
	task := sidestep.NewTask(queue, "work", c.lockOf, func(ctx context.Context, _ *lock.Lock, i int) error {
		c.tries.Add(int64(sidestep.RequestFrom(ctx).Deliveries)) // refused ones included
		c.run(i)
		return nil
	}, sidestep.WhenLocked(sidestep.Defer(c.delay)))
	return line{
		put: func(ctx context.Context, i int) error {
			_, err := task.Enqueue(ctx, i)
			return err
		},
		call: func(ctx context.Context, i int) error {
			if out, err := task.Do(ctx, i, sidestep.Defer(c.delay)); err != nil || out.Deferred == nil {
				return fmt.Errorf("it was not deferred: %w", err)
			}
			return nil
		},
		hold: func(ctx context.Context, name string) (leave func() error, err error) {
			inside, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				done <- other.Do(ctx, name, sidestep.Fail(), func(context.Context, *lock.Lock) error {
					close(inside)
					<-end
					return nil
				})
			}()
			select {
			case <-inside:
				return func() error { close(end); return <-done }, nil
			case err := <-done:
				return nil, err
			}
		},
		consume: queue.Run,
		close: func() {
			for _, l := range []*lock.Locker{locker, other.Locker()} {
				_ = l.Close() // always nil
			}
			rdb.Close()
			rdb2.Close()
		},
	}, nil
}

// by hand

// hold takes a lock for as long as until what it returns is called.
func (k *rawKit) hold(ctx context.Context, name string) (leave func() error, err error) {
	held, err := k.try(ctx, name)
	if err != nil {
		return nil, err
	}
	return func() error { return held.unlock(ctx) }, nil
}

// eagerly is a delay that buys a short makespan with many deliveries.
const eagerly = 20 * time.Millisecond

var popScript = redis.NewScript(`
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 100)
if #due > 0 then
  redis.call('ZREM', KEYS[2], unpack(due))
  redis.call('RPUSH', KEYS[1], unpack(due))
end
return redis.call('LPOP', KEYS[1])`)

// deferByHand is the recipe: who meets a held lock puts the request into a ZSET
// by time, and workers that look every 5 ms move what is due back.
func deferByHand(back time.Duration, jitter bool) way {
	return func(c *crowd) (line, error) {
		rdb := c.e.client()
		kit := &rawKit{rdb}
		put := func(ctx context.Context, i int) error { return rdb.RPush(ctx, "ready", i).Err() }
		return line{put: put, call: put, hold: kit.hold, close: func() { rdb.Close() }, consume: func(ctx context.Context) error {
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
						delay := back
						if jitter {
							delay = rand.N(back)
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
		}}, nil
	}
}

// asynq

var errHeld = errors.New("the lock is held")

// deferAsynq tries a lock in the handler and lets the task be retried. That is
// no failure, so it costs no attempt.
func deferAsynq(c *crowd) (line, error) {
	kit, err := openAsynq(5*time.Millisecond, 50*time.Millisecond)(c.e.addr, &c.e.wire)
	if err != nil {
		return line{}, err
	}
	k, ok := kit.(*asynqKit)
	if !ok {
		return line{}, fmt.Errorf("%T", kit)
	}
	locks := &rawKit{k.rdb}
	put := func(ctx context.Context, i int) error { return k.enqueue(ctx, []byte(strconv.Itoa(i))) }
	return line{put: put, call: put, hold: locks.hold, close: kit.close, consume: func(ctx context.Context) error {
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
	}}, nil
}
