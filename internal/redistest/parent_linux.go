package redistest

import "syscall"

// diesWithParent makes a server end with the test process, even if that is
// killed.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
