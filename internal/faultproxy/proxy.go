// Package faultproxy stands between clients and a Redis server and spoils their
// connections on request.
package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy stands between clients and a server and spoils their connections on
// request: it delays, cuts, swallows, and loses single replies. It is safe for
// concurrent use. Make one with [New].
type Proxy struct {
	Addr string // path of the unix socket it listens on

	dial     func(context.Context) (net.Conn, error)
	listener net.Listener
	ctx      context.Context // ends when the proxy is closed
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	links    map[*link]struct{}
	closed   bool
	open     chan struct{} // closed while data may pass
	requests time.Duration
	replies  time.Duration
	faults   []*fault // in the order in which they were asked for
}

// fault is something to happen to one command.
type fault struct {
	match   []byte // in lower case
	request bool   // whether the request is lost, rather than the reply
	done    chan struct{}
}

// New starts a proxy that listens on the unix socket at path and passes each
// connection on to one that dial makes.
func New(path string, dial func(context.Context) (net.Conn, error)) (*Proxy, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: path, dial: dial, listener: ln, links: make(map[*link]struct{}), open: make(chan struct{})}
	close(p.open)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Delay makes every request and every reply take that much longer from now on.
// It is latency: what is sent at the same time arrives at the same time.
func (p *Proxy) Delay(requests, replies time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.replies = requests, replies
}

// Cut breaks all connections there are, with everything under way on them. New
// ones can be made at once.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// BlackHole with true makes the proxy accept connections and data and pass
// nothing on, in either direction, as a network does that has come apart
// unnoticed. With false it passes on what it has held back meanwhile, as TCP
// does: requests may then reach the server long after their clients gave up.
// For a network that forgets them call Cut first.
func (p *Proxy) BlackHole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		if on {
			p.open = make(chan struct{})
		}
	default:
		if !on {
			close(p.open)
		}
	}
}

// DropReply loses the reply to the next command that contains match anywhere,
// its name or an argument, in any case of letters: the server executes the
// command, then the connection is cut. What else is under way on that
// connection is lost with it; later commands of the same pipeline may or may not
// be executed. The channel is closed when the reply has been lost. Each call is
// good for one command; "" matches any, those that set up a connection too.
//
// A go-redis script is sent by its hash first, and by its text if the server
// does not know it: load it beforehand, or the reply lost may be that refusal.
func (p *Proxy) DropReply(match string) <-chan struct{} { return p.addFault(match, false) }

// DropRequest loses the next command that contains match, before the server
// sees it, and cuts the connection. Otherwise it is like DropReply, from whose
// effect a client cannot tell it.
func (p *Proxy) DropRequest(match string) <-chan struct{} { return p.addFault(match, true) }

func (p *Proxy) addFault(match string, request bool) <-chan struct{} {
	f := &fault{match: bytes.ToLower([]byte(match)), request: request, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f.done
}

// takeFault returns the first fault meant for this command, for which it is
// then used up, or nil.
func (l *link) takeFault(command []byte) *fault {
	if l.lost.Load() != nil {
		return nil // the connection is about to be cut: this command is not the one
	}
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) == 0 {
		return nil
	}
	command = bytes.ToLower(command)
	for i, f := range p.faults {
		if bytes.Contains(command, f.match) {
			p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
			return f
		}
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() {
			defer client.Close()
			server, err := p.dial(p.ctx)
			if err != nil {
				return // the client sees its connection end, as by a server that just died
			}
			defer server.Close()
			l := &link{p: p, client: client, server: server, done: make(chan struct{})}
			if !p.add(l) {
				return
			}
			l.run()
			p.remove(l)
		})
	}
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

// due returns when something read now is to be passed on.
func (p *Proxy) due(request bool) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if request {
		return time.Now().Add(p.requests)
	}
	return time.Now().Add(p.replies)
}

func (p *Proxy) gate() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// link is one client's connection and the one to the server that belongs to it.
type link struct {
	p              *Proxy
	client, server net.Conn

	cutOnce sync.Once
	done    chan struct{} // closed when it is cut

	lost atomic.Pointer[loss] // set before the command whose reply is to be lost is sent
}

// loss is a reply to be lost: everything up to the mark is swallowed.
type loss struct {
	mark []byte
	done chan struct{}
}

// piece is data under way.
type piece struct {
	data []byte
	due  time.Time
}

