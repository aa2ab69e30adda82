//go:build race

package sidestep_test

const raceEnabled = true
