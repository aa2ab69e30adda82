package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// An ID is remembered when its request is done, however long ago that was accepted.
func TestIDIsRememberedFromTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		start(t, q)
		if _, err := task.EnqueueIn(t.Context(), 2*time.Minute, 1, sidestep.WithID("x")); err != nil {
			t.Fatal(err)
		}
		ran.within(t, 1, 3*time.Minute)
		time.Sleep(100 * time.Millisecond)
		if r := enqueue(t, task, 1, sidestep.WithID("x")); !r.Duplicate {
			t.Errorf("%+v, want a duplicate", r)
		}
	})
}

// A request that got its ID in the call is no duplicate, though its command was sent twice.
func TestOwnRepetitionIsNoDuplicate(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		proxy := redistest.Through(t, rdb)
		storage := proxy.Client(t)
		deferrals := 0
		acq := newAcquirer(t, rdb, sidestep.Config{Hooks: sidestep.Hooks{
			Deferred: func(context.Context, sidestep.DeferredEvent) { deferrals++ },
		}})
		q := sidestep.NewQueue(acq, storage, "again", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		enqueue(t, task, 0) // the scripts are known
		hold(t, rdb, "k")
		deferred(t, task, 1, sidestep.Defer(time.Minute))
		deferrals = 0
		for name, call := range map[string]func() (sidestep.Receipt, error){
			"Enqueue":   func() (sidestep.Receipt, error) { return task.Enqueue(t.Context(), 2) },
			"EnqueueIn": func() (sidestep.Receipt, error) { return task.EnqueueIn(t.Context(), time.Hour, 3) },
			"Do": func() (sidestep.Receipt, error) {
				out, err := task.Do(t.Context(), 4, sidestep.Defer(time.Minute))
				if err != nil {
					return sidestep.Receipt{}, err
				}
				return *out.Deferred, nil
			},
		} {
			lost := proxy.DropReply("{again}")
			if r, err := call(); err != nil || r.Duplicate {
				t.Errorf("%s = %+v, %v, want a request that is new", name, r, err)
			}
			<-lost
		}
		if deferrals != 1 {
			t.Errorf("the hook was told of %d deferrals, want 1", deferrals)
		}
	})
}

// What can be no lock's name is refused before anything is stored.
func TestEnqueueChecksTheLock(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("{x}"), newRuns().handler())
		if _, err := task.Enqueue(t.Context(), 1); !errors.Is(err, sidestep.ErrInvalid) || !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("Enqueue = %v, want ErrInvalid", err)
		} else if strings.Contains(err.Error(), "lock: lock:") {
			t.Errorf("Enqueue = %v, which says it twice", err)
		}
		for _, key := range []string{"", "{x}", strings.Repeat("k", 1025)} {
			if _, err := q.Line(t.Context(), key, 1); !errors.Is(err, sidestep.ErrInvalid) {
				t.Errorf("Line(%.9q) = %v, want ErrInvalid", key, err)
			}
		}
		if _, err := task.Enqueue(t.Context(), 1, nil); !errors.Is(err, sidestep.ErrInvalid) {
			t.Errorf("Enqueue with a nil option = %v, want ErrInvalid", err)
		}
		wantEmpty(t, rdb, "q")
	})
}

// Redis has answered; what it has is of no use.
func TestGetOfAnUndecodableRequest(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		r := enqueue(t, task, 1)
		for _, key := range []string{"msg", "state"} {
			if err := rdb.HSet(t.Context(), "sidestep:{q}:"+key, r.ID, "c of another version").Err(); err != nil {
				t.Fatal(err)
			}
			info, err := q.Get(t.Context(), r.ID)
			if err == nil || key == "msg" && info.Place != "ready" {
				t.Errorf("Get with another %s = %+v, %v, want an error", key, info, err)
			}
			for _, not := range []error{sidestep.ErrUnavailable, sidestep.ErrAmbiguous, sidestep.ErrUnknown} {
				if errors.Is(err, not) {
					t.Errorf("Get with another %s = %v, which is not %v", key, err, not)
				}
			}
		}
	})
}

// Events have the name that calls gave, and errors the key.
func TestNamesInEvents(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		var ran, conflict, request, later string
		l := newLocker(t, rdb, lock.Config{Prefix: "app:"})
		acq := sidestep.New(l, sidestep.Config{Hooks: sidestep.Hooks{
			Ran:      func(_ context.Context, e sidestep.RanEvent) { ran = e.Key },
			Conflict: func(_ context.Context, e sidestep.ConflictEvent) { conflict, request = e.Key, e.Request.Key },
			Deferred: func(_ context.Context, e sidestep.DeferredEvent) { later = e.Receipt.Key },
		}})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		err := acq.Do(t.Context(), "k", sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
			deferred(t, task, 1, sidestep.Defer(time.Second))
			_, err := task.Do(ctx, 2, sidestep.Fail())
			return err
		})
		if ran != "k" || conflict != "k" || request != "k" || later != "k" {
			t.Errorf("the lock is called %q in RanEvent, %q in ConflictEvent, %q in its Request, %q in DeferredEvent, want k", ran, conflict, request, later)
		}
		if e, ok := errors.AsType[*sidestep.LockedError](err); !ok || e.Key != "app:k" {
			t.Errorf("Do = %v, want a LockedError of app:k", err)
		}
	})
}

