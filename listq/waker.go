package listq

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/script"
)

// block is how long a blocking pop waits: short enough for proxies and servers
// that cut idle connections.
const block = 5 * time.Second

// wake is the waker: it waits in Redis for a token, which it forwards, or for a
// request that is handed over, which it starts; and only while a slot is free and no
// work is known that would fill it, so that both go to a process that needs them. If
// the reply to the pop is lost, so is the token, and the poll makes up for it; a
// request is leased, for no longer than a poll.
//
// It ends when ctx has, and the feeder that leaves has ended the pop: closing the
// connection, as cut does, could lose what comes just then.
func (c *consumer) wake(ctx, cut context.Context) {
	log := c.queue.cfg.Logger.With("queue", c.queue.name)
	k := c.queue.script.Keys()
	conn := &connection{rdb: c.queue.script.Client(), keys: []string{k.Stop(c.id), k.Wake()}}
	defer conn.close()
	defer context.AfterFunc(cut, conn.close)() // a context cannot end a blocking command
	here := &taker{consumer: c, ctx: ctx}

	for failures := 0; ctx.Err() == nil; {
		if freed := c.place.wait(); freed != nil || c.more.Load() {
			select {
			case <-freed:
			case <-c.calm:
			case <-ctx.Done():
			}
			continue
		}
		if c.hearsOffers() {
			c.queue.takers.add(here)
		}
		key, v, err := conn.pop(ctx)
		c.queue.takers.remove(here)
		var reply redis.Error
		switch {
		case err == nil && key == conn.keys[0]:
			return
		case err == nil:
			failures = 0
			c.woken(ctx, v)
		case errors.Is(err, redis.Nil):
			failures = 0
		case ctx.Err() != nil:
		case errors.Is(err, errUnknownClient):
			log.WarnContext(ctx, "no connection to wait on; polling instead", "error", err)
			c.listening.Store(false)
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

// woken starts the request that came out of wake, or forwards the token.
func (c *consumer) woken(ctx context.Context, v string) {
	h, ok, err := script.ParseHanded(v)
	if err != nil {
		c.queue.cfg.Logger.WarnContext(ctx, "a hand-over that cannot be read; its request runs when its lease ends", "queue", c.queue.name, "error", err)
	}
	if !ok || err != nil {
		signal(c.token)
		return
	}
	d, err := c.queue.handed(h)
	switch {
	case err != nil:
		c.buryUndecodable(undecodable{d, err})
	case d.left() > 0 && ctx.Err() == nil && c.place.take(1, false) == 1:
		c.start(d)
		runtime.Gosched() // the handler comes before the next pop
	default:
		c.giveBack([]*Delivery{d})
	}
}

// connection is the waker's own connection to the server that holds its keys.
type connection struct {
	rdb  redis.UniversalClient
	keys []string

	mu     sync.Mutex // guards the fields below
	client *redis.Client
	closed bool
}

// pop waits for something in the first of its keys that has it. It returns
// redis.Nil if nothing came in time.
func (c *connection) pop(ctx context.Context) (key, v string, err error) {
	client, err := c.open(ctx)
	if err != nil {
		return "", "", err
	}
	kv, err := client.BLPop(ctx, block, c.keys...).Result()
	if err != nil {
		return "", "", err
	}
	return kv[0], kv[1], nil
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
	client, err := ownClient(ctx, c.rdb, c.keys[0])
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
