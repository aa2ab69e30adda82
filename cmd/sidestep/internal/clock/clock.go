// Package clock is one clock for all processes of a machine.
package clock
