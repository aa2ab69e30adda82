package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
)

// Growth: ten and a hundred times as much of something, and what becomes of
// that which should not depend on it. A row's columns are one round.
func growthScenarios() []scenario {
	return []scenario{
		{
			name:    "growth/keys",
			title:   "10 and 100 times the keys: cycles per second, 64 goroutines",
			about:   "Each lock used leaves its fence behind for a minute.",
			rounds:  1,
			metrics: []metric{{"6,400 keys", false}, {"640 keys", false}, {"64 keys", false}, {"6,400 / 64", false}},
			peers: with([]lockPeer{sidestepLock, rawGoRedis}, func(e *env, p lockPeer) (values, error) {
				return grow(e, []int{64, 640, 6400}, "keys", func(n int) (float64, error) {
					kit, err := open(e, p)
					if err != nil {
						return 0, err
					}
					defer kit.close()
					n = max(n/64*64, 64) // so that no two goroutines meet
					v, err := cycle(context.Background(), e, kit, 64, n, e.time(time.Second, 150*time.Millisecond))
					return v["cycles/s"], err
				})
			}),
			targets: []target{{metric: "6,400 / 64", atLeast: 0.9}},
		},
		{
			name:    "growth/processes",
			title:   "10 and 100 times the processes in line: sections per second of one lock",
			about:   "Clients of their own, in one process, each with one goroutine and nothing done inside.",
			rounds:  1,
			metrics: []metric{{"400 clients", false}, {"40 clients", false}, {"4 clients", false}, {"400 / 4", false}},
			peers: with([]lockPeer{sidestepLock, rueidisLock, rawToken}, func(e *env, p lockPeer) (values, error) {
				return grow(e, []int{4, 40, 400}, "clients", func(n int) (float64, error) { return clients(e, p, n) })
			}),
			targets: []target{{metric: "400 / 4", atLeast: 0.8}},
		},
		{
			name:    "growth/parked",
			title:   "10 and 100 times the requests in one lock's line: requests per second, 8 workers, nothing done inside",
			about:   "Each is claimed, takes the lock, releases it, is acknowledged, and gives the turn to the next.",
			rounds:  1,
			metrics: []metric{{"10k requests", false}, {"1,000 requests", false}, {"100 requests", false}, {"10k / 100", false}},
			peers: []peer{{name: ours, run: func(e *env) (values, error) {
				return grow(e, []int{100, 1000, 10_000}, "requests", func(n int) (float64, error) { return lineOf(e, n) })
			}}},
			targets: []target{{metric: "10k / 100", atLeast: 0.8}},
		},
		{
			name:    "growth/bystanders",
			title:   "10 and 100 times the requests parked on other locks: consume and acknowledge, 8 workers",
			about:   "What stands in other lines should not slow down what can run.",
			rounds:  1,
			metrics: []metric{{"100k parked", false}, {"10k parked", false}, {"1,000 parked", false}, {"100k / 1,000", false}},
			peers: []peer{{name: ours, run: func(e *env) (values, error) {
				return grow(e, []int{1000, 10_000, 100_000}, "parked", func(n int) (float64, error) { return besides(e, n) })
			}}},
			targets: []target{{metric: "100k / 1,000", atLeast: 0.9}},
		},
		{
			name:    "growth/consumers",
			title:   "10 and 100 times the idle consumers: commands per second of all",
			about:   "Clients of their own, in one process, on one queue. Per consumer it should stay the same.",
			rounds:  1,
			metrics: []metric{{"100 consumers", true}, {"10 consumers", true}, {"1 consumers", true}, {"100 / 1", true}},
			peers: withQueues([]queuePeer{sidestepQueue, asynqDefault}, func(e *env, p queuePeer, _ queueKit) (values, error) {
				return grow(e, []int{1, 10, 100}, "consumers", func(n int) (float64, error) { return idlers(e, p, n) })
			}),
			targets: []target{{metric: "100 / 1", atMost: 110}},
		},
	}
}

// grow measures at each size, a tenth of it if quick, and compares the last with
// the first.
func grow(e *env, sizes []int, what string, at func(n int) (float64, error)) (values, error) {
	v := values{}
	var all []float64
	for _, n := range sizes {
		if err := e.empty(); err != nil {
			return nil, err
		}
		small := n
		if e.quick {
			small = max(n/10, 1)
		}
		x, err := at(small)
		if err != nil {
			return nil, fmt.Errorf("%d %s: %w", n, what, err)
		}
		v[size(n)+" "+what] = x
		all = append(all, x)
	}
	v[size(sizes[len(sizes)-1])+" / "+size(sizes[0])] = all[len(all)-1] / all[0]
	return v, nil
}

