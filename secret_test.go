package sidestep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
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

// secretPatterns are what a lock's token looks like on the wire, and a lease's.
var secretPatterns = []*regexp.Regexp{
	regexp.MustCompile(`[A-Z2-7]{13}\.[0-9a-f]{8}\.[0-9a-f]{32}`),
	regexp.MustCompile(`\b[0-9a-f]{16}:\d+\b`),
}

// secrets is a redis.Hook that collects all tokens that are sent.
type secrets struct {
	mu   sync.Mutex // guards the field below
	seen map[string]bool
}

func (s *secrets) look(cmd redis.Cmder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, arg := range cmd.Args() {
		var text string
		switch arg := arg.(type) {
		case string:
			text = arg
		case *string:
			text = *arg
		case []byte:
			text = string(arg)
		}
		for _, p := range secretPatterns {
			for _, token := range p.FindAllString(text, -1) {
				s.seen[token] = true
			}
		}
	}
}

func (s *secrets) DialHook(next redis.DialHook) redis.DialHook { return next }
func (s *secrets) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.look(cmd)
		return next(ctx, cmd)
	}
}

func (s *secrets) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			s.look(cmd)
		}
		return next(ctx, cmds)
	}
}

// in returns the tokens that a text shows whole.
func (s *secrets) in(text string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.seen {
		if strings.Contains(text, token) {
			found = append(found, token)
		}
	}
	return found
}

