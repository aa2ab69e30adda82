package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// network is all connections between the processes and the server. What travels
// takes time, and what becomes of it is decided by each connection's own stream
// of random numbers, so that one more command on one connection changes nothing
// on the others. No two things happen at the same instant: the bubble's clock
// moves on when all that an event brought about has come to rest, so events are
// in an order.
type network struct {
	s *simulation

	unplugged chan struct{} // closed at the very end

	// Guarded by simulation.mu.
	wires   map[*wire]struct{}
	made    int                // that ever were
	taken   map[int64]struct{} // instants at which something is to happen
	rates   rates
	down    bool          // the server is
	offset  time.Duration // of the server's clock from the true time
	stepped bool          // the clock is not the true time, or was not
}

// rates are how often, of all commands, something happens to one.
type rates struct {
	lostRequest float64 // the connection is cut before the command arrives
	lostReply   float64 // the command runs, the connection is cut before its reply arrives
	lateReply   float64 // the reply arrives later
	lateRequest float64 // the command runs later, perhaps after a copy that was sent again
	late        time.Duration
}

// wire is the client's end of one connection.
type wire struct {
	net    *network
	p      *process
	server net.Conn // the other end
	rnd    *rand.Rand
	ready  chan struct{} // one token: a Read has to look again
	number int           // among all

	// Guarded by simulation.s.mu.
	partial  []byte // written, not yet a whole command
	in       []byte // arrived, not yet read
	err      error  // of reads, after in
	deadline time.Time
	closed   bool      // by the client
	over     bool      // the server's end is closed
	upAt     time.Time // when what was last sent arrives
	downAt   time.Time
	fate     fate // of the next reply
}

type fate struct {
	lost bool
	late time.Duration
}

// errReset is what a client sees of a cut connection.
var errReset = &net.OpError{Op: "read", Err: syscall.ECONNRESET}

// at runs f at t or just after. Call with mu held.
func (n *network) at(t time.Time, f func()) {
	for {
		if _, ok := n.taken[t.UnixNano()]; !ok {
			break
		}
		t = t.Add(time.Nanosecond)
	}
	n.taken[t.UnixNano()] = struct{}{}
	time.AfterFunc(time.Until(t), func() {
		n.s.mu.Lock()
		delete(n.taken, t.UnixNano())
		n.s.mu.Unlock()
		f()
	})
}

// now is what the server's clock says. Call with mu held.
func (n *network) now() time.Time { return time.Now().Add(n.offset) }

// dial connects a process to the server.
func (p *process) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n := p.s.net
	n.s.mu.Lock()
	for p.frozen.After(time.Now()) && !p.dead {
		wait := time.NewTimer(time.Until(p.frozen))
		n.s.mu.Unlock()
		select {
		case <-wait.C:
		case <-p.died:
		case <-n.unplugged:
			wait.Stop()
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		case <-ctx.Done():
			wait.Stop()
			return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
		}
		wait.Stop()
		n.s.mu.Lock()
	}
	defer n.s.mu.Unlock()
	if n.down || p.dead {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	server, err := p.s.srv.Options().Dialer(ctx, "", "")
	if err != nil {
		return nil, err
	}
	p.dials++
	w := &wire{
		net: n, p: p, server: server, ready: make(chan struct{}, 1),
		rnd: rand.New(rand.NewPCG(p.s.plan.seed, uint64(p.id)<<32|uint64(p.dials)<<8|streamWire)),
	}
	n.made++
	w.number = n.made
	n.wires[w] = struct{}{}
	go w.pump()
	return w, nil
}

// Write implements net.Conn: it never blocks.
func (w *wire) Write(b []byte) (int, error) {
	n := w.net
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if w.closed || w.err != nil || w.over {
		return 0, &net.OpError{Op: "write", Err: syscall.EPIPE}
	}
	w.partial = append(w.partial, b...)
	if whole(w.partial) {
		w.send(w.partial)
		w.partial = nil
	}
	return len(b), nil
}

