// Package sidestep runs code under a distributed lock on Redis, and lets every
// call say what happens when the lock is taken.
//
//	locker := lock.New(rdb, lock.Config{})
//	defer locker.Close()
//	acq := sidestep.New(locker, sidestep.Config{})
//	err := acq.Do(ctx, "invoice:7", sidestep.Fail(), func(ctx context.Context, lk *lock.Lock) error {
//		return store.Save(ctx, invoice, lk.Fence())
//	})
//
// # Policies
//
//   - [Fail]: an error at once, which says who holds the lock and when to come back.
//   - [Retry], [RetryFor]: wait in line, woken when the lock is released.
//   - [Defer]: the request is stored and runs later, in any process; the caller goes on.
//
// They compose: RetryFor(200*time.Millisecond).Then(Defer(5*time.Second)). Defer
// needs something to store, so it is for a [Task]; [Acquirer.Do] takes only the
// others, and anything else does not compile.
//
// # Tasks
//
// A [Task] is one handler for the first call, for the queue, and for what comes
// back from deferral:
//
//	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{})
//	charge := sidestep.NewTask(queue, "charge",
//		func(o Order) string { return "account:" + o.Account },
//		func(ctx context.Context, lk *lock.Lock, o Order) error { ... })
//
//	out, err := charge.Do(ctx, order, sidestep.Defer(5*time.Second)) // here and now, or later
//	receipt, err := charge.Enqueue(ctx, order)                       // the normal path: the queue
//	err = queue.Run(ctx)                                             // workers and claimer
//
// Deferred is an outcome, not an error: out.Deferred holds the receipt, and the
// request runs when the lock is released, at the latest about the delay later if
// the lock is then free. Workers never block on a lock: a request that meets a
// held one goes back in its line, in the place it had.
//
// # What is guaranteed
//
// A section's context ends before anyone else can hold its lock, counted by the
// local clock and needing no answer from Redis. Fencing tokens grow in the order
// of holding. An accepted request is in exactly one place in Redis at any time,
// and runs at least once as long as Redis keeps its data, or is dead by a cap (25
// failed attempts or 20 lost leases by default, an unknown task, an undecodable
// payload), where it can be seen and revived. A process that dies costs a lease, not
// a request. Requests of one lock leave the line in the order in which they joined it.
//
// What a lease cannot promise: code that ignores its context, or is stopped
// between looking at it and acting, can act after its lock passed on. A resource
// that compares fencing tokens refuses it then; see package fence. And at least
// once is not once: a handler that must not repeat its effect keeps the request's
// ID, or the fence, with it.
//
// # The parts
//
// Package lock is the lock alone, fence the resource's side of a fencing token,
// listq the queue alone, delayq the delay queue, retry the backoffs, and
// sidesteptest a Redis in memory for tests and first steps.
package sidestep
