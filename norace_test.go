//go:build !race

package sidestep_test

const raceEnabled = false
