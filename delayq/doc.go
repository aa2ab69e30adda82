// Package delayq is the delay queue beside a [listq.Queue]: it holds requests
// that run later, and brings them onto the LIST when they are due.
//
//	q := listq.New(rdb, "mail", listq.Config{})
//	dq := delayq.New(q)
//	receipt, err := dq.ScheduleIn(ctx, &listq.Request{Task: "remind"}, time.Hour)
//
// Requests come to be here in two ways.
//
// A scheduled request is due at a time ([Queue.ScheduleIn], [Queue.ScheduleAt]):
// it stands in a ZSET by that time. Any consumer of the queue moves what is due,
// to the millisecond and never early; a process that only moves, and runs no
// handlers, calls [Queue.Run].
//
// A parked request met a held lock ([Queue.Park], [Queue.ParkDelivery]): it
// stands in line for that lock, in the order in which the requests were first
// seen, and has no time of its own. When the lock's turn ends, the oldest is
// promoted to the head of the LIST. One probe per lock, among the scheduled, is
// the guarantee for releases that nobody announces, such as a holder that
// crashed: when it is due, a consumer looks at the lock, promotes the oldest if
// it is free, and else comes back when the holder's TTL has passed.
//
// So a busy lock costs one delivery per request, not one per delay, and the
// line keeps its order.
//
// The lock may live on another Redis, or in another slot of a Cluster, than the
// queue; then release and promotion are two steps. What makes them safe is that
// parking and looking are: park first, then look ([Queue.Register]): the lock is
// either free, and the parker promotes, or its release will tell.
//
// # By id
//
// [Queue.Cancel], [Queue.Reschedule] and [Queue.Promote] work on any request
// that waits, in O(log n), by its id.
package delayq
