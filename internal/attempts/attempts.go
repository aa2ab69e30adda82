// Package attempts tells how often go-redis sent a command. It repeats one whose answer was
// lost, by itself, and its error is that of the last attempt: a dial that was refused does
// not say that the command never ran.
package attempts

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// Word is one of a command's words, and counts how often that is written.
type Word struct {
	text   []byte
	writes int32 // atomic
	aside  bool
}

// NewWord returns a word that has not been written. It keeps text.
func NewWord(text []byte) *Word { return &Word{text: text} }

// Set makes w what NewWord returns.
func (w *Word) Set(text []byte) { *w = Word{text: text} }

// MarshalBinary is called by go-redis as it writes the command.
func (w *Word) MarshalBinary() ([]byte, error) {
	atomic.AddInt32(&w.writes, 1)
	return w.text, nil
}

// String is for those who print commands.
func (w *Word) String() string { return string(w.text) }

// Is reports whether the word is text.
func (w *Word) Is(text []byte) bool { return bytes.Equal(w.text, text) }

// SetAside says that the command is never sent, for another has brought its answer: no hook
// of the client has seen it, or will.
func (w *Word) SetAside() { w.aside = true }

// Aside reports whether that is so.
func (w *Word) Aside() bool { return w.aside }

// Err returns err, the command's, as one that matches [Repeated] if there was an attempt
// before the one that it tells of.
func (w *Word) Err(err error) error {
	before := atomic.LoadInt32(&w.writes)
	if !Unsent(err) {
		before--
	}
	if before > 0 {
		return Again(err)
	}
	return err
}

// Once is a command's word that is written once: a second attempt is an error.
type Once struct {
	text   []byte
	writes int32 // atomic
}

// NewOnce returns a word that has not been written. It keeps text.
func NewOnce(text []byte) *Once { return &Once{text: text} }

var errTwice = errors.New("a command that may have run is not sent again")

// MarshalBinary is called by go-redis as it writes the command.
func (w *Once) MarshalBinary() ([]byte, error) {
	if atomic.AddInt32(&w.writes, 1) > 1 {
		return nil, errTwice
	}
	return w.text, nil
}

// String is for those who print commands.
func (w *Once) String() string { return string(w.text) }

// Written reports whether the word was written.
func (w *Once) Written() bool { return atomic.LoadInt32(&w.writes) > 0 }

// Unsent reports whether err is that of an attempt which did not come to sending anything.
func Unsent(err error) bool {
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// Again returns err as that of a command which had been sent before. Nil stays nil.
func Again(err error) error {
	if err == nil || Repeated(err) {
		return err
	}
	return &repeated{err}
}

// Repeated reports whether err is that of a command which may have run before its last
// attempt, whatever became of that.
func Repeated(err error) bool {
	_, ok := errors.AsType[*repeated](err)
	return ok
}

type repeated struct{ err error }

func (e *repeated) Error() string { return e.err.Error() + " (an attempt before may have run)" }
func (e *repeated) Unwrap() error { return e.err }
