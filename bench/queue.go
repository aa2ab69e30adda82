package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
)

// withQueues makes rows of a scenario out of queue peers.
func withQueues(peers []queuePeer, run func(e *env, p queuePeer, kit queueKit) (values, error)) []peer {
	var out []peer
	for _, p := range peers {
		out = append(out, peer{name: p.name, note: p.note, limit: p.limit, run: func(e *env) (values, error) {
			kit, err := p.open(e.addr, &e.wire)
			if err != nil {
				return nil, err
			}
			defer kit.close()
			return run(e, p, kit)
		}})
	}
	return out
}

func queueScenarios() []scenario {
	return []scenario{
		{
			name:    "queue/enqueue-16",
			title:   "Enqueue: 16 producers, 256 bytes each",
			about:   "One request per call. The limit is RPUSH of the payload: no id, no duplicate check, nothing to cancel by.",
			metrics: []metric{{"requests/s", false}, {"server µs/request", true}, {"commands/request", true}},
			peers: withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, rmqQueue, textbook, rawList},
				func(e *env, _ queuePeer, kit queueKit) (values, error) { return enqueues(e, kit, 16) }),
			targets: []target{{metric: "requests/s", over: asynqDefault.name, atLeast: 1}},
		},
		{
			name:    "queue/enqueue-1",
			title:   "Enqueue: one producer, 256 bytes each",
			metrics: []metric{{"requests/s", false}, {"allocs/request", true}, {"commands/request", true}},
			about:   "One round trip is the least.",
			rounds:  2,
			peers: withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, rmqQueue, textbook, rawList},
				func(e *env, _ queuePeer, kit queueKit) (values, error) { return enqueues(e, kit, 1) }),
		},
		{
			name:  "queue/consume",
			title: "Consume and acknowledge: 8 workers, handlers that do nothing",
			about: "From the start of the consumer on a full queue to the last handler, when the acknowledgements of the last few are still to come (of sidestep 2 % of all at the most). Batches decide: one claim for all free workers, " +
				"one acknowledgement for all that finished meanwhile. The batch claim by hand holds 8 × 128 at a time and keeps no state of a request. " +
				slowDrain(40_000),
			rounds:  2,
			metrics: []metric{{"requests/s", false}, {"server µs/request", true}, {"client µs/request", true}, {"commands/request", true}},
			peers: withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, rmqQueue, rmqEager, textbook, textbookLua, rawList, rawBatch},
				func(e *env, p queuePeer, kit queueKit) (values, error) {
					return drain(e, p, kit, e.n(40_000, 2_000), 8, func(ctx context.Context, i int) error {
						return kit.enqueue(ctx, bodyOf(int64(i), 0))
					})
				}),
			targets: []target{
				{metric: "requests/s", over: asynqDefault.name, atLeast: 8},
				{metric: "requests/s", over: rawBatch.name, atLeast: 0.25},
			},
		},
		{
			name:  "queue/idle-latency",
			title: "From enqueue to handler, on an idle queue",
			about: "One request at a time, some 15 ms apart, and 600 ms for those that look once a second, enqueued by the process that consumes: two hops at least, of which the limit's is a push that ends a BLMOVE. " +
				"sidestep makes none: its request begins in a consumer of the same Queue that has nothing to do, and is stored meanwhile; how it is without that is in the next table. " +
				"The latency of those that poll is their poll, and can be bought with commands (see the idle consumer): " +
				"asynq and the textbook look every second, asynq, eager and rmq every 5 ms, rmq, eager every 1 ms.",
			metrics: []metric{{"p50 µs", true}, {"p99 µs", true}, {"samples", false}},
			peers: withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, asynqEager, rmqQueue, rmqEager, textbook, rawList},
				idleLatency),
			rounds:  7, // where the processes happen to be placed decides about one
			targets: []target{{metric: "p50 µs", over: rawList.name, atMost: 1.5}},
		},
		{
			name:  "queue/idle-latency-apart",
			title: "From enqueue to handler, on an idle queue, from another process",
			about: "The same with two processes, one that enqueues and one that consumes: every request goes by way of Redis. Some 15 ms apart, whether or not the last one has begun; " +
				"without those that look once a second.",
			metrics: []metric{{"p50 µs", true}, {"p99 µs", true}, {"samples", false}},
			peers:   withQueues(apartQueuePeers, idleLatencyApart),
			rounds:  7,
			targets: []target{{metric: "p50 µs", over: rawList.name, atMost: 1.5}},
		},
		{
			name:  "queue/due-lag",
			title: "Due times: how late, 1,000 requests spread over 10 s",
			about: "From a request's due time to its handler, 8 workers. Negative is early. A timer by hand knows the next due time " +
				"and wakes for it; a poll is late by half its interval.",
			rounds:  1,
			metrics: []metric{{"p99 ms", true}, {"p50 ms", true}, {"max ms", true}, {"earliest ms", false}, {"ran", false}, {"commands/request", true}},
			peers:   withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqEager, textbookLua, rawTimer}, dueLag),
			targets: []target{
				{metric: "p99 ms", atMost: 3},
				{metric: "earliest ms", atLeast: 1e-6},
			},
		},
		{
			name:    "queue/claim-due",
			title:   "100,000 requests that are all due: into running handlers, 64 workers",
			about:   "From the start of the consumer to the last handler. " + slowDrain(100_000),
			rounds:  1,
			metrics: []metric{{"requests/s", false}, {"server µs/request", true}, {"commands/request", true}},
			peers: withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqEager, textbook, textbookLua, rawTimer},
				func(e *env, p queuePeer, kit queueKit) (values, error) {
					due := time.Now().Add(e.time(3*time.Second, 300*time.Millisecond))
					return drain(e, p, kit, e.n(100_000, 2_000), 64, func(ctx context.Context, i int) error {
						return kit.enqueueAt(ctx, bodyOf(int64(i), 0), due)
					}, due)
				}),
			targets: []target{{metric: "requests/s", over: asynqEager.name, atLeast: 8}},
		},
		{
			name:    "queue/idle-cost",
			title:   "An idle consumer of 8 workers",
			about:   "What waiting for work costs.",
			rounds:  1,
			metrics: []metric{{"commands/s", true}, {"server CPU ms/s", true}, {"client CPU ms/s", true}, {"connections", true}, {"goroutines", true}},
			peers:   withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, asynqEager, rmqQueue, rmqEager, textbook, textbookLua, rawList}, idleCost),
			targets: []target{{metric: "commands/s", atMost: 1}},
		},
		{
			name:  "queue/memory",
			title: "Memory in Redis per waiting request of 256 bytes",
			about: "Used memory over the number of requests; parked are those whose lock is held, on 100 locks. The limit holds the payload and nothing else. " +
				"The task's payload is a string, which is two bytes longer in JSON; a []byte of 256 would be base64 there, and 344.",
			metrics: []metric{{"ready B", true}, {"delayed B", true}, {"parked B", true}},
			peers:   withQueues([]queuePeer{sidestepQueue, sidestepTask, asynqDefault, rmqQueue, textbook, rawList}, memory),
			targets: []target{
				{metric: "ready B", atMost: 700},
				{metric: "delayed B", atMost: 700},
				{metric: "parked B", atMost: 700},
				{metric: "ready B", of: sidestepTask.name, atMost: 700},
				{metric: "delayed B", of: sidestepTask.name, atMost: 700},
				{metric: "parked B", of: sidestepTask.name, atMost: 700},
			},
		},
	}
}

