package redistest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// once makes a client try each command once, and read with the given timeout.
func once(timeout time.Duration) func(*redis.Options) {
	return func(o *redis.Options) { o.MaxRetries, o.ReadTimeout = -1, timeout }
}

func eachProxy(t *testing.T, fn func(t *testing.T, direct *redis.Client, p *redistest.Proxy)) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		t.Parallel()
		fn(t, rdb, redistest.Through(t, rdb))
	})
}

func wantGet(t *testing.T, rdb *redis.Client, key, want string) {
	t.Helper()
	got, err := rdb.Get(context.Background(), key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Errorf("GET %s: %v", key, err)
	}
	if got != want {
		t.Errorf("GET %s = %q, want %q", key, got, want)
	}
}

func TestProxyPasses(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t)
		big := strings.Repeat("0123456789", 100_000)
		if err := rdb.Set(ctx, "big", big, 0).Err(); err != nil {
			t.Fatalf("SET: %v", err)
		}
		wantGet(t, rdb, "big", big)
		wantGet(t, direct, "big", big)

		pipe := rdb.TxPipeline()
		for range 1000 {
			pipe.Incr(ctx, "n")
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Errorf("EXEC: %v", err)
		}
		wantGet(t, rdb, "n", "1000")

		sub := rdb.Subscribe(ctx, t.Name())
		defer sub.Close()
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatalf("SUBSCRIBE: %v", err)
		}
		direct.Publish(ctx, t.Name(), "hello")
		if m, err := sub.ReceiveMessage(ctx); err != nil || m.Payload != "hello" {
			t.Errorf("message = %v, %v, want hello", m, err)
		}
	})
}

func TestNewProxy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		srv, err := sidesteptest.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatalf("Listen: %v", err)
		}
		t.Cleanup(srv.Close)
		if err := redistest.NewProxy(t, "tcp", srv.Addr()).Client(t).Ping(ctx).Err(); err != nil {
			t.Errorf("PING: %v", err)
		}
	})
	t.Run("unix", func(t *testing.T) {
		t.Parallel()
		srv := redistest.NewServer(t)
		p := redistest.NewProxy(t, "unix", srv.Socket)
		rdb := p.Client(t)
		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Errorf("PING: %v", err)
		}
		srv.Kill()
		if err := rdb.Ping(ctx).Err(); err == nil {
			t.Errorf("PING of a killed server = nil, want an error")
		}
		if err := srv.Start(); err != nil {
			t.Fatalf("Start: %v", err)
		}
		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Errorf("PING of the server started again: %v", err)
		}
	})
}

func TestProxyDropReply(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t, once(5*time.Second))
		rdb.Ping(ctx)

		dropped := p.DropReply("MyKey")
		if err := rdb.Incr(ctx, "other").Err(); err != nil {
			t.Errorf("INCR of a key not meant: %v", err)
		}
		if err := rdb.Incr(ctx, "mykey").Err(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("INCR = %v, want a cut connection", err)
		}
		<-dropped
		wantGet(t, direct, "mykey", "1")
		if n, err := rdb.Incr(ctx, "mykey").Result(); n != 2 || err != nil {
			t.Errorf("next INCR = %d, %v, want 2, nil", n, err)
		}

		// A client with retries sends it again and never knows.
		dropped = p.DropReply("incr")
		if n, err := p.Client(t).Incr(ctx, "mykey").Result(); n != 4 || err != nil {
			t.Errorf("INCR with retries = %d, %v, want 4, nil", n, err)
		}
		<-dropped

		// Two are two, even of one pipeline.
		first, second := p.DropReply("incr"), p.DropReply("incr")
		if n, err := p.Client(t).Incr(ctx, "twice").Result(); n != 3 || err != nil {
			t.Errorf("INCR with retries = %d, %v, want 3, nil", n, err)
		}
		<-first
		<-second
	})
}

func TestProxyDropReplyOfTransaction(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t, once(5*time.Second))
		rdb.Ping(ctx)
		for _, match := range []string{"exec", "first"} {
			dropped := p.DropReply(match)
			pipe := rdb.TxPipeline()
			pipe.Incr(ctx, "first-"+match)
			pipe.Incr(ctx, "second-"+match)
			if _, err := pipe.Exec(ctx); err == nil {
				t.Errorf("EXEC = nil, want a cut connection")
			}
			<-dropped
			wantGet(t, direct, "second-"+match, "1")
		}
	})
}

func TestProxyDropRequest(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t, once(5*time.Second))
		rdb.Ping(ctx)
		dropped := p.DropRequest("incr")
		if err := rdb.Incr(ctx, "k").Err(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("INCR = %v, want a cut connection", err)
		}
		<-dropped
		wantGet(t, direct, "k", "")
		if n, err := rdb.Incr(ctx, "k").Result(); n != 1 || err != nil {
			t.Errorf("next INCR = %d, %v, want 1, nil", n, err)
		}
	})
}

