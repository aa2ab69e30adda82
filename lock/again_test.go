package lock_test

import (
	"context"
	"errors"
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

			var lost atomic.Bool
			bad, f := faulty(t, rdb, func(o *redis.Options) {
				o.MaxRetries, o.DialerRetries = 1, 1
				dial := o.Dialer
				o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if lost.Load() {
						if err := second(srv); err != nil {
							return nil, err
						}
					}
					return dial(ctx, network, addr)
				}
			})
			l := lock.New(bad, lock.Config{})
			lose := func() { lost.Store(true); f.lose.Store(1) } // the next answer, for which there is a connection
			heal := func() { lost.Store(false); srv.SetError("") }

			release(t, take(t, l, "warm")) // so that there is a connection
			lose()
			_, err := l.TryAcquire(t.Context(), "x")
			heal()
			if !errors.Is(err, lock.ErrUnavailable) || !errors.Is(err, lock.ErrAmbiguous) {
				t.Errorf("TryAcquire = %v, want ErrAmbiguous", err)
			}
			l.Close() // waits for the clean-up
			wantHeld(t, look, "x", false)
			l = lock.New(bad, lock.Config{})

			lk := take(t, l, "y")
			lose()
			err = lk.Release(t.Context())
			heal()
			if !errors.Is(err, lock.ErrAmbiguous) {
				t.Errorf("Release = %v, want ErrAmbiguous", err)
			}
			l.Close()
		})
	}
}
