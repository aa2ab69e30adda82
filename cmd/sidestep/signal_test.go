//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The same with a signal, as a terminal sends it to all processes.
func TestReplaySignal(t *testing.T) {
	t.Parallel()
	url := realRedis(t)
	rdb, err := address{URL: url}.client(1)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	cmd := exec.Command(os.Args[0], "replay", "-json", "-redis", url, "-work", "50ms", "-processes", "2", "-")
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdin = strings.NewReader(requests(1000, 50))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := int64(0); n < 20; <-tick.C {
		if n, err = rdb.DBSize(t.Context()).Result(); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the status is looked at below
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if got := cmd.ProcessState.ExitCode(); got != exitInterrupted || !r.OK || !r.Interrupt || len(r.Deaths) != 0 {
		t.Errorf("exit status %d, want %d; %+v", got, exitInterrupted, r)
	}
	if n, err := rdb.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("%d keys left in Redis, %v", n, err)
	}
}
