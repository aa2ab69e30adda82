package lock

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// pause holds up what a process sends and hears, as SIGSTOP does.
type pause struct {
	mu   sync.Mutex
	open chan struct{} // closed while it runs
}

func (p *pause) wait() {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	<-open
}

func (p *pause) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *pause) resume() { close(p.open) }

type pausedConn struct {
	net.Conn
	p *pause
}

func (c *pausedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.wait()
	return n, err
}

func (c *pausedConn) Write(b []byte) (int, error) {
	c.p.wait()
	return c.Conn.Write(b)
}

// A waiter is granted the lock while it is paused, and wakes when its claim lease
// is over and another holds the lock. Counting the grant from its receipt it
// enters beside that one; by the anchor rule it does not.
func TestAnchorRule(t *testing.T) {
	for _, c := range []struct {
		name        string
		fromReceipt bool
	}{{"anchor", false}, {"from receipt", true}} {
		t.Run(c.name, func(t *testing.T) {
			overlaps := 0
			for i := range 10 {
				// The grant is long past, just past, and in time.
				overlaps += pausedWaiter(t, c.fromReceipt, time.Duration(300+i*200)*time.Millisecond)
			}
			t.Logf("%d of 10 waiters entered beside a holder", overlaps)
			if (overlaps > 0) != c.fromReceipt {
				t.Errorf("%d of 10 waiters entered beside a holder; by the rule none do, without it some", overlaps)
			}
		})
	}
}

// pausedWaiter returns 1 if two hold the lock at the same time.
func pausedWaiter(t *testing.T, fromReceipt bool, length time.Duration) (overlaps int) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		p := &pause{open: make(chan struct{})}
		close(p.open)
		opt := *rdb.Options()
		dial := opt.Dialer
		opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &pausedConn{conn, p}, err
		}
		paused := redis.NewClient(&opt)
		holder, other, waiter := New(rdb, Config{}), New(rdb, Config{}), New(paused, Config{})
		waiter.fromReceipt = fromReceipt
		defer func() {
			for _, l := range []*Locker{holder, other, waiter} {
				l.Close()
			}
			paused.Close()
		}()

		lk, err := holder.TryAcquire(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		inside := 0
		section := func(ctx context.Context, lk *Lock) error {
			mu.Lock()
			inside++
			if inside > 1 && ctx.Err() == nil && !past(lk.Expires()) {
				overlaps = 1
			}
			mu.Unlock()
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			mu.Lock()
			inside--
			mu.Unlock()
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = waiter.Do(t.Context(), "x", nil, section) // it may lose the lock
		})
		time.Sleep(100 * time.Millisecond) // it stands in line
		p.stop()
		if err := lk.Release(t.Context()); err != nil { // to the waiter, for a claim lease of 1s
			t.Error(err)
		}
		wg.Go(func() {
			if err := other.Do(t.Context(), "x", nil, section); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(length)
		p.resume()
		wg.Wait()
	})
	return overlaps
}
