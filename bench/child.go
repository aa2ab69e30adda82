package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Sections, and requests, across processes: this program starts itself again, once per process.

const childEnv = "SIDESTEP_BENCH_CHILD"

// job is what a child is told.
type job struct {
	Addr    string
	Queue   string // a queuePeer, to enqueue requests for that long; "": sections of a lock
	Peer    string // a lockPeer
	Name    string // the lock
	Workers int
	Hold    time.Duration
	For     time.Duration
}

// childReport is what it answers.
type childReport struct {
	Sections []section
	Commands int64
	Error    string
}

// childMain does a child's work if this process is one.
func childMain() bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var j job
	var r childReport
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		r.Error = err.Error()
	} else {
		r = j.do()
	}
	if err := gob.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	return true
}

func (j job) do() childReport {
	if j.Queue != "" {
		return j.enqueue()
	}
	i := slices.IndexFunc(allLockPeers, func(p lockPeer) bool { return p.name == j.Peer })
	if i < 0 {
		return childReport{Error: "unknown peer " + j.Peer}
	}
	var w wire
	kit, err := allLockPeers[i].open(j.Addr, &w)
	if err != nil {
		return childReport{Error: err.Error()}
	}
	defer kit.close()
	if err := warm(kit, fmt.Sprintf("warm:%d", os.Getpid())); err != nil {
		return childReport{Error: err.Error()}
	}
	if err := start(); err != nil {
		return childReport{Error: err.Error()}
	}
	before := w.commands.Load()
	all, err := stay(kit, j.Name, j.Workers, j.Hold, j.For)
	if err != nil {
		return childReport{Error: err.Error()}
	}
	return childReport{Sections: all, Commands: w.commands.Load() - before}
}

func (j job) enqueue() childReport {
	i := slices.IndexFunc(apartQueuePeers, func(p queuePeer) bool { return p.name == j.Queue })
	if i < 0 {
		return childReport{Error: "unknown peer " + j.Queue}
	}
	var w wire
	kit, err := apartQueuePeers[i].open(j.Addr, &w)
	if err != nil {
		return childReport{Error: err.Error()}
	}
	defer kit.close()
	if err := start(); err != nil {
		return childReport{Error: err.Error()}
	}
	all, err := trickle(kit, j.For)
	if err != nil {
		return childReport{Error: err.Error()}
	}
	return childReport{Sections: all, Commands: w.commands.Load()}
}

// start says that this process is ready, and waits until all are to start.
func start() error {
	fmt.Println("ready")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// warm opens connections and loads scripts, on another lock.
func warm(kit lockKit, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var first error
	var mu sync.Mutex
	_, ours := kit.(*sidestepKit)
	for i := range 4 {
		name := name
		if !ours { // one of sidestep's goroutines has to wait, to open the subscription
			name += strconv.Itoa(i)
		}
		wg.Go(func() {
			if s, ok := kit.(*tokenKit); ok {
				if err := s.seed(ctx, name); err != nil {
					return // the pop tells
				}
			}
			if err := kit.do(ctx, name, func() { time.Sleep(time.Millisecond) }); err != nil {
				mu.Lock()
				first = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return first
}

// stay runs sections of one lock in so many goroutines for a while.
func stay(kit lockKit, name string, workers int, hold, d time.Duration) ([]section, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	sections := make([][]section, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			mine := make([]section, 0, 1<<16)
			for ctx.Err() == nil {
				s := section{Worker: i, Asked: time.Now().UnixNano()}
				err := kit.do(ctx, name, func() {
					s.Entry = time.Now().UnixNano()
					if hold > 0 {
						time.Sleep(hold)
					}
					s.Exit = time.Now().UnixNano()
				})
				if s.Exit != 0 {
					mine = append(mine, s)
				}
				if err != nil && ctx.Err() == nil {
					errs[i] = err
					break
				}
			}
			sections[i] = mine
		})
	}
	wg.Wait()
	return slices.Concat(sections...), errors.Join(errs...)
}

// processes runs a job in so many processes at once and returns all sections,
// with workers numbered through, and the commands sent.
func processes(j job, n int) (all []section, commands int64, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, 0, err
	}
	type child struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out *bufio.Reader
	}
	var children []child
	defer func() {
		for _, c := range children {
			_ = c.cmd.Process.Kill() // it has answered, or never will
			_ = c.cmd.Wait()
		}
	}()
	for range n {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = diesWithParent()
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, 0, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, 0, err
		}
		if err := cmd.Start(); err != nil {
			return nil, 0, err
		}
		children = append(children, child{cmd, in, bufio.NewReaderSize(out, 1<<16)})
	}
	for _, c := range children {
		line, err := c.out.ReadString('\n')
		if err != nil {
			return nil, 0, fmt.Errorf("a child did not get ready: %w", err)
		}
		if strings.TrimSpace(line) != "ready" {
			return nil, 0, fmt.Errorf("a child failed: %q", line)
		}
	}
	for _, c := range children {
		if _, err := io.WriteString(c.in, "go\n"); err != nil {
			return nil, 0, err
		}
	}
	for i, c := range children {
		timer := time.AfterFunc(j.For+20*time.Second, func() { _ = c.cmd.Process.Kill() })
		var r childReport
		err := gob.NewDecoder(c.out).Decode(&r)
		timer.Stop()
		if err != nil {
			return nil, 0, fmt.Errorf("a child did not answer: %w", err)
		}
		if r.Error != "" {
			return nil, 0, errors.New(r.Error)
		}
		for _, s := range r.Sections {
			s.Worker += i * j.Workers
			all = append(all, s)
		}
		commands += r.Commands
	}
	return all, commands, nil
}
