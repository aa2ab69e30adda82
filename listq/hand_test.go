package listq_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// listening waits until a consumer has said that requests may be handed to it.
func listening(t testing.TB, rdb *redis.Client, q *listq.Queue) {
	t.Helper()
	for !rdb.HExists(context.Background(), q.Key()+"meta", "idle").Val() {
		<-time.After(time.Millisecond)
	}
}

// A request that is pushed to an idle consumer comes to it at once: beside the push it
// costs a pop and an acknowledgement, which is a claim as well.
func TestIdleConsumerIsHandedTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, own := srv.Client(), srv.Client()
		defer rdb.Close()
		defer own.Close()
		sent := redistest.Count(own)
		ran := make(chan *listq.Delivery, 1)
		consume(t, listq.New(own, "q", listq.Config{}), listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			ran <- d
			return nil
		})
		q := listq.New(rdb, "q", listq.Config{})
		synctest.Wait()
		for range 3 {
			sent.Reset()
			push(t, q, &listq.Request{Lock: "k", Payload: []byte("hello")})
			d := <-ran
			if string(d.Payload) != "hello" || d.Deliveries != 1 || d.Lock != "k" {
				t.Errorf("delivered %q for the %dth time, with lock %q", d.Payload, d.Deliveries, d.Lock)
			}
			synctest.Wait()
			if n := sent.Commands(); n != 1 {
				t.Errorf("the consumer sent %d commands beside the pop, want 1: %v", n, sent.Names())
			}
		}
		empty(t, rdb, q)
	})
}

// What is handed over has a short lease; a handler that takes longer keeps its request.
func TestHandOverIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := listq.New(rdb, "q", listq.Config{Hooks: listq.Hooks{Stale: func(_ context.Context, d *listq.Delivery) {
			t.Errorf("the %dth delivery was lost", d.Deliveries)
		}}})
		ran := make(chan time.Duration, 1)
		consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
			ran <- time.Until(d.LeaseExpires())
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		synctest.Wait()
		push(t, q, &listq.Request{})
		if left := <-ran; left <= time.Second || left > 2*time.Second {
			t.Errorf("the lease lasts for %v, want a poll of 2s", left)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		empty(t, rdb, q)
	})
}

// A request that was handed over while nobody could take it is claimed like any other,
// by whoever claims next; it was delivered once.
func TestHandOverThatNobodyTookIsClaimed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		stop := consume(t, q, listq.ConsumeConfig{Workers: 1}, func(context.Context, *listq.Delivery) error { return nil })
		listening(t, rdb, q)
		idle := rdb.HGet(t.Context(), q.Key()+"meta", "idle").Val()
		stop()
		if rdb.HExists(t.Context(), q.Key()+"meta", "idle").Val() {
			t.Error("a consumer that has stopped left word that it listens")
		}
		rdb.Del(t.Context(), q.Key()+"wake")
		rdb.HSet(t.Context(), q.Key()+"meta", "idle", idle) // as one that died does
		push(t, q, &listq.Request{ID: "a"}, &listq.Request{ID: "b"})
		if n := rdb.ZCard(t.Context(), q.Key()+"leased").Val(); n != 1 {
			t.Fatalf("%d requests are handed over, want 1", n)
		}
		for _, want := range []string{"a", "b"} {
			if d := claim(t, q); d.ID != want || d.Deliveries != 1 {
				t.Errorf("claimed %q for the %dth time, want %q for the first", d.ID, d.Deliveries, want)
			}
		}
	})
}

// A request that is cancelled while it is handed over, and that nobody has taken, does
// not run.
func TestCancelledHandOverDoesNotRun(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		idle := fmt.Sprintf("%d 10000", time.Now().Add(time.Hour).UnixMilli())
		rdb.HSet(t.Context(), q.Key()+"meta", "idle", idle)
		push(t, q, &listq.Request{ID: "a"}, &listq.Request{ID: "b"})
		if n := rdb.ZCard(t.Context(), q.Key()+"leased").Val(); n != 1 {
			t.Fatalf("%d requests are handed over, want 1", n)
		}
		if code, _, err := q.Script().Cancel(t.Context(), time.Minute, "a"); err != nil || code != script.Done {
			t.Fatalf("Cancel = %v, %v", code, err)
		}
		if wake := rdb.LRange(t.Context(), q.Key()+"wake", 0, -1).Val(); len(wake) != 1 || wake[0] != "1" {
			t.Errorf("in wake stand %q, want the token alone", wake)
		}
		ran := make(chan string, 2)
		stop := consume(t, q, listq.ConsumeConfig{Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
			ran <- d.ID
			return nil
		})
		if id := <-ran; id != "b" {
			t.Errorf("%q ran, want b alone", id)
		}
		stop()
		empty(t, rdb, q)
	})
}

// A consumer that stops just as a request is handed to it runs it or gives it back.
func TestStopLosesNoHandOver(t *testing.T) {
	rdb := redistest.Real(t)
	ctx := t.Context()
	q := listq.New(rdb, "q", listq.Config{})
	for range 200 {
		rdb.HDel(ctx, q.Key()+"meta", "idle")
		stop := consume(t, q, listq.ConsumeConfig{}, nothing)
		listening(t, rdb, q)
		pushed := make(chan struct{})
		go func() {
			defer close(pushed)
			push(t, q, &listq.Request{})
		}()
		stop()
		<-pushed
		if n := rdb.ZCard(ctx, q.Key()+"leased").Val(); n != 0 && rdb.LLen(ctx, q.Key()+"wake").Val() < 2 {
			t.Fatalf("%d requests are leased to nobody", n) // and none stands in wake, before the token
		}
		for rdb.HLen(ctx, q.Key()+"state").Val() > 0 {
			if err := claim(t, q).Ack(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What cannot be read is dead, however it came.
func TestHandedOverPoisonIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var dead events
		q := listq.New(rdb, "q", listq.Config{Hooks: listq.Hooks{Dead: func(_ context.Context, e listq.DeadEvent) { dead.add(e.ID + " " + e.Reason) }}})
		consume(t, q, listq.ConsumeConfig{}, nothing)
		synctest.Wait()
		e, err := q.Entry(&listq.Request{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		e.Body = "\x02"
		if _, err := q.Script().Push(t.Context(), []script.Entry{e}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := dead.list(); len(got) != 1 {
			t.Errorf("dead: %q, want one", got)
		}
	})
}
