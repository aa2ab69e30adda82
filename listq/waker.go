package listq

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// block is how long a blocking pop waits: short enough for proxies and servers
// that cut idle connections.
const block = 5 * time.Second

// wake is the waker: it waits for a token in Redis and forwards it. It pops
// nothing but that token, so that a pop whose reply is lost loses nothing; and
// only while a slot is free, so that the token goes to a process that can act.
func (c *consumer) wake(ctx context.Context) {
	q := c.queue
	var conn *redis.Client
	var mu sync.Mutex // guards conn against the close at the end
	closeConn := func() {
		mu.Lock()
		defer mu.Unlock()
		if conn != nil {
			_ = conn.Close() // whatever was under way fails with it, as it should
			conn = nil
		}
	}
	defer closeConn()
	stop := context.AfterFunc(ctx, closeConn) // a context cannot end a blocking command
	defer stop()

	for failures := 0; ctx.Err() == nil; {
		if freed := c.cfg.Slots.wait(); freed != nil {
			select {
			case <-freed:
			case <-ctx.Done():
			}
			continue
		}
		mu.Lock()
		if conn == nil && ctx.Err() == nil {
			var err error
			if conn, err = ownClient(ctx, q.script.Client(), q.script.Keys().Wake()); err != nil {
				mu.Unlock()
				q.cfg.Logger.WarnContext(ctx, "no connection to wait on; polling instead", "queue", q.name, "error", err)
				sleep(ctx, max(backoff(10), q.cfg.Poll))
				continue
			}
		}
		own := conn
		mu.Unlock()
		if own == nil {
			return
		}
		err := own.BLPop(ctx, block, q.script.Keys().Wake()).Err()
		switch {
		case err == nil:
			failures = 0
			signal(c.token)
		case errors.Is(err, redis.Nil):
			failures = 0
		case ctx.Err() == nil:
			if failures++; failures == 1 {
				q.cfg.Logger.WarnContext(ctx, "the connection that waits for work failed; trying on", "queue", q.name, "error", err)
			}
			closeConn() // after a failover it may lead to the wrong server
			sleep(ctx, backoff(failures))
		}
	}
}

// ownClient returns a client with one connection, to the server that holds key:
// closing it ends a command that blocks.
func ownClient(ctx context.Context, rdb redis.UniversalClient, key string) (*redis.Client, error) {
	var opt redis.Options
	switch c := rdb.(type) {
	case *redis.Client:
		opt = *c.Options()
	case *redis.ClusterClient:
		node, err := c.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		opt = *node.Options()
	case *redis.Ring:
		shard, err := c.GetShardClientForKey(key)
		if err != nil {
			return nil, err
		}
		opt = *shard.Options()
	default:
		return nil, errors.New("the Redis client is of no known type")
	}
	opt.PoolSize, opt.MinIdleConns, opt.MaxIdleConns, opt.MaxActiveConns = 1, 0, 1, 0
	opt.MaxRetries = -1 // a pop is not sent again: this loop looks first whether it should
	return redis.NewClient(&opt), nil
}
