package listq_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// tally counts the runs of each request and waits for n of them.
type tally struct {
	mu   sync.Mutex
	runs map[string]int
	want int
	all  chan struct{}
}

func newTally(n int) *tally {
	return &tally{runs: make(map[string]int), want: n, all: make(chan struct{})}
}

func (y *tally) handle(_ context.Context, d *listq.Delivery) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.runs[d.ID]++
	if y.runs[d.ID] == 1 && len(y.runs) == y.want {
		close(y.all)
	}
	return nil
}

func (y *tally) wait(t testing.TB) {
	t.Helper()
	select {
	case <-y.all:
	case <-time.After(20 * time.Second):
		y.mu.Lock()
		defer y.mu.Unlock()
		t.Fatalf("%d of %d requests ran within 20s", len(y.runs), y.want)
	}
}

func (y *tally) twice() (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, runs := range y.runs {
		if runs > 1 {
			n++
		}
	}
	return n
}

// While requests are pushed and consumed, something happens to the server or to
// the connections. What was accepted runs.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, fault := range []struct {
		name string
		do   func(t *testing.T, srv *redistest.Server, admin *redis.Client)
	}{
		{"script flush", func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
			if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
				t.Error(err)
			}
		}},
		{"connections killed", func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
			if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
				t.Error(err)
			}
		}},
		{"killed and restarted", func(t *testing.T, srv *redistest.Server, _ *redis.Client) {
			srv.Kill()
			if err := srv.Start(); err != nil {
				t.Error(err)
			}
		}},
		{"paused", func(t *testing.T, srv *redistest.Server, _ *redis.Client) {
			srv.Pause()
			<-time.After(300 * time.Millisecond)
			srv.Resume()
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.NewServer(t, "--appendonly", "yes", "--appendfsync", "always")
			rdb := srv.Client(t)
			const n = 600
			y := newTally(n)
			cfg := listq.Config{Lease: 2 * time.Second, Poll: 500 * time.Millisecond}
			for range 2 {
				consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{Workers: 4}, y.handle)
			}
			q := listq.New(rdb, "q", cfg)
			for i := range n {
				r := &listq.Request{ID: fmt.Sprint(i), Lock: fmt.Sprint("k", i%5)}
				for try := 0; ; try++ {
					if _, err := q.Push(t.Context(), r); err == nil {
						break
					} else if try == 50 {
						t.Fatalf("Push = %v", err)
					}
				}
				if i%200 == 100 {
					fault.do(t, srv, rdb)
				}
			}
			y.wait(t)
			if twice := y.twice(); twice > 100 {
				t.Errorf("%d of %d requests ran twice", twice, n)
			}
		})
	}
}

// A reply that is lost changes nothing: go-redis sends the command again.
func TestLostReplies(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		proxy := redistest.Through(t, rdb)
		for _, retries := range []int{-1, 3} { // the library's own tries, and go-redis's
			t.Run(fmt.Sprint("retries=", retries), func(t *testing.T) {
				rdb.FlushDB(ctx)
				var stale events
				q := listq.New(proxy.Client(t, func(o *redis.Options) { o.MaxRetries = retries }), "q", listq.Config{
					Hooks: listq.Hooks{Stale: func(_ context.Context, d *listq.Delivery) { stale.add(d.ID) }},
				})
				push(t, q, &listq.Request{ID: "warm"}) // loads the scripts
				if err := claim(t, q).Ack(ctx); err != nil {
					t.Fatal(err)
				}
				r := &listq.Request{ID: "the-request"}
				lost := proxy.DropReply("the-request")
				for {
					if _, err := q.Push(ctx, r); err == nil {
						break
					}
				}
				<-lost
				if n := rdb.LLen(ctx, q.Key()+"ready").Val(); n != 1 {
					t.Errorf("after a lost reply to Push, ready has %d requests, want 1", n)
				}
				lost = proxy.DropReply("last:")
				var c listq.Claimed
				for {
					var err error
					if c, err = q.Claim(ctx, 1); err == nil {
						break
					}
				}
				<-lost
				if len(c.Deliveries) != 1 || c.Deliveries[0].Deliveries != 1 {
					t.Fatalf("Claim after a lost reply = %+v, want the request, claimed once", c.Deliveries)
				}
				lost = proxy.DropReply("the-request")
				if err := c.Deliveries[0].Ack(ctx); err != nil {
					t.Errorf("Ack whose reply was lost = %v", err)
				}
				<-lost
				if got := stale.list(); len(got) != 0 {
					t.Errorf("Stale was called for %v", got)
				}
				empty(t, rdb, q)
			})
		}
	})
}