// printed is all that a program might print of a run.
type printed struct {
	mu  sync.Mutex // guards the field below
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

// print prints values in all ways, as careless debugging does.
func (p *printed) print(what string, values ...any) {
	for _, v := range values {
		js, _ := json.Marshal(v)
		fmt.Fprintf(p, "%s: %v | %+v | %#v | %s | %q | %s\n", what, v, v, v, v, v, js)
		slog.New(slog.NewJSONHandler(p, nil)).Info("printed", "of", what, "value", v)
		slog.New(slog.NewTextHandler(p, nil)).Info("printed", "of", what, "value", v)
	}
}

// No token of a lock or a lease is in a log, an error, an event, or in what the
// library's types print as, whatever goes wrong.
func TestTokensStaySecret(t *testing.T) {
	redistest.Each(t, func(t *testing.T, plain *redis.Client) {
		rdb := another(t, plain)
		s := &secrets{seen: make(map[string]bool)}
		rdb.AddHook(s)
		faulty := another(t, plain)
		faulty.AddHook(s)
		var fail atomic.Pointer[error] // nil, or what every command fails with
		faulty.AddHook(onCommand{before: func(redis.Cmder) error {
			if err := fail.Load(); err != nil {
				return *err
			}
			return nil
		}})

		out := &printed{}
		log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		print := out.print
		cfg := lock.Config{
			TTL: 10 * time.Second, Logger: log, Owner: "me",
			Hooks: lock.Hooks{
				Acquired: func(_ context.Context, e lock.AcquiredEvent) { print("acquired", e) },
				Released: func(_ context.Context, e lock.ReleasedEvent) { print("released", e) },
				Lost:     func(_ context.Context, e lock.LostEvent) { print("lost", e) },
				Extended: func(_ context.Context, e lock.ExtendedEvent) { print("extended", e) },
			},
		}
		l := newLocker(t, rdb, cfg)
		ctx := t.Context()

		lk, err := l.TryAcquire(ctx, "a")
		print("acquired", lk, err, l, cfg)
		_, err = l.TryAcquire(ctx, "a")
		print("refused", err, errors.Unwrap(err))
		st, err := l.Inspect(ctx, "a")
		print("inspected", st, err)
		token := lk.Token()
		_, err = l.Adopt(ctx, "other", token)
		print("adopted", err)
		_, err = l.Adopt(ctx, "other", "x"+token)
		print("adopted", err)
		waiting, cancel := context.WithCancelCause(ctx)
		go func() { cancel(errors.New("enough")) }()
		print("gave up", l.Do(waiting, "a", retry.Constant(time.Millisecond), func(context.Context, *lock.Lock) error { return nil }))
		_, err = l.Revoke(ctx, "a")
		print("revoked", err, lk.Extend(ctx), lk.Release(ctx), lk)

		// Of another type, so that the scripts fail.
		plain.LPush(ctx, "b", "x")
		_, err = l.TryAcquire(ctx, "b")
		print("wrong type", err, errors.Unwrap(err))

		acq := sidestep.New(l, sidestep.Config{Logger: log, Hooks: sidestep.Hooks{
			Conflict: func(_ context.Context, e sidestep.ConflictEvent) { print("conflict", e) },
			Deferred: func(_ context.Context, e sidestep.DeferredEvent) { print("deferred", e) },
			Ran:      func(_ context.Context, e sidestep.RanEvent) { print("ran", e) },
			Dead:     func(_ context.Context, e sidestep.DeadEvent) { print("dead", e) },
		}})
		q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Storage: listq.Config{Hooks: listq.Hooks{
			Stale: func(_ context.Context, d *listq.Delivery) { print("stale", d) },
			Panic: func(_ context.Context, d *listq.Delivery, v any, stack []byte) { print("panic", d, v, string(stack)) },
		}}})
		ran := make(chan struct{}, 10)
		task := sidestep.NewTask(q, "t", one("a"), func(ctx context.Context, lk *lock.Lock, v int) error {
			print("handler", ctx, lk, sidestep.RequestFrom(ctx))
			defer func() { ran <- struct{}{} }()
			if v == 2 && sidestep.RequestFrom(ctx).Attempts == 0 {
				panic(fmt.Errorf("with %v", lk))
			}
			return nil
		}, sidestep.Backoff(retry.Constant(time.Millisecond)))
		print("task", task, q, acq)
		for v := range 3 {
			r, err := task.Enqueue(ctx, v)
			print("enqueued", r, err)
		}
		stop := start(t, q)
		for range 4 {
			<-ran
		}
		stop()

		// A delivery whose lease passed to another.
		list := listq.New(rdb, "list", listq.Config{Logger: log})
		if _, err := list.Push(ctx, &listq.Request{ID: "r", Payload: []byte("payload")}); err != nil {
			t.Fatal(err)
		}
		c, err := list.Claim(ctx, 1)
		if err != nil || len(c.Deliveries) != 1 {
			t.Fatalf("Claim = %+v, %v", c, err)
		}
		d := c.Deliveries[0]
		print("delivery", d, c, c.Deliveries)
		plain.HDel(ctx, scripts(plain, "list").Keys().State(), "r")
		print("stale", d.Extend(ctx), d.Ack(ctx), d.Ack(ctx))

		// A server that is gone, and one that quotes what it was sent.
		other := newLocker(t, faulty, cfg)
		lk, err = other.TryAcquire(ctx, "c")
		print("acquired", lk, err)
		for _, text := range []string{"dial tcp: connection refused", "LOADING Redis is loading"} {
			failure := errors.New(text)
			fail.Store(&failure)
			print("failing", lk.Extend(ctx), other)
			_, err := other.TryAcquire(ctx, "d")
			print("failing", err)
		}
		fail.Store(nil)
		print("released", lk.Release(ctx))

		s.mu.Lock()
		n := len(s.seen)
		s.mu.Unlock()
		if n < 8 {
			t.Fatalf("only %d tokens were sent: the patterns are out of date", n)
		}
		for _, line := range strings.Split(out.text(), "\n") {
			if found := s.in(line); len(found) > 0 {
				t.Errorf("shows %q: %.300s", found, line)
			}
		}
	})
}

// The sources log constant messages, and never a token or a value of a lock key.
func TestSourcesLogNoSecrets(t *testing.T) {
	secret := regexp.MustCompile(`(?i)(Logger|log)\.(Debug|Info|Warn|Error)\w*\([^\n]*(token|\.value|password|payload|secret|\bURL\b)`)
	files, err := goFiles(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 40 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if m := secret.FindString(string(text)); m != "" {
			t.Errorf("%s: %s", f, m)
		}
	}
}