func size(n int) string {
	switch {
	case n >= 10_000:
		return fmt.Sprintf("%dk", n/1000)
	case n >= 1000:
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}

// clients passes one lock between clients of their own.
func clients(e *env, p lockPeer, n int) (float64, error) {
	kits := make([]lockKit, n)
	defer func() {
		var wg sync.WaitGroup
		for _, k := range kits {
			if k != nil {
				wg.Go(k.close)
			}
		}
		wg.Wait()
	}()
	for i := range kits {
		var err error
		if kits[i], err = p.open(e.addr, &e.wire); err != nil {
			return 0, err
		}
		if s, ok := kits[i].(*tokenKit); ok && i == 0 {
			if err := s.seed(context.Background(), "key"); err != nil {
				return 0, err
			}
		}
	}
	// The first sections open the connections: they are left out.
	settle, d := e.time(time.Second, 200*time.Millisecond), e.time(1500*time.Millisecond, 200*time.Millisecond)
	from := time.Now().Add(settle).UnixNano()
	all := make([][]section, n)
	err := inWorkers(n, func(i int) error {
		var err error
		all[i], err = stay(kits[i], "key", 1, 0, settle+d)
		return err
	})
	sections := slices.DeleteFunc(slices.Concat(all...), func(s section) bool { return s.Entry < from })
	got := analyse(sections, 1)
	if got.overlaps > 0 {
		err = errors.Join(err, fmt.Errorf("%d overlaps", got.overlaps))
	}
	return got.perSecond, err
}

// lineOf works off n requests of one lock.
func lineOf(e *env, n int) (float64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rdb := e.client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer func() { _ = locker.Close() }() // always nil
	queue := sidestep.NewQueue(sidestep.New(locker, sidestep.Config{}), rdb, "bench", sidestep.QueueConfig{Workers: 8})
	var count atomic.Int64
	done := make(chan struct{})
	task := sidestep.NewTask(queue, "work", func(int) string { return "account" }, func(context.Context, *lock.Lock, int) error {
		if count.Add(1) == int64(n) {
			close(done)
		}
		return nil
	})
	if err := produce(n, 16, func(i int) error { _, err := task.Enqueue(ctx, i); return err }); err != nil {
		return 0, err
	}
	began := time.Now()
	ran := make(chan error, 1)
	go func() { ran <- queue.Run(ctx) }()
	bound := e.time(12*time.Second, 3*time.Second)
	select {
	case <-done:
	case <-time.After(bound): // the rate says what there is to say
	}
	rate := float64(count.Load()) / time.Since(began).Seconds()
	cancel()
	return rate, <-ran
}

// besides works off requests without a lock, while others are parked.
func besides(e *env, parked int) (float64, error) {
	kit, err := openListq(e.addr, &e.wire)
	if err != nil {
		return 0, err
	}
	defer kit.close()
	k, ok := kit.(*listqKit)
	if !ok {
		return 0, fmt.Errorf("%T", kit)
	}
	err = produce(parked, 16, func(i int) error {
		return park(context.Background(), k.d, fmt.Sprintf("account:%d", i%1000), bodyOf(int64(i), 1))
	})
	if err != nil {
		return 0, err
	}
	v, err := drain(e, sidestepQueue, kit, e.n(20_000, 1_000), 8, func(ctx context.Context, i int) error {
		return kit.enqueue(ctx, bodyOf(int64(i), 0))
	})
	return v["requests/s"], err
}

// idlers counts what so many idle consumers send.
func idlers(e *env, p queuePeer, n int) (float64, error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range n {
		kit, err := p.open(e.addr, &e.wire)
		if err != nil {
			return 0, err
		}
		stop := started(kit, 8, func([]byte) {})
		defer wg.Go(func() { // all at once, at the end
			_ = stop() // they were idle
			kit.close()
		})
	}
	time.Sleep(e.time(2500*time.Millisecond, 500*time.Millisecond))
	before, began := e.wire.commands.Load(), time.Now()
	time.Sleep(e.time(5*time.Second, time.Second))
	return float64(e.wire.commands.Load()-before) / time.Since(began).Seconds(), nil
}
