package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// hanging returns a client of a server that takes all and answers nothing. heeds: it
// heeds deadlines, which by default no client does.
func hanging(t *testing.T, heeds bool) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{
		Addr:                  "127.0.0.1:1", // a name would be looked up
		ContextTimeoutEnabled: heeds,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go io.Copy(io.Discard, there)
			return here, nil
		},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCallsEndWithTheirContextsThoughTheQueueHangs(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), hanging(t, false), "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		hold(t, rdb, "k")
		for name, call := range map[string]func(context.Context) error{
			"Enqueue":   func(ctx context.Context) error { _, err := task.Enqueue(ctx, 1); return err },
			"EnqueueIn": func(ctx context.Context) error { _, err := task.EnqueueIn(ctx, 1, 1); return err },
			"Do":        func(ctx context.Context) error { _, err := task.Do(ctx, 1, sidestep.Defer(1)); return err },
			"Do, NotBefore": func(ctx context.Context) error {
				_, err := task.Do(ctx, 1, sidestep.Defer(1).NotBefore())
				return err
			},
			"Cancel":     func(ctx context.Context) error { _, err := q.Cancel(ctx, "x"); return err },
			"Reschedule": func(ctx context.Context) error { _, err := q.Reschedule(ctx, "x", 1); return err },
			"Revive":     func(ctx context.Context) error { _, err := q.Revive(ctx, "x"); return err },
			"Stats":      func(ctx context.Context) error { _, err := q.Stats(ctx); return err },
			"Get":        func(ctx context.Context) error { _, err := q.Get(ctx, "x"); return err },
			"Dead":       func(ctx context.Context) error { _, err := q.Dead(ctx, 1); return err },
			"Line":       func(ctx context.Context) error { _, err := q.Line(ctx, "k", 1); return err },
		} {
			cause := errors.New("no patience")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, cause)
			began := time.Now()
			err := call(ctx)
			if took := time.Since(began); took < 200*time.Millisecond || took > 300*time.Millisecond {
				t.Errorf("%s with a deadline of 200ms took %v", name, took)
			}
			if !errors.Is(err, cause) || !errors.Is(err, sidestep.ErrAmbiguous) || errors.Is(err, sidestep.ErrUnavailable) {
				t.Errorf("%s = %v, want the cause and ErrAmbiguous", name, err)
			}
			began = time.Now()
			if err = call(ctx); !errors.Is(err, cause) || errors.Is(err, sidestep.ErrAmbiguous) || time.Since(began) > 0 {
				t.Errorf("%s with an ended context = %v, want the cause, at once, and nothing sent", name, err)
			}
			cancel()
		}
	})
}

// All are told at once, and for hintTimeout together.
func TestQueuesThatHangHoldUpASectionOnce(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		dead := hanging(t, false)
		d := newDeferring(t, rdb, "healthy")
		names := []string{"a", "b", "c"}
		for _, name := range names {
			sidestep.NewQueue(d.acq, dead, name, sidestep.QueueConfig{})
		}
		start(t, d.queue)
		var ended time.Time
		err := d.acq.Do(t.Context(), "k", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
			for _, name := range names {
				if _, _, err := d.acq.Locker().Look(ctx, "k", listq.New(dead, name, listq.Config{}).Key()); err != nil {
					return err
				}
			}
			deferred(t, d.task, 1, sidestep.Defer(time.Hour))
			ended = time.Now()
			return nil
		})
		if took := time.Since(ended); err != nil || took > 2100*time.Millisecond {
			t.Errorf("Do = %v, %v after its function, want 2s at most", err, took)
		}
		wantAt(t, d.ran, 0, 10*time.Millisecond)
	})
}

// A connection on which an inspection was refused gives no other command its replies.
// In virtual time they would all be there at once, and go-redis notices that.
func TestRefusedInspectionsLeaveNoReplies(t *testing.T) {
	t.Parallel()
	srv := sidesteptest.New()
	t.Cleanup(srv.Close)
	rdb := srv.Client()
	t.Cleanup(func() { rdb.Close() })
	q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
	ctx := t.Context()
	for name, look := range map[string]func() error{
		"Stats": func() error { _, err := q.Stats(ctx); return err },
		"Get":   func() error { _, err := q.Get(ctx, "x"); return err },
	} {
		srv.SetError("LOADING Redis is loading the dataset in memory")
		for range 3 {
			if err := look(); !errors.Is(err, sidestep.ErrUnavailable) {
				t.Errorf("%s = %v, want ErrUnavailable", name, err)
			}
		}
		srv.SetError("")
		for i := range 12 {
			var echo *redis.StringCmd
			var count *redis.IntCmd
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				echo, count = p.Echo(ctx, i), p.HIncrBy(ctx, name, "n", 1)
				return nil
			})
			if err != nil || echo.Val() != fmt.Sprint(i) || count.Val() != int64(i+1) {
				t.Errorf("after %s: ECHO %d = %v, HINCRBY = %v, %v", name, i, echo, count, err)
			}
		}
	}
}