// cut ends the link and all its goroutines.
func (l *link) cut() {
	l.cutOnce.Do(func() {
		close(l.done)
		l.client.Close()
		l.server.Close()
	})
}

// run passes data both ways until the link is cut.
func (l *link) run() {
	requests, replies := make(chan piece, 64), make(chan piece, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(requests)
		l.readRequests(requests)
	})
	wg.Go(func() {
		if !l.write(l.server, requests) {
			l.cut()
			return
		}
		// The client has closed its side. Let the server read what came before.
		if half, ok := l.server.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			l.cut()
		}
	})
	wg.Go(func() {
		defer close(replies)
		l.readReplies(replies)
	})
	wg.Go(func() {
		l.write(l.client, replies)
		l.cut()
	})
	wg.Wait()
	if lost := l.lost.Load(); lost != nil {
		close(lost.done)
	}
}

// marks makes each mark another.
var marks atomic.Uint64

func (l *link) readRequests(out chan<- piece) {
	r := bufio.NewReader(l.client)
	for {
		command, err := readCommand(r)
		if err != nil {
			return
		}
		if f := l.takeFault(command); f != nil {
			if f.request {
				l.cut()
				close(f.done)
				return
			}
			// A connection's commands are executed in order: when the answer to this
			// PING comes, the command before it is done. PING may be sent by
			// subscribers too.
			mark := fmt.Sprintf("faultproxy-mark-%d.", marks.Add(1))
			l.lost.Store(&loss{[]byte(mark), f.done})
			command = fmt.Appendf(command, "*2\r\n$4\r\nPING\r\n$%d\r\n%s\r\n", len(mark), mark)
		}
		if !l.send(out, command, true) {
			return
		}
	}
}

func (l *link) readReplies(out chan<- piece) {
	buf := make([]byte, 64<<10)
	var tail []byte // of the replies swallowed: the mark may come in parts
	for {
		n, err := l.server.Read(buf)
		if lost := l.lost.Load(); lost != nil {
			tail = append(tail, buf[:n]...)
			if bytes.Contains(tail, lost.mark) {
				l.cut()
				return
			}
			tail = tail[max(0, len(tail)-len(lost.mark)):]
		} else if n > 0 && !l.send(out, bytes.Clone(buf[:n]), false) {
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *link) send(out chan<- piece, data []byte, request bool) bool {
	select {
	case out <- piece{data, l.p.due(request)}:
		return true
	case <-l.done:
		return false
	}
}

// write passes pieces on when they are due. It returns true after the last one,
// false if it could not.
func (l *link) write(to io.Writer, in <-chan piece) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var next piece
		select {
		case piece, ok := <-in:
			if !ok {
				select {
				case <-l.p.gate(): // the end of a connection does not pass a black hole either
					return true
				case <-l.done:
					return false
				}
			}
			next = piece
		case <-l.done:
			return false
		}
		if wait := time.Until(next.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-l.done:
				return false
			}
		}
		select {
		case <-l.p.gate():
		case <-l.done:
			return false
		}
		if _, err := to.Write(next.data); err != nil {
			return false
		}
	}
}

var errProtocol = errors.New("faultproxy: not a command of the Redis protocol")

// readCommand returns the bytes of one command: an array of bulk strings, as
// all clients send it, or a line.
func readCommand(r *bufio.Reader) ([]byte, error) {
	command, n, err := readHeader(r, nil, '*')
	if err != nil || n < 0 {
		return command, err
	}
	for range n {
		var size int
		if command, size, err = readHeader(r, command, '$'); err != nil {
			return nil, err
		}
		if size < 0 {
			return nil, errProtocol
		}
		at := len(command)
		command = append(command, make([]byte, size+len("\r\n"))...)
		if _, err := io.ReadFull(r, command[at:]); err != nil {
			return nil, err
		}
	}
	return command, nil
}

// readHeader appends a line such as "*3" to data and returns its number, or -1
// for a line that begins otherwise.
func readHeader(r *bufio.Reader, data []byte, kind byte) ([]byte, int, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, 0, err
	}
	data = append(data, line...)
	if line[0] != kind {
		return data, -1, nil
	}
	n, err := strconv.Atoi(string(bytes.TrimRight(line[1:], "\r\n")))
	if err != nil || n < 0 || n > 512<<20 {
		return nil, 0, errProtocol
	}
	return data, n, nil
}
