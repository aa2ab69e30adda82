package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"
	"github.com/sidestep-go/sidestep/internal/faultproxy"
)

// Fault is something that the nemesis did.
type Fault struct {
	Kind   string `json:"kind"`
	Target string `json:"target"`
	From   int64  `json:"from_ns"` // of the shared clock
	To     int64  `json:"to_ns"`   // when it was over and all was put right again
	Err    string `json:"error,omitempty"`
}

// faultKind is a kind of fault.
type faultKind struct {
	name, about string
	weight      int
	seats       func(s *seat) bool // whether it can befall this member; nil: it befalls servers
	in          []string           // topologies; nil: all
	run         func(ctx context.Context, n *nemesis, rng *rand.Rand, s *seat, srv *server) error
}

func anySeat(*seat) bool       { return true }
func onlyWorkers(s *seat) bool { return s.worker }
func onlyClients(s *seat) bool { return !s.worker }
func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

var faultKinds = []faultKind{
	{name: "kill-worker", about: "SIGKILL of a worker", weight: 6, seats: onlyWorkers, run: killMember},
	{name: "kill-client", about: "SIGKILL of a client", weight: 2, seats: onlyClients, run: killMember},
	{
		name: "stop", about: "SIGSTOP of a process for longer than its leases", weight: 6, seats: anySeat,
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, s *seat, _ *server) error {
			aim(ctx, s)
			p := s.process()
			p.stop()
			defer p.resume()
			pause(ctx, between(rng, lockTTL*5/4, lockTTL*5/2))
			return nil
		},
	},
	{
		name: "cut", about: "all connections of a process cut", weight: 3, seats: anySeat,
		run: func(_ context.Context, _ *nemesis, _ *rand.Rand, s *seat, _ *server) error {
			s.each((*faultproxy.Proxy).Cut)
			return nil
		},
	},
	{
		name: "black-hole", about: "nothing passes to or from a process; then it is cut off", weight: 3, seats: anySeat,
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, s *seat, _ *server) error {
			s.each(func(p *faultproxy.Proxy) { p.BlackHole(true) })
			pause(ctx, between(rng, 300*time.Millisecond, 1500*time.Millisecond))
			s.each(func(p *faultproxy.Proxy) {
				p.Cut()
				p.BlackHole(false)
			})
			return nil
		},
	},
	{
		name: "late", about: "nothing passes to or from a process; then all of it arrives", weight: 3, seats: anySeat,
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, s *seat, _ *server) error {
			s.each(func(p *faultproxy.Proxy) { p.BlackHole(true) })
			pause(ctx, between(rng, 300*time.Millisecond, 1500*time.Millisecond))
			s.each(func(p *faultproxy.Proxy) { p.BlackHole(false) })
			return nil
		},
	},
	{
		name: "slow", about: "20 to 100 ms more each way", weight: 2, seats: anySeat,
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, s *seat, _ *server) error {
			there, back := between(rng, 20*time.Millisecond, 100*time.Millisecond), between(rng, 20*time.Millisecond, 100*time.Millisecond)
			s.each(func(p *faultproxy.Proxy) { p.Delay(there, back) })
			pause(ctx, between(rng, 500*time.Millisecond, time.Second))
			s.each(func(p *faultproxy.Proxy) { p.Delay(0, 0) })
			return nil
		},
	},
	{name: "lost-reply", about: "a script runs, and its reply is lost", weight: 6, seats: anySeat, run: loseMessage(
		func(p *faultproxy.Proxy) <-chan struct{} { return p.DropReply("evalsha") })},
	{name: "lost-request", about: "a script is lost on its way", weight: 2, seats: anySeat, run: loseMessage(
		func(p *faultproxy.Proxy) <-chan struct{} { return p.DropRequest("evalsha") })},
	{
		name: "client-kill", about: "CLIENT KILL of all connections of a server", weight: 3,
		run: func(ctx context.Context, _ *nemesis, _ *rand.Rand, _ *seat, srv *server) error {
			_, err1 := srv.do(ctx, "CLIENT", "KILL", "TYPE", "normal")
			_, err2 := srv.do(ctx, "CLIENT", "KILL", "TYPE", "pubsub")
			return errors.Join(err1, err2)
		},
	},
	{
		name: "script-flush", about: "SCRIPT FLUSH", weight: 3,
		run: func(ctx context.Context, _ *nemesis, _ *rand.Rand, _ *seat, srv *server) error {
			_, err := srv.do(ctx, "SCRIPT", "FLUSH")
			return err
		},
	},
	{
		name: "idle-timeout", about: "CONFIG SET timeout 1", weight: 2,
		run: func(ctx context.Context, n *nemesis, rng *rand.Rand, _ *seat, srv *server) error {
			if _, err := srv.do(ctx, "CONFIG", "SET", "timeout", 1); err != nil {
				return err
			}
			pause(ctx, between(rng, 1500*time.Millisecond, 3*time.Second))
			_, err := srv.do(context.WithoutCancel(ctx), "CONFIG", "SET", "timeout", 0)
			return err
		},
	},
	{
		name: "stall", about: "SIGSTOP of a server for 200 to 500 ms, as by a slow disk", weight: 4,
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, _ *seat, srv *server) error {
			p := srv.process()
			p.stop()
			defer p.resume()
			pause(ctx, between(rng, 200*time.Millisecond, 500*time.Millisecond))
			return nil
		},
	},
	{
		name: "restart", about: "SIGKILL of a server, and a start on the same data", weight: 4,
		run: func(ctx context.Context, n *nemesis, rng *rand.Rand, _ *seat, srv *server) error {
			if err := n.servers.whole(ctx); err != nil {
				return err
			}
			role, err := following(ctx, srv)
			if err != nil {
				return err
			}
			srv.kill()
			pause(ctx, between(rng, 50*time.Millisecond, 300*time.Millisecond))
			return srv.start(role...)
		},
	},
	{
		name: "outage", about: "a node is down for 1 to 2 s", weight: 2, in: []string{Quorum, Cluster},
		run: func(ctx context.Context, _ *nemesis, rng *rand.Rand, _ *seat, srv *server) error {
			srv.kill()
			pause(ctx, between(rng, time.Second, 2*time.Second))
			return srv.start()
		},
	},
	{
		name: "failover", about: "the replica falls behind, and the master is killed", weight: 12, in: []string{Sentinel, SentinelAsync},
		run: failOver,
	},
}

