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
// only while a slot is free and no work is known that would fill it, so that the
// token goes to a process that needs it.
func (c *consumer) wake(ctx context.Context) {
	log := c.queue.cfg.Logger.With("queue", c.queue.name)
	conn := &connection{rdb: c.queue.script.Client(), key: c.queue.script.Keys().Wake()}
	defer conn.close()
	stop := context.AfterFunc(ctx, conn.close) // a context cannot end a blocking command
	defer stop()

	for failures := 0; ctx.Err() == nil; {
		if freed := c.place.wait(); freed != nil || c.more.Load() {
			select {
			case <-freed:
			case <-c.calm:
			case <-ctx.Done():
			}
			continue
		}
		err := conn.pop(ctx)
		var reply redis.Error
		switch {
		case err == nil:
			failures = 0
			signal(c.token)
		case errors.Is(err, redis.Nil):
			failures = 0
		case ctx.Err() != nil:
		case errors.Is(err, errUnknownClient):
			log.WarnContext(ctx, "no connection to wait on; polling instead", "error", err)
			return
		default:
			if failures++; failures == 1 {
				log.WarnContext(ctx, "the connection that waits for work failed; trying on", "error", err)
			}
			conn.drop() // after a failover it may lead to the wrong server
			pause := backoff(failures)
			if errors.As(err, &reply) && !passing(reply) { // such as a proxy that forbids the command
				pause = max(pause, jitter(c.queue.cfg.Poll))
			}
			sleep(ctx, pause)
		}
	}
}

// connection is the waker's own connection to the server that holds key.
type connection struct {
	rdb redis.UniversalClient
	key string

	mu     sync.Mutex // guards the fields below
	client *redis.Client
	closed bool
}

// pop waits for a token. It returns redis.Nil if none came in time.
func (c *connection) pop(ctx context.Context) error {
	client, err := c.open(ctx)
	if err != nil {
		return err
	}
	return client.BLPop(ctx, block, c.key).Err()
}

func (c *connection) open(ctx context.Context) (*redis.Client, error) {
	c.mu.Lock()
	client, closed := c.client, c.closed
	c.mu.Unlock()
	if client != nil {
		return client, nil
	}
	if closed {
		return nil, redis.ErrClosed
	}
	client, err := ownClient(ctx, c.rdb, c.key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = client.Close() // it has no connection yet
		return nil, redis.ErrClosed
	}
	c.client = client
	return client, nil
}

// drop closes the connection; the next pop makes a new one.
func (c *connection) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		_ = c.client.Close() // whatever was under way fails with it, as it should
		c.client = nil
	}
}

// close drops the connection for good.
func (c *connection) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.drop()
}

var errUnknownClient = errors.New("the Redis client is of no known type")

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
		return nil, errUnknownClient
	}
	opt.PoolSize, opt.MinIdleConns, opt.MaxIdleConns, opt.MaxActiveConns = 1, 0, 1, 0
	opt.MaxRetries = -1 // a pop is not sent again: this loop looks first whether it should
	return redis.NewClient(&opt), nil
}
