//go:build unix && !linux

package chaos

import "syscall"

const stopSignal, resumeSignal = syscall.SIGSTOP, syscall.SIGCONT

// attributes keep a terminal's interrupt from a process. If this process is
// killed, its servers stay.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
