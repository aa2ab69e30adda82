package listq

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sidestep-go/sidestep/internal/script"
)

// Request is work to be done. It must not be changed, nor be given to two methods
// at a time, while a method that accepts it runs.
type Request struct {
	// ID names the request, for cancelling it and for recognising it when it is
	// pushed twice: 1 to 255 bytes without control characters. If empty, the
	// method that accepts the request sets it to a [NewID].
	ID string
	// Task says what is to be done, in the application's words. May be empty.
	Task string
	// Lock names the lock that the work needs: at most 1 KiB, without NUL. Requests
	// with the same lock run one at a time, in order. Empty: none.
	Lock string
	// Payload is passed on as it is.
	Payload []byte
	// Headers are passed on as they are, such as a trace context. May be nil.
	Headers map[string]string
	// MaxWait is the age, counted from when it was accepted, at which the request is
	// dead instead of standing in line for its lock. A scheduled delay and backoffs count,
	// too. Only the oldest in line is looked at: one behind it does not run once it is
	// over its MaxWait, but it is dead only when it has become the oldest. 0: none.
	MaxWait time.Duration
}

// entry checks a request, gives it an ID if it has none, and returns it in the
// form in which it is stored.
func (q *Queue) entry(r *Request) (script.Entry, error) {
	made := r != nil && r.ID == ""
	if made {
		id, err := NewID()
		if err != nil {
			return script.Entry{}, err
		}
		r.ID = id
	}
	if err := q.Check(r); err != nil {
		return script.Entry{}, err
	}
	return script.Entry{ID: r.ID, Body: encode(r), Lock: r.Lock, MaxWait: r.MaxWait, New: made}, nil
}

// NewID returns a new ID for a request, as the methods make that accept one
// without: a UUID (version 7) in 26 characters of base32hex, lower case, which
// sort like the UUIDs. In Redis it stands in three places for each request, so it
// is not the longer text that people know.
func NewID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return idText.EncodeToString(id[:]), nil
}

var idText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Check returns an error that matches [ErrInvalid], and names what is wrong,
// unless the queue can accept r. It sends nothing.
func (q *Queue) Check(r *Request) error {
	if r == nil {
		return fmt.Errorf("%w: nil request", ErrInvalid)
	}
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if err := CheckLock(r.Lock); err != nil {
		return err
	}
	if limit := q.cfg.MaxPayload; limit > 0 && len(r.Payload) > limit {
		return fmt.Errorf("%w: payload of %d bytes, more than MaxPayload (%d)", ErrInvalid, len(r.Payload), limit)
	}
	if r.MaxWait < 0 {
		return fmt.Errorf("%w: MaxWait is negative (%v)", ErrInvalid, r.MaxWait)
	}
	return nil
}

// CheckID returns an error that matches [ErrInvalid] unless id can be a
// request's ID.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: empty id", ErrInvalid)
	case len(id) > 255:
		return fmt.Errorf("%w: id of %d bytes, more than 255", ErrInvalid, len(id))
	case strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: id %q has a control character", ErrInvalid, id)
	}
	return nil
}

// CheckLock returns an error that matches [ErrInvalid] unless lock can be a
// request's lock. Empty is valid.
func CheckLock(lock string) error {
	switch {
	case len(lock) > 1024:
		return fmt.Errorf("%w: lock name of %d bytes, more than 1024", ErrInvalid, len(lock))
	case strings.Contains(lock, "\x00"):
		return fmt.Errorf("%w: lock name %q has a NUL", ErrInvalid, lock)
	}
	return nil
}

// The stored form: a version byte; task, lock, and the number of headers with
// each name and value, all with their lengths; then the payload.
const version = 1

func encode(r *Request) string {
	b := make([]byte, 0, 16+len(r.Task)+len(r.Lock)+len(r.Payload))
	b = append(b, version)
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(r.Task)
	text(r.Lock)
	b = binary.AppendUvarint(b, uint64(len(r.Headers)))
	names := make([]string, 0, len(r.Headers))
	for name := range r.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text(name)
		text(r.Headers[name])
	}
	b = append(b, r.Payload...)
	return string(b)
}

var errTruncated = errors.New("request is truncated")

func decode(id, body string) (Request, error) {
	r := Request{ID: id}
	if body == "" {
		return r, errTruncated
	}
	if body[0] != version {
		return r, fmt.Errorf("request has version %d, this program knows %d", body[0], version)
	}
	b := []byte(body[1:])
	ok := true
	size := func() uint64 {
		n, used := binary.Uvarint(b)
		if used <= 0 {
			ok = false
			return 0
		}
		b = b[used:]
		return n
	}
	text := func() string {
		n := size()
		if !ok || n > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	r.Task = text()
	r.Lock = text()
	if n := size(); n > 0 && ok {
		r.Headers = make(map[string]string)
		for ; n > 0 && ok; n-- {
			name := text()
			r.Headers[name] = text()
		}
	}
	if !ok {
		return Request{ID: id}, errTruncated
	}
	r.Payload = b
	return r, nil
}
