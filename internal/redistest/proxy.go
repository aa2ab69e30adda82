package redistest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/internal/faultproxy"
)

// Proxy stands between clients and a server and spoils their connections on
// request. It listens on a unix socket, so it does not work inside a synctest
// bubble. It is closed when the test ends. Make one with NewProxy or Through.
type Proxy struct {
	*faultproxy.Proxy

	db int
}

// NewProxy starts a proxy in front of the server at addr, such as
// ("unix", srv.Socket) or ("tcp", "127.0.0.1:6379").
func NewProxy(t testing.TB, network, addr string) *Proxy {
	t.Helper()
	return newProxy(t, 0, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
}

// Through starts a proxy in front of the server and database that rdb talks to,
// whichever server it is: rdb as Each, Mini or Real return it. rdb itself keeps
// its direct way.
func Through(t testing.TB, rdb *redis.Client) *Proxy {
	t.Helper()
	opts := rdb.Options()
	return newProxy(t, opts.DB, func(ctx context.Context) (net.Conn, error) {
		return opts.Dialer(ctx, opts.Network, opts.Addr)
	})
}

func newProxy(t testing.TB, db int, dial func(context.Context) (net.Conn, error)) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "redistest") // t.TempDir may be too long a path for a socket
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	p, err := faultproxy.New(filepath.Join(dir, "p"), dial)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		p.Close()
		os.RemoveAll(dir)
	})
	return &Proxy{Proxy: p, db: db}
}

// Client returns a new client that talks through the proxy, closed when the
// test ends. The functions may change its options first.
func (p *Proxy) Client(t testing.TB, change ...func(*redis.Options)) *redis.Client {
	t.Helper()
	opts := &redis.Options{
		Network: "unix", Addr: p.Addr, DB: p.db,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	for _, fn := range change {
		fn(opts)
	}
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}
