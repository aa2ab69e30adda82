package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// diesWithParent makes a child end when this process does, and not before: a
// terminal's Ctrl-C goes to the whole process group, and the peer under way still
// needs its server.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// pin gives the server a core of its own and this process, with the children it
// will start, the others. With fewer than four cores it does nothing: clients on
// one core would be measured against themselves.
func pin(server int) string {
	n := runtime.NumCPU()
	if n < 4 {
		return "not pinned: fewer than 4 cores"
	}
	var all, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return "not pinned: " + err.Error()
	}
	for cpu := len(all)*64 - 1; cpu >= 0; cpu-- {
		if all.IsSet(cpu) {
			last.Set(cpu)
			all.Clear(cpu)
			break
		}
	}
	if err := setThreads(server, &last); err != nil {
		return "not pinned: " + err.Error()
	}
	if err := setThreads(os.Getpid(), &all); err != nil {
		return "server pinned, clients not: " + err.Error()
	}
	runtime.GOMAXPROCS(n - 1)
	return "server on one core, clients on the others"
}

// setThreads binds all threads of a process; those they start later inherit it.
func setThreads(pid int, set *unix.CPUSet) error {
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, set); err != nil {
			return err
		}
	}
	return nil
}

// ownCPU returns the processor time that this process has used, in seconds.
func ownCPU() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// sleep waits by a timer of the kernel. Go's have a resolution of 1 ms while
// nothing runs, and several that are due by then fire together: who wakes with
// a poll of 1 ms would always be just in time for it.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	for errors.Is(unix.Nanosleep(&ts, &ts), unix.EINTR) {
	}
}
