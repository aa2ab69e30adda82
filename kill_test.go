package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
)

// Tests that kill and stop processes start this test program again, with the
// name of one of these in its environment.
const childEnv = "SIDESTEP_TEST_CHILD"

var children = map[string]func(socket string){"worker": workerChild, "holder": holderChild}

// spawn starts a child. It ends when its standard input does, which is when
// this process ends at the latest.
func spawn(t *testing.T, child, socket string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+child, childEnv+"_SOCKET="+socket)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// orphaned ends a context when standard input ends.
func orphaned() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}

const (
	killLease = 500 * time.Millisecond // of requests and of locks
	killKeys  = 50
)

// ledgerTask is a task that writes down in Redis what it does: id, lock, fence,
// begin, end, where the end is written only if the section was still covered.
func ledgerTask(rdb *redis.Client, locker *lock.Locker) (*sidestep.Queue, *sidestep.Task[int]) {
	q := sidestep.NewQueue(sidestep.New(locker, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{
		Workers: 8, Storage: listq.Config{Lease: killLease, Poll: 200 * time.Millisecond, MaxDeliveries: -1},
	})
	task := sidestep.NewTask(q, "t", func(v int) string { return fmt.Sprint("k", v%killKeys) }, func(ctx context.Context, lk *lock.Lock, v int) error {
		begin := time.Now()
		select {
		case <-time.After(rand.N(20 * time.Millisecond)): // the work
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		end := time.Now()
		if ctx.Err() != nil || !end.Before(lk.Expires()) {
			return context.Cause(ctx)
		}
		entry := fmt.Sprintf("%s %s %d %d %d", sidestep.RequestFrom(ctx).ID, lk.Name(), lk.Fence(), begin.UnixNano(), end.UnixNano())
		return rdb.RPush(context.WithoutCancel(ctx), "ledger", entry).Err()
	})
	return q, task
}

func workerChild(socket string) {
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{TTL: killLease})
	defer locker.Close()
	q, _ := ledgerTask(rdb, locker)
	_ = q.Run(orphaned())
}

type entry struct {
	id, key           string
	fence, begin, end int64
}

func readLedger(t *testing.T, rdb *redis.Client) []entry {
	t.Helper()
	lines, err := rdb.LRange(context.Background(), "ledger", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for _, line := range lines {
		var e entry
		if _, err := fmt.Sscan(line, &e.id, &e.key, &e.fence, &e.begin, &e.end); err != nil {
			t.Fatalf("ledger entry %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// checkLedger checks that no two sections of one key overlap and that fences
// grow in their order.
func checkLedger(t *testing.T, all []entry) {
	t.Helper()
	byKey := make(map[string][]entry)
	for _, e := range all {
		byKey[e.key] = append(byKey[e.key], e)
	}
	for key, es := range byKey {
		slices.SortFunc(es, func(a, b entry) int { return int(a.begin - b.begin) })
		for i := 1; i < len(es); i++ {
			if a, b := es[i-1], es[i]; b.begin < a.end {
				t.Errorf("%s: %s began %v before %s ended", key, b.id, time.Duration(a.end-b.begin), a.id)
			} else if b.fence <= a.fence {
				t.Errorf("%s: fence %d of %s came after %d of %s", key, b.fence, b.id, a.fence, a.id)
			}
		}
	}
}

// Worker processes are killed under load. Nothing accepted is lost, and no two
// sections of one lock overlap.
func TestFaultProcessKilledAnywhere(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	ctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
	defer stop()

	const n, kills, workers = 2000, 8, 3
	var procs []*exec.Cmd
	for range workers {
		procs = append(procs, spawn(t, "worker", srv.Socket))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(300 * time.Millisecond)
		defer every.Stop()
		for range kills {
			<-every.C
			i := rand.N(workers)
			_ = procs[i].Process.Kill()
			_ = procs[i].Wait()
			procs[i] = spawn(t, "worker", srv.Socket)
		}
	}()

	// This process enqueues, and makes direct calls as well.
	_, task := ledgerTask(rdb, newLocker(t, rdb, lock.Config{TTL: killLease}))
	pace := time.NewTicker(30 * time.Millisecond)
	defer pace.Stop()
	direct := 0
	for v := range n {
		if v%25 == 24 {
			<-pace.C
		}
		id := sidestep.WithID("id" + strconv.Itoa(v))
		if v%20 != 0 {
			if _, err := task.Enqueue(ctx, v, id); err != nil {
				t.Fatal(err)
			}
			continue
		}
		out, err := task.Do(ctx, v, sidestep.Defer(300*time.Millisecond), id)
		if err != nil {
			t.Fatalf("Do(%d) = %v, want nil", v, err)
		}
		if out.Deferred == nil {
			direct++
		}
	}
	<-done

	began := time.Now()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		s, err := scripts(rdb, "q").Sizes(ctx)
		if err == nil && s.Requests == 0 {
			tick.Stop()
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the queue is not empty: %+v, %v", s, err)
		}
	}
	all := readLedger(t, rdb)
	times := make(map[string]int)
	for _, e := range all {
		times[e.id]++
	}
	repeated := 0
	for c := range maps.Values(times) {
		repeated += c - 1
	}
	if len(times) != n {
		t.Errorf("%d of %d requests ran", len(times), n)
	}
	checkLedger(t, all)
	t.Logf("%d ran (%d directly), %d of them again, after %d kills; empty %v after the last", len(times), direct, repeated, kills, time.Since(began).Round(time.Millisecond))
}

// guarded writes KEYS[1] unless a higher fence has been there.
var guarded = redis.NewScript(`
local last = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[1]) < last then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'by', ARGV[2])
return 1`)

// holderChild enters a section and stays in it while its process is stopped.
func holderChild(socket string) {
	ctx := orphaned()
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{TTL: killLease})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	bg := context.Background()
	var fence int64
	var seen error
	err := acq.Do(ctx, "k", sidestep.Fail(), func(ctx context.Context, lk *lock.Lock) error {
		fence = lk.Fence()
		rdb.RPush(bg, "entered", fence)
		for rdb.Get(bg, "resumed").Err() != nil { // the process is stopped in here
			<-time.After(time.Millisecond)
		}
		// The worst that a handler can do is to act without looking at its context.
		n, err := guarded.Run(bg, rdb, []string{"resource"}, fence, "the stopped one").Int()
		rdb.RPush(bg, "wrote", fmt.Sprint(n, err))
		select { // its timer is overdue, but so is every goroutine of the process
		case <-ctx.Done():
		case <-time.After(killLease / 2):
		}
		seen = context.Cause(ctx)
		return nil
	})
	rdb.RPush(bg, "left", fmt.Sprint(errors.Is(seen, sidestep.ErrNotHeld), errors.Is(err, sidestep.ErrNotHeld)))
}

// A holder is stopped beyond its TTL. When it goes on its context ends without
// asking Redis, and its write is refused for its fence.
func TestFaultHolderPausedPastItsTTL(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	next := func(list string) string {
		t.Helper()
		v, err := rdb.BLPop(ctx, 20*time.Second, list).Result()
		if err != nil {
			t.Fatalf("waiting for %q: %v", list, err)
		}
		return v[1]
	}
	child := spawn(t, "holder", srv.Socket)
	old, err := strconv.ParseInt(next("entered"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	acq := newAcquirer(t, rdb, sidestep.Config{})
	err = acq.Do(ctx, "k", sidestep.RetryFor(20*time.Second), func(ctx context.Context, lk *lock.Lock) error {
		if lk.Fence() <= old {
			t.Errorf("fence %d after %d", lk.Fence(), old)
		}
		if n, err := guarded.Run(ctx, rdb, []string{"resource"}, lk.Fence(), "the next one").Int(); n != 1 || err != nil {
			t.Errorf("the next holder's write: %d, %v, want 1", n, err)
		}
		return rdb.Set(ctx, "resumed", 1, 0).Err()
	})
	if err != nil {
		t.Fatalf("Do = %v, want the lock once its TTL has passed", err)
	}
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := next("wrote"); !strings.HasPrefix(got, "0 ") {
		t.Errorf("the stopped holder's write came to %q, want 0: refused", got)
	}
	if got := next("left"); got != "true true" {
		t.Errorf("the context had ended with ErrNotHeld, and so did Do: %s, want true true", got)
	}
	if by := rdb.HGet(ctx, "resource", "by").Val(); by != "the next one" {
		t.Errorf("the resource was written by %s", by)
	}
}