// FaultKinds returns the names of all kinds.
func FaultKinds() []string {
	var all []string
	for _, k := range faultKinds {
		all = append(all, k.name)
	}
	return all
}

func killMember(ctx context.Context, _ *nemesis, rng *rand.Rand, s *seat, _ *server) error {
	aim(ctx, s)
	s.process().kill()
	pause(ctx, between(rng, 0, 400*time.Millisecond))
	return s.start()
}

// aim waits a moment for the process to be in a section, where harm does most.
func aim(ctx context.Context, s *seat) {
	_ = await(ctx, 300*time.Millisecond, "a section", s.inSection) // then without
}

// loseMessage makes a fault of losing one message of the next script.
func loseMessage(lose func(*faultproxy.Proxy) <-chan struct{}) func(context.Context, *nemesis, *rand.Rand, *seat, *server) error {
	return func(ctx context.Context, n *nemesis, rng *rand.Rand, s *seat, _ *server) error {
		t := time.NewTimer(2 * time.Second)
		defer t.Stop()
		at := n.servers.nodes[rng.IntN(len(n.servers.nodes))]
		if len(n.servers.sentinels) > 0 {
			var err error
			if at, err = n.servers.master(ctx); err != nil {
				return err
			}
		}
		select {
		case <-lose(s.proxies[slices.Index(n.servers.nodes, at)]):
			return nil
		case <-t.C:
		case <-ctx.Done():
		}
		return errNothingToLose
	}
}

var errNothingToLose = errors.New("the process sent no script there")

// failOver breaks the replication, lets the master accept what the replica does
// not get, and kills it. When the sentinels have made the replica the master, the
// old one comes back as its replica.
func failOver(ctx context.Context, n *nemesis, rng *rand.Rand, _ *seat, old *server) error {
	s := n.servers
	if err := s.whole(ctx); err != nil { // what was accepted before is not to be lost
		return err
	}
	next := s.nodes[0]
	if next == old {
		next = s.nodes[1]
	}
	replica := next.process()
	replica.stop()
	_, err := old.do(ctx, "CLIENT", "KILL", "TYPE", "replica")
	if err == nil {
		pause(ctx, between(rng, 100*time.Millisecond, 400*time.Millisecond))
		old.kill()
	}
	replica.resume()
	if err != nil {
		return err
	}
	whole := context.WithoutCancel(ctx) // it is not left half done
	err = await(whole, 20*time.Second, "a failover", func() bool {
		now, err := s.master(whole)
		if err != nil || now == old {
			return false
		}
		role, err := now.do(whole, "ROLE")
		list, _ := role.([]any)
		return err == nil && len(list) > 0 && list[0] == "master"
	})
	host, port, _ := net.SplitHostPort(next.addr)
	if err != nil {
		return errors.Join(err, old.start())
	}
	if err := old.start("--replicaof", host+" "+port); err != nil {
		return err
	}
	return s.inSync(whole, old)
}

