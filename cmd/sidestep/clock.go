package main

import "github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"

// now returns the time in nanoseconds by a clock that all processes of this
// machine share.
func now() int64 { return clock.Now() }
