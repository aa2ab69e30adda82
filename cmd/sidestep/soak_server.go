package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
)

// ownRedis is a redis-server that this process has started, on a unix socket in
// a folder of its own, and without persistence.
type ownRedis struct {
	url string
	dir string
	cmd *exec.Cmd
}

// startRedis starts a redis-server and returns when it answers.
func startRedis() (*ownRedis, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("no redis-server in PATH; name one with -redis URL (%w)", err)
	}
	dir, err := os.MkdirTemp("", "sidestep")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	r := &ownRedis{
		url: "unix://" + socket, dir: dir,
		cmd: exec.Command(path, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no"),
	}
	if err := r.cmd.Start(); err != nil {
		_ = os.RemoveAll(dir) // the first error is the one to report
		return nil, err
	}
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, MaxRetries: -1, DialerRetries: 1})
	defer rdb.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := rdb.Ping(context.Background()).Err()
		if err == nil {
			return r, nil
		}
		if time.Now().After(deadline) {
			r.stop()
			return nil, errors.Join(errors.New("redis-server does not answer"), err)
		}
	}
}

// stop ends the server and removes its folder.
func (r *ownRedis) stop() {
	_ = r.cmd.Process.Kill() // it may be gone
	_ = r.cmd.Wait()
	_ = os.RemoveAll(r.dir) // a folder for temporary files
}
