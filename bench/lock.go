package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var allLockPeers = []lockPeer{
	sidestepLock, sidestepTurn1, redsyncLock, redislockLock, rueidisLock, rueidisLockFlush,
	rawGoRedis, rawFence, rawRueidis, rawRueidisFlush, rawToken,
}

// with makes rows of a scenario out of lock peers.
func with(peers []lockPeer, run func(e *env, p lockPeer) (values, error)) []peer {
	var out []peer
	for _, p := range peers {
		out = append(out, peer{name: p.name, note: p.note, limit: p.limit, run: func(e *env) (values, error) { return run(e, p) }})
	}
	return out
}

func lockScenarios() []scenario {
	free := []lockPeer{sidestepLock, redsyncLock, redislockLock, rueidisLock, rawGoRedis, rawFence, rawRueidis}
	crowded := []lockPeer{
		sidestepLock, sidestepAuto, redsyncLock, redsyncAuto, redislockLock, redislockAuto, rueidisLock, rueidisLockFlush,
		rawGoRedis, rawGoRedisAuto, rawFence, rawRueidis, rawRueidisFlush,
	}
	line := []lockPeer{sidestepLock, sidestepTurn1, redsyncLock, redislockLock, rueidisLock, rawToken}
	return []scenario{
		{
			name:  "lock/cycle-1",
			title: "Free lock: acquire and release, one goroutine",
			about: "Two round trips that nothing can be saved of; the limit is SET NX and a compare-and-delete script. " +
				"sidestep's acquire is a script that mints a fencing token as well; of the other rows only the one by hand that says so has one, " +
				"minted by the shortest script that makes a number from the server's clock: it forgets the last one.",
			metrics: []metric{{"cycles/s", false}, {"p50 µs", true}, {"p99 µs", true}, {"commands/cycle", true}, {"allocs/cycle", true}},
			peers: append(with(free, func(e *env, p lockPeer) (values, error) { return cycles(context.Background(), e, p, 1) }),
				peer{
					name: "sidestep, cancellable", note: "the caller's context can end, so the call must be able to leave it behind",
					run: func(e *env) (values, error) {
						ctx, cancel := context.WithCancel(context.Background())
						defer cancel()
						return cycles(ctx, e, sidestepLock, 1)
					},
				}),
			targets: []target{
				{metric: "cycles/s", over: rawGoRedis.name, atLeast: 0.95},
				{metric: "cycles/s", over: rawFence.name, atLeast: 0.95},
				{metric: "commands/cycle", atMost: 2},
				{metric: "allocs/cycle", atMost: 26},
			},
		},
		{
			name:  "lock/cycle-64",
			title: "Free locks: acquire and release, 64 goroutines on 64 keys",
			about: "Throughput when all wait for the server at once. go-redis opens a connection per call under way, and with its automatic pipelining writes those of all goroutines on few; " +
				"rueidis writes those of all goroutines on two, four where there are four processors or more (it pauses after each write where a flush delay is given), " +
				"sidestep sends what waits in one script.",
			metrics: []metric{{"cycles/s", false}, {"server µs/cycle", true}, {"commands/cycle", true}},
			peers: with(crowded, func(e *env, p lockPeer) (values, error) {
				return cycles(context.Background(), e, p, 64)
			}),
			targets: []target{
				{metric: "cycles/s", over: bestPeer, atLeast: 1},
			},
		},
		{
			name:    "lock/refused",
			title:   "Held lock: a try that is refused, one goroutine",
			about:   "One round trip is the least. sidestep's answer says who holds the lock and for how long.",
			metrics: []metric{{"tries/s", false}, {"p50 µs", true}, {"commands/try", true}, {"allocs/try", true}},
			peers:   with(free, refused),
			targets: []target{
				{metric: "commands/try", atMost: 1},
				{metric: "p50 µs", over: redislockLock.name, atMost: 1},
			},
		},
		{
			name:  "lock/hand-off-1",
			title: "Contended lock: 8 goroutines of one process, nothing done inside",
			about: "Sections per second through one lock. Within a process sidestep hands the lock on without a round trip, " +
				"for up to 4 ms at a time (a larger fence each); the token by hand costs two commands a section. redsync and redislock try again every 1 ms.",
			metrics: []metric{{"sections/s", false}, {"gap p50 µs", true}, {"gap p99 µs", true}, {"Jain", false}, {"commands/section", true}, {"overlaps", true}},
			peers: with([]lockPeer{sidestepLock, redsyncLock, redislockLock, rueidisLock, rawToken}, func(e *env, p lockPeer) (values, error) {
				kit, err := open(e, p)
				if err != nil {
					return nil, err
				}
				defer kit.close()
				before := e.wire.commands.Load()
				all, err := stay(kit, "key", 8, 0, e.time(1200*time.Millisecond, 300*time.Millisecond))
				return passed(all, 8, e.wire.commands.Load()-before), err
			}),
			targets: []target{
				{metric: "sections/s", over: bestPeer, atLeast: 20},
				{metric: "overlaps", zero: true},
			},
		},
		{
			name:  "lock/hand-off-4x4",
			title: "Contended lock: 4 processes of 4 goroutines, 1 ms inside",
			about: "Gaps are from one section's end to the next one's start, waits from the call to the start; least is the count of the " +
				"worker that got the fewest sections over the mean. A longer turn of one process saves commands and makes the others wait. " +
				"redsync and redislock try again every 1 ms, which keeps their longest waits shortest: every 3 ms they would make more sections, for fewer commands each, and wait longer. " +
				"One round trip is a script's, with 1 ms between calls as here.",
			rounds: 2,
			metrics: []metric{
				{"sections/s", false},
				{"wait p50 ms", true},
				{"wait p99 ms", true},
				{"gap p50 µs", true},
				{"gap p99 µs", true},
				{"Jain", false},
				{"least/mean", false},
				{"commands/section", true},
				{"overlaps", true},
			},
			peers: append(with(line, func(e *env, p lockPeer) (values, error) {
				kit, err := open(e, p) // seeds
				if err != nil {
					return nil, err
				}
				kit.close()
				all, commands, err := processes(job{
					Addr: e.addr, Peer: p.name, Name: "key", Workers: 4,
					Hold: time.Millisecond, For: e.time(2500*time.Millisecond, 500*time.Millisecond),
				}, 4)
				return passed(all, 16, commands), err
			}), peer{name: "one round trip", limit: true, run: roundTrip}),
			targets: []target{
				{metric: "wait p99 ms", over: rawToken.name, atMost: 1.3}, // at the price of a turn
				{metric: "wait p99 ms", of: sidestepTurn1.name, over: rawToken.name, atMost: 1.3},
				{metric: "wait p99 ms", over: bestPeer, atMost: 0.25},
				{metric: "sections/s", over: rawToken.name, atLeast: 0.95},
				{metric: "sections/s", of: sidestepTurn1.name, over: rawToken.name, atLeast: 0.95},
				{metric: "Jain", of: sidestepTurn1.name, atLeast: 0.99},
				{metric: "Jain", atLeast: 0.99},
				{metric: "least/mean", atLeast: 0.5},
				{metric: "commands/section", atMost: 2.2},
				{metric: "commands/section", of: sidestepTurn1.name, atMost: 2.2},
				{metric: "gap p50 µs", over: "one round trip", atMost: 1.5},
				{metric: "gap p50 µs", of: sidestepTurn1.name, over: "one round trip", atMost: 1.5},
				{metric: "overlaps", zero: true},
				{metric: "overlaps", of: sidestepTurn1.name, zero: true},
			},
		},
		{
			name:  "lock/idle-waiters",
			title: "Waiters of one held lock in one process: what they cost while nothing happens",
			about: "Commands per second with 100, 1,000 and 10,000 goroutines waiting; and, with 10,000, what each costs beyond a " +
				"goroutine that waits for its context. redsync and redislock wait by asking again, here every 100 ms.",
			rounds: 1,
			metrics: []metric{
				{"commands/s, 10k", true},
				{"commands/s, 1k", true},
				{"commands/s, 100", true},
				{"goroutines/waiter", true},
				{"connections", true},
				{"KiB/waiter", true},
				{"client CPU ms/s", true},
				{"server CPU ms/s", true},
			},
			peers: with([]lockPeer{sidestepLock, patient(redsyncLock), patient(redislockLock), rueidisLock}, idleWaiters),
			targets: []target{
				{metric: "commands/s, 10k", atMost: 5},
				{metric: "goroutines/waiter", atMost: 0.01},
			},
		},
	}
}

