// Package fence is the resource's side of a fencing token: it refuses whoever
// comes with a smaller token than it has seen.
//
// # When it is needed
//
// A lock with a lease cannot stop a process that is paused in the middle of its
// section and goes on after the lock has passed to another: a garbage
// collection, a suspended machine, a request that sat in a socket. Every lock of
// package lock therefore comes with a number that is larger for each later
// holder ([github.com/sidestep-go/sidestep/lock.Lock.Fence]). It changes nothing
// by itself. What the lock protects must compare it, in the same atomic step as
// the read or write, with the largest that it has seen: its register.
//
// There is a guard for each of three kinds of resource:
//
//   - [Memory]: values of this process, such as a device that one process drives.
//   - [Redis]: keys in Redis. One script checks, raises the register and reads or
//     writes; [Redis.Run] does the same with a script of yours.
//   - [SQL]: rows in PostgreSQL, MySQL, MariaDB or SQLite, with a table of registers and
//     the transaction that does the work. Tables that have a fence column of their
//     own need only a predicate and [Applied].
//
// No guard is needed if the work only wastes effort when done twice, or if the
// resource is changed by nothing but a conditional write on a version that it
// had when it was read: that is a fence already.
//
// # Touch before the first read
//
// Checking writes alone is not enough. Ann's balance is 100, and two holders add
// to it, one 10 and one 50:
//
//	A  has fence 1, reads 100, is paused; its lease runs out
//	B  has fence 2, reads 100
//	A  goes on, writes 110 with fence 1: accepted, for 1 is the largest seen
//	B  writes 150 with fence 2: accepted, and A's 10 are gone
//
// Both writes were in order, and one update is lost. A fence orders those whom
// the resource has seen, and it had not seen B. So a holder shows its fence
// before it reads anything that it will act upon:
//
//	B  has fence 2, enters, reads 100
//	A  goes on, writes 110 with fence 1: refused, it must start again
//
// That is Enter of each guard. [Redis.Get] enters and reads in one step.
//
// # Reads are checked too
//
// A stale holder that may read sees a later holder's work half done, and acts on
// it where no guard is: it sends a mail, or answers a request. Read through the
// guard, with the fence, in each section; a read that is not refused then shows
// what earlier holders left and nothing of later ones.
//
// # What it cannot do
//
// It does not restore exclusion. Until a later holder has entered, an earlier
// one is served: its writes are in order, nobody has read past them.
//
// It orders holders, not the requests of one. Requests with an equal fence are
// all accepted, in the order of their arrival; one that timed out may still
// arrive.
//
// It knows what the register knows. A register that is lost with its data, or
// expires or is removed earlier than the longest pause of a holder, lets an old
// fence in. By default registers are kept for ever.
//
// It needs fences of one source for each resource: those of one lock. Two locks
// that guard the same resource have fences that say nothing about each other.
//
// It does not reach what has no guard. A mail that was sent is sent.
//
// # Fences that lie in the future
//
// A fence is a time in microseconds since 1970, or one more than the fence
// before it. A lock server whose clock is a year ahead therefore mints fences
// that would keep everybody else out for a year once a register has them. Guards
// refuse a fence that is more than a bound ahead of the local clock, before
// anything is sent, with an [*AheadError]; the bound is [DefaultMaxAhead] unless
// set. Whoever sees that error should look at both clocks. To let a register
// that was poisoned in spite of it start again, make sure that no holder is
// left, and remove it: [Memory.Forget], DEL of [RegisterKey], or DELETE of its
// row.
package fence
