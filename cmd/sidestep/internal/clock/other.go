//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package clock

import "time"

// Now returns the time in nanoseconds by a clock that all processes of this
// machine share.
func Now() int64 { return time.Now().UnixNano() }
