package sidesteptest

import (
	"io"
	"net"
	"sync"
)

// buffered gives one end of an in-memory pipe what a socket has: writes return
// before the other end has read. Without it a client that sends many commands at
// once and a server that answers the first of them wait for each other for ever.
type buffered struct {
	net.Conn // the pipe

	mu     sync.Mutex // guards the fields below
	filled sync.Cond  // there is something to send, or the end
	out    []byte
	err    error // why no more can be sent
}

func newBuffered(pipe net.Conn) *buffered {
	b := &buffered{Conn: pipe}
	b.filled.L = &b.mu
	go b.send() // ends with the connection
	return b
}

// Write implements net.Conn. It does not block.
func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.out = append(b.out, p...)
	b.filled.Signal()
	return len(p), nil
}

// Close implements net.Conn.
func (b *buffered) Close() error {
	b.stop(io.ErrClosedPipe)
	return b.Conn.Close()
}

func (b *buffered) stop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.filled.Signal()
}

func (b *buffered) send() {
	for {
		b.mu.Lock()
		for len(b.out) == 0 && b.err == nil {
			b.filled.Wait()
		}
		out, err := b.out, b.err
		b.out = nil
		b.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := b.Conn.Write(out); err != nil {
			b.stop(err)
			return
		}
	}
}
