// Package sidesteptest is a Redis server in memory, for programs that want to
// try sidestep without Redis and for the tests of programs that use it.
//
//	srv := sidesteptest.New()
//	defer srv.Close()
//	rdb := srv.Client()
//	defer rdb.Close()
//
// The server is miniredis, set up so that keys expire and TIME advances by one
// and the same clock. By default that is the process's clock; inside a
// [testing/synctest] bubble it is therefore the bubble's fake clock, and an
// hour of leases and backoffs passes in milliseconds. [Server.Advance] moves
// the clock by hand.
//
// It is no production server: it keeps nothing on disk and is slower than Redis.
package sidesteptest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Server is a Redis server in this process's memory. It is safe for concurrent
// use. Make one with [New] or [Listen]; the zero value is not usable.
type Server struct {
	mini   *miniredis.Miniredis
	closed atomic.Bool

	mu  sync.Mutex // guards the field below
	now time.Time  // where Advance or SetTime left the clock; zero: it runs
}

// New starts a server that only [Server.Client] can reach, over in-memory
// pipes: no port is opened, so it works inside a [testing/synctest] bubble.
// Close it when done.
func New() *Server {
	s := &Server{mini: miniredis.NewMiniRedis()}
	s.mini.ClockTTL(true)
	return s
}

// Listen starts a server that other processes can reach as well, on addr, such
// as "127.0.0.1:0" for a free port. It returns the listener's error.
func Listen(addr string) (*Server, error) {
	s := New()
	if err := s.mini.StartAddr(addr); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the host:port of a server made by [Listen]. It must not be
// called on a server made by [New], which has none.
func (s *Server) Addr() string { return s.mini.Addr() }

// Options returns the options of a client of this server: a starting point for
// those who want to change one before they call redis.NewClient.
func (s *Server) Options() *redis.Options {
	return &redis.Options{
		Addr: "in-memory",
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if s.closed.Load() {
				return nil, net.ErrClosed
			}
			pipe, err := s.mini.Dial()
			if err != nil {
				return nil, err
			}
			return newBuffered(pipe), nil
		},
		DialerRetries:   1, // a dial fails only once it is closed; one that waits to try again would outlive a synctest bubble
		DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}

// Client returns a new client of this server. The caller closes it, before the
// server.
func (s *Server) Client() *redis.Client { return redis.NewClient(s.Options()) }

// Advance moves the server's clock forward by d, which must not be negative,
// and keeps the clock standing still from then on: what TIME says, what has
// expired, and what is due change only by further calls. Timers of this process
// do not follow; in a synctest bubble use time.Sleep instead.
func (s *Server) Advance(d time.Duration) {
	if d < 0 {
		panic("sidesteptest: Advance by a negative duration")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.IsZero() {
		s.now = time.Now()
	}
	s.now = s.now.Add(d)
	s.mini.SetTime(s.now)
}

// SetTime sets the server's clock, forward or back, and keeps it standing still
// from then on, as [Server.Advance] does. What TIME says and what is due follow it
// both ways. Keys that have a TTL lose what a step forward takes; a step back
// leaves them the TTL they have, where Redis would lengthen it by the step.
func (s *Server) SetTime(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = t
	s.mini.SetTime(t)
}

// SetError makes every command fail with the given error reply, such as
// "LOADING Redis is loading the dataset in memory", until it is called with "".
func (s *Server) SetError(reply string) { s.mini.SetError(reply) }

// FlushAll removes all keys, as a server restarted without its data would.
func (s *Server) FlushAll() { s.mini.FlushAll() }

// Dump returns all keys and values as text, for a failing test's log.
func (s *Server) Dump() string { return s.mini.Dump() }

// Close stops the server and drops its data. Further calls do nothing.
func (s *Server) Close() {
	if !s.closed.Swap(true) {
		s.mini.Close()
		s.mini.FlushAll()
	}
}
