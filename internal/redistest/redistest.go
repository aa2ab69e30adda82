// Package redistest gives tests a Redis: miniredis in memory, and a private
// redis-server of their own where the program is installed.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Each runs fn as two subtests: "mini" on a fresh miniredis, and "real" on a
// private redis-server, which is skipped where no redis-server is installed
// unless REDISTEST_REQUIRE=1 says that it must be there.
func Each(t *testing.T, fn func(t *testing.T, rdb *redis.Client)) {
	t.Helper()
	t.Run("mini", func(t *testing.T) { fn(t, Mini(t)) })
	t.Run("real", func(t *testing.T) { fn(t, Real(t)) })
}

// Mini returns a client of a fresh miniredis over in-memory pipes. Both are
// closed when the test ends. It works inside a synctest bubble.
func Mini(t testing.TB) *redis.Client {
	t.Helper()
	srv := sidesteptest.New()
	rdb := srv.Client()
	t.Cleanup(func() {
		rdb.Close()
		srv.Close()
	})
	return rdb
}

// Real returns a client of a database of its own on the redis-server that the
// tests of this process share. The database is emptied first.
func Real(t testing.TB) *redis.Client {
	t.Helper()
	srv := shared(t)
	db := <-srv.databases
	rdb := srv.client(db)
	t.Cleanup(func() {
		rdb.Close()
		srv.databases <- db
	})
	if err := rdb.FlushDB(context.Background()).Err(); err != nil {
		t.Fatalf("redistest: empty the database: %v", err)
	}
	return rdb
}

// Server is a private redis-server: one process, a unix socket in a folder of
// its own.
type Server struct {
	Socket string // path of its unix socket

	args      []string
	cmd       *exec.Cmd
	databases chan int // those not in use, for the shared server
}

// NewServer starts a redis-server of the test's own, for tests that kill,
// pause or restart it. It is ended when the test ends. args are further
// arguments of redis-server, such as "--appendonly", "yes".
func NewServer(t testing.TB, args ...string) *Server {
	t.Helper()
	require(t)
	s, err := start(args)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		s.Kill()
		os.RemoveAll(filepath.Dir(s.Socket))
	})
	return s
}

// Client returns a new client, closed when the test ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	rdb := s.client(0)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Kill ends the server with SIGKILL. Start brings it back.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait() // "signal: killed", or already waited for
}

// Pause stops the server's process (SIGSTOP) until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused server.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) { _ = s.cmd.Process.Signal(sig) } // an ended process needs no signal

// Start starts a killed server again, on the same socket and folder.
func (s *Server) Start() error {
	dir := filepath.Dir(s.Socket)
	args := append([]string{
		"--port", "0", "--unixsocket", s.Socket, "--dir", dir, "--save", "",
		"--daemonize", "no", "--databases", "64",
	}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = diesWithParent()
	var log strings.Builder
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	rdb := s.client(0)
	defer rdb.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := rdb.Ping(context.Background()).Err()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("redis-server did not answer within 10s: %w\n%s", err, log.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *Server) client(db int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Network: "unix", Addr: s.Socket, DB: db,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

func start(args []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		return nil, err
	}
	s := &Server{Socket: filepath.Join(dir, "s"), args: args}
	if err := s.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// require skips the test where no redis-server is installed, or fails it where
// one is required.
func require(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("redis-server")
	if err == nil {
		return
	}
	if os.Getenv("REDISTEST_REQUIRE") == "1" {
		t.Fatalf("redistest: REDISTEST_REQUIRE=1, but %v", err)
	}
	t.Skip("redistest: redis-server is not installed")
}

var sharedServer struct {
	once sync.Once
	srv  *Server
	err  error
}

func shared(t testing.TB) *Server {
	t.Helper()
	require(t)
	s := &sharedServer
	s.once.Do(func() {
		s.err = errors.New("not started")
		if s.srv, s.err = start(nil); s.err != nil {
			return
		}
		s.srv.databases = make(chan int, 63)
		for db := 1; db <= 63; db++ {
			s.srv.databases <- db
		}
	})
	if s.err != nil {
		t.Fatalf("redistest: %v", s.err)
	}
	return s.srv
}

// Main runs a package's tests and ends the shared server after them. Packages
// that use Real or Each call it from TestMain:
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if srv := sharedServer.srv; srv != nil {
		srv.Kill()
		os.RemoveAll(filepath.Dir(srv.Socket))
	}
	os.Exit(code)
}
