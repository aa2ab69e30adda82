package listq_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// many pushes n requests.
func many(t testing.TB, q *listq.Queue, n int) {
	t.Helper()
	for ; n > 0; n -= 100 {
		batch := make([]*listq.Request, min(n, 100))
		for i := range batch {
			batch[i] = &listq.Request{}
		}
		push(t, q, batch...)
	}
}

func stats(t testing.TB, q *listq.Queue) listq.Stats {
	t.Helper()
	s, err := q.Stats(context.Background())
	if err != nil {
		t.Fatalf("Stats = %v", err)
	}
	return s
}

// Quick handlers take far less than a command for each request.
func TestQuickHandlersShareCommands(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const n = 4000
		q := listq.New(rdb, "q", listq.Config{})
		many(t, q, n)
		count := redistest.Count(rdb)
		var left sync.WaitGroup
		left.Add(n)
		stop := consume(t, q, listq.ConsumeConfig{Workers: 8}, func(_ context.Context, d *listq.Delivery) error {
			if d.Deliveries != 1 {
				t.Errorf("Deliveries = %d, want 1", d.Deliveries)
			}
			left.Done()
			return nil
		})
		left.Wait()
		stop()
		if got := count.Commands(); got > n/8 {
			t.Errorf("%d requests took %d commands, want at most one for 8", n, got)
		}
		empty(t, rdb, q)
	})
}

// consumeUntilStuck consumes until the handlers, quick at first, are stuck and
// requests are claimed ahead of them. ran counts the handlers that began; release
// lets them go on. It is called in a bubble.
func consumeUntilStuck(t *testing.T, q *listq.Queue, workers int) (ran *atomic.Int64, stop, release func()) {
	t.Helper()
	ran = new(atomic.Int64)
	stuck, released := make(chan struct{}), make(chan struct{})
	stop = consume(t, q, listq.ConsumeConfig{Workers: workers}, func(context.Context, *listq.Delivery) error {
		switch i := ran.Add(1); {
		case i == 300:
			close(stuck)
			fallthrough
		case i > 300:
			<-released
		}
		return nil
	})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release) // before consume's, which waits for the handlers
	<-stuck
	synctest.Wait()
	if s := stats(t, q); s.Leased <= workers {
		t.Fatalf("%d requests are leased to %d workers: nothing was claimed ahead, which this test is about", s.Leased, workers)
	}
	return ran, stop, release
}

// What was claimed ahead of handlers that turn out to be slow is back in the queue
// within milliseconds, for others to run; nothing of it counts.
func TestClaimedAheadGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{})
		const n, workers = 1000, 4
		many(t, q, n)
		ran, _, _ := consumeUntilStuck(t, q, workers)
		var others atomic.Int64
		consume(t, listq.New(rdb, "q", listq.Config{}), listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
			if d.Deliveries != 1 {
				t.Errorf("a request that came back has Deliveries %d, want 1", d.Deliveries)
			}
			others.Add(1)
			return nil
		})
		time.Sleep(10 * time.Millisecond)
		if s := stats(t, q); s.Leased != workers || s.Ready != 0 {
			t.Errorf("10ms after the handlers got stuck: %+v, want %d leased, 0 ready", s, workers)
		}
		if got := others.Load() + ran.Load(); got != n {
			t.Errorf("10ms after the handlers got stuck, %d of %d requests have run or begun", got, n)
		}
	})
}

// Who had to give back what it claimed ahead claims no more ahead until a slot was
// free: else it would take the same requests again, and keep them from others.
func TestWhatWentBackStaysBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{})
		const workers = 4
		many(t, q, 3000) // more than is ever claimed ahead
		consumeUntilStuck(t, q, workers)
		time.Sleep(6 * time.Millisecond)
		for range 10 {
			synctest.Wait()
			if s := stats(t, q); s.Leased != workers {
				t.Fatalf("%d requests are leased to %d stuck workers after the others went back", s.Leased, workers)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// Nothing is claimed ahead of handlers that are not quick, by the measure of a
// round trip or, where those are long, of a few milliseconds.
func TestHowMuchIsClaimedAhead(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		mean, took time.Duration
		slots      int
		want       int
	}{
		{0, 100 * us, 8, 6 * script.Bound},
		{us, 100 * us, 8, 6 * script.Bound},
		{50 * us, 100 * us, 8, 32},
		{200 * us, 100 * us, 8, 8},
		{201 * us, 100 * us, 8, 0},
		{5 * ms, 100 * us, 8, 0},
		{5 * ms, 80 * ms, 8, 16},
		{11 * ms, 80 * ms, 8, 0},
		{ms, 0, 8, 0},
		{0, 0, 8, 6 * script.Bound},
		{0, 100 * us, 1000, 6 * script.Bound},
	} {
		if got := listq.Ahead(c.mean, c.took, c.slots); got != c.want {
			t.Errorf("handlers of %v, round trips of %v: %d ahead of %d slots, want %d", c.mean, c.took, got, c.slots, c.want)
		}
	}
}

// While handlers are quick, the next claim is under way when the answer to the last
// is handed out: nobody comes back to the feeder's line for it.
func TestTheNextClaimDoesNotWaitForTheLast(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		many(t, q, 1000)
		if n := q.Turn(t.Context(), 8, nothing); n < 2 {
			t.Errorf("%d claim in one turn, want more while the queue has more", n)
		}
		if s := stats(t, q); s.Leased != 0 {
			t.Errorf("%d requests are leased in the end", s.Leased)
		}
	})
}