// open opens a peer, warm, with the token in place if it is one.
func open(e *env, p lockPeer) (lockKit, error) {
	kit, err := p.open(e.addr, &e.wire)
	if err != nil {
		return nil, err
	}
	if s, ok := kit.(*tokenKit); ok {
		err = s.seed(context.Background(), "key")
	}
	if err == nil && !p.limit {
		err = warm(kit, "warm")
	}
	if err != nil {
		kit.close()
		return nil, err
	}
	return kit, nil
}

func passed(all []section, workers int, commands int64) values {
	p := analyse(all, workers)
	return values{
		"sections/s": p.perSecond, "gap p50 µs": p.gapP50, "gap p99 µs": p.gapP99,
		"wait p50 ms": p.waitP50, "wait p99 ms": p.waitP99, "Jain": p.jain, "least/mean": p.leastOfMean,
		"overlaps": float64(p.overlaps), "commands/section": float64(commands) / float64(p.sections),
	}
}

// cycles acquires and releases, each goroutine its own lock.
func cycles(ctx context.Context, e *env, p lockPeer, goroutines int) (values, error) {
	kit, err := open(e, p)
	if err != nil {
		return nil, err
	}
	defer kit.close()
	return cycle(ctx, e, kit, goroutines, goroutines, e.time(1200*time.Millisecond, 200*time.Millisecond))
}

