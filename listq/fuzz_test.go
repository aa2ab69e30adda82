package listq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// FuzzDecode: a stored form of any origin is decoded to no more than it holds, or
// not at all; what is decoded is written and read again as the same.
func FuzzDecode(f *testing.F) {
	huge := binary.AppendUvarint([]byte{version}, 1<<62)
	f.Add(huge)                                                               // a task of four exabytes
	f.Add(append(binary.AppendUvarint([]byte{version, 0, 0}, 1<<63), 1, 'a')) // so many headers
	f.Add([]byte{version, 0, 0, 2, 1, 'a', 1, 'b', 1, 'a', 1, 'c', 'p'})      // one header twice
	f.Add([]byte{version, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1})
	f.Add([]byte{2, 0, 0, 0})
	f.Add([]byte{})
	f.Add([]byte(encode(&Request{Task: "t", Lock: "l", Payload: []byte("{}"), Headers: map[string]string{"a": "b", "": ""}})))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decode("id", string(body))
		if err != nil {
			if r.ID != "id" || r.Task != "" || r.Lock != "" || r.Payload != nil || r.Headers != nil {
				t.Errorf("decode(%q) = %+v with %v, want the id alone", body, r, err)
			}
			return
		}
		size := len(r.Task) + len(r.Lock) + len(r.Payload)
		for name, value := range r.Headers {
			size += len(name) + len(value)
		}
		if size > len(body) || len(r.Headers) > len(body) {
			t.Errorf("decode of %d bytes gives %d bytes and %d headers", len(body), size, len(r.Headers))
		}
		again, err := decode("id", encode(&r))
		if err != nil || again.Task != r.Task || again.Lock != r.Lock || !bytes.Equal(again.Payload, r.Payload) || !maps.Equal(again.Headers, r.Headers) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", r, again, err)
		}
	})
}

// A length that the body does not hold costs no memory.
func TestDecodeBoundsMemory(t *testing.T) {
	for name, body := range map[string][]byte{
		"task":    binary.AppendUvarint([]byte{version}, 1<<40),
		"lock":    binary.AppendUvarint([]byte{version, 0}, 1<<40),
		"headers": append(binary.AppendUvarint([]byte{version, 0, 0}, 1<<40), 0, 0),
		"value":   binary.AppendUvarint([]byte{version, 0, 0, 1, 0}, 1<<40),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decode("id", string(body))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errTruncated) {
			t.Errorf("%s: %v, want %v", name, err, errTruncated)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", name, grown)
		}
	}
}

// FuzzRequest: what Check accepts arrives as it was sent, and what it refuses is
// refused before anything is sent, with an error that says so and shows no control
// character.
func FuzzRequest(f *testing.F) {
	f.Add("id", "task", "lock", []byte("{}"), "h", "v", int64(0))
	f.Add("", "", "", []byte(nil), "", "", int64(-1))
	f.Add("a\nb", "t", "l", []byte("x"), "h", "v", int64(1))
	f.Add("\x7f", "t", "l\x00", []byte("x"), "h", "v", int64(1))
	f.Add("ü\xff", "\x00", "\n\xff", bytes.Repeat([]byte("\x00"), 100), "\n", "\xff", int64(time.Hour))
	f.Add(strings.Repeat("x", 256), "t", strings.Repeat("l", 1025), []byte(nil), "", "", int64(0))
	f.Add("id", "t", "{}{x}", []byte("["), "|", "|", int64(1<<62))
	f.Add("id", "t", "l", []byte("x"), "h", "v", int64(1<<63-1)) // the longest duration
	rdb := redistest.Mini(f)
	count := redistest.Count(rdb)
	q := New(rdb, "q", Config{MaxPayload: 64, Resend: -1})
	f.Fuzz(func(t *testing.T, id, task, lock string, payload []byte, name, value string, wait int64) {
		ctx := context.Background()
		r := &Request{ID: id, Task: task, Lock: lock, Payload: payload, Headers: map[string]string{name: value}, MaxWait: time.Duration(wait)}
		bad := id != "" && (len(id) > 255 || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f })) ||
			len(lock) > 1024 || strings.Contains(lock, "\x00") || len(payload) > 64 || wait < 0
		before := count.Commands()
		added, err := q.Push(ctx, r)
		if bad {
			if !errors.Is(err, ErrInvalid) || added != 0 || count.Commands() != before {
				t.Fatalf("Push(%+v) = %d, %v after %d commands, want ErrInvalid after none", r, added, err, count.Commands()-before)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("the error %q has a control character", err)
			}
			return
		}
		if err != nil || added != 1 {
			t.Fatalf("Push(%+v) = %d, %v, want 1", r, added, err)
		}
		c, err := q.Claim(ctx, 1)
		if err != nil || len(c.Deliveries) != 1 {
			t.Fatalf("Claim = %d deliveries, %v, want 1", len(c.Deliveries), err)
		}
		d := c.Deliveries[0]
		if d.ID != r.ID || d.Task != task || d.Lock != lock || !bytes.Equal(d.Payload, payload) || !maps.Equal(d.Headers, r.Headers) {
			t.Errorf("claimed %+v, want %+v", d.Request, *r)
		}
		if err := d.Ack(ctx); err != nil {
			t.Fatalf("Ack = %v", err)
		}
	})
}

// FuzzClip: a note is cut to what is stored, at a rune's border.
func FuzzClip(f *testing.F) {
	f.Add("boom")
	f.Add(strings.Repeat("ü", 600))
	f.Add(strings.Repeat("\xff", 2000))
	f.Fuzz(func(t *testing.T, note string) {
		got := clip(note)
		if len(got) > 1024 || len(note) <= 1024 && got != note {
			t.Errorf("clip of %d bytes has %d", len(note), len(got))
		}
	})
}