// A slot that becomes free goes to what was claimed ahead, before what comes with the
// next answer.
func TestWhatIsAheadComesFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{ID: "a"}, &listq.Request{ID: "b"})
		if ids, err := q.Started(t.Context()); err != nil || !slices.Equal(ids, []string{"a", "b"}) {
			t.Errorf("the handlers of %v began, %v, want a and then b", ids, err)
		}
	})
}

// What waited for too long goes back in the order in which it came, also if that
// takes several commands.
func TestWhatGoesBackKeepsItsOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		const n = 300
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprintf("%05d", i))
			push(t, q, &listq.Request{ID: ids[i]})
		}
		if err := q.ClaimAndGiveBack(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if got := rdb.LRange(t.Context(), q.Key()+"ready", 0, -1).Val(); !slices.Equal(got, ids) {
			t.Errorf("ready is %v, want the order of push", got)
		}
	})
}

// A consumer that ends hands back what it claimed ahead.
func TestStoppingHandsBackWhatIsAhead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		const n = 2000
		many(t, q, n)
		var ran atomic.Int64
		enough := make(chan struct{})
		stop := consume(t, q, listq.ConsumeConfig{Workers: 2}, func(context.Context, *listq.Delivery) error {
			if ran.Add(1) == 500 {
				close(enough)
			}
			return nil
		})
		<-enough
		stop()
		if s := stats(t, q); s.Leased != 0 || int64(s.Ready) != n-ran.Load() {
			t.Errorf("after %d of %d ran: %+v, want none leased, the rest ready", ran.Load(), n, s)
		}
		if ran.Load() < n { // the machine may be slow
			if d := claim(t, q); d.Deliveries != 1 {
				t.Errorf("a request that was handed back has Deliveries %d, want 1", d.Deliveries)
			}
		}
	})
}

// A request whose worker died is claimed for a free slot only: should it kill the
// next one too, it takes none of those with it that wait behind it.
func TestSuspectsAreNotClaimedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cfg := listq.Config{Lease: time.Second}
		for _, id := range []string{"a", "b"} {
			push(t, listq.New(rdb, "q", cfg), &listq.Request{ID: id})
		}
		if _, err := listq.New(rdb, "q", cfg).Claim(t.Context(), 2); err != nil { // whose worker dies
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		q := listq.New(rdb, "q", cfg)
		push(t, q, &listq.Request{ID: "c"}, &listq.Request{ID: "d"})
		until := func(ctx context.Context, d *listq.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		}
		kept, calm, err := q.Keep(t.Context(), until, 1, 4)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(kept, []string{"c", "d"}) || calm {
			t.Errorf("of suspects a and b, and c and d, on one slot: %v are kept for later, calm=%v, want c and d, and false", kept, calm)
		}
		if d := claim(t, q); d.ID != "a" && d.ID != "b" || d.Deliveries != 2 {
			t.Errorf("a suspect in the queue is %q with Deliveries %d, want a or b, and 2", d.ID, d.Deliveries)
		}
	})
}

// A single worker runs requests in the order of Push, also if what it claimed ahead went
// back meanwhile.
func TestSingleWorkerKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, _ := wired(t, server(t))
		var stuck atomic.Bool
		rdb.AddHook(delay{before: func(cmd redis.Cmder) time.Duration {
			if stuck.Load() && cmd.Name() == "evalsha" && !isClaim(cmd) {
				return 3 * time.Millisecond // what goes back comes after the next claim
			}
			return 0
		}})
		q := listq.New(rdb, "q", listq.Config{})
		const n = 1000
		for i := range n {
			push(t, q, &listq.Request{ID: fmt.Sprintf("r%05d", i)})
		}
		stuck.Store(true)
		var order events
		all := make(chan struct{})
		consume(t, q, listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
			order.add(d.ID)
			switch len(order.list()) {
			case 300:
				time.Sleep(7 * time.Millisecond)
			case n:
				close(all)
			}
			return nil
		})
		<-all
		for i, id := range order.list() {
			if want := fmt.Sprintf("r%05d", i); id != want {
				t.Fatalf("the %dth to run was %s, want %s", i, id, want)
			}
		}
	})
}