// send decides what becomes of one or more whole commands that the client wrote
// in one go.
func (w *wire) send(unit []byte) {
	n := w.net
	latency := 20*time.Microsecond + time.Duration(w.rnd.Int64N(int64(2*time.Millisecond)))
	dice, late := w.rnd.Float64(), time.Duration(1+w.rnd.Int64N(int64(n.rates.late)+1)) // always drawn
	arrives := later(w.upAt, time.Now().Add(latency))
	r := n.rates
	hit := func(p float64) bool {
		dice -= p
		return dice < 0
	}
	kind := ""
	switch {
	case hit(r.lostRequest):
		kind = "lost request"
		n.at(arrives, func() { w.cut() })
	case hit(r.lostReply):
		kind = "lost reply"
		w.fate = fate{lost: true}
	case hit(r.lateReply):
		kind = "late reply"
		w.fate = fate{late: late}
	case hit(r.lateRequest):
		kind = "late request"
		arrives = arrives.Add(late)
	}
	if kind != "" {
		w.p.s.fault(w.p, kind, late, "%s", commandName(unit))
		if kind == "lost request" {
			return
		}
	}
	w.upAt = arrives
	n.at(arrives, func() { w.arrive(unit) })
}

// arrive gives the server what was sent to it.
func (w *wire) arrive(unit []byte) {
	n := w.net
	n.s.mu.Lock()
	over := w.over
	if !over && w.p.frozen.After(time.Now()) {
		n.at(w.p.frozen, func() { w.arrive(unit) })
		over = true
	}
	n.s.mu.Unlock()
	if over {
		return
	}
	n.s.setClock()
	if f := w.p.s.plan.opts.tap; f != nil && f(w, unit) {
		return
	}
	_, _ = w.server.Write(unit) // to a server that has gone meanwhile
}