func enqueues(e *env, kit queueKit, producers int) (values, error) {
	ctx := context.Background()
	var count atomic.Int64
	phase := func(d time.Duration) error {
		end := time.Now().Add(d)
		return inWorkers(producers, func(w int) error {
			for i := int64(0); time.Now().Before(end); i++ {
				if err := kit.enqueue(ctx, bodyOf(i, int64(w))); err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	d := e.time(1200*time.Millisecond, 150*time.Millisecond)
	if err := phase(d / 5); err != nil {
		return nil, err
	}
	m := e.meter(&count)
	if err := phase(d); err != nil {
		return nil, err
	}
	return m.values(), nil
}

// slowShare is what part of the requests the slow peers get: a run would take
// minutes else.
const slowShare = 4

// slowDrain discloses it.
func slowDrain(n int) string {
	return fmt.Sprintf("The queue has %s requests, and a quarter as many for the slow: asynq, rmq and the textbook's first form.", size(n))
}

// drain fills a queue and measures how fast it is worked off.
func drain(e *env, p queuePeer, kit queueKit, n, workers int, enqueue func(ctx context.Context, i int) error, due ...time.Time) (values, error) {
	if p.slow {
		n /= slowShare
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.time(40*time.Second, 6*time.Second))
	defer cancel()
	if err := produce(n, 16, func(i int) error { return enqueue(ctx, i) }); err != nil {
		return nil, err
	}
	for _, t := range due {
		pause(ctx, time.Until(t.Add(10*time.Millisecond)))
	}
	var count atomic.Int64
	done := make(chan struct{})
	m := e.meter(&count)
	running, stop := context.WithCancel(ctx)
	defer stop()
	consumed := make(chan error, 1)
	go func() {
		consumed <- kit.consume(running, workers, func([]byte) {
			if count.Add(1) == int64(n) {
				close(done)
			}
		})
	}()
	select {
	case <-done:
	case <-ctx.Done():
	case err := <-consumed:
		return nil, errors.Join(errNotFinished, err)
	}
	v := m.values()
	stop()
	err := <-consumed
	if got := count.Load(); got != int64(n) && err == nil {
		err = fmt.Errorf("%w: %d of %d", errNotFinished, got, n)
	}
	return v, err
}

// waitFor is how long a run waits for requests that do not come.
const waitFor = 8 * time.Second

// started runs a consumer until the returned function is called.
func started(kit queueKit, workers int, handle func([]byte)) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() { consumed <- kit.consume(ctx, workers, handle) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-consumed
	})
}

func idleLatency(e *env, p queuePeer, kit queueKit) (values, error) {
	ctx := context.Background()
	seen := make(chan int64, 1)
	stop := started(kit, 8, func(body []byte) {
		now := time.Now().UnixNano()
		_, sent := numbersOf(body)
		seen <- now - sent
	})
	defer func() { _ = stop() }() // its error is returned below, if that is reached
	time.Sleep(e.time(500*time.Millisecond, 200*time.Millisecond))
	var latencies []float64
	// Not in step with anybody's poll: each has just looked when a handler is called.
	spread, took := 20*time.Millisecond, 1500*time.Millisecond
	if p.rare {
		spread, took = 1200*time.Millisecond, 8*time.Second
	}
	end := time.Now().Add(e.time(took, 700*time.Millisecond))
	for i := int64(0); time.Now().Before(end); i++ {
		if err := kit.enqueue(ctx, bodyOf(i, time.Now().UnixNano())); err != nil {
			return nil, err
		}
		select {
		case d := <-seen:
			latencies = append(latencies, float64(d)/1e3)
		case <-time.After(waitFor):
			return nil, errNotFinished
		}
		sleep(5*time.Millisecond + rand.N(spread))
	}
	return latencyValues(latencies), stop()
}

func latencyValues(latencies []float64) values {
	if skip := min(5, len(latencies)/3); skip > 0 {
		latencies = latencies[skip:] // connections and scripts are there by then
	}
	return values{"p50 µs": percentile(latencies, 0.5), "p99 µs": percentile(latencies, 0.99), "samples": float64(len(latencies))}
}

// apartQueuePeers are those whose requests a process of its own enqueues.
var apartQueuePeers = []queuePeer{sidestepQueue, sidestepTask, asynqEager, rmqQueue, rmqEager, rawList}

func idleLatencyApart(e *env, p queuePeer, kit queueKit) (values, error) {
	var mu sync.Mutex
	var latencies []float64
	stop := started(kit, 8, func(body []byte) {
		now := time.Now().UnixNano()
		_, sent := numbersOf(body)
		mu.Lock()
		defer mu.Unlock()
		latencies = append(latencies, float64(now-sent)/1e3)
	})
	defer func() { _ = stop() }() // its error is returned below, if that is reached
	time.Sleep(e.time(500*time.Millisecond, 200*time.Millisecond))
	enqueued, _, err := processes(job{Addr: e.addr, Queue: p.name, For: e.time(1500*time.Millisecond, 700*time.Millisecond)}, 1)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(waitFor); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		n := len(latencies)
		mu.Unlock()
		if n == len(enqueued) {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%w: %d of %d", errNotFinished, n, len(enqueued))
		}
	}
	return latencyValues(latencies), stop()
}

// trickle enqueues a request now and then, for so long, and returns one section for each.
func trickle(kit queueKit, d time.Duration) (all []section, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		sleep(5*time.Millisecond + rand.N(20*time.Millisecond))
		now := time.Now().UnixNano()
		if err := kit.enqueue(context.Background(), bodyOf(int64(len(all)), now)); err != nil {
			return nil, err
		}
		all = append(all, section{Asked: now})
	}
	return all, nil
}

