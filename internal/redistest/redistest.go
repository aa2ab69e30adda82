// Package redistest gives tests a Redis: miniredis in memory, and a private
// redis-server of their own where the program is installed.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
// tests of this process share. The database is emptied first. Scripts that were
// loaded and Pub/Sub channels are the server's: other tests see them too.
func Real(t testing.TB) *redis.Client {
	t.Helper()
	srv := shared(t)
	db := <-srv.databases
	rdb := srv.client(db)
	t.Cleanup(func() {
		rdb.Close()
		srv.databases <- db
		srv.check(t)
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
	databases chan int // those not in use, for the shared server

	mu   sync.Mutex // guards the field below
	proc *process   // the latest one
}

// process is one run of redis-server.
type process struct {
	cmd    *exec.Cmd
	log    log
	ended  chan struct{} // closed when it has ended
	killed atomic.Bool   // whether Kill ended it
}

// log keeps what a server prints.
type log struct {
	mu  sync.Mutex // guards the field below
	buf strings.Builder
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// tail returns the last lines.
func (l *log) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
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
		s.check(t)
		s.Kill()
		os.RemoveAll(filepath.Dir(s.Socket))
	})
	return s
}

// check fails the test if the server has ended by itself, and says what it
// printed: the test's own failures then tell only of refused connections.
func (s *Server) check(t testing.TB) {
	t.Helper()
	p := s.running()
	if t.Failed() { // perhaps because it is just ending
		select {
		case <-p.ended:
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := p.died(); err != nil {
		t.Errorf("redistest: %v", err)
	}
}

// FreePort returns a TCP port that nobody listens on, nor on that of its cluster bus,
// for servers that have to find each other.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("redistest: %v", err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		ln.Close()
		if bus, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port+10_000)); err == nil {
			bus.Close()
			return strconv.Itoa(port)
		}
	}
	t.Fatal("redistest: no port is free together with its bus")
	return ""
}

// Client returns a new client, closed when the test ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	rdb := s.client(0)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Kill ends the server with SIGKILL and waits until it is gone. Start brings it
// back. It may be paused, or ended already.
func (s *Server) Kill() {
	p := s.running()
	p.killed.Store(true)
	s.signal(syscall.SIGKILL)
	<-p.ended
}

// Pause stops the server's process (SIGSTOP) until Resume: connections stay, and
// nothing is answered.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused server.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) {
	_ = s.running().cmd.Process.Signal(sig) // an ended process needs no signal
}

func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Start starts a killed server again, on the same socket and folder, and
// returns when it answers.
func (s *Server) Start() error {
	args := append([]string{
		"--port", "0", "--unixsocket", s.Socket, "--dir", filepath.Dir(s.Socket), "--save", "",
		"--daemonize", "no", "--databases", "64",
	}, s.args...)
	p := &process{cmd: exec.Command("redis-server", args...), ended: make(chan struct{})}
	p.cmd.SysProcAttr = diesWithParent()
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	started := make(chan error)
	go func() {
		// The signal that a parent's death sends comes when this thread ends. So it
		// waits here with the process, and is nobody else's.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // cmd.ProcessState says how it ended
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()

	const limit = 20 * time.Second
	deadline := time.After(limit)
	for {
		err := ping(s.Socket)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.died()
		case <-deadline:
			s.Kill()
			return fmt.Errorf("redis-server did not answer within %v: %w\n%s", limit, err, p.log.tail())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// died returns an error if the process has ended otherwise than by Kill.
func (p *process) died() error {
	select {
	case <-p.ended:
	default:
		return nil
	}
	if p.killed.Load() {
		return nil
	}
	return fmt.Errorf("redis-server ended by itself (%v). Its last words:\n%s", p.cmd.ProcessState, p.log.tail())
}

// ping asks without a client, whose own retries would take longer.
func ping(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // fails only on a closed connection
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && reply != "+PONG\r\n" {
		err = fmt.Errorf("PING: %s", strings.TrimSpace(reply)) // such as LOADING
	}
	return err
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
		if err := srv.running().died(); err != nil {
			fmt.Fprintln(os.Stderr, "redistest:", err)
			code = max(code, 1)
		}
		srv.Kill()
		os.RemoveAll(filepath.Dir(srv.Socket))
	}
	os.Exit(code)
}
