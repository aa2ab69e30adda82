package sidestep_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// A key of another program where the lock keeps its own is a clear error, not
// "taken", and strands nothing: once it is gone, the lock can be had at once.
func TestWrongTypeInLockKeys(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		for _, key := range []string{"x", "{x}:fence", "{x}:line", "{x}:parked"} {
			for what, put := range foreignValues {
				if key == "x" && what == "string" {
					continue // that is a lock, of a client of another library
				}
				rdb.FlushDB(ctx)
				put(rdb, key)
				l := newLocker(t, rdb, lock.Config{TTL: time.Second})
				err := l.TryDo(ctx, "x", func(context.Context, *lock.Lock) error { return nil })
				inLine := l.Do(ctx, "x", retry.Limit(retry.Constant(time.Millisecond), 2), func(context.Context, *lock.Lock) error { return nil })
				_, inspected := l.Inspect(ctx, "x")
				_, revoked := l.Revoke(ctx, "x")
				_, _, looked := l.Look(ctx, "x", "q")
				for verb, err := range map[string]error{"TryDo": err, "Do": inLine, "Inspect": inspected, "Revoke": revoked, "Look": looked} {
					if err == nil {
						continue // not every verb looks at every key
					}
					if !errors.Is(err, lock.ErrUnavailable) || errors.Is(err, lock.ErrLocked) || errors.Is(err, lock.ErrAmbiguous) {
						t.Errorf("%s at %q: %s = %v, want an error that Redis refused", what, key, verb, err)
					}
				}
				if key == "x" && err == nil {
					t.Errorf("%s at %q: TryDo entered", what, key)
				}
				rdb.Del(ctx, key)
				if key != "x" { // what an attempt may have left is given back, or ends with its lease
					eventually(t, "the lock is free", func() bool {
						return l.TryDo(ctx, "x", func(context.Context, *lock.Lock) error { return nil }) == nil
					})
				} else if err := l.TryDo(ctx, "x", func(context.Context, *lock.Lock) error { return nil }); err != nil {
					t.Errorf("%s at %q: when it is gone, TryDo = %v, want to enter", what, key, err)
				}
				l.Close()
			}
		}
	})
}

// foreignValues are what another program may keep under a key.
var foreignValues = map[string]func(rdb *redis.Client, key string){
	"string": func(rdb *redis.Client, key string) { rdb.Set(context.Background(), key, "\x00junk\xff", 0) },
	"list":   func(rdb *redis.Client, key string) { rdb.RPush(context.Background(), key, "junk", "\x00") },
	"hash":   func(rdb *redis.Client, key string) { rdb.HSet(context.Background(), key, "junk", "\xff") },
	"set":    func(rdb *redis.Client, key string) { rdb.SAdd(context.Background(), key, "junk") },
	"zset": func(rdb *redis.Client, key string) {
		rdb.ZAdd(context.Background(), key, redis.Z{Score: 1, Member: "junk"})
	},
}

// The same in a queue: each verb works or says what is wrong; nothing crashes,
// and when the key is gone, requests run.
func TestWrongTypeInQueueKeys(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		k := keys.Of(keys.Base("sidestep:", "q"))
		for _, key := range k.All() {
			for what, put := range foreignValues {
				rdb.FlushDB(ctx)
				put(rdb, key)
				acq := newAcquirer(t, rdb, sidestep.Config{})
				q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Storage: listq.Config{Poll: 10 * time.Millisecond}})
				ran := newRuns()
				task := sidestep.NewTask(q, "t", one("a"), ran.handler())
				_, enqueued := task.Enqueue(ctx, 1)
				_, scheduled := task.EnqueueIn(ctx, time.Millisecond, 2)
				_, cancelled := q.Cancel(ctx, "no such id")
				_, stats := q.Stats(ctx)
				_, dead := q.Dead(ctx, 10)
				for verb, err := range map[string]error{"Enqueue": enqueued, "EnqueueIn": scheduled, "Cancel": cancelled, "Stats": stats, "Dead": dead} {
					if err != nil && (!errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrAmbiguous)) {
						t.Errorf("%s at %q: %s = %v, want a definite ErrUnavailable", what, key, verb, err)
					}
				}
				running, stop := context.WithCancel(ctx)
				done := make(chan error, 1)
				go func() { done <- q.Run(running) }()
				// Whoever owned it takes it away; a queue begins anew with that key.
				rdb.FlushDB(ctx)
				if _, err := task.Enqueue(ctx, 3); err != nil {
					t.Errorf("%s at %q: when it is gone, Enqueue = %v", what, key, err)
				}
				// One that was claimed before may run after it.
				eventually(t, fmt.Sprintf("%s at %q: when it is gone, the request runs", what, key), func() bool {
					return slices.Contains(ran.values(), 3)
				})
				stop()
				if err := <-done; err != nil {
					t.Errorf("%s at %q: Run = %v", what, key, err)
				}
			}
		}
	})
}

