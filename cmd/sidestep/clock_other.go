//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import "time"

// now returns the time in nanoseconds by a clock that all processes of this
// machine share.
func now() int64 { return time.Now().UnixNano() }
