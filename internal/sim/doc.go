// Package sim runs the whole library in virtual time under faults that a seed
// decides. It has nothing but tests: several "processes" with real clients of
// their own share an in-memory server in one testing/synctest bubble, the
// connections between them lose, delay and repeat what they carry, processes die
// and stop, the server restarts and its clock is set, and an oracle that sees
// everybody checks what the library promises.
//
//	go test ./internal/sim -run Sim                      a few hundred seeds
//	go test ./internal/sim -run Sim -seeds 10000         as many, from -from on
//	go test ./internal/sim -run Sim -seed N -v           one, with what happened in it
//
// docs/simulation.md says what is simulated and checked, and how far a seed
// repeats itself.
package sim