func cycle(ctx context.Context, e *env, kit lockKit, goroutines, keys int, d time.Duration) (values, error) {
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("key:%d", i)
	}
	var failed atomic.Pointer[error]
	var count atomic.Int64
	latencies := make([][]float64, goroutines)
	phase := func(d time.Duration, keep bool) {
		end := time.Now().Add(d)
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				var mine []float64
				if keep {
					mine = make([]float64, 0, 1<<19/goroutines)
				}
				n := int64(0)
				for i, began := g, time.Now(); began.Before(end); i += goroutines {
					h, err := kit.try(ctx, names[i%keys])
					if err == nil {
						err = h.unlock(ctx)
					}
					if err != nil {
						failure := err // only this one on the heap
						failed.Store(&failure)
						return
					}
					now := time.Now()
					if keep && len(mine) < cap(mine) {
						mine = append(mine, float64(now.Sub(began))/1e3)
					}
					began = now
					n++
				}
				if keep {
					latencies[g] = mine
					count.Add(n)
				}
			})
		}
		wg.Wait()
	}
	phase(d/5, false)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	commands, cpu, began := e.wire.commands.Load(), e.cpu(), time.Now()
	phase(d, true)
	took := time.Since(began).Seconds()
	runtime.ReadMemStats(&after)
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	n := float64(count.Load())
	var all []float64
	for _, l := range latencies {
		all = append(all, l...)
	}
	return values{
		"cycles/s": n / took, "p50 µs": percentile(all, 0.5), "p99 µs": percentile(all, 0.99),
		"commands/cycle":  float64(e.wire.commands.Load()-commands) / n,
		"allocs/cycle":    float64(after.Mallocs-before.Mallocs) / n,
		"server µs/cycle": (e.cpu() - cpu) * 1e6 / n,
	}, nil
}

// refused tries a lock that another client holds.
func refused(e *env, p lockPeer) (values, error) {
	ctx := context.Background()
	holder, err := p.open(e.addr, new(wire))
	if err != nil {
		return nil, err
	}
	defer holder.close()
	h, err := holder.try(ctx, "key")
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.unlock(ctx) }() // the data are dropped next
	kit, err := open(e, p)
	if err != nil {
		return nil, err
	}
	defer kit.close()
	latencies := make([]float64, 0, 1<<19)
	try := func(d time.Duration, keep bool) error {
		for began := time.Now(); d > 0; {
			h, err := kit.try(ctx, "key")
			switch {
			case err == nil:
				return errors.Join(errors.New("a try took a held lock"), h.unlock(ctx))
			case !errors.Is(err, errTaken):
				return err
			}
			now := time.Now()
			if keep && len(latencies) < cap(latencies) {
				latencies = append(latencies, float64(now.Sub(began))/1e3)
			}
			d -= now.Sub(began)
			began = now
		}
		return nil
	}
	d := e.time(time.Second, 150*time.Millisecond)
	if err := try(d/5, false); err != nil {
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	commands, began := e.wire.commands.Load(), time.Now()
	if err := try(d, true); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	runtime.ReadMemStats(&after)
	n := float64(len(latencies))
	return values{
		"tries/s": n / took, "p50 µs": percentile(latencies, 0.5),
		"commands/try": float64(e.wire.commands.Load()-commands) / n,
		"allocs/try":   float64(after.Mallocs-before.Mallocs) / n,
	}, nil
}

