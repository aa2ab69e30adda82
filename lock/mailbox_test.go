package lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// Where nothing can be subscribed to, the mailboxes end when nobody waits any more:
// several servers have one for each name.
func TestMailboxWithoutSubscriptionEnds(t *testing.T) {
	for _, sharded := range []bool{false, true} {
		t.Run(fmt.Sprint("sharded ", sharded), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				direct := redistest.Mini(t)
				opts := *direct.Options()
				dial := opts.Dialer
				var tries atomic.Int32
				opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := dial(ctx, network, addr)
					return &noSubscriber{c, &tries}, err
				}
				rdb := redis.NewClient(&opts)
				defer rdb.Close()
				holder, waiter := New(direct, Config{}), New(rdb, Config{})
				defer holder.Close()
				defer waiter.Close()
				waiter.sharded = sharded
				for i := range 3 {
					name := fmt.Sprint(i)
					if _, err := holder.TryAcquire(t.Context(), name); err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					began := tries.Load()
					if _, err := waiter.Acquire(ctx, name, nil); !errors.Is(err, ErrLocked) {
						t.Errorf("Acquire = %v", err)
					}
					cancel()
					if n := tries.Load() - began; n < 4 {
						t.Errorf("subscribed %d times while somebody waited", n)
					}
					time.Sleep(2 * maxPause)
				}
				synctest.Wait()
				before := tries.Load()
				time.Sleep(2 * maxPause)
				waiter.mu.Lock()
				defer waiter.mu.Unlock()
				if n := tries.Load() - before; len(waiter.mails) > 0 || n > 0 {
					t.Errorf("%d mailboxes that tried %d times though nobody waits", len(waiter.mails), n)
				}
			})
		})
	}
}

// noSubscriber is a connection through a proxy that forbids subscriptions.
type noSubscriber struct {
	net.Conn
	tries *atomic.Int32
}

func (c *noSubscriber) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe")) {
		c.tries.Add(1)
		c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}