func dueLag(e *env, p queuePeer, kit queueKit) (values, error) {
	ctx := context.Background()
	n, spread := e.n(1000, 100), e.time(10*time.Second, time.Second)
	var mu sync.Mutex
	var lags []float64
	all := make(chan struct{})
	stop := started(kit, 8, func(body []byte) {
		now := time.Now()
		_, due := numbersOf(body)
		mu.Lock()
		defer mu.Unlock()
		lags = append(lags, float64(now.UnixNano()-due)/1e6)
		if len(lags) == n {
			close(all)
		}
	})
	defer func() { _ = stop() }() // its error is returned below, if that is reached
	time.Sleep(e.time(500*time.Millisecond, 200*time.Millisecond))
	commands := e.wire.commands.Load()
	// Whole milliseconds, as Redis gets them.
	first := time.Now().Add(time.Second).Truncate(time.Millisecond)
	err := produce(n, 4, func(i int) error {
		due := first.Add(time.Duration(rand.Int64N(int64(spread/time.Millisecond))) * time.Millisecond)
		return kit.enqueueAt(ctx, bodyOf(int64(i), due.UnixNano()), due)
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-all:
	case <-time.After(time.Until(first) + spread + e.time(waitFor, 3*time.Second)):
	}
	mu.Lock()
	v := values{
		"p50 ms": percentile(lags, 0.5), "p99 ms": percentile(lags, 0.99), "max ms": percentile(lags, 1),
		"earliest ms": percentile(lags, 0), "ran": float64(len(lags)),
		"commands/request": float64(e.wire.commands.Load()-commands) / float64(n),
	}
	mu.Unlock()
	return v, stop()
}

func idleCost(e *env, _ queuePeer, kit queueKit) (values, error) {
	connections := e.info("connected_clients")
	var count atomic.Int64
	goroutines := runtime.NumGoroutine()
	stop := started(kit, 8, func([]byte) { count.Add(1) })
	defer func() { _ = stop() }() // its error is returned below, if that is reached
	if err := kit.enqueue(context.Background(), bodyOf(0, 0)); err != nil {
		return nil, err
	}
	time.Sleep(e.time(2500*time.Millisecond, 700*time.Millisecond))
	commands, server, client, began := e.wire.commands.Load(), e.cpu(), ownCPU(), time.Now()
	time.Sleep(e.time(4*time.Second, 600*time.Millisecond))
	took := time.Since(began).Seconds()
	v := values{
		"commands/s":      float64(e.wire.commands.Load()-commands) / took,
		"server CPU ms/s": (e.cpu() - server) * 1e3 / took,
		"client CPU ms/s": (ownCPU() - client) * 1e3 / took,
		"connections":     e.info("connected_clients") - connections,
		"goroutines":      float64(runtime.NumGoroutine() - goroutines),
	}
	return v, stop()
}

func memory(e *env, _ queuePeer, kit queueKit) (values, error) {
	ctx := context.Background()
	n := e.n(20_000, 1_000)
	v := values{}
	used := func() float64 { return e.info("used_memory") - e.info("mem_clients_normal") }
	measure := func(name string, prepare func() error, enqueue func(i int) error) error {
		if err := errors.Join(e.empty(), prepare()); err != nil {
			return err
		}
		err := produce(16, 16, enqueue) // connections and scripts
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err := errors.Join(err, e.empty(), prepare()); err != nil {
			return err
		}
		before := used()
		err = produce(n, 16, enqueue)
		v[name] = (used() - before) / float64(n)
		return err
	}
	nothing := func() error { return nil }
	err := measure("ready B", nothing, func(i int) error { return kit.enqueue(ctx, bodyOf(int64(i), 1)) })
	if err != nil {
		return nil, err
	}
	due := time.Now().Add(time.Hour)
	err = measure("delayed B", nothing, func(i int) error {
		return kit.enqueueAt(ctx, bodyOf(int64(i), 1), due.Add(time.Duration(i)*time.Millisecond))
	})
	if err != nil {
		return nil, err
	}
	account := func(i int64) string { return fmt.Sprintf("account:%d", i%100) }
	switch k := kit.(type) {
	case *listqKit:
		err = measure("parked B", nothing, func(i int) error { return park(ctx, k.d, account(int64(i)), bodyOf(int64(i), 1)) })
	case *taskKit:
		_, task := k.prepare(1, func(body string) string {
			i, _ := numbersOf([]byte(body))
			return account(i)
		}, func([]byte) {})
		hold := func() error {
			holder := lock.New(k.rdb, lock.Config{TTL: time.Hour})
			defer func() { _ = holder.Close() }() // always nil, and its locks stay held
			for i := range int64(100) {
				if _, err := holder.TryAcquire(ctx, account(i)); err != nil {
					return err
				}
			}
			return nil
		}
		err = measure("parked B", hold, func(i int) error {
			out, err := task.Do(ctx, string(bodyOf(int64(i), 1)), sidestep.Defer(time.Hour))
			if err == nil && out.Deferred == nil {
				err = errors.New("a request ran although its lock is held")
			}
			return err
		})
	}
	return v, err
}

func park(ctx context.Context, q *delayq.Queue, name string, body []byte) error {
	_, err := q.Park(ctx, &listq.Request{Lock: name, Payload: body}, time.Hour)
	return err
}
