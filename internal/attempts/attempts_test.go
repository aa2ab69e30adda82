package attempts_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
)

type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestErr(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, tt := range []struct {
		writes int
		err    error
		want   bool
	}{
		{0, refused, false},
		{1, refused, true},
		{0, redis.ErrPoolTimeout, false},
		{1, redis.ErrPoolTimeout, true},
		{1, reply("OOM"), false},
		{2, reply("OOM"), true},
		{1, io.EOF, false}, // which says by itself that it may have run
		{2, io.EOF, true},
		{2, nil, false},
	} {
		w := attempts.NewWord([]byte("sha"))
		for range tt.writes {
			if b, err := w.MarshalBinary(); string(b) != "sha" || err != nil {
				t.Fatalf("MarshalBinary = %q, %v", b, err)
			}
		}
		err := w.Err(tt.err)
		if attempts.Repeated(err) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("written %d times: Err(%v) = %v, Repeated: %v", tt.writes, tt.err, err, !tt.want)
		}
		if tt.want && fmt.Sprint(attempts.Again(err)) != fmt.Sprint(err) {
			t.Errorf("Again(%v) is another error", err)
		}
		w.Set([]byte("other"))
		if attempts.Repeated(w.Err(tt.err)) || !w.Is([]byte("other")) || fmt.Sprint(w) != "other" {
			t.Errorf("Set: %v", w)
		}
	}
}

func TestOnce(t *testing.T) {
	w := attempts.NewOnce([]byte("word"))
	if w.Written() || fmt.Sprint(w) != "word" {
		t.Errorf("at first: %v, written: %v", w, w.Written())
	}
	if b, err := w.MarshalBinary(); string(b) != "word" || err != nil || !w.Written() {
		t.Errorf("MarshalBinary = %q, %v, written: %v", b, err, w.Written())
	}
	for range 2 {
		if b, err := w.MarshalBinary(); b != nil || err == nil || !w.Written() {
			t.Errorf("again: MarshalBinary = %q, %v, written: %v", b, err, w.Written())
		}
	}
}
