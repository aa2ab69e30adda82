package redistest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestEach(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		t.Parallel()
		ctx := context.Background()
		if n, err := rdb.DBSize(ctx).Result(); n != 0 || err != nil {
			t.Errorf("DBSIZE = %d, %v, want 0, nil", n, err)
		}
		if err := rdb.Set(ctx, "k", 1, 0).Err(); err != nil {
			t.Errorf("SET: %v", err)
		}
	})
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	srv := redistest.NewServer(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := srv.Client(t)
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatalf("SET: %v", err)
	}
	srv.Kill()
	srv.Kill() // does nothing
	if err := rdb.Ping(ctx).Err(); err == nil {
		t.Errorf("PING of a killed server = nil, want an error")
	}
	if err := srv.Start(); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if v, err := rdb.Get(ctx, "k").Result(); v != "v" || err != nil {
		t.Errorf("GET = %q, %v, want what was written before", v, err)
	}
}

func TestServerPause(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	srv.Pause()
	done := make(chan error, 1)
	go func() { done <- rdb.Ping(context.Background()).Err() }()
	select {
	case err := <-done:
		t.Errorf("PING of a paused server = %v, want no answer", err)
	case <-time.After(50 * time.Millisecond):
		srv.Resume()
		if err := <-done; err != nil {
			t.Errorf("PING after Resume: %v", err)
		}
	}
}

// failing is a test that is meant to fail. It keeps what it is told.
type failing struct {
	testing.TB
	said    string
	cleanup []func()
}

func (f *failing) Helper()                   {}
func (f *failing) Cleanup(fn func())         { f.cleanup = append(f.cleanup, fn) }
func (f *failing) Failed() bool              { return f.said != "" }
func (f *failing) Errorf(s string, a ...any) { f.said += fmt.Sprintf(s, a...) + "\n" }
func (f *failing) Fatalf(s string, a ...any) { f.Errorf(s, a...); panic(f) }

// said runs fn as a test that fails, and returns what it said.
func said(t *testing.T, fn func(t testing.TB)) string {
	f := &failing{TB: t}
	func() {
		defer func() {
			if r := recover(); r != nil && r != f {
				panic(r)
			}
		}()
		fn(f)
	}()
	for _, fn := range slices.Backward(f.cleanup) {
		fn()
	}
	return f.said
}

func TestServerDiesAtStart(t *testing.T) {
	t.Parallel()
	redistest.NewServer(t) // skips without a redis-server
	start := time.Now()
	got := said(t, func(t testing.TB) { redistest.NewServer(t, "--no-such-option", "1") })
	if !strings.Contains(got, "ended by itself") || !strings.Contains(got, "no-such-option") {
		t.Errorf("NewServer with a wrong argument said %q, want the server's own words", got)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

func TestServerDiesInTest(t *testing.T) {
	t.Parallel()
	redistest.NewServer(t) // skips without a redis-server
	got := said(t, func(t testing.TB) {
		rdb := redistest.NewServer(t).Client(t)
		rdb.ShutdownNoSave(context.Background())
		t.Errorf("PING: %v", rdb.Ping(context.Background()).Err()) // what a test would see
	})
	if !strings.Contains(got, "ended by itself") || !strings.Contains(got, "shutdown") {
		t.Errorf("a test whose server died said %q, want the server's own words", got)
	}
}
