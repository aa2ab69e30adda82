package lock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// Worker processes add elements to a set: each reads all of it, adds one and
// writes all of it back, under one lock. Some are stopped between the read and the
// write for longer than their lease lasts. Without fences the set loses elements
// whose writers were told that they were stored; with fences it loses none.

const (
	workerEnv = "LOCK_TEST_WORKER" // "socket name fenced rounds stops"
	workerTTL = 250 * time.Millisecond
)

// runAsWorker is the worker process, if this is one.
func runAsWorker() bool {
	var socket, name string
	var fenced, stops bool
	var rounds int
	if n, _ := fmt.Sscan(os.Getenv(workerEnv), &socket, &name, &fenced, &rounds, &stops); n != 5 {
		return false
	}
	ctx := context.Background()
	locks := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	set := &sharedSet{rdb: redis.NewClient(&redis.Options{Network: "unix", Addr: socket, DB: 1}), fenced: fenced}
	l := lock.New(locks, lock.Config{TTL: workerTTL, ClaimLease: 100 * time.Millisecond, Owner: name})
	orders := bufio.NewReader(os.Stdin)
	ended := make(chan struct{})
	if !stops {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(ended)
		}()
	}
	for i := range rounds {
		select {
		case <-ended:
			return true
		default:
		}
		err := l.Do(ctx, "set", nil, func(_ context.Context, lk *lock.Lock) error {
			elements, err := set.read(ctx, lk.Fence())
			if err != nil {
				return err
			}
			if stops {
				fmt.Println("stop")
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
				if _, err := orders.ReadString('\n'); err != nil {
					return err
				}
			}
			// From here on it looks neither at its context nor at the clock: nothing
			// that it could have seen a moment before would have helped.
			element := name + strconv.Itoa(i)
			stored, err := set.write(ctx, lk.Fence(), append(elements, element))
			if err == nil {
				fmt.Println(map[bool]string{true: "stored", false: "refused"}[stored], element)
			}
			return err
		})
		_ = err // a lost lock is the point of it; the printed lines are the record
	}
	fmt.Println("done")
	return true
}

// sharedSet is kept in one string, by those who have the lock.
type sharedSet struct {
	rdb    *redis.Client
	fenced bool
}

var (
	readFenced = redis.NewScript(`
		local last = tonumber(redis.call('GET', 'fence') or '0')
		if tonumber(ARGV[1]) < last then return redis.error_reply('STALE') end
		redis.call('SET', 'fence', ARGV[1])
		return redis.call('GET', 'set') or ''`)
	writeFenced = redis.NewScript(`
		local last = tonumber(redis.call('GET', 'fence') or '0')
		if tonumber(ARGV[1]) < last then return 0 end
		redis.call('SET', 'set', ARGV[2])
		return 1`)
)

func (s *sharedSet) read(ctx context.Context, fence int64) ([]string, error) {
	if s.fenced {
		text, err := readFenced.Run(ctx, s.rdb, nil, fence).Text()
		return strings.Fields(text), err
	}
	return strings.Fields(s.rdb.Get(ctx, "set").Val()), nil
}

func (s *sharedSet) write(ctx context.Context, fence int64, elements []string) (bool, error) {
	text := strings.Join(elements, " ")
	if s.fenced {
		n, err := writeFenced.Run(ctx, s.rdb, nil, fence, text).Int()
		return n == 1, err
	}
	return true, s.rdb.Set(ctx, "set", text, 0).Err()
}

// workers are the processes of one run, and what they said.
type workers struct {
	t      *testing.T
	socket string
	fenced bool

	mu      sync.Mutex
	changed sync.Cond
	said    int // elements stored, in all
	stored  []string
	refused int
}

// keepContinuing sends SIGCONT until told that it has come: the first may come
// before the process has stopped.
func keepContinuing(p *os.Process) (come func()) {
	came, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			_ = p.Signal(syscall.SIGCONT)
			select {
			case <-again.C:
			case <-came:
				return
			}
		}
	}()
	return func() {
		close(came)
		<-ended
	}
}

func (w *workers) start(name string, rounds int, stops bool) (*exec.Cmd, io.WriteCloser, <-chan struct{}) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %v %d %v", workerEnv, w.socket, name, w.fenced, rounds, stops))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		goOn := func() {}
		defer func() { goOn() }()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			goOn() // it does
			goOn = func() {}
			switch what, element, _ := strings.Cut(lines.Text(), " "); what {
			case "stop":
				// It goes on once somebody else has stored something: its lease is over.
				w.mu.Lock()
				for at := w.said; w.said == at; {
					w.changed.Wait()
				}
				w.mu.Unlock()
				_, _ = io.WriteString(in, "go\n")
				goOn = keepContinuing(cmd.Process)
			case "stored":
				w.mu.Lock()
				w.said++
				w.stored = append(w.stored, element)
				w.changed.Broadcast()
				w.mu.Unlock()
			case "refused":
				w.mu.Lock()
				w.refused++
				w.mu.Unlock()
			}
		}
		_ = cmd.Wait()
	}()
	return cmd, in, done
}

func TestStoppedProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, fenced := range []bool{false, true} {
		t.Run(map[bool]string{false: "without fences", true: "with fences"}[fenced], func(t *testing.T) {
			srv := redistest.NewServer(t)
			rdb := srv.Client(t)
			w := &workers{t: t, socket: srv.Socket, fenced: fenced}
			w.changed.L = &w.mu
			const stops = 3
			_, end, idle := w.start("runs", 1_000_000, false)
			_, _, a := w.start("a", stops, true)
			_, _, b := w.start("b", stops, true)
			<-a
			<-b
			end.Close()
			<-idle

			conn := rdb.Conn()
			defer conn.Close()
			if err := conn.Select(t.Context(), 1).Err(); err != nil {
				t.Fatal(err)
			}
			kept := strings.Fields(conn.Get(t.Context(), "set").Val())
			lost := 0
			for _, e := range w.stored {
				if !slices.Contains(kept, e) {
					lost++
				}
			}
			t.Logf("%d stored, %d lost, %d refused", len(w.stored), lost, w.refused)
			switch {
			case fenced && lost > 0:
				t.Errorf("%d of %d elements were lost in spite of the fences", lost, len(w.stored))
			case fenced && w.refused == 0:
				t.Error("no stale write was refused: the fences had nothing to do")
			case !fenced && lost == 0:
				t.Error("nothing was lost without fences: this test sees nothing")
			}
		})
	}
}
