//go:build !unix

package chaos

import (
	"os"
	"syscall"
)

// There are no such signals here: [Run] refuses to start.
var stopSignal, resumeSignal os.Signal = os.Kill, os.Kill

func attributes() *syscall.SysProcAttr { return nil }
