// Package lock keeps leases on names in Redis: at most one holder at a time, in
// all processes that use the same server, or the same quorum of servers.
//
//	l := lock.New(rdb, lock.Config{})
//	defer l.Close()
//	err := l.Do(ctx, "invoice:7", nil, func(ctx context.Context, lk *lock.Lock) error {
//		return store.Save(ctx, invoice, lk.Fence())
//	})
//
// [Locker.TryAcquire] takes a free lock or says who holds it; [Locker.Acquire]
// waits in line. Both return a [Lock] that lasts for its TTL. [Lock.Hold] keeps
// it for as long as a function runs; [Locker.Do] and [Locker.TryDo] do both.
//
// # What is promised
//
// From when an acquiring call returns until [Lock.Expires] nobody else holds the
// lock. The context of a held section ends by then at the latest, and needs no
// answer from Redis for that. This rests on three assumptions:
//
//   - Redis keeps its data. A failover may lose the last writes, and an operator
//     or an eviction policy may delete keys; then two can hold one lock. Give
//     locks a server with maxmemory-policy noeviction.
//   - Clocks run at the same rate, within 1 %. They need not agree: a lease counts
//     from when it was asked for, on the clock of the process. A forward step of
//     the server's wall clock ends leases early.
//   - Code looks at its context. A lease cannot stop a process that was paused
//     for longer than its TTL, by the machine or by the garbage collector, and
//     that goes on writing when it wakes.
//
// # The fence
//
// So exclusion is best effort, here as in any lock service. What does hold
// through pauses, lost locks and clock steps is an order: [Lock.Fence] is larger
// for each later holder, as long as Redis keeps its data and the server's clock is
// not set back by more than Config.FenceMargin, and after a loss of data as long as
// it was not set back at all. A resource that remembers
// the largest fence it has seen and refuses smaller ones cannot be damaged by a
// holder that lost its lock. Pass the fence along whenever a wrong write would
// hurt, and touch the resource with it before you read; you need no fence if the
// lock only saves work.
//
// # Choosing a TTL
//
// The TTL is how long a crashed holder blocks the others, and how long a pause
// or an outage of Redis may last that a holder survives: the watchdog extends
// after a third of it and keeps trying. The default of 30 s suits most work under
// Hold. Without Hold, take the longest time that the work can last, and a margin.
//
// # Waiting
//
// Processes stand in line in Redis, in order of arrival; a release hands the lock
// to the first and tells it over Pub/Sub, so that a hand-off takes one trip of
// a message and nobody polls. A process in line that died costs the others one
// Config.ClaimLease. Goroutines that share a Locker stand in line as one, and pass
// the lock among themselves without a round trip for one turn, see
// Config.TurnSections. A TryAcquire may take a lock that just expired ahead of
// the line; so may clients of other libraries.
//
// # Several servers
//
// A Locker of [NewQuorum] keeps its locks on a majority of independent servers,
// by the Redlock algorithm, and needs no more than a majority of them to answer.
// Fences grow in the order of holding there too. Nobody is handed a lock: a
// release wakes the first in line. Where one server with a replica will do, it is
// simpler and faster.
//
// # Handing over
//
// [Lock.Disown] ends a section and leaves the lock held; whoever is given its
// token goes on with [Locker.Adopt], under the same fence. [Locker.TryAcquireAll]
// takes several locks or none. Config.LapseDelay keeps a lock closed for a while
// after its holder was lost, for resources that cannot check a fence.
//
// # In Redis
//
// A lock's key is Config.Prefix and its name: a string that expires, as other
// Redlock clients use it, so that they and a Locker exclude each other. Beside it
// are {key}:fence, {key}:line and {key}:parked, without the braces if the key has
// a hash tag of its own: all of a lock is in one slot. All keys expire. Waiters
// subscribe to the channel sidestep:mail:<process>, or with a Cluster to
// {key}:mail:<process>. Redis 6.2 or later is needed.
package lock
