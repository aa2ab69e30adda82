package chaos

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
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// server is a redis-server on a port of the loopback interface, in a folder of
// its own.
type server struct {
	name string
	addr string
	dir  string
	args []string

	mu   sync.Mutex // guards the field below
	proc *process   // the latest
}

// newServer starts a redis-server. args follow those that all have.
func newServer(dir, name string, args ...string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: filepath.Join(dir, name), args: args}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	return s, s.start()
}

// durable are the arguments of a server that loses nothing it has answered.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// freePort returns a port that is free now, and 10,000 above it too: a Cluster's
// nodes talk there.
func freePort() (int, error) {
	const base, tries = 10_000, 200
	for range tries {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := ln.Addr().(*net.TCPAddr).Port
		ln.Close()
		if port > 1<<16-1-base {
			port -= base
		}
		free := true
		for _, p := range []int{port, port + base} {
			ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
			if free = free && err == nil; err == nil {
				ln.Close()
			}
		}
		if free {
			return port, nil
		}
	}
	return 0, errors.New("no free port on the loopback interface")
}

// start starts the server, again if it was killed, and returns when it answers.
// extra arguments are for this time only.
func (s *server) start(extra ...string) error {
	_, port, _ := net.SplitHostPort(s.addr)
	args := []string{}
	if strings.HasPrefix(s.name, "sentinel") {
		conf := filepath.Join(s.dir, "sentinel.conf") // which it writes, too
		if _, err := os.Stat(conf); err != nil {
			text := "port " + port + "\nbind 127.0.0.1\ndir " + s.dir + "\n" + strings.Join(s.args, "\n") + "\n"
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				return err
			}
		}
		args = append(args, conf, "--sentinel")
	} else {
		args = append(args, "--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no",
			"--repl-diskless-sync-delay", "0")
		args = append(append(args, s.args...), extra...)
	}
	p, err := start(exec.Command("redis-server", args...))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	const limit = 15 * time.Second
	for deadline := time.Now().Add(limit); ; {
		err := ping(s.addr)
		switch {
		case err == nil:
			return nil
		case !p.alive():
			return fmt.Errorf("%s ended by itself: %s", s.name, &p.said)
		case time.Now().After(deadline):
			return fmt.Errorf("%s did not answer within %v: %w", s.name, limit, err)
		}
		p.endedWithin(2 * time.Millisecond)
	}
}

// ping asks without a client, whose own retries would take longer.
func ping(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
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

func (s *server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *server) kill() {
	if p := s.process(); p != nil {
		p.kill()
	}
}

// client returns a client of this server alone, which the faults do not reach.
func (s *server) client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.addr, DialTimeout: time.Second, ReadTimeout: 2 * time.Second, MaxRetries: -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// do runs one command on the server.
func (s *server) do(ctx context.Context, args ...any) (any, error) {
	rdb := s.client()
	defer rdb.Close()
	return rdb.Do(ctx, args...).Result()
}

// await calls look until it returns true, every few milliseconds.
func await(ctx context.Context, limit time.Duration, what string, look func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !look() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v", what, limit)
		case <-t.C:
		}
	}
	return nil
}
