package listq_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/retry"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// push pushes requests and fails the test unless all were new.
func push(t testing.TB, q *listq.Queue, reqs ...*listq.Request) {
	t.Helper()
	if n, err := q.Push(context.Background(), reqs...); err != nil || n != len(reqs) {
		t.Fatalf("Push of %d requests = %d, %v", len(reqs), n, err)
	}
}

// claim claims one request.
func claim(t testing.TB, q *listq.Queue) *listq.Delivery {
	t.Helper()
	c, err := q.Claim(context.Background(), 1)
	if err != nil || len(c.Deliveries) != 1 {
		t.Fatalf("Claim(1) = %+v, %v, want one delivery", c, err)
	}
	return c.Deliveries[0]
}

// consume starts a consumer; the function it returns stops it and waits for its
// end. The test's end does so too.
func consume(t testing.TB, q *listq.Queue, cfg listq.ConsumeConfig, h listq.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := q.Consume(ctx, cfg, h); err != nil {
			t.Errorf("Consume = %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// nothing is a handler that succeeds.
func nothing(context.Context, *listq.Delivery) error { return nil }

// after is a backoff that always waits d.
func after(d time.Duration) retry.Backoff {
	return retry.BackoffFunc(func(int, time.Duration) (time.Duration, bool) { return d, true })
}

// near fails the test unless got is at least want, and at most a few
// milliseconds more.
func near(t testing.TB, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+5*time.Millisecond {
		t.Errorf("%s after %v, want %v, up to 5ms later", what, got, want)
	}
}

// empty fails the test unless the queue has left nothing behind in Redis.
func empty(t testing.TB, rdb *redis.Client, q *listq.Queue) {
	t.Helper()
	ctx := context.Background()
	for _, name := range []string{"ready", "delayed", "parked", "leased", "dead", "msg", "state", "held"} {
		if n, err := rdb.Exists(ctx, q.Key()+name).Result(); err != nil || n != 0 {
			t.Errorf("Exists(%s) = %d, %v, want it gone", name, n, err)
		}
	}
	if n, err := rdb.HGet(ctx, q.Key()+"meta", "healed").Int(); err == nil && n != 0 {
		t.Errorf("the scripts repaired %d inconsistencies, want 0", n)
	}
}

// wire is the way from a client to a server in memory.
type wire struct {
	writes atomic.Int64 // commands and pipelines sent
	hole   atomic.Bool  // what is sent gets lost, with nobody told
}

type wireConn struct {
	net.Conn
	*wire
}

func (c wireConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	if c.hole.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// wired returns a client of srv, and the way it takes.
func wired(t testing.TB, srv *sidesteptest.Server) (*redis.Client, *wire) {
	t.Helper()
	return dialled(t, srv.Options())
}

// patient is a client that waits and tries again as go-redis does by default, and the way
// it takes.
func patient(t testing.TB, srv *sidesteptest.Server) (*redis.Client, *wire) {
	t.Helper()
	opts := srv.Options()
	opts.MaxRetries, opts.ReadTimeout = 3, 3*time.Second
	return dialled(t, opts)
}

func dialled(t testing.TB, opts *redis.Options) (*redis.Client, *wire) {
	t.Helper()
	w, dial := &wire{}, opts.Dialer
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return wireConn{c, w}, err
	}
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { rdb.Close() })
	return rdb, w
}

// server starts a server in memory that ends with the test.
func server(t testing.TB) *sidesteptest.Server {
	t.Helper()
	srv := sidesteptest.New()
	t.Cleanup(srv.Close)
	return srv
}

// events collects what happens, for comparison.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) add(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, s)
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.all...)
}
