//go:build !race

package queuemodel

const raceEnabled = false