// A consumer that stops while the answer to its claim is lost leaves nothing
// leased.
func TestStoppingHandsBackALostClaim(t *testing.T) {
	rdb := redistest.Mini(t)
	ctx := t.Context()
	proxy := redistest.Through(t, rdb)
	own := proxy.Client(t, func(o *redis.Options) { o.MaxRetries = -1 })
	q := listq.New(own, "q", listq.Config{PollOnly: true})
	push(t, q, &listq.Request{})
	if err := claim(t, q).Ack(ctx); err != nil { // loads the scripts
		t.Fatal(err)
	}
	push(t, q, &listq.Request{ID: "a"})
	lost := proxy.DropReply("last:")
	stop := make(chan struct{})
	run, cancel := context.WithCancel(ctx)
	go func() {
		defer close(stop)
		_ = q.Consume(run, listq.ConsumeConfig{}, func(context.Context, *listq.Delivery) error { return nil })
	}()
	<-lost
	cancel()
	<-stop
	if n := rdb.ZCard(ctx, q.Key()+"leased").Val(); n != 0 {
		t.Errorf("%d requests are leased after Consume has returned", n)
	}
}

// The token that wakes, or the request that is handed over, is taken by a process that
// dies with it: the others notice within their poll.
func TestLostTokenCostsAPoll(t *testing.T) {
	for what, handed := range map[string]bool{"token": false, "request": true} {
		t.Run(what, func(t *testing.T) { testLost(t, handed) })
	}
}

func testLost(t *testing.T, handed bool) {
	rdb := redistest.Real(t)
	ctx := t.Context()
	const poll = 400 * time.Millisecond
	q := listq.New(rdb, "q", listq.Config{Poll: poll})
	thief := make(chan string, 1)
	go func() { thief <- rdb.BLPop(ctx, 10*time.Second, q.Key()+"wake").String() }()
	for blocked(t, rdb) < 1 {
		<-time.After(time.Millisecond)
	}
	ran := make(chan time.Time, 1)
	consume(t, q, listq.ConsumeConfig{}, func(context.Context, *listq.Delivery) error {
		ran <- time.Now()
		return nil
	})
	for blocked(t, rdb) < 2 {
		<-time.After(time.Millisecond)
	}
	listening(t, rdb, q)
	if !handed {
		rdb.HDel(ctx, q.Key()+"meta", "idle")
	}
	pushed := time.Now()
	push(t, q, &listq.Request{ID: "an id"})
	if got := <-thief; strings.Contains(got, "an id") != handed {
		t.Fatalf("the other process got %q", got)
	}
	if late := (<-ran).Sub(pushed); late > poll+200*time.Millisecond {
		t.Errorf("the request started after %v, want within the poll of %v", late, poll)
	}
}

// blocked returns how many clients of rdb's database wait for a token.
func blocked(t testing.TB, rdb *redis.Client) (n int) {
	t.Helper()
	list, err := rdb.ClientList(context.Background()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, "cmd=blpop") && strings.Contains(line, fmt.Sprintf(" db=%d ", rdb.Options().DB)) &&
			strings.Contains(line, "flags=b") {
			n++
		}
	}
	return n
}

// What an idle consumer sends, by the server's own count.
func TestIdleCommandsOnRedis(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	srv := redistest.NewServer(t)
	rdb := srv.Client(t)
	consume(t, listq.New(rdb, "q", listq.Config{}), listq.ConsumeConfig{}, nothing)
	for blocked(t, rdb) < 1 {
		<-time.After(time.Millisecond)
	}
	admin := srv.Client(t)
	count := func() (calls int) {
		info := admin.Info(t.Context(), "commandstats").Val()
		for line := range strings.Lines(info) {
			var n int
			name, rest, _ := strings.Cut(line, ":calls=")
			switch strings.TrimPrefix(name, "cmdstat_") {
			case "evalsha", "eval", "blpop":
				fmt.Sscan(strings.Split(rest, ",")[0], &n)
				calls += n
			}
		}
		return calls
	}
	before := count()
	<-time.After(3 * time.Second)
	if n := count() - before; n > 3 {
		t.Errorf("an idle consumer sent %d commands in 3s, want at most 3", n)
	}
}