// nemesis does harm, as a seed says, until its time is over.
type nemesis struct {
	servers *servers
	crew    *crew
	kinds   []string // those allowed
	every   time.Duration
	rng     *rand.Rand

	mu     sync.Mutex // guards the fields below
	busy   map[any]bool
	faults []Fault
}

// servers of a Sentinel set fall together: while one is replaced no other may be
// harmed. Elsewhere each server is on its own.
func (n *nemesis) claims(srv *server) any {
	if len(n.servers.sentinels) > 0 {
		return n.servers
	}
	return srv
}

// run does harm until ctx ends, and returns when all is put right again.
func (n *nemesis) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		pause(ctx, time.Duration((0.5+n.rng.Float64())*float64(n.every)))
		if ctx.Err() != nil {
			return
		}
		kind, s, srv := n.choose()
		if kind == nil {
			continue // all that could be harmed is
		}
		rng := rand.New(rand.NewPCG(n.rng.Uint64(), 0))
		all.Go(func() { n.do(ctx, kind, rng, s, srv) })
	}
}

// killInQuiet kills workers while nothing else is harmed, one after another: how
// soon their requests run again then is a promise.
func (n *nemesis) killInQuiet(ctx context.Context, times int) {
	i := slices.IndexFunc(faultKinds, func(k faultKind) bool { return k.name == "kill-worker" })
	if len(n.kinds) > 0 && !slices.Contains(n.kinds, faultKinds[i].name) {
		return
	}
	for range times {
		s := n.crew.seats[n.rng.IntN(n.crew.opt.Workers)]
		pause(ctx, queueLease/2)
		n.do(ctx, &faultKinds[i], n.rng, s, nil)
		pause(ctx, queueLease)
	}
}

// choose chooses a kind and whom it befalls, and marks that as harmed.
func (n *nemesis) choose() (*faultKind, *seat, *server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	type choice struct {
		kind *faultKind
		seat *seat
		srv  *server
	}
	var choices []choice
	var weights []float64
	total := 0.0
	for i := range faultKinds {
		k := &faultKinds[i]
		if len(n.kinds) > 0 && !slices.Contains(n.kinds, k.name) || k.in != nil && !slices.Contains(k.in, n.servers.kind) {
			continue
		}
		var of []choice
		if k.seats != nil {
			for _, s := range n.crew.seats {
				if k.seats(s) && !n.busy[s] {
					of = append(of, choice{k, s, nil})
				}
			}
		} else {
			for _, srv := range n.servers.nodes {
				if !n.busy[n.claims(srv)] {
					of = append(of, choice{k, nil, srv})
				}
			}
		}
		for _, c := range of {
			choices = append(choices, c)
			w := float64(k.weight) / float64(len(of))
			weights = append(weights, w)
			total += w
		}
	}
	at := n.rng.Float64() * total
	for i, c := range choices {
		if at -= weights[i]; at < 0 || i == len(choices)-1 {
			if c.seat != nil {
				n.busy[c.seat] = true
			} else {
				n.busy[n.claims(c.srv)] = true
			}
			return c.kind, c.seat, c.srv
		}
	}
	return nil, nil, nil
}

func (n *nemesis) do(ctx context.Context, k *faultKind, rng *rand.Rand, s *seat, srv *server) {
	f := Fault{Kind: k.name, From: clock.Now()}
	var target any = s
	var err error
	if s != nil {
		f.Target = s.name
	} else {
		target = n.claims(srv)
		if k.name == "failover" { // it befalls the master, whichever that is
			if srv, err = n.servers.master(ctx); err != nil {
				srv = n.servers.nodes[0]
			}
		}
		f.Target = srv.name
	}
	if err == nil {
		err = k.run(ctx, n, rng, s, srv)
	}
	if err != nil {
		f.Err = err.Error()
	}
	f.To = clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, target)
	n.faults = append(n.faults, f)
}
