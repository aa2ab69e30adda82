package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

func TestStrictOrderThroughAnOutageOfTheLocks(t *testing.T) {
	bubble(t, func(t *testing.T, queues *redis.Client) {
		locks := another(t, redistest.Mini(t))
		var fail atomic.Bool
		locks.AddHook(onCommand{before: func(redis.Cmder) error {
			if fail.CompareAndSwap(true, false) {
				return &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
			}
			return nil
		}})
		q := sidestep.NewQueue(newAcquirer(t, locks, sidestep.Config{}), queues, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler(), sidestep.StrictOrder())
		for v := 1; v <= 3; v++ {
			enqueue(t, task, v)
		}
		fail.Store(true)
		start(t, q)
		ran.wait(t, 3)
		if got := ran.values(); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("ran %v, want 1, 2 and 3", got)
		}
	})
}

// refusal is an error reply of a server.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

// refused returns a client whose scripts of that kind are refused n times.
func refused(t *testing.T, rdb *redis.Client, n int32, kind func(args []string) bool) *redis.Client {
	t.Helper()
	c := another(t, rdb)
	var left atomic.Int32
	left.Store(n)
	c.AddHook(onCommand{before: func(cmd redis.Cmder) error {
		var args []string
		for _, a := range cmd.Args() {
			args = append(args, fmt.Sprint(a))
		}
		if strings.HasPrefix(args[0], "eval") && kind(args) && left.Add(-1) >= 0 {
			return refusal("ERR upstream failure")
		}
		return nil
	}})
	return c
}

// nacks tells whether a script counts a failed attempt.
func nacks(args []string) bool { return slices.Contains(args, "attempt") }

// The queue's own rules would try it again within a second or so.
func TestRefusedNackKeepsTheTasksRules(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("the handler's own words") },
		"panic": func() error { panic("the handler's own words") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				acq := newAcquirer(t, rdb, sidestep.Config{})
				q := sidestep.NewQueue(acq, refused(t, rdb, 1, nacks), "q", sidestep.QueueConfig{})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
					ran.add(ctx, lk, v)
					return fail()
				}, sidestep.MaxAttempts(1), sidestep.Backoff(retry.Constant(time.Hour)))
				r := enqueue(t, task, 1)
				start(t, q)
				time.Sleep(time.Minute)
				info, err := q.Get(t.Context(), r.ID)
				if err != nil || info.Place != "dead" || !strings.Contains(info.Note, "the handler's own words") {
					t.Errorf("Get = %+v, %v, want it dead of what its handler said", info, err)
				}
				if n := len(ran.list()); n != 1 {
					t.Errorf("ran %d times, want once", n)
				}
			})
		})
	}
}

func TestRefusedNackCountsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		const lease = 10 * time.Second
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, refused(t, rdb, 2, nacks), "q", sidestep.QueueConfig{Storage: listq.Config{Lease: lease}})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, lk *lock.Lock, v int) error {
			ran.add(ctx, lk, v)
			if len(ran.list()) == 1 {
				return errors.New("once")
			}
			return nil
		})
		enqueue(t, task, 1)
		start(t, q)
		if got := ran.wait(t, 2)[1]; got.request.Attempts != 0 || got.at > lease+time.Second {
			t.Errorf("ran again after %v with %d attempts, want none and the end of its lease (%v)", got.at, got.request.Attempts, lease)
		}
		wantEmpty(t, rdb, "q")
	})
}

func TestRefusedParkIsNoAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		parks := func(args []string) bool { return strings.HasSuffix(args[len(args)-2], "5000") } // the default policy's delay
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, refused(t, rdb, 1, parks), "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		lk := hold(t, rdb, "k")
		r := enqueue(t, task, 1)
		start(t, q)
		time.Sleep(200 * time.Millisecond)
		info, err := q.Get(t.Context(), r.ID)
		if err != nil || info.Place != "parked" || info.Attempts != 0 {
			t.Errorf("Get = %+v, %v, want it parked without an attempt", info, err)
		}
		release(t, lk)
	})
}
