package chaos

import "syscall"

const stopSignal, resumeSignal = syscall.SIGSTOP, syscall.SIGCONT

// attributes make a process end with this one, even if that is killed, and keep
// a terminal's interrupt from it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
