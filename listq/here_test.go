package listq_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// atHome is a Queue that is pushed to and consumed by one process.
type atHome struct {
	*listq.Queue
	rdb  *redis.Client
	sent *redistest.Counter
	fail atomic.Pointer[func(redis.Cmder) error] // asked before each script
}

// home starts a consumer, which is idle when home returns.
func home(t *testing.T, cfg listq.ConsumeConfig, h listq.Handler) (a *atHome, stop func()) {
	t.Helper()
	a = &atHome{rdb: redistest.Mini(t)}
	own := redis.NewClient(a.rdb.Options())
	t.Cleanup(func() { own.Close() })
	a.sent = redistest.Count(own)
	own.AddHook(on(func(cmd redis.Cmder) error {
		time.Sleep(time.Microsecond) // on miniredis a pop takes what is pushed a moment later
		if fn := a.fail.Load(); fn != nil {
			return (*fn)(cmd)
		}
		return nil
	}))
	a.Queue = listq.New(own, "q", listq.Config{})
	stop = consume(t, a.Queue, cfg, h)
	time.Sleep(100 * time.Millisecond)
	a.rest(t)
	a.rest(t) // the scripts are known by now
	return a, stop
}

// rest pushes a request, which tells that the queue is idle, and lets it be done.
func (a *atHome) rest(t *testing.T) {
	t.Helper()
	push(t, a.Queue, &listq.Request{Task: "first"})
	time.Sleep(5 * time.Millisecond)
	a.sent.Reset()
}

// offers pushes a request, and tells whether it was put into wake before it was stored.
func (a *atHome) offers(t *testing.T, r *listq.Request) bool {
	t.Helper()
	a.sent.Reset()
	push(t, a.Queue, r)
	return slices.Contains(a.sent.Names(), "lpush")
}

// Where the consumer is in the same process, and has nothing to do, what would be offered
// begins there at once, and takes one command until it is accepted.
func TestWhatIsOfferedStartsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		a, _ := home(t, listq.ConsumeConfig{Workers: 2}, func(ctx context.Context, d *listq.Delivery) error {
			if d.Task != "second" {
				return nil
			}
			runs.Add(1)
			if d.Deliveries != 1 || string(d.Payload) != "x" || d.Age() > time.Second || d.LeaseExpires().Before(time.Now()) {
				t.Errorf("delivered %q for the %dth time, %v old, leased until %v", d.Payload, d.Deliveries, d.Age(), d.LeaseExpires())
			}
			time.Sleep(10 * time.Second) // renewed meanwhile
			return ctx.Err()
		})
		stored := make(chan struct{})
		hold := func(redis.Cmder) error {
			<-stored
			return nil
		}
		a.fail.Store(&hold)
		began, done := time.Now(), make(chan struct{})
		go func() {
			defer close(done)
			push(t, a.Queue, &listq.Request{Task: "second", Payload: []byte("x")})
		}()
		synctest.Wait()
		if runs.Load() != 1 || time.Since(began) > 0 {
			t.Errorf("%d runs after %v, want it to have begun", runs.Load(), time.Since(began))
		}
		a.fail.Store(nil)
		close(stored)
		<-done
		if got := slices.DeleteFunc(a.sent.Names(), func(n string) bool { return n == "blpop" }); !slices.Equal(got, []string{"evalsha"}) {
			t.Errorf("the push sent %q, want what stores the request", got)
		}
		time.Sleep(time.Minute)
		if runs.Load() != 1 {
			t.Errorf("it ran %d times", runs.Load())
		}
		empty(t, a.rdb, a.Queue)
	})
}