// Whatever QueueConfig.Context returns, a handler's context ends with the drain timeout.
func TestContextKeepsItsEnd(t *testing.T) {
	type key struct{}
	for name, f := range map[string]func(context.Context, map[string]string) context.Context{
		"another": func(context.Context, map[string]string) context.Context {
			return context.WithValue(context.Background(), key{}, "v")
		},
		"a child": func(ctx context.Context, _ map[string]string) context.Context {
			return context.WithValue(ctx, key{}, "v")
		},
		"nil": func(context.Context, map[string]string) context.Context { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{Context: f, DrainTimeout: time.Second})
				inside := make(chan any, 1)
				task := sidestep.NewTask(q, "t", one("k"), func(ctx context.Context, _ *lock.Lock, _ int) error {
					inside <- ctx.Value(key{})
					select {
					case <-ctx.Done():
					case <-time.After(time.Hour):
					}
					return ctx.Err()
				})
				enqueue(t, task, 1)
				stop := start(t, q)
				if v := <-inside; v != "v" && name != "nil" {
					t.Errorf("the handler's context has %v", v)
				}
				began := time.Now()
				stop()
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("Run took %v to end, with a drain timeout of 1s", d)
				}
			})
		})
	}
}

// A worker whose Locker was closed says so.
func TestWorkerWithAClosedLocker(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		var warned atomic.Int64
		log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) {
			if strings.Contains(string(b), "Locker is closed") {
				warned.Add(1)
			}
		}), nil))
		l := lock.New(rdb, lock.Config{})
		acq := sidestep.New(l, sidestep.Config{Logger: log})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		enqueue(t, sidestep.NewTask(q, "t", one("k"), newRuns().handler()), 1)
		l.Close()
		start(t, q)
		time.Sleep(5 * time.Second)
		if warned.Load() == 0 {
			t.Error("nothing was logged")
		}
		if err := acq.Do(t.Context(), "k", sidestep.Fail(), nop); !errors.Is(err, sidestep.ErrClosed) {
			t.Errorf("Do = %v, want ErrClosed", err)
		}
	})
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

func nop(context.Context, *lock.Lock) error { return nil }

// What was not stored has no receipt; of what may have been it has the ID, by which the
// call is repeated safely.
func TestReceiptBesideAnError(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		slow := another(t, rdb)
		if err := slow.Ping(t.Context()).Err(); err != nil { // connects
			t.Fatal(err)
		}
		slow.AddHook(onCommand{after: func(redis.Cmder) { time.Sleep(time.Second) }})
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), slow, "q", sidestep.QueueConfig{})
		task := sidestep.NewTask(q, "t", one("k"), newRuns().handler())
		type storing func(context.Context, ...sidestep.CallOption) (sidestep.Receipt, error)
		in := func(d time.Duration) storing {
			return func(ctx context.Context, o ...sidestep.CallOption) (sidestep.Receipt, error) {
				return task.EnqueueIn(ctx, d, 1, o...)
			}
		}
		at := func(when time.Time) storing {
			return func(ctx context.Context, o ...sidestep.CallOption) (sidestep.Receipt, error) {
				return task.EnqueueAt(ctx, when, 1, o...)
			}
		}
		now := func(ctx context.Context, o ...sidestep.CallOption) (sidestep.Receipt, error) {
			return task.Enqueue(ctx, 1, o...)
		}
		for name, call := range map[string]func() (sidestep.Receipt, error){
			"an empty ID":       func() (sidestep.Receipt, error) { return now(t.Context(), sidestep.WithID("")) },
			"a negative delay":  func() (sidestep.Receipt, error) { return in(-1)(t.Context()) },
			"a year after 9999": func() (sidestep.Receipt, error) { return at(time.Unix(1<<61, 0))(t.Context()) },
		} {
			if r, err := call(); r != (sidestep.Receipt{}) || !errors.Is(err, sidestep.ErrInvalid) {
				t.Errorf("%s: %+v, %v, want no receipt and ErrInvalid", name, r, err)
			}
		}
		for name, call := range map[string]storing{
			"Enqueue": now, "EnqueueIn": in(time.Hour), "EnqueueAt": at(time.Now().Add(time.Hour)),
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			r, err := call(ctx)
			cancel()
			if r.ID == "" || !errors.Is(err, sidestep.ErrAmbiguous) {
				t.Errorf("%s without an answer = %+v, %v, want an ID and ErrAmbiguous", name, r, err)
			}
			if again, err := call(t.Context(), sidestep.WithID(r.ID)); !again.Duplicate || err != nil {
				t.Errorf("%s again = %+v, %v, want a duplicate", name, again, err)
			}
		}
	})
}

