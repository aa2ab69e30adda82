package listq

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Config of a [Queue]. The zero value is good. All processes that use a queue
// should use the same.
type Config struct {
	// DeadAge is how long dead requests are kept. Defaults to 90 days; negative: for ever.
	DeadAge time.Duration
	// Hooks are told what happens. Defaults to none.
	Hooks Hooks
	// Lease is how long a claimed request stays its worker's without a sign of
	// life: the time after which a dead process's requests run again. Consume
	// renews leases every third of it. One that is handed to it as it is pushed has
	// a lease of no more than Poll, or 100 ms, at first. Defaults to 30 s; at least
	// 100 ms.
	Lease time.Duration
	// Logger is told of faults that the queue deals with by itself, such as a
	// lost connection. Defaults to none.
	Logger *slog.Logger
	// MaxDead is how many dead requests are kept, the newest. Defaults to
	// 10,000; negative: no limit.
	MaxDead int
	// MaxDeliveries is how many claims of a request may end with their leases, and
	// not with a failure or a conflict, before the request is dead: the cap on
	// requests that kill their workers. One more for a request that a direct call
	// deferred: its deferral was no claim. Defaults to 20; negative: no limit.
	MaxDeliveries int
	// MaxPayload is the largest payload accepted, in bytes. Defaults to 1 MiB;
	// negative: no limit but Redis's own.
	MaxPayload int
	// Poll is the safety poll of consumers: the latest that a request is noticed
	// when the process that should have said so died just then. Up to a tenth is
	// taken off at random. Defaults to 2 s; at least 10 ms, which for a request that
	// was being handed to that process is 100 ms.
	Poll time.Duration
	// PollOnly makes consumers do without blocking commands, for proxies that
	// forbid them. A request is then noticed within Poll.
	PollOnly bool
	// Prefix begins all keys of the queue in Redis. Defaults to "sidestep:".
	Prefix string
	// Resend is how long the ids of finished requests are remembered, so that a
	// Push whose command is sent again does not run a finished request again. It
	// should exceed the time in which the Redis client gives up. They are remembered
	// for at least Resend, and up to about twice that, until a claim turns the memory
	// over: every sixteenth claim of a consumer looks. Defaults to 60 s; negative:
	// not at all. It is to be the same in all processes: who remembers nothing offers
	// nothing, and must not be offered anything either.
	Resend time.Duration
	// Wait makes a request count as accepted only when replicas have it. Defaults
	// to not waiting: a failover may then lose what was just accepted.
	Wait Wait
}

// Wait says how many replicas of the master must have confirmed a request before
// the method that accepts it succeeds: Push, and Schedule, Delay and Park of
// package delayq. It costs a round trip from the master to those replicas, and
// two commands more in the same round trip from here. If they do not answer in
// time the method returns [ErrNotReplicated].
//
// A failover then loses nothing accepted, as long as it promotes one of the
// replicas that confirmed: with Replicas 1 and one replica, or as many as there
// are, that is certain; with fewer it is likely, since Sentinel and Cluster
// prefer the replica that has most. Later steps of the request, such as its
// acknowledgement, do not wait: a failover can undo them, and it runs again.
type Wait struct {
	// Replicas is how many. 0 does not wait.
	Replicas int
	// Timeout is how long to wait for them, in whole milliseconds. It should be
	// less than the client's ReadTimeout. Defaults to 1 s; at least 1 ms.
	Timeout time.Duration
}

// Hooks are called from the goroutine in which the thing happens. They must neither
// block nor panic: a panic in a goroutine of the queue's own ends the process. Nil ones
// are not called.
type Hooks struct {
	// Dead is called by the process whose command moved a request to the dead. It is not if
	// the answer to that command was lost.
	Dead func(ctx context.Context, e DeadEvent)
	// Stale is called, once per delivery, when a worker finds that its request is
	// no longer its own: the lease ended, or the request was cancelled.
	Stale func(ctx context.Context, d *Delivery)
	// Panic is called after a handler's panic was recovered.
	Panic func(ctx context.Context, d *Delivery, value any, stack []byte)
}

// DeadEvent tells of a request that will not run unless it is revived.
type DeadEvent struct {
	// Queue is the queue's name, ID the request's.
	Queue, ID string
	// Reason is "attempts: " and the last error, "deferrals", "max wait", "crash
	// loop" (Config.MaxDeliveries), "undecodable: " and why, or what was given to
	// [Delivery.Bury].
	Reason string
}

func (c Config) withDefaults() Config {
	def(&c.DeadAge, 90*24*time.Hour)
	def(&c.Lease, 30*time.Second)
	def(&c.MaxDead, 10_000)
	def(&c.MaxDeliveries, 20)
	def(&c.MaxPayload, 1<<20)
	def(&c.Poll, 2*time.Second)
	def(&c.Resend, time.Minute)
	if c.Prefix == "" {
		c.Prefix = "sidestep:"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Lease < leastLease {
		panic(fmt.Sprintf("listq: Config.Lease is %v, less than 100ms", c.Lease))
	}
	if c.Poll < 10*time.Millisecond {
		panic(fmt.Sprintf("listq: Config.Poll is %v, less than 10ms", c.Poll))
	}
	def(&c.Wait.Timeout, time.Second)
	if c.Wait.Replicas < 0 || c.Wait.Timeout < time.Millisecond {
		panic(fmt.Sprintf("listq: Config.Wait is %d replicas within %v: less than 0, or than 1ms", c.Wait.Replicas, c.Wait.Timeout))
	}
	c.DeadAge = max(c.DeadAge, 0)
	c.MaxDead = max(c.MaxDead, 0)
	c.MaxDeliveries = max(c.MaxDeliveries, 0)
	c.Resend = max(c.Resend, 0)
	return c
}

// leastLease leaves time to renew it.
const leastLease = 100 * time.Millisecond

func def[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