// A consumer that runs something does not take before other processes what it could run
// beside that.
func TestWhoIsBusyTakesNothingHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		var runs atomic.Int32
		handler := func(_ context.Context, d *listq.Delivery) error {
			switch d.Task {
			case "busy":
				<-end
			case "second":
				runs.Add(1)
			}
			return nil
		}
		a, _ := home(t, listq.ConsumeConfig{Workers: 2}, handler)
		if a.offers(t, &listq.Request{Task: "busy"}) {
			t.Error("the first was offered to others, though nothing runs here")
		}
		time.Sleep(5 * time.Millisecond)
		if !a.offers(t, &listq.Request{Task: "second"}) {
			t.Error("the next was not offered to whoever waits longest")
		}
		time.Sleep(time.Second)
		if runs.Load() != 1 {
			t.Errorf("%d runs of what was offered", runs.Load())
		}
		close(end)
		time.Sleep(time.Second)
		empty(t, a.rdb, a.Queue)
	})
}

// Nothing begins in a consumer that stops, though its pop has not come to an end.
func TestNothingStartsHereAfterTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Int32
		a, stop := home(t, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task == "second" {
				late.Add(1)
			}
			return nil
		})
		left := make(chan struct{})
		hold := func(redis.Cmder) error {
			<-left
			return nil
		}
		a.fail.Store(&hold) // the consumer cannot say that it leaves
		go stop()
		synctest.Wait()
		a.fail.Store(nil)
		push(t, a.Queue, &listq.Request{Task: "second"})
		close(left)
		stop()
		if late.Load() != 0 {
			t.Error("a request was started after the stop")
		}
		if d := claim(t, a.Queue); d.Task != "second" || d.Deliveries != 1 {
			t.Errorf("%q comes for the %dth time, want what nobody took", d.Task, d.Deliveries)
		}
	})
}

// A worker by itself takes one after the other as they stand in Redis, whoever else consumes
// the same Queue.
func TestWhoHearsNoOffersTakesNothingHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := script.Handed{
			Item:  script.Item{ID: "a", Body: listq.Encode(&listq.Request{}), Deliveries: 1, Accepted: time.Now()},
			Token: "o1", Lease: time.Second,
		}
		for workers := 1; workers <= 2; workers++ {
			a, _ := home(t, listq.ConsumeConfig{Workers: workers}, nothing)
			if took := a.TakeHere(h); took != (workers > 1) {
				t.Errorf("of %d workers one took what is offered: %v", workers, took)
			}
			synctest.Wait()
		}
		a, _ := home(t, listq.ConsumeConfig{Workers: 2}, nothing)
		h.Body = "\x02"
		if a.TakeHere(h) {
			t.Error("what cannot be read was taken")
		}
		if a.offers(t, &listq.Request{}) {
			t.Error("the next was offered to others, as if something ran here")
		}
	})
}

// Who pushes with a context that has ended starts nothing.
func TestNothingStartsHereForWhoHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		a, _ := home(t, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task == "second" {
				runs.Add(1)
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := a.Push(ctx, &listq.Request{Task: "second"}); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("Push = %d, %v", n, err)
		}
		time.Sleep(time.Minute)
		if runs.Load() != 0 {
			t.Errorf("it ran %d times", runs.Load())
		}
		empty(t, a.rdb, a.Queue)
	})
}

// What has begun here and could not be stored is known to its Queue: pushed again, it does not
// run beside itself, nor once more if it is done.
func TestAgainWhatStartedHere(t *testing.T) {
	for _, takes := range []time.Duration{0, 500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var runs twice
			a, _ := home(t, listq.ConsumeConfig{Workers: 4}, func(_ context.Context, d *listq.Delivery) error {
				if d.Task == "second" {
					runs.run(takes)
				}
				return nil
			})
			refuse := func(cmd redis.Cmder) error {
				if storesOffer(cmd) {
					return errRefused
				}
				return nil
			}
			a.fail.Store(&refuse)
			r := &listq.Request{Task: "second"}
			if _, err := a.Push(t.Context(), r); !errors.Is(err, errRefused) || r.ID == "" {
				t.Errorf("Push = %v, ID %q, want that it was refused", err, r.ID)
			}
			a.fail.Store(nil)
			if _, err := a.Push(t.Context(), r); err != nil {
				t.Errorf("again: %v", err)
			}
			time.Sleep(time.Minute)
			runs.check(t, "pushed again")
			empty(t, a.rdb, a.Queue)
		})
	}
}
