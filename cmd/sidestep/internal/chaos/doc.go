// Package chaos runs real processes on real servers, does them harm, and keeps
// the account: whether anything accepted was lost, whether two sections of one
// lock were ever valid at the same time, whether a stale write passed a fence.
//
// A run starts its own redis-servers ([Topologies]), member processes (this very
// program, [Main]), and a register on a server of its own that is left alone. A
// nemesis, driven by a seed, harms all but that. Members write down what they do
// in files of their own, one line per write(2), so that a line survives its
// process; the account is made from nothing else.
package chaos
