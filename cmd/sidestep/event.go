package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// kind says what happened to a request.
type kind string

const (
	kindReady     kind = "ready"     // the process can work; no request
	kindCalled    kind = "called"    // a caller makes the request
	kindBegin     kind = "begin"     // its section begins
	kindEnd       kind = "end"       // its section ends; Text is the handler's error
	kindRan       kind = "ran"       // answer to the caller: it ran
	kindDeferred  kind = "deferred"  // answer to the caller: it was stored
	kindLocked    kind = "locked"    // answer to the caller: its policy gave up
	kindFailed    kind = "failed"    // answer to the caller: another error
	kindStopped   kind = "stopped"   // answer to the caller: the run was ended
	kindPostponed kind = "postponed" // a worker met a held lock and put it back
	kindDead      kind = "dead"      // it will not run; Text is the reason
	kindFault     kind = "fault"     // the library dealt with a fault; no request
)

// event is one thing that happened, as a process reports it. Times are those of
// the clock that all processes share.
type event struct {
	Kind       kind          `json:"k"`
	At         int64         `json:"at"`
	ID         string        `json:"id,omitempty"`
	Section    int64         `json:"s,omitempty"` // of this process: ties begin and end
	Fence      int64         `json:"f,omitempty"`
	Deliveries int           `json:"n,omitempty"`
	Owner      string        `json:"o,omitempty"`
	RetryAfter time.Duration `json:"ra,omitempty"`
	Text       string        `json:"t,omitempty"`
}

// answers tells whether the event ends a direct call.
func (e event) answers() bool {
	switch e.Kind {
	case kindRan, kindDeferred, kindLocked, kindFailed, kindStopped:
		return true
	}
	return false
}

// eventWriter writes events as JSON Lines, each at once: what a process that is
// killed has done must be known.
type eventWriter struct {
	mu  sync.Mutex // guards the field below
	enc *json.Encoder
}

func newEventWriter(w io.Writer) *eventWriter { return &eventWriter{enc: json.NewEncoder(w)} }

func (w *eventWriter) emit(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.enc.Encode(e) // the reader is gone, and this process ends soon
}