// pump takes what the server sends at once, for it must never wait for a client,
// and sends it on its way.
func (w *wire) pump() {
	n := w.net
	buf := make([]byte, 2048)
	for {
		k, err := w.server.Read(buf)
		n.s.mu.Lock()
		switch {
		case w.over || w.closed:
		case err != nil:
			w.downAt = later(w.downAt, time.Now().Add(time.Millisecond))
			n.at(w.downAt, func() { w.deliver(nil, errReset) })
		case w.fate.lost:
			w.sever(errReset)
		default:
			latency := 20*time.Microsecond + time.Duration(w.rnd.Int64N(int64(2*time.Millisecond)))
			w.downAt = later(w.downAt, time.Now().Add(latency+w.fate.late))
			w.fate = fate{}
			data := bytes.Clone(buf[:k])
			n.at(w.downAt, func() { w.deliver(data, nil) })
		}
		n.s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// deliver gives the client what was sent to it.
func (w *wire) deliver(data []byte, err error) {
	n := w.net
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if w.closed || w.err != nil {
		return
	}
	if w.p.frozen.After(time.Now()) {
		n.at(w.p.frozen, func() { w.deliver(data, err) })
		return
	}
	w.in = append(w.in, data...)
	w.err = err
	w.signal()
}

// cut ends the connection for both.
func (w *wire) cut() {
	w.net.s.mu.Lock()
	defer w.net.s.mu.Unlock()
	w.sever(errReset)
}

// sever ends the connection for both. Call with mu held.
func (w *wire) sever(err error) {
	if w.err == nil {
		w.err = err
	}
	w.signal()
	w.end()
}

// end closes the server's end. Call with mu held.
func (w *wire) end() {
	if !w.over {
		w.over = true
		delete(w.net.wires, w)
		w.server.Close()
	}
}

// hangUp closes the server's end once all that was sent has arrived, or after d.
// Call with mu held.
func (w *wire) hangUp(d time.Duration) {
	w.net.at(later(w.upAt, time.Now().Add(d)), func() {
		w.net.s.mu.Lock()
		defer w.net.s.mu.Unlock()
		w.end()
	})
}

func (w *wire) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	for {
		w.net.s.mu.Lock()
		switch {
		case w.closed:
			w.net.s.mu.Unlock()
			return 0, net.ErrClosed
		case len(w.in) > 0:
			k := copy(b, w.in)
			w.in = w.in[k:]
			w.net.s.mu.Unlock()
			return k, nil
		case w.err != nil:
			err := w.err
			w.net.s.mu.Unlock()
			return 0, err
		}
		deadline := w.deadline
		w.net.s.mu.Unlock()
		if deadline.IsZero() {
			<-w.ready
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
		}
		timer := time.NewTimer(left)
		select {
		case <-w.ready:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close implements net.Conn. What was written still arrives.
func (w *wire) Close() error {
	w.net.s.mu.Lock()
	defer w.net.s.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.signal()
		if !w.p.dead {
			w.hangUp(time.Millisecond)
		}
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.net.s.mu.Lock()
	defer w.net.s.mu.Unlock()
	w.deadline = t
	w.signal()
	return nil
}

// SetDeadline implements net.Conn.
func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. Writes do not block.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr implements net.Conn.
func (w *wire) LocalAddr() net.Addr { return address{} }

// RemoteAddr implements net.Conn.
func (w *wire) RemoteAddr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "sim" }
func (address) String() string  { return "sim" }

// cutAll cuts the connections of a process, or of all if p is nil.
func (n *network) cutAll(p *process) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	for _, w := range n.of(p) {
		w.sever(errReset)
	}
}

// of returns the connections of a process, or all if p is nil, in the order in
// which they were made. Call with mu held.
func (n *network) of(p *process) []*wire {
	var out []*wire
	for w := range n.wires {
		if p == nil || w.p == p {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b *wire) int { return cmp.Compare(a.number, b.number) })
	return out
}

// unplug cuts all connections for good. A client that is closed while it waits for
// the network would hold the bubble's clock up: closing takes a mutex that
// go-redis's subscriptions keep while they connect.
func (n *network) unplug() {
	n.s.mu.Lock()
	n.down = true
	close(n.unplugged)
	n.s.mu.Unlock()
	n.cutAll(nil)
	time.Sleep(time.Minute)
}

// quiet ends the faults of the network.
func (n *network) quiet() {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.rates = rates{}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a.Add(time.Nanosecond)
}

var errNotWhole = errors.New("not whole")

// whole reports whether b ends with the end of a command.
func whole(b []byte) bool {
	for len(b) > 0 {
		_, rest, err := command(b)
		if err != nil {
			return false
		}
		b = rest
	}
	return true
}

// command takes the first command from b.
func command(b []byte) (args [][]byte, rest []byte, err error) {
	count, rest, err := header(b, '*')
	if err != nil {
		return nil, nil, err
	}
	for range count {
		var size int
		if size, rest, err = header(rest, '$'); err != nil {
			return nil, nil, err
		}
		if len(rest) < size+2 {
			return nil, nil, errNotWhole
		}
		args = append(args, rest[:size])
		rest = rest[size+2:]
	}
	return args, rest, nil
}

func header(b []byte, mark byte) (int, []byte, error) {
	end := bytes.Index(b, []byte("\r\n"))
	if end < 1 || b[0] != mark {
		return 0, nil, errNotWhole
	}
	n, err := strconv.Atoi(string(b[1:end]))
	return n, b[end+2:], err
}

// commandName is for the trace.
func commandName(unit []byte) string {
	args, _, err := command(unit)
	if err != nil || len(args) == 0 {
		return "?"
	}
	name := strings.ToLower(string(args[0]))
	if strings.HasPrefix(name, "eval") && len(args) > 3 {
		name += " on " + string(args[3])
	}
	return name
}
