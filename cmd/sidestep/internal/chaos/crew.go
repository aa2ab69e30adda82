package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"
	"github.com/sidestep-go/sidestep/internal/faultproxy"
)

// seat is a member's place: when its process has been killed, the next one takes
// it. In front of every server it has a proxy of its own.
type seat struct {
	name    string
	worker  bool
	crew    *crew
	proxies []*faultproxy.Proxy
	through map[string]string

	mu    sync.Mutex // guards the fields below
	proc  *process
	in    io.WriteCloser
	lives []*life
}

// life is one process in a seat.
type life struct {
	seat     *seat
	number   int // of the process in the run
	notebook string
	from, to int64 // to: 0 while it lives
	killed   bool
}

// crew is the members of a run.
type crew struct {
	opt     Options
	dir     string
	servers *servers
	seats   []*seat

	following sync.WaitGroup // of the processes until they end

	mu     sync.Mutex // guards the fields below
	lives  []*life
	deaths []string // that nobody meant
}

// newCrew makes the seats and their proxies, and starts the processes.
func newCrew(opt Options, dir string, s *servers) (*crew, error) {
	c := &crew{opt: opt, dir: dir, servers: s}
	for i := range opt.Workers + opt.Clients {
		one := &seat{name: fmt.Sprint("worker-", i+1), worker: true, crew: c, through: make(map[string]string)}
		if i >= opt.Workers {
			one.name, one.worker = fmt.Sprint("client-", i-opt.Workers+1), false
		}
		for j, srv := range append(append([]*server{}, s.nodes...), s.sentinels...) {
			p, err := faultproxy.New(filepath.Join(dir, fmt.Sprintf("p%d-%d", i, j)), func(ctx context.Context) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", srv.addr)
			})
			if err != nil {
				return c, err
			}
			one.proxies = append(one.proxies, p)
			one.through[srv.addr] = p.Addr
		}
		c.seats = append(c.seats, one)
	}
	for _, one := range c.seats {
		if err := one.start(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// start puts a new process into the seat.
func (s *seat) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := s.crew
	c.mu.Lock()
	l := &life{seat: s, number: len(c.lives) + 1}
	l.notebook = filepath.Join(c.dir, fmt.Sprintf("%s-%d.jsonl", s.name, l.number))
	c.lives = append(c.lives, l)
	c.mu.Unlock()

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), MemberEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	l.from = clock.Now()
	p, err := start(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc, s.in = p, in
	s.lives = append(s.lives, l)
	s.mu.Unlock()
	err = json.NewEncoder(in).Encode(job{
		Name: s.name, Number: l.number, Worker: s.worker, Notebook: l.notebook, Way: c.servers.way(s.through),
		Handlers: c.opt.Handlers, Rate: c.opt.Rate, Seed: c.opt.Seed + uint64(l.number)<<32, Break: c.opt.Break,
	})
	if err != nil && p.alive() {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	c.following.Go(func() {
		<-p.ended
		s.ended(l, p)
	})
	return nil
}

// ended accounts for the end of a process.
func (s *seat) ended(l *life, p *process) {
	at := clock.Now()
	s.crew.mu.Lock()
	defer s.crew.mu.Unlock()
	l.to = at
	l.killed = p.meant.Load()
	if state := p.cmd.ProcessState; !l.killed && !state.Success() {
		s.crew.deaths = append(s.crew.deaths, fmt.Sprintf("%s (%v): %s", s.name, state, &p.said))
	}
}

func (s *seat) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// inSection tells whether the process is in a section, by what it wrote last.
func (s *seat) inSection() bool {
	s.mu.Lock()
	l := s.lives[len(s.lives)-1]
	s.mu.Unlock()
	f, err := os.Open(l.notebook)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read
	const last = 4 << 10
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-last), io.SeekStart) // fails as little as the first
	}
	text, _ := io.ReadAll(f)
	open := make(map[int64]bool)
	for line := range bytes.Lines(text) {
		var r record
		if json.Unmarshal(line, &r) != nil {
			continue // the first may be cut off
		}
		switch r.What {
		case entered:
			open[r.Number] = true
		case left:
			delete(open, r.Number)
		}
	}
	return len(open) > 0
}

// finish tells the process to come to an end, and ends it if it does not.
func (s *seat) finish() {
	s.mu.Lock()
	p, in := s.proc, s.in
	s.mu.Unlock()
	if p == nil {
		return
	}
	_ = in.Close() // it may be gone
	if !p.endedWithin(12 * time.Second) {
		p.kill()
		s.crew.mu.Lock()
		s.crew.deaths = append(s.crew.deaths, s.name+" did not come to its end when it was told to")
		s.crew.mu.Unlock()
	}
}

// finish ends the members of one kind.
func (c *crew) finish(workers bool) {
	var all sync.WaitGroup
	for _, s := range c.seats {
		if s.worker == workers {
			all.Go(s.finish)
		}
	}
	all.Wait()
}

// kill ends what is left of the crew, at once.
func (c *crew) kill() {
	for _, s := range c.seats {
		if p := s.process(); p != nil {
			p.kill()
		}
		for _, p := range s.proxies {
			p.Close()
		}
	}
}

// each runs fn on the seat's proxies.
func (s *seat) each(fn func(p *faultproxy.Proxy)) {
	for _, p := range s.proxies {
		fn(p)
	}
}
