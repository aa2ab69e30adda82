package sidesteptest

import (
	"io"
	"net"
	"sync"
	"time"
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

// Read implements net.Conn.
func (b *buffered) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && b.err != nil {
		err = b.err
	}
	return n, err
}

// Close implements net.Conn. What was written is still sent, as by a socket.
func (b *buffered) Close() error {
	b.stop(io.ErrClosedPipe)
	_ = b.SetReadDeadline(time.Unix(1, 0)) // a Read in progress ends at once; it fails if send has closed the pipe
	return nil
}

func (b *buffered) stop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.filled.Signal()
}

// send sends what was written, and closes the pipe after the last of it.
func (b *buffered) send() {
	defer b.Conn.Close()
	for {
		b.mu.Lock()
		for len(b.out) == 0 && b.err == nil {
			b.filled.Wait()
		}
		out := b.out
		b.out = nil
		b.mu.Unlock()
		if len(out) == 0 {
			return
		}
		if _, err := b.Conn.Write(out); err != nil {
			b.stop(err)
			return
		}
	}
}
