//go:build !linux

package redistest

import "syscall"

// diesWithParent can do nothing here: a killed test process leaves its servers.
func diesWithParent() *syscall.SysProcAttr { return nil }
