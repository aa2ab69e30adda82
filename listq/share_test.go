package listq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// jam is a client hook that holds up scripts while it is on, as a slow server
// does, and notes what passes.
type jam struct {
	mu    sync.Mutex
	gate  chan struct{} // nil: none is held up
	fail  error         // in place of an answer
	words []int         // of each script call: how many
}

func (j *jam) DialHook(next redis.DialHook) redis.DialHook { return next }

func (j *jam) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" { // of a new connection
			return next(ctx, cmd)
		}
		j.mu.Lock()
		gate, fail := j.gate, j.fail
		j.words = append(j.words, len(cmd.Args()))
		j.mu.Unlock()
		if gate != nil {
			<-gate
		}
		if fail != nil {
			cmd.SetErr(fail)
			return fail
		}
		return next(ctx, cmd)
	}
}

func (j *jam) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// hold pushes as many requests as there is room for at once. They are under way
// until what it returns is called.
func (j *jam) hold(t *testing.T, q *listq.Queue) (free func()) {
	t.Helper()
	gate := make(chan struct{})
	j.mu.Lock()
	j.gate = gate
	j.mu.Unlock()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { push(t, q, &listq.Request{ID: fmt.Sprint("held up:", i)}) })
	}
	synctest.Wait()
	j.mu.Lock()
	j.gate = nil
	j.words = nil
	j.mu.Unlock()
	return func() {
		close(gate)
		wg.Wait()
	}
}

// sharing returns a queue whose scripts are known, and a jam in front of it.
func sharing(t *testing.T, cfg listq.Config, change ...func(*redis.Options)) (*listq.Queue, *jam) {
	t.Helper()
	opts := *redistest.Mini(t).Options()
	for _, fn := range change {
		fn(&opts)
	}
	rdb := redis.NewClient(&opts)
	t.Cleanup(func() { rdb.Close() })
	q := listq.New(rdb, "q", cfg)
	push(t, q, &listq.Request{})
	push(t, q, &listq.Request{}, &listq.Request{})
	c, err := q.Claim(t.Context(), 3)
	if err != nil || len(c.Deliveries) != 3 {
		t.Fatalf("Claim = %+v, %v", c, err)
	}
	for _, d := range c.Deliveries {
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	j := &jam{}
	rdb.AddHook(j)
	return q, j
}

// ids claims all there is and returns the ids in order.
func ids(t *testing.T, q *listq.Queue) []string {
	t.Helper()
	var out []string
	for {
		c, err := q.Claim(context.Background(), 128)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Deliveries) == 0 {
			return out
		}
		for _, d := range c.Deliveries {
			out = append(out, d.ID)
		}
	}
}

func TestAPushAloneIsACommandByItself(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{})
		count := redistest.Count(rdb)
		for range 20 {
			push(t, q, &listq.Request{})
		}
		if c, r := count.Commands(), count.RoundTrips(); c != 20 || r != 20 {
			t.Errorf("20 pushes: %d commands in %d round trips, want 20 in 20", c, r)
		}
	})
}

// Pushes that meet share one command. Each learns what became of its own requests:
// also of one that another of them pushes too, and of one that is in the queue already.
func TestPushesThatMeetShareACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, j := sharing(t, listq.Config{})
		push(t, q, &listq.Request{ID: "known"})
		free := j.hold(t, q)
		calls := []struct {
			reqs  []*listq.Request
			added int
		}{
			{[]*listq.Request{{ID: "a"}}, 1},
			{[]*listq.Request{{ID: "known"}}, 0},
			{[]*listq.Request{{ID: "b"}, {ID: "known"}, {ID: "c", Lock: "x"}}, 2},
			{[]*listq.Request{{ID: "a"}}, 0},
			{[]*listq.Request{{ID: "c", Lock: "x"}, {ID: "d"}}, 1},
			{[]*listq.Request{{ID: "e", MaxWait: time.Hour}}, 1},
			{[]*listq.Request{{ID: "f"}, {ID: "f"}}, 1},
		}
		var wg sync.WaitGroup
		for i, c := range calls {
			wg.Go(func() {
				if n, err := q.Push(t.Context(), c.reqs...); n != c.added || err != nil {
					t.Errorf("call %d: Push = %d, %v; want %d", i, n, err, c.added)
				}
			})
			synctest.Wait() // in line
		}
		free()
		wg.Wait()
		if len(j.words) != 1 {
			t.Errorf("%d pushes behind 2 that were under way took %d commands, want 1", len(calls), len(j.words))
		}
		got, want := ids(t, q), []string{"a", "b", "c", "d", "e", "f"}
		got = slices.DeleteFunc(got, func(id string) bool { return len(id) > 1 })
		if !slices.Equal(got, want) {
			t.Errorf("claimed %v, want %v: in the order of the calls", got, want)
		}
	})
}

// An error is that of all whose command it was, and the requests can be pushed
// again.
func TestAnErrorOfASharedPushIsEverybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, j := sharing(t, listq.Config{})
		free := j.hold(t, q)
		broken := errors.New("broken")
		j.mu.Lock()
		j.fail = broken
		j.mu.Unlock()
		var wg sync.WaitGroup
		try := func(want error) {
			for i := range 5 {
				wg.Go(func() {
					n, err := q.Push(t.Context(), &listq.Request{ID: fmt.Sprint(i)})
					if !errors.Is(err, want) || want == nil && n != 1 {
						t.Errorf("request %d: Push = %d, %v; want %v", i, n, err, want)
					}
				})
			}
			synctest.Wait()
		}
		try(broken)
		free()
		wg.Wait()
		j.mu.Lock()
		j.fail = nil
		j.mu.Unlock()
		try(nil)
		wg.Wait()
	})
}

