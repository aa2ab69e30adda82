package lock

import (
	"context"
	"fmt"
	"time"

	rsredis "github.com/go-redsync/redsync/v4/redis"
)

// pool is a node as redsync sees it. Its connections send nothing of what they
// are asked for: SetNX stands for our acquire, Eval of redsync's delete script for
// a release or the clean-up after a failed acquire, Eval of its touch script for
// an extend. What they do is in the carrier, which the context brings along, and
// which keeps the nodes' answers: redsync itself has room for yes and no.
type pool int

// Digests of the scripts that redsync sends. They are not exported; a test pins
// them.
const (
	redsyncDelete = "e950836ed1e694540c503ef9972b8de518044d3b"
	redsyncTouch  = "d75bb8b5bd13532ddedd17762e772346e39b321e"
)

// carrier is one round of redsync's. Each is used for one call of it.
type carrier struct {
	setNX func(ctx context.Context, node int) (bool, error)
	del   func(ctx context.Context, node int) (int64, error)
	touch func(ctx context.Context, node int) (int64, error)
}

type carrierKey struct{}

func withCarrier(ctx context.Context, c *carrier) context.Context {
	return context.WithValue(ctx, carrierKey{}, c)
}

// Get implements redsync's Pool.
func (p pool) Get(ctx context.Context) (rsredis.Conn, error) {
	c, ok := ctx.Value(carrierKey{}).(*carrier)
	if !ok {
		return nil, fmt.Errorf("lock: redsync lost its context")
	}
	return &conn{ctx: ctx, node: int(p), carrier: c}, nil
}

// conn is what redsync gets for one command. The methods embedded are nil: it
// calls none of them.
type conn struct {
	rsredis.Conn
	ctx     context.Context
	node    int
	carrier *carrier
}

// SetNX implements redsync's Conn.
func (c *conn) SetNX(string, string, time.Duration) (bool, error) {
	return c.carrier.setNX(c.ctx, c.node)
}

// Eval implements redsync's Conn.
func (c *conn) Eval(s *rsredis.Script, _ ...any) (any, error) {
	switch {
	case s.Hash == redsyncDelete && c.carrier.del != nil:
		return c.carrier.del(c.ctx, c.node)
	case s.Hash == redsyncTouch && c.carrier.touch != nil:
		return c.carrier.touch(c.ctx, c.node)
	}
	return nil, fmt.Errorf("lock: redsync sent an unknown script %s", s.Hash)
}

// Close implements redsync's Conn.
func (c *conn) Close() error { return nil }