// A time that has passed is at once, the zero time too.
func TestEnqueueAtThePast(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("k"), ran.handler())
		start(t, q)
		if _, err := task.EnqueueAt(t.Context(), time.Time{}, 1); err != nil {
			t.Fatal(err)
		}
		ran.within(t, 1, 5*time.Second)
		if _, err := task.EnqueueAt(t.Context(), time.Unix(1<<61, 0), 1); !errors.Is(err, sidestep.ErrInvalid) {
			t.Errorf("EnqueueAt in the year %d = %v, want ErrInvalid", time.Unix(1<<61, 0).Year(), err)
		}
	})
}

// A call whose context has ended runs nothing, with a lock or without one.
func TestEndedContextRunsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		q := sidestep.NewQueue(newAcquirer(t, rdb, sidestep.Config{}), rdb, "q", sidestep.QueueConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i, key := range []string{"", "k"} {
			ran := false
			task := sidestep.NewTask(q, string(rune('a'+i)), one(key), func(context.Context, *lock.Lock, int) error { ran = true; return nil })
			if _, err := task.Do(ctx, 1, sidestep.Fail()); !errors.Is(err, context.Canceled) || ran {
				t.Errorf("Do with the key %q = %v, and ran: %v", key, err, ran)
			}
		}
	})
}

// Zero policies that mean nothing are refused, and so are nil options.
func TestZeroPolicies(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		acq := newAcquirer(t, rdb, sidestep.Config{})
		if err := acq.Do(t.Context(), "k", sidestep.RetryPolicy{}, nop); !errors.Is(err, sidestep.ErrInvalid) {
			t.Errorf("Do with a zero RetryPolicy = %v, want ErrInvalid", err)
		}
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		defer func() {
			if v, _ := recover().(string); !strings.Contains(v, "nil option") {
				t.Errorf("NewTask panicked with %q", v)
			}
		}()
		sidestep.NewTask(q, "t", one("k"), newRuns().handler(), nil)
	})
}

// A section that releases its lock before it has done its work lets those in who wait for
// the lock, at once, and they are told once.
func TestEarlyReleaseTellsTheQueues(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		warm(t, rdb)
		telling := another(t, rdb)
		acq := newAcquirer(t, rdb, sidestep.Config{Queues: telling})
		d := newDeferring(t, another(t, rdb), "q")
		start(t, d.queue)
		count := redistest.Count(telling)
		if err := acq.Do(t.Context(), "k", sidestep.Fail(), func(_ context.Context, lk *lock.Lock) error {
			deferred(t, d.task, 1, sidestep.Defer(time.Hour))
			release(t, lk)
			d.ran.within(t, 1, time.Second)
			time.Sleep(10 * time.Minute)
			return nil
		}); err != nil {
			t.Error(err)
		}
		if got := count.Commands(); got != 1 {
			t.Errorf("the queue was told with %d commands %v, want 1", got, count.Names())
		}
	})
}

// So does a worker's, and one whose answer is lost tells all.
func TestEarlyReleaseOfAWorkerTellsTheQueues(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("lost ", lost), func(t *testing.T) {
			bubble(t, func(t *testing.T, rdb *redis.Client) {
				own := another(t, rdb)
				var lose atomic.Bool
				own.AddHook(onCommand{after: func(cmd redis.Cmder) {
					if lose.CompareAndSwap(true, false) {
						_ = rdb.Process(context.Background(), cmd) // sent again
					}
				}})
				acq := newAcquirer(t, own, sidestep.Config{})
				if err := acq.Do(t.Context(), "warm", sidestep.Fail(), nop); err != nil { // the scripts are known
					t.Fatal(err)
				}
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
				other := sidestep.NewQueue(acq, rdb, "other", sidestep.QueueConfig{})
				ran := newRuns()
				waiting := sidestep.NewTask(other, "t", one("k"), ran.handler())
				began, leave := make(chan struct{}), make(chan struct{})
				end := make(chan struct{})
				defer close(end)
				task := sidestep.NewTask(q, "t", one("k"), func(_ context.Context, lk *lock.Lock, _ int) error {
					close(began)
					<-leave
					lose.Store(lost)
					release(t, lk)
					<-end
					return nil
				})
				start(t, q)
				start(t, other)
				enqueue(t, task, 1)
				<-began
				deferred(t, waiting, 1, sidestep.Defer(time.Hour))
				close(leave)
				ran.within(t, 1, time.Second)
			})
		})
	}
}

// If the answer to a release is lost, and with it which queues wait for the lock, all that
// the releaser knows are told.
func TestLostReleaseTellsTheQueues(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		proxy := redistest.Through(t, rdb)
		acq := newAcquirer(t, proxy.Client(t), sidestep.Config{})
		if err := acq.Do(t.Context(), "warm", sidestep.Fail(), nop); err != nil { // the scripts are known
			t.Fatal(err)
		}
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		task := sidestep.NewTask(q, "t", one("thelock"), ran.handler())
		start(t, q)
		var lost <-chan struct{}
		if err := acq.Do(t.Context(), "thelock", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			deferred(t, task, 1, sidestep.Defer(time.Hour))
			lost = proxy.DropReply("thelock")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		<-lost
		ran.within(t, 1, 10*time.Second) // the probe is due in an hour
	})
}
