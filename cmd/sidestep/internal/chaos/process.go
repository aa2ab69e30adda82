package chaos

import (
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// process is one run of a program: a server, or a member.
type process struct {
	cmd     *exec.Cmd
	said    tail          // on standard error, and a server's standard output
	ended   chan struct{} // closed when it has ended
	meant   atomic.Bool   // whether it was told to end
	stopped atomic.Bool   // by SIGSTOP
}

// start starts a process that ends with this one, whatever ends this one.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.SysProcAttr = attributes()
	cmd.Stderr = &p.said
	if cmd.Stdout == nil {
		cmd.Stdout = &p.said
	}
	started := make(chan error)
	go func() {
		// The signal that a parent's death sends comes when this thread ends. So it
		// waits here with the process, and is nobody else's.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // cmd.ProcessState says how it ended
			close(p.ended)
		}
	}()
	return p, <-started
}

// kill ends the process at once and waits for that. It may be stopped, or gone.
func (p *process) kill() {
	p.meant.Store(true)
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

func (p *process) stop() {
	p.stopped.Store(true)
	_ = p.cmd.Process.Signal(stopSignal) // it may be gone
}

func (p *process) resume() {
	_ = p.cmd.Process.Signal(resumeSignal) // it may be gone
	p.stopped.Store(false)
}

// endedWithin tells whether the process ends within d.
func (p *process) endedWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.ended:
		return true
	case <-t.C:
		return false
	}
}

func (p *process) alive() bool { return !p.endedWithin(0) }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards the field below
	text []byte
}

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - 2<<10; over > 0 {
		t.text = t.text[over:]
	}
	return len(b), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
