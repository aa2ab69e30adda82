package lock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// An answer is lost, and go-redis sends the command again: what becomes of that says
// nothing of the first time. It may have run, so the caller is told, and what it took is
// given back.
func TestLostReplyBeforeAnErrorIsAmbiguous(t *testing.T) {
	for what, second := range map[string]func(*sidesteptest.Server) error{
		"refused": func(*sidesteptest.Server) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}
		},
		"an error": func(srv *sidesteptest.Server) error {
			srv.SetError("OOM command not allowed")
			return nil
		},
		"forgotten": func(srv *sidesteptest.Server) error {
			srv.SetError("NOSCRIPT no such script")
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			srv := sidesteptest.New()
			t.Cleanup(srv.Close)
			rdb := srv.Client()
			t.Cleanup(func() { rdb.Close() })
			look := newLocker(t, rdb, lock.Config{})
			release(t, take(t, look, "x")) // so that the scripts are known

			opts := srv.Options()
			opts.MaxRetries, opts.DialerRetries = 1, 1
			var armed, lost atomic.Bool
			dial := opts.Dialer
			opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if lost.Load() {
					if err := second(srv); err != nil {
						return nil, err
					}
				}
				c, err := dial(ctx, network, addr)
				return &losing{Conn: c, armed: &armed, lost: &lost}, err
			}
			bad := redis.NewClient(opts)
			t.Cleanup(func() { bad.Close() })
			l := lock.New(bad, lock.Config{})
			heal := func() { lost.Store(false); srv.SetError("") }

			release(t, take(t, l, "warm")) // so that there is a connection
			armed.Store(true)
			_, err := l.TryAcquire(t.Context(), "x")
			heal()
			if !errors.Is(err, lock.ErrUnavailable) || !errors.Is(err, lock.ErrAmbiguous) {
				t.Errorf("TryAcquire = %v, want ErrAmbiguous", err)
			}
			waitFor(t, func() bool { st, err := look.Inspect(t.Context(), "x"); return err == nil && !st.Held })

			lk := take(t, l, "y")
			armed.Store(true)
			err = lk.Release(t.Context())
			heal()
			if !errors.Is(err, lock.ErrAmbiguous) {
				t.Errorf("Release = %v, want ErrAmbiguous", err)
			}
			l.Close()
		})
	}
}

// losing is a connection that breaks instead of bringing the next answer.
type losing struct {
	net.Conn
	armed, lost *atomic.Bool
	gone        atomic.Bool
}

func (c *losing) Read(b []byte) (int, error) {
	if c.gone.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b)
	if c.armed.CompareAndSwap(true, false) {
		c.lost.Store(true)
		c.gone.Store(true)
	}
	if c.gone.Load() {
		return 0, io.EOF
	}
	return n, err
}