func TestProxyDropReplyOfSubscribe(t *testing.T) {
	eachProxy(t, func(t *testing.T, _ *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t)
		dropped := p.DropReply("subscribe")
		sub := rdb.Subscribe(ctx, t.Name())
		defer sub.Close()
		<-dropped
	})
}

func TestProxyDelay(t *testing.T) {
	eachProxy(t, func(t *testing.T, _ *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t)
		rdb.Ping(ctx)
		const d = 30 * time.Millisecond
		for _, tt := range []struct{ requests, replies time.Duration }{{d, 0}, {0, d}, {d, d}} {
			p.Delay(tt.requests, tt.replies)
			start := time.Now()
			if err := rdb.Ping(ctx).Err(); err != nil {
				t.Errorf("PING: %v", err)
			}
			if took := time.Since(start); took < tt.requests+tt.replies {
				t.Errorf("PING with Delay(%v, %v) took %v", tt.requests, tt.replies, took)
			}
		}
	})
}

func TestProxyCut(t *testing.T) {
	eachProxy(t, func(t *testing.T, _ *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t)
		sub := rdb.Subscribe(ctx, t.Name())
		defer sub.Close()
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatalf("SUBSCRIBE: %v", err)
		}
		p.Cut()
		var timeout net.Error
		if m, err := sub.ReceiveTimeout(ctx, 20*time.Second); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("receive after Cut = %v, %v, want a cut connection", m, err)
		}
		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Errorf("PING after Cut: %v", err)
		}
	})
}

func TestProxyBlackHole(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t, once(50*time.Millisecond))
		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Fatalf("PING: %v", err)
		}
		p.BlackHole(true)
		p.BlackHole(true) // changes nothing
		var timeout net.Error
		if err := rdb.Set(ctx, "late", "1", 0).Err(); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("SET = %v, want a timeout", err)
		}
		wantGet(t, direct, "late", "")
		p.BlackHole(false)
		p.BlackHole(false) // changes nothing
		deadline := time.Now().Add(10 * time.Second)
		for direct.Exists(ctx, "late").Val() == 0 { // the request comes late, but it comes
			if time.Now().After(deadline) {
				t.Fatalf("a request held back did not arrive")
			}
		}

		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Errorf("PING: %v", err)
		}
		p.BlackHole(true)
		if err := rdb.Set(ctx, "never", "1", 0).Err(); err == nil {
			t.Errorf("SET = nil, want a timeout")
		}
		p.Cut()
		p.BlackHole(false)
		if err := p.Client(t).Ping(ctx).Err(); err != nil {
			t.Errorf("PING: %v", err)
		}
		wantGet(t, direct, "never", "")
	})
}

// TestProxyConcurrent is for the race detector.
func TestProxyConcurrent(t *testing.T) {
	eachProxy(t, func(t *testing.T, direct *redis.Client, p *redistest.Proxy) {
		ctx := context.Background()
		rdb := p.Client(t, func(o *redis.Options) { o.MaxRetries, o.MaxRetryBackoff = 20, time.Millisecond })
		stop := make(chan struct{})
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := rdb.Incr(ctx, "n").Err(); err != nil {
						t.Errorf("INCR: %v", err)
					}
					done.Add(1)
				}
			})
		}
		for i := range 20 {
			p.Delay(time.Duration(i%3)*time.Millisecond, time.Millisecond)
			<-p.DropReply("incr")
			p.BlackHole(i%2 == 0)
			if i%5 == 0 {
				p.Cut()
			}
			p.BlackHole(false)
		}
		close(stop)
		wg.Wait()
		if n, err := direct.Get(ctx, "n").Int64(); n < done.Load() || err != nil {
			t.Errorf("n = %d, %v, want at least %d, which were acknowledged", n, err, done.Load())
		}
	})
}

func TestProxyCloses(t *testing.T) {
	t.Parallel()
	var p *redistest.Proxy
	var conn net.Conn
	t.Run("use", func(t *testing.T) {
		rdb := redistest.Mini(t)
		p = redistest.Through(t, rdb)
		p.BlackHole(true)
		var err error
		if conn, err = net.Dial("unix", p.Addr); err != nil {
			t.Fatalf("dial: %v", err)
		}
		if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
			t.Fatalf("write: %v", err)
		}
	})
	defer conn.Close()
	if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("read of a closed proxy = %v, want its end", err)
	}
	if _, err := net.Dial("unix", p.Addr); err == nil {
		t.Errorf("dial of a closed proxy = nil, want an error")
	}
}
