package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

// The processes of a run are this very program, started again with memberEnv in
// its environment. Over standard input a process gets its job and then calls to
// make, and the end of input tells it to finish; over standard output it reports
// events. All are JSON, one per line.

// memberEnv marks a process of a run.
const memberEnv = "SIDESTEP_REPLAY_PROCESS"

// memberMain is the main function of a process of a run.
func memberMain(in io.Reader, out io.Writer) int {
	logging.Disable()
	signal.Ignore(os.Interrupt) // it is for the parent, which then ends the input
	dec := json.NewDecoder(bufio.NewReader(in))
	var j job
	if err := dec.Decode(&j); err != nil {
		fmt.Fprintln(os.Stderr, "no job:", err)
		return exitUnusable
	}
	rdb, err := j.Server.client(2 * j.Workers)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUnusable
	}
	defer rdb.Close()
	w, err := newWorker(j, rdb, newEventWriter(out).emit)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUnusable
	}
	defer w.close()
	ctx, cancel := context.WithCancelCause(context.Background())
	calls := make(chan call)
	go func() {
		cancel(readCalls(ctx, dec, calls))
	}()
	if err := w.run(ctx, calls); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUnusable
	}
	return exitOK
}

var errEnded = errors.New("the run has ended")

// readCalls passes calls on until the input ends.
func readCalls(ctx context.Context, dec *json.Decoder, calls chan<- call) error {
	for {
		var c call
		if err := dec.Decode(&c); err != nil {
			return errEnded
		}
		select {
		case calls <- c:
		case <-ctx.Done():
			return errEnded
		}
	}
}

// member is a process of a run, as its parent sees it.
type member struct {
	number int
	cmd    *exec.Cmd
	in     io.WriteCloser
	places chan struct{} // tokens: calls it can take now
	ready  chan struct{} // closed when it can work
	gone   chan struct{} // closed when it has ended and is accounted for
	errors *tail

	mu       sync.Mutex // guards the fields below
	making   map[string]call
	stopping bool
	over     bool  // its unanswered calls have been passed on
	death    error // why it ended too early
}

// startMember starts a process. Its events go to emit; died is called when it has
// ended, with the calls that it has not answered.
func startMember(number int, j job, emit func(event), died func(*member, []call)) (*member, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &member{
		number: number,
		cmd:    exec.Command(self),
		places: make(chan struct{}, 2*j.Workers),
		ready:  make(chan struct{}),
		gone:   make(chan struct{}),
		errors: &tail{},
		making: make(map[string]call),
	}
	m.cmd.Env = append(os.Environ(), memberEnv+"=1")
	m.cmd.Stderr = m.errors
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for range cap(m.places) { // twice the callers: the next call is there when one is done
		m.places <- struct{}{}
	}
	j.Name = fmt.Sprintf("process %d, pid %d", number, m.cmd.Process.Pid)
	go m.follow(out, emit, died)
	if err := json.NewEncoder(m.in).Encode(j); err != nil {
		m.kill()
		return nil, fmt.Errorf("process %d: %w", number, err)
	}
	return m, nil
}

// follow reads what the process reports until it ends.
func (m *member) follow(out io.Reader, emit func(event), died func(*member, []call)) {
	defer close(m.gone)
	dec := json.NewDecoder(bufio.NewReaderSize(out, 64<<10))
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			break
		}
		if e.Kind == kindReady {
			close(m.ready)
		}
		emit(e)
		if e.answers() {
			m.mu.Lock()
			delete(m.making, e.ID)
			m.mu.Unlock()
			m.places <- struct{}{}
		}
	}
	_, _ = io.Copy(io.Discard, out) // what made no sense; the process must not hang on it
	err := m.cmd.Wait()
	m.mu.Lock()
	if err == nil && !m.stopping {
		err = errors.New("ended by itself")
	}
	if err != nil {
		m.death = fmt.Errorf("process %d, pid %d: %w%s", m.number, m.cmd.Process.Pid, err, m.errors)
	}
	m.over = true
	var orphans []call
	for _, c := range m.making {
		orphans = append(orphans, c)
	}
	m.mu.Unlock()
	died(m, orphans)
}

// feed hands calls to the process, as many as it can make, until it or ctx ends.
func (m *member) feed(ctx context.Context, calls <-chan call, died func(*member, []call)) {
	enc := json.NewEncoder(m.in)
	for {
		select {
		case <-m.places:
		case <-m.gone:
			return
		case <-ctx.Done():
			return
		}
		select {
		case c := <-calls:
			m.mu.Lock()
			over := m.over
			m.making[c.ID] = c
			m.mu.Unlock()
			if over {
				died(m, []call{c})
				return
			}
			if enc.Encode(c) != nil {
				return // it died, and will be found to have had the call
			}
		case <-m.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

// stop tells the process to finish, and ends it if it does not.
func (m *member) stop() {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	_ = m.in.Close() // it may be gone
	select {
	case <-m.gone:
	case <-time.After(2*drainTimeout + time.Second):
		m.kill()
		<-m.gone
	}
}

func (m *member) kill() { _ = m.cmd.Process.Kill() } // it may be gone

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards the field below
	text []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4<<10; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

// String returns the text after a colon, or nothing.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return ": " + string(t.text)
}
