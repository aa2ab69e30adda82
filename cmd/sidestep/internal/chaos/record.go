package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/history"
)

// what says what a record is about.
type what string

const (
	// Of a client and its requests.
	offered  what = "offered"  // the call is about to be made
	accepted what = "accepted" // it was stored: it must run
	ran      what = "ran"      // it ran in the call
	failed   what = "failed"   // the call returned an error
	// Of a section.
	entered what = "entered" // by its handler's first statement
	left    what = "left"    // by its last
	// Of the lock history.
	operation what = "op" // Number ties the last word on it to the first
	// Of the library.
	coped what = "coped" // with a fault, and logged it
	died  what = "died"  // a request went to the dead
)

// record is a line in a member's file. Times are those of the clock that all
// processes of a machine share.
type record struct {
	What   what   `json:"w"`
	At     int64  `json:"at"`
	ID     string `json:"id,omitempty"`
	Key    string `json:"key,omitempty"`
	Number int64  `json:"n,omitempty"` // of the section, or the operation, in its process
	Fence  int64  `json:"f,omitempty"`

	// Valid is the last time at which the section's context had not ended and its
	// lease not run out; 0: at none that was looked at.
	Valid int64 `json:"v,omitempty"`
	// Late is how long after its lease had run out the context was seen not to have
	// ended, in nanoseconds.
	Late int64 `json:"late,omitempty"`
	// Wrote is what the register said to the section's write: ok, stale, or an error.
	Wrote string `json:"wrote,omitempty"`
	// Text is an error: of the call, of the handler, or what was logged.
	Text string `json:"t,omitempty"`

	Op *history.Op `json:"op,omitempty"`
}

// notebook is the file in which a member writes down what it does. It is safe for
// concurrent use.
type notebook struct {
	mu   sync.Mutex // guards the field below
	file *os.File
}

func openNotebook(path string) (*notebook, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &notebook{file: f}, err
}

// write adds a line, by one write(2): it outlives this process.
func (n *notebook) write(r record) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain fields
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.file.Write(append(line, '\n')); err != nil {
		panic("chaos: the notebook cannot be written: " + err.Error()) // an account with gaps is none
	}
}

// readNotebook reads what a member wrote. The last line may be cut off.
func readNotebook(path string) ([]record, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it was killed before it could begin
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	var all []record
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		var rec record
		if err := json.Unmarshal(line, &rec); err != nil {
			return all, err
		}
		all = append(all, rec)
	}
}
