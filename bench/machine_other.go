//go:build !linux

package main

import (
	"syscall"
	"time"
)

func diesWithParent() *syscall.SysProcAttr { return nil }

func pin(int) string { return "not pinned: not Linux" }

func ownCPU() float64 { return 0 }

func sleep(d time.Duration) { time.Sleep(d) }