// The largest payload is accepted, one byte more is refused before anything is
// sent; the same for the other bounds.
func TestPayloadLimit(t *testing.T) {
	redistest.Each(t, func(t *testing.T, plain *redis.Client) {
		rdb := another(t, plain)
		count := redistest.Count(rdb)
		acq := newAcquirer(t, rdb, sidestep.Config{})
		for name, c := range map[string]struct{ set, limit int }{"default": {0, 1 << 20}, "small": {10, 10}, "large": {3 << 20, 3 << 20}} {
			q := sidestep.NewQueue(acq, rdb, name, sidestep.QueueConfig{Codec: raw{}, Storage: listq.Config{MaxPayload: c.set}})
			got := make(chan int, 1)
			task := sidestep.NewTask(q, "t", func([]byte) string { return "" }, func(_ context.Context, _ *lock.Lock, v []byte) error {
				got <- len(v)
				return nil
			})
			before := count.Commands()
			_, err := task.Enqueue(t.Context(), make([]byte, c.limit+1))
			_, err2 := task.Do(t.Context(), make([]byte, c.limit+1), sidestep.Defer(time.Second))
			_, err3 := task.EnqueueIn(t.Context(), time.Second, make([]byte, c.limit+1))
			for _, err := range []error{err, err2, err3} {
				if !errors.Is(err, sidestep.ErrInvalid) || !strings.Contains(err.Error(), "MaxPayload") {
					t.Errorf("%s: one byte too many gives %v, want ErrInvalid that names MaxPayload", name, err)
				}
			}
			if n := count.Commands() - before; n != 0 {
				t.Errorf("%s: %d commands were sent for it", name, n)
			}
			if _, err := task.Enqueue(t.Context(), make([]byte, c.limit)); err != nil {
				t.Errorf("%s: the largest payload gives %v", name, err)
			}
			stop := start(t, q)
			if n := <-got; n != c.limit {
				t.Errorf("%s: the handler got %d bytes, want %d", name, n, c.limit)
			}
			stop()
		}
	})
}

// raw is a codec that leaves bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

// A stored request that no program of ours has written, or that its task cannot
// read, is dead with the reason, and the next one runs.
func TestHostileBodies(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		acq := newAcquirer(t, rdb, sidestep.Config{})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		ran := newRuns()
		sidestep.NewTask(q, "t", one("a"), ran.handler())
		good := listq.Request{ID: "good", Task: "t", Lock: "a", Payload: []byte("7")}
		list := listq.New(rdb, "q", listq.Config{})
		bodies := map[string][]byte{
			"deep":      []byte(strings.Repeat("[", 100_000)),
			"open":      []byte(`{"a":`),
			"nul":       []byte("\x00"),
			"utf-8":     []byte("\"\xff\xfe\""),
			"large":     []byte(`"` + strings.Repeat("x", 1<<19) + `"`),
			"number":    []byte("1e999999"),
			"empty":     {},
			"ctrl":      []byte("\x1b[2J\n\r"),
			"duplicate": []byte(`{"v":1,"v":2}`),
		}
		for name, body := range bodies {
			if _, err := list.Push(ctx, &listq.Request{ID: name, Task: "t", Lock: "a", Payload: body}); err != nil {
				t.Fatal(err)
			}
		}
		junk := map[string]string{
			"version": "\x09", "gone": "", "truncated": "\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "headers": "\x01\x00\x00\xff\xff\xff\xff\x0f",
		}
		for id, body := range junk {
			if _, err := list.Push(ctx, &listq.Request{ID: id, Task: "t", Lock: "a", Payload: []byte("1")}); err != nil {
				t.Fatal(err)
			}
			rdb.HSet(ctx, scripts(rdb, "q").Keys().Msg(), id, body)
		}
		if _, err := list.Push(ctx, &good); err != nil {
			t.Fatal(err)
		}
		start(t, q)
		ran.wait(t, 1)
		if got := ran.values(); len(got) != 1 || got[0] != 7 {
			t.Errorf("ran %v, want the good one alone", got)
		}
		dead, err := q.Dead(ctx, 100)
		if err != nil || len(dead) != len(bodies)+len(junk) {
			t.Errorf("%d are dead, %v, want %d", len(dead), err, len(bodies)+len(junk))
		}
		for _, d := range dead {
			s, ok := peek(t, rdb, "q", d.ID)
			if !ok || !strings.HasPrefix(s.Note, "undecodable") || len(s.Note) > 1024 {
				t.Errorf("%s is dead of %.100q (%d bytes)", d.ID, s.Note, len(s.Note))
			}
		}
	})
}

