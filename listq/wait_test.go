package listq_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// freePort returns a port of the loopback interface that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// With Config.Wait a request counts as accepted when the replica has it, and not
// before; however often it is sent, and on whichever connection.
func TestWaitForReplicas(t *testing.T) {
	t.Parallel()
	redistest.Real(t) // skips, or fails where it is required
	ctx := t.Context()
	port := freePort(t)
	master := redistest.NewServer(t, "--port", port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
	replica := redistest.NewServer(t, "--replicaof", "127.0.0.1 "+port)
	has := func(id string) bool {
		t.Helper()
		ok, err := replica.Client(t).HExists(ctx, keys.Of(keys.Base("sidestep:", "q")).Msg(), id).Result()
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	queue := func(timeout time.Duration) *listq.Queue {
		return listq.New(master.Client(t), "q", listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: timeout}})
	}
	accepts := []struct {
		name string
		call func(q *listq.Queue, id string) error
	}{
		{"Push", func(q *listq.Queue, id string) error {
			_, err := q.Push(ctx, &listq.Request{ID: id})
			return err
		}},
		{"ScheduleIn", func(q *listq.Queue, id string) error {
			_, err := delayq.New(q).ScheduleIn(ctx, &listq.Request{ID: id}, time.Hour)
			return err
		}},
		{"Delay", func(q *listq.Queue, id string) error {
			_, err := delayq.New(q).Delay(ctx, &listq.Request{ID: id}, time.Hour)
			return err
		}},
		{"Park", func(q *listq.Queue, id string) error {
			_, err := delayq.New(q).Park(ctx, &listq.Request{ID: id, Lock: "k"}, time.Hour)
			return err
		}},
	}
	// A replica that has just been started needs a moment to follow.
	until := time.Now().Add(20 * time.Second)
	for accepts[0].call(queue(time.Second), "first") != nil {
		if time.Now().After(until) {
			t.Fatal("the replica does not follow")
		}
	}
	for i, a := range accepts {
		id := fmt.Sprint("id", i)
		master.Client(t).ScriptFlush(ctx)
		if err := a.call(queue(2*time.Second), id); err != nil || !has(id) {
			t.Errorf("%s = %v, want nil, and the replica has it: %v", a.name, err, has(id))
		}
	}
	replica.Pause()
	for i, a := range accepts {
		id := fmt.Sprint("late", i)
		for try := range 3 { // each on a connection of its own
			if err := a.call(queue(20*time.Millisecond), id); !errors.Is(err, listq.ErrNotReplicated) {
				t.Errorf("%s, try %d, without the replica = %v, want ErrNotReplicated", a.name, try, err)
			}
		}
	}
	replica.Resume()
	for i, a := range accepts {
		id := fmt.Sprint("late", i)
		if err := a.call(queue(2*time.Second), id); err != nil || !has(id) {
			t.Errorf("%s again, with the replica back = %v, want nil, and the replica has it: %v", a.name, err, has(id))
		}
	}
}

// A request that one call stored and did not see confirmed must not pass as
// confirmed in another call that finds it stored.
func TestWaitCountsWhatOthersWrote(t *testing.T) {
	t.Parallel()
	redistest.Real(t)
	ctx := t.Context()
	srv := redistest.NewServer(t) // no replica at all
	r := &listq.Request{ID: "a"}
	if added, err := listq.New(srv.Client(t), "q", listq.Config{}).Push(ctx, r); added != 1 || err != nil {
		t.Fatalf("Push = %d, %v", added, err)
	}
	waiting := listq.New(srv.Client(t), "q", listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: 10 * time.Millisecond}})
	if _, err := waiting.Push(ctx, r); !errors.Is(err, listq.ErrNotReplicated) {
		t.Errorf("Push of what is there = %v, want ErrNotReplicated", err)
	}
}

// Who does not ask for it does not pay for it.
func TestWaitIsOffByDefault(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		c := redistest.Count(rdb)
		q := listq.New(rdb, "q", listq.Config{})
		for range 2 {
			c.Reset()
			if _, err := q.Push(t.Context(), &listq.Request{ID: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		if c.Commands() != 1 {
			t.Errorf("Push sent %v", c.Names())
		}
	})
}

func TestWaitOutOfRange(t *testing.T) {
	for _, w := range []listq.Wait{{Replicas: -1}, {Replicas: 1, Timeout: time.Microsecond}, {Timeout: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New with %+v did not panic", w)
				}
			}()
			listq.New(redis.NewClient(&redis.Options{}), "q", listq.Config{Wait: w})
		}()
	}
}
