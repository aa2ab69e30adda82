package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/redis/rueidis"
)

// server is a redis-server of our own on the loopback interface: TCP, because
// that is what programs use, and no persistence, because it is not the disk that
// is compared.
type server struct {
	addr  string
	cmd   *exec.Cmd
	dir   string
	admin *redis.Client // does not count
}

func startServer() (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sidestep-bench")
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(addr, ":")
	s := &server{addr: addr, dir: dir}
	s.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", dir,
		"--save", "", "--appendonly", "no", "--maxclients", "20000")
	s.cmd.SysProcAttr = diesWithParent()
	if err := s.cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s.admin = redis.NewClient(&redis.Options{Addr: addr, MaintNotificationsConfig: quiet(), MaxRetries: -1})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err = s.admin.Ping(context.Background()).Err(); err == nil {
			if err = s.check(); err != nil {
				s.stop()
				return nil, err
			}
			return s, nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		}
	}
}

// check tells whether who answers is the server that was started: another program
// may have taken the port meanwhile, and its data would be dropped.
func (s *server) check() error {
	if pid := int(s.info("process_id")); pid != s.cmd.Process.Pid {
		return fmt.Errorf("%s is answered by process %d, not by the redis-server that was started (%d)", s.addr, pid, s.cmd.Process.Pid)
	}
	return nil
}

func (s *server) stop() {
	s.admin.Close()
	_ = s.cmd.Process.Kill() // it has nothing to save
	_ = s.cmd.Wait()
	os.RemoveAll(s.dir)
}

// info returns one field of INFO as a number.
func (s *server) info(field string) float64 {
	text, err := s.admin.Info(context.Background(), "everything").Result()
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == field {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 0
}

func (s *server) version() string {
	text, _ := s.admin.Info(context.Background(), "server").Result()
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "redis_version:"); ok {
			return v
		}
	}
	return "unknown"
}

// cpu returns the processor time that the server has used, in seconds.
func (s *server) cpu() float64 { return s.info("used_cpu_user") + s.info("used_cpu_sys") }

// env is what a measurement works with: the server, and clients that count.
type env struct {
	*server
	wire  wire
	quick bool
}

// pool is how many connections a go-redis client may have, for all libraries
// alike: enough that no scenario waits for one.
const pool = 128

func quiet() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// client returns a go-redis client, to be closed by the caller.
func (e *env) client() *redis.Client { return newClient(e.addr, &e.wire) }

func newClient(addr string, w *wire) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Dialer: w.dial, PoolSize: pool, MaintNotificationsConfig: quiet(),
		DisableIdentity: true,
	})
}

func rueidisOption(addr string, w *wire) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{addr}, DisableCache: true, ClientNoTouch: false,
		DialCtxFn: func(ctx context.Context, dst string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return w.dial(ctx, "tcp", dst)
		},
	}
}

// n returns the number for a full run, or that for a quick one.
func (e *env) n(full, quick int) int {
	if e.quick {
		return quick
	}
	return full
}

// time is n for durations.
func (e *env) time(full, quick time.Duration) time.Duration {
	if e.quick {
		return quick
	}
	return full
}

// empty drops all data.
func (e *env) empty() error { return e.admin.FlushAll(context.Background()).Err() }

var errNotFinished = errors.New("not finished in time")