// Names of any bytes serve as they are, or are refused before anything is sent
// with an error of one line: none can forge a line of a log.
func TestHostileNames(t *testing.T) {
	names := []string{
		"", "\x00", "a\nb", "a\rb", "\x1b[31m", "\x7f", "\xff\xfe", "a b", "a|b", "%s%n", "{", "}", "{}", "{x}", "{x}:fence", "}x", "{}x}:line", "ü\u2028",
		strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 1024), strings.Repeat("x", 1025), "' or 1=1", "*", "-1", "nan",
	}
	redistest.Each(t, func(t *testing.T, plain *redis.Client) {
		ctx := t.Context()
		rdb := another(t, plain)
		count := redistest.Count(rdb)
		acq := newAcquirer(t, rdb, sidestep.Config{})
		l := acq.Locker()
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
		name := ""
		task := sidestep.NewTask(q, "t", func(int) string { return name }, func(context.Context, *lock.Lock, int) error { return nil })
		check := func(what string, err error, before int64) {
			t.Helper()
			if err == nil {
				return
			}
			if !errors.Is(err, sidestep.ErrInvalid) && !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("%s with %q = %v, want nil or ErrInvalid", what, name, err)
			}
			if n := int64(count.Commands()) - before; n != 0 {
				t.Errorf("%s with %q sent %d commands and then refused", what, name, n)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%s with %q: the error %q has a control character", what, name, err)
			}
		}
		for _, name = range names {
			n := int64(count.Commands())
			check("Do", acq.Do(ctx, name, sidestep.Fail(), func(context.Context, *lock.Lock) error { return nil }), n)
			n = int64(count.Commands())
			lk, err := l.TryAcquire(ctx, "owned", lock.WithOwner(name))
			check("WithOwner", err, n)
			if err == nil {
				_, refused := l.TryAcquire(ctx, "owned")
				locked, ok := errors.AsType[*lock.LockedError](refused)
				if !ok || locked.Owner != name {
					t.Errorf("owner %q is shown as %v", name, refused)
				}
				if strings.ContainsFunc(refused.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("owner %q: the refusal %q has a control character", name, refused)
				}
				release(t, lk)
			}
			n = int64(count.Commands())
			_, err = task.Enqueue(ctx, 1) // its lock is the name
			check("a task's lock", err, n)
			n = int64(count.Commands())
			_, err = task.EnqueueIn(ctx, time.Hour, 1, sidestep.WithID(name+"-"))
			check("WithID", err, n)
			n = int64(count.Commands())
			_, err = q.Cancel(ctx, name)
			check("Cancel", err, n)
			n = int64(count.Commands())
			_, err = task.Enqueue(ctx, 1, sidestep.WithHeaders(map[string]string{name: name}))
			check("WithHeaders", err, n)
		}
	})
}

// JSON that is deeper than the decoder goes is refused by it, not by a stack that
// overflows.
func TestDeepJSON(t *testing.T) {
	var v any
	if err := sidestep.JSON.Unmarshal([]byte(strings.Repeat("[", 1<<20)), &v); err == nil || json.Valid([]byte(strings.Repeat("[", 1<<20))) {
		t.Errorf("Unmarshal of a million brackets = %v, want an error", err)
	}
}
