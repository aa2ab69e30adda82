package redistest

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Counter counts what a client sends: every command, and every round trip (a
// pipeline is one). Blocking pops and connection set-up are kept apart. Make
// one with Count.
type Counter struct {
	mu         sync.Mutex // guards the fields below
	commands   int
	roundTrips int
	blocking   int
	names      []string
}

// Count makes a counter and hooks it into rdb, before the client's own retries.
func Count(rdb redis.UniversalClient) *Counter {
	c := &Counter{}
	rdb.AddHook(c)
	return c
}

// Reset sets all counts to zero.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands, c.roundTrips, c.blocking, c.names = 0, 0, 0, nil
}

// Commands returns the number of commands sent since the last Reset, without
// blocking pops.
func (c *Counter) Commands() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands
}

// RoundTrips returns the number of requests that waited for an answer since the
// last Reset, without blocking pops.
func (c *Counter) RoundTrips() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roundTrips
}

// Blocking returns the number of blocking pops since the last Reset.
func (c *Counter) Blocking() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocking
}

// Names returns the names of the commands counted, in order.
func (c *Counter) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.names...)
}

// DialHook implements redis.Hook.
func (c *Counter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook implements redis.Hook.
func (c *Counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.add(1, cmd)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (c *Counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.add(1, cmds...)
		return next(ctx, cmds)
	}
}

func (c *Counter) add(trips int, cmds ...redis.Cmder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cmd := range cmds {
		switch name := strings.ToLower(cmd.Name()); name {
		case "hello", "client", "auth", "select", "ping":
			return
		case "blpop", "brpop", "blmove", "bzpopmin":
			c.blocking++
			return
		default:
			c.commands++
			c.names = append(c.names, name)
		}
	}
	c.roundTrips += trips
}