// A caller whose context ends while it waits for its turn takes its request along,
// and no other.
func TestAnEndedContextTakesItsOwnPushAlong(t *testing.T) {
	for _, timeouts := range []bool{false, true} {
		t.Run(fmt.Sprint("ContextTimeoutEnabled ", timeouts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, j := sharing(t, listq.Config{}, func(o *redis.Options) { o.ContextTimeoutEnabled = timeouts })
				free := j.hold(t, q)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i, id := range []string{"a", "b", "c", "d", "e"} {
					ctx := ctx
					if i%2 > 0 {
						ctx = t.Context()
					}
					wg.Go(func() {
						_, err := q.Push(ctx, &listq.Request{ID: id})
						if ended := i%2 == 0; errors.Is(err, context.Canceled) != ended || (err == nil) == ended {
							t.Errorf("%s: Push = %v; its context has ended: %v", id, err, ended)
						}
					})
					synctest.Wait()
				}
				cancel()
				synctest.Wait()
				free()
				wg.Wait()
				got := slices.DeleteFunc(ids(t, q), func(id string) bool { return len(id) > 1 })
				if want := []string{"b", "d"}; !slices.Equal(got, want) {
					t.Errorf("claimed %v, want %v", got, want)
				}
			})
		})
	}
}

func TestPushesThatHangHoldUpNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, j := sharing(t, listq.Config{})
		free := j.hold(t, q)
		defer free()
		for round := range 5 {
			began := time.Now()
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { push(t, q, &listq.Request{ID: fmt.Sprint(round, ":", i)}) })
			}
			wg.Wait()
			if d := time.Since(began); d > 5*time.Millisecond {
				t.Errorf("round %d: 20 pushes took %v beside two that hang, want 5ms at most", round, d)
			}
		}
	})
}

// What goes in one command is bounded, by the number of requests and by their
// bytes, but for what one caller brings.
func TestASharedPushIsBounded(t *testing.T) {
	for _, c := range []struct {
		name           string
		calls          int
		reqs           int // of each
		payload, bound int // bound: of the requests in one command
	}{
		{"requests", 40, 10, 0, 128},
		{"bytes", 16, 1, 40 << 10, 3},
		{"over the bound already", 4, 2, 200 << 10, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, j := sharing(t, listq.Config{})
				free := j.hold(t, q)
				var wg sync.WaitGroup
				for range c.calls {
					wg.Go(func() {
						var reqs []*listq.Request
						for range c.reqs {
							reqs = append(reqs, &listq.Request{Payload: make([]byte, c.payload)})
						}
						push(t, q, reqs...)
					})
				}
				synctest.Wait()
				free()
				wg.Wait()
				if n := len(j.words); n >= c.calls && c.bound > c.reqs || n < c.calls*c.reqs/c.bound {
					t.Errorf("%d calls took %d commands", c.calls, n)
				}
				for _, n := range j.words {
					if n/4 > c.bound+4 { // beside the script, its keys, and four words for each request
						t.Errorf("a command has %d words, want those of %d requests at most", n, c.bound)
					}
				}
			})
		})
	}
}

// Who asks for replicas is told that they have not confirmed, also in a command
// that several share.
func TestASharedPushWaitsForReplicas(t *testing.T) {
	rdb := redistest.Real(t) // miniredis has no WAIT
	q := listq.New(rdb, "q", listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: 20 * time.Millisecond}})
	count := redistest.Count(rdb)
	const callers = 40
	var unconfirmed atomic.Int32
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if _, err := q.Push(t.Context(), &listq.Request{}); errors.Is(err, listq.ErrNotReplicated) {
				unconfirmed.Add(1)
			} else {
				t.Logf("Push = %v", err)
			}
		})
	}
	wg.Wait()
	if n := unconfirmed.Load(); n != callers {
		t.Errorf("%d of %d callers were told that no replica has confirmed", n, callers)
	}
	waits := 0
	for _, name := range count.Names() {
		if name == "wait" {
			waits++
		}
	}
	if waits == 0 || waits >= callers {
		t.Errorf("%d callers waited for replicas %d times, want less", callers, waits)
	}
	if n := len(ids(t, q)); n != callers {
		t.Errorf("%d requests are there, want %d", n, callers)
	}
}

// Each producer's requests keep their order, however they meet those of others,
// and none is lost or there twice, while scripts are forgotten.
func TestSharedPushesKeepEachProducersOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		j := &jam{}
		rdb.AddHook(j)
		const producers, each = 16, 60
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for i := range each {
					if p == 0 && i%10 == 0 {
						if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
							t.Error(err)
						}
					}
					push(t, q, &listq.Request{ID: fmt.Sprintf("%02d %03d", p, i)})
				}
			})
		}
		wg.Wait()
		if slices.Max(j.words) == slices.Min(j.words) {
			t.Error("no command was shared")
		}
		next := make(map[string]int)
		for _, id := range ids(t, q) {
			p, i := id[:2], id[3:]
			if want := fmt.Sprintf("%03d", next[p]); i != want {
				t.Fatalf("of producer %s came %s, want %s", p, i, want)
			}
			next[p]++
		}
		for p, n := range next {
			if n != each {
				t.Errorf("of producer %s came %d requests, want %d", p, n, each)
			}
		}
		if len(next) != producers {
			t.Errorf("requests of %d producers came, want %d", len(next), producers)
		}
	})
}
