// Package listq is a reliable queue on a Redis LIST: the normal path of
// asynchronous requests.
//
//	q := listq.New(rdb, "mail", listq.Config{})
//	_, err := q.Push(ctx, &listq.Request{Task: "welcome", Payload: body})
//	...
//	err = q.Consume(ctx, listq.ConsumeConfig{Workers: 8},
//		func(ctx context.Context, d *listq.Delivery) error { return send(ctx, d.Payload) })
//
// # Delivery
//
// A request is delivered at least once. [Queue.Consume] claims it under a lease,
// which it renews while the handler runs; nil from the handler acknowledges it,
// an error brings it back after a backoff. When a process dies, the leases of
// what it had claimed end, and its requests run again, within one lease (and a
// poll, if it was the one that timed it) and without the death counting as an
// attempt. A worker whose lease has passed to
// another can change nothing more: every settlement carries the lease's token.
//
// A command that go-redis sends again after a lost reply changes nothing twice.
// So a Push that failed may be repeated with the same request: its ID is known.
//
// Three counters are kept apart. Deliveries count claims by a worker, attempts
// count failures of the handler, deferrals count the times that the request met
// a held lock (package delayq). Each can be capped; a request that reaches a cap
// moves to the dead, with the reason, and [Queue.Revive] brings it back.
//
// # Order
//
// Requests run in the order of Push, as far as workers are free. A single worker of a
// single process keeps that order, but for what goes back to the queue after a fault, such
// as a lost answer, and for one that is handed over ([Queue.Push] to an idle queue) just
// as its slot is taken for a claim. Requests that
// name a Lock run one at a time per lock, in order: claim passes over those
// whose lock has an earlier request of this queue in flight, so that no worker
// waits. A request whose handler failed leaves that order until it is back,
// unless it was settled by [Delivery.NackStrict]. That is order, not exclusion: a
// lease can end under a running handler. For exclusion take the lock itself, as
// package sidestep does.
//
// # Stopping
//
// Every goroutine lives inside a call. When the context of [Queue.Consume] ends,
// it claims no more and lets the running handlers finish; after the drain timeout
// it ends their contexts with the cause [ErrDraining], and puts back, uncounted,
// the requests whose handlers then fail.
//
// # Keys
//
// All keys of a queue begin with [Queue.Key] and hash to one slot of a Redis
// Cluster. Times in them are those of the server's clock, in milliseconds.
//
// # Waiting
//
// An idle consumer sends at most about one command a second: per queue, and in package
// sidestep per partition. It waits in a blocking pop on a connection of its own. A Push to
// an idle queue hands the request over there: leased for a poll, and in one round trip
// less than by a claim. One by itself, with a new ID and no lock, is offered there before
// it is stored, once the queue is known to be idle: its handler begins a script sooner,
// and Push takes a round trip more. If a consumer of the same [Queue] waits and runs
// nothing, the handler begins there before anything is sent, and Push takes no more than
// that script. Otherwise a token comes that way and says that there is something to claim;
// what is due at a time is timed by a local timer, of one process at a time. When that
// process dies, or what is popped is lost with a connection, the others notice within
// [Config.Poll]; a process that ends in order hands all over.
package listq