// roundTrip measures a script's, with a pause before each, as between sections.
func roundTrip(e *env) (values, error) {
	rdb := e.client()
	defer rdb.Close()
	ctx := context.Background()
	var trips []float64
	for range e.n(1000, 150) {
		time.Sleep(time.Millisecond)
		began := time.Now()
		if err := deleteScript.Run(ctx, rdb, []string{"no such key"}, "").Err(); err != nil {
			return nil, err
		}
		trips = append(trips, float64(time.Since(began))/1e3)
	}
	return values{"gap p50 µs": percentile(trips, 0.5), "gap p99 µs": percentile(trips, 0.99)}, nil
}

// patient makes those who wait by asking again do so ten times a second.
func patient(p lockPeer) lockPeer {
	inner := p.open
	p.note = "a try every 100 ms"
	p.open = func(addr string, w *wire) (lockKit, error) {
		kit, err := inner(addr, w)
		switch k := kit.(type) {
		case *redsyncKit:
			k.every = 100 * time.Millisecond
		case *redislockKit:
			k.every = 100 * time.Millisecond
		}
		return kit, err
	}
	return p
}

func idleWaiters(e *env, p lockPeer) (values, error) {
	out := values{}
	for _, size := range []struct {
		n    int
		rate string
	}{{e.n(100, 10), "commands/s, 100"}, {e.n(1000, 50), "commands/s, 1k"}, {e.n(10_000, 500), "commands/s, 10k"}} {
		if err := e.empty(); err != nil {
			return nil, err
		}
		rate, v, err := waiters(e, p, size.n)
		if err != nil {
			return nil, err
		}
		out[size.rate] = rate
		maps.Copy(out, v) // the last are of the most
	}
	return out, nil
}

// waiters returns the commands per second of n goroutines that wait, and what each costs.
func waiters(e *env, p lockPeer, n int) (rate float64, v values, err error) {
	holder, err := p.open(e.addr, new(wire))
	if err != nil {
		return 0, nil, err
	}
	defer holder.close()
	h, err := holder.try(context.Background(), "key")
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = h.unlock(context.Background()) }() // the data are dropped next
	kit, err := open(e, p)
	if err != nil {
		return 0, nil, err
	}
	defer kit.close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := inUse()
	bare := bareWaiters(n)
	goroutines, connections := runtime.NumGoroutine(), e.info("connected_clients")
	entered := atomic.Int64{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { _ = kit.do(ctx, "key", func() { entered.Add(1) }) }) // ends with ctx
	}
	time.Sleep(e.time(2*time.Second, 200*time.Millisecond))
	d := e.time(2*time.Second, 500*time.Millisecond)
	commands, server, client, began := e.wire.commands.Load(), e.cpu(), ownCPU(), time.Now()
	time.Sleep(d)
	took := time.Since(began).Seconds()
	rate = float64(e.wire.commands.Load()-commands) / took
	v = values{
		"client CPU ms/s":   (ownCPU() - client) * 1e3 / took,
		"server CPU ms/s":   (e.cpu() - server) * 1e3 / took,
		"goroutines/waiter": float64(runtime.NumGoroutine()-goroutines-n) / float64(n),
		"connections":       e.info("connected_clients") - connections,
	}
	v["KiB/waiter"] = (inUse() - before - bare) / 1024 / float64(n)
	cancel()
	wg.Wait()
	if entered.Load() > 0 {
		return 0, nil, fmt.Errorf("%d entered a held lock", entered.Load())
	}
	return rate, v, nil
}

// inUse returns the bytes of heap and stacks.
func inUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// bareWaiters returns the bytes of n goroutines that wait for a context.
func bareWaiters(n int) float64 {
	ctx, cancel := context.WithCancel(context.Background())
	before := inUse()
	var started, wg sync.WaitGroup
	started.Add(n)
	for range n {
		wg.Go(func() {
			started.Done()
			<-ctx.Done()
		})
	}
	started.Wait()
	after := inUse()
	cancel()
	wg.Wait()
	return after - before
}
