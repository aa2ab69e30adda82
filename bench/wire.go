package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
)

// wire counts the commands that clients send, on their connections: whatever a
// library does, all of it passes here. Commands inside scripts are not counted,
// those that set up a connection are.
type wire struct{ commands atomic.Int64 }

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("%s %s is not TCP", network, addr)
	}
	return &countedConn{TCPConn: tcp, wire: w}, nil
}

// countedConn follows the requests that are written to it: "*n", then n times
// "$length" and so many bytes. It stays a TCP connection for those who look at
// the socket, as go-redis does when it takes one from its pool.
type countedConn struct {
	*net.TCPConn
	wire *wire
	skip int  // bytes of an argument still to come, with its line end
	head byte // the first byte of the line being read; 0: at its start
	num  int  // the number in it
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.follow(b[:n])
	return n, err
}

func (c *countedConn) follow(b []byte) {
	commands := int64(0)
	for i := 0; i < len(b); i++ {
		if c.skip > 0 {
			step := min(c.skip, len(b)-i)
			c.skip -= step
			i += step - 1
			continue
		}
		switch ch := b[i]; {
		case ch == '\n':
			switch c.head {
			case '*':
				commands++
			case '$':
				c.skip = c.num + 2
			}
			c.head, c.num = 0, 0
		case c.head == 0:
			c.head = ch
		case ch >= '0' && ch <= '9':
			c.num = 10*c.num + int(ch-'0')
		}
	}
	if commands > 0 {
		c.wire.commands.Add(commands)
	}
}
