package listq_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func TestInvalidRequests(t *testing.T) {
	rdb := redistest.Mini(t)
	q := listq.New(rdb, "q", listq.Config{MaxPayload: 10})
	count := redistest.Count(rdb)
	for _, tt := range []struct {
		name string
		req  *listq.Request
		want string // in the error's text
	}{
		{"nil", nil, "nil request"},
		{"long id", &listq.Request{ID: strings.Repeat("x", 256)}, "id of 256 bytes"},
		{"id with a newline", &listq.Request{ID: "a\nb"}, "id"},
		{"id with a NUL", &listq.Request{ID: "\x00"}, "id"},
		{"long lock", &listq.Request{Lock: strings.Repeat("x", 1025)}, "lock name of 1025 bytes"},
		{"lock with a NUL", &listq.Request{Lock: "a\x00"}, "lock name"},
		{"large payload", &listq.Request{Payload: make([]byte, 11)}, "payload of 11 bytes"},
		{"negative wait", &listq.Request{MaxWait: -1}, "MaxWait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := q.Push(t.Context(), &listq.Request{ID: "good"}, tt.req)
			if n != 0 || !errors.Is(err, listq.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Push = %d, %v, want ErrInvalid with %q", n, err, tt.want)
			}
		})
	}
	if _, err := q.Push(t.Context(), make([]*listq.Request, 129)...); !errors.Is(err, listq.ErrInvalid) {
		t.Errorf("Push of 129 = %v, want ErrInvalid", err)
	}
	if _, err := q.Revive(t.Context(), ""); !errors.Is(err, listq.ErrInvalid) {
		t.Errorf("Revive of an empty id = %v, want ErrInvalid", err)
	}
	if count.Commands() != 0 {
		t.Errorf("invalid arguments were sent to Redis: %v", count.Names())
	}
}

func TestLimitsAreAccepted(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q: ü", listq.Config{})
		want := &listq.Request{
			ID: strings.Repeat("ü", 127), Lock: strings.Repeat("\xff", 1023) + "\n", Task: "\x00|",
			Payload: []byte("\x00\xff|"), Headers: map[string]string{"": "x", "a": ""}, MaxWait: time.Hour,
		}
		push(t, q, want)
		got := claim(t, q)
		if got.ID != want.ID || got.Lock != want.Lock || got.Task != want.Task || string(got.Payload) != string(want.Payload) || !maps.Equal(got.Headers, want.Headers) {
			t.Errorf("Claim = %+v, want %+v", got.Request, want)
		}
		if err := got.Ack(t.Context()); err != nil {
			t.Errorf("Ack = %v", err)
		}
		empty(t, rdb, q)
	})
}

func TestConstructorsPanic(t *testing.T) {
	rdb := redistest.Mini(t)
	q := listq.New(rdb, "q", listq.Config{})
	for name, fn := range map[string]func(){
		"nil client":     func() { listq.New(nil, "q", listq.Config{}) },
		"typed nil":      func() { listq.New((*redis.Client)(nil), "q", listq.Config{}) },
		"empty name":     func() { listq.New(rdb, "", listq.Config{}) },
		"long name":      func() { listq.New(rdb, strings.Repeat("x", 256), listq.Config{}) },
		"brace":          func() { listq.New(rdb, "a{b", listq.Config{}) },
		"short lease":    func() { listq.New(rdb, "q", listq.Config{Lease: time.Millisecond}) },
		"negative lease": func() { listq.New(rdb, "q", listq.Config{Lease: -1}) },
		"short poll":     func() { listq.New(rdb, "q", listq.Config{Poll: time.Millisecond}) },
		"no slots":       func() { listq.NewSlots(0) },
		"nil handler":    func() { _ = q.Consume(t.Context(), listq.ConsumeConfig{}, nil) },
		"no workers":     func() { _ = q.Consume(t.Context(), listq.ConsumeConfig{Workers: -1}, nothing) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v, ok := recover().(string); !ok || !strings.HasPrefix(v, "listq: ") {
					t.Errorf("panic = %v, want a text that begins with the package's name", v)
				}
			}()
			fn()
		})
	}
}

func FuzzStoredForm(f *testing.F) {
	f.Add("charge", "account:7", []byte("{}"), "traceparent", "00-1", []byte("\x01"))
	f.Add("", "", []byte(nil), "", "", []byte("\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add("\x00", "\xff", []byte("\xff\xff"), "h", "\x80", []byte("\x01\x80"))
	f.Fuzz(func(t *testing.T, task, lock string, payload []byte, name, value string, junk []byte) {
		want := listq.Request{ID: "id", Task: task, Lock: lock, Payload: payload, Headers: map[string]string{name: value, value: name}}
		got, err := listq.Decode("id", listq.Encode(&want))
		if err != nil || got.ID != "id" || got.Task != task || got.Lock != lock || string(got.Payload) != string(payload) ||
			!maps.Equal(got.Headers, want.Headers) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", want, got, err)
		}
		r, err := listq.Decode("id", string(junk)) // must not panic
		if err != nil {
			return
		}
		again, err := listq.Decode("id", listq.Encode(&r))
		if err != nil || again.Task != r.Task || again.Lock != r.Lock || string(again.Payload) != string(r.Payload) || !maps.Equal(again.Headers, r.Headers) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", r, again, err)
		}
	})
}

// IDs that are made are short, valid, and sort by the time at which they were made.
func TestNewID(t *testing.T) {
	var last string
	for range 1000 {
		id, err := listq.NewID()
		if err != nil || listq.CheckID(id) != nil || len(id) != 26 {
			t.Fatalf("NewID = %q, %v, want 26 characters that are valid", id, err)
		}
		if id <= last {
			t.Fatalf("NewID = %q after %q", id, last)
		}
		last = id
	}
}
