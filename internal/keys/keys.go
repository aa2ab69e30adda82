// Package keys names the Redis keys of a queue, in this one place.
package keys

import "strings"

// Queue is the keys of one queue (or one partition of it) in the order in which
// the scripts of package script declare those that they use. All hash to one
// Cluster slot.
type Queue struct {
	base string
	all  []string
}

// The positions in Queue's keys.
const (
	ready = iota
	delayed
	parked
	leased
	dead
	msg
	state
	held
	wake
	clock
	gone
	past
	lots
	meta
	count
)

var names = [count]string{"ready", "delayed", "parked", "leased", "dead", "msg", "state", "held", "wake", "clock", "gone", "past", "lots", "meta"}

// Names returns what the scripts call the keys, in the order of [Queue.All].
func Names() []string { return names[:] }

// Base returns what all keys of a queue begin with: prefix{tag}. The tag is the
// queue's name, or name:partition.
func Base(prefix, tag string) string { return prefix + "{" + tag + "}:" }

// Of returns the keys that begin with base, as made by Base.
func Of(base string) Queue {
	all := make([]string, count)
	for i, n := range names {
		all[i] = base + n
	}
	return Queue{base: base, all: all}
}

// Base returns what all the keys begin with. It names the queue among others
// that share a lock.
func (q Queue) Base() string { return q.base }

// Tag returns the queue's name for people: what stands between the braces.
func (q Queue) Tag() string {
	_, rest, _ := strings.Cut(q.base, "{")
	tag, _, _ := strings.Cut(rest, "}")
	return tag
}

// All returns the keys. It must not be changed.
func (q Queue) All() []string { return q.all }

// Last is the STRING with a feeder's last claim.
func (q Queue) Last(feeder string) string { return q.base + "last:" + feeder }

// Stop is the LIST that ends the waiting of a consumer which stops.
func (q Queue) Stop(consumer string) string { return q.base + "stop:" + consumer }

// Ready is the LIST of ids ready to be claimed, head first.
func (q Queue) Ready() string { return q.all[ready] }

// Delayed is the ZSET of ids and probes by due time.
func (q Queue) Delayed() string { return q.all[delayed] }

// Parked is the ZSET of requests in line for a lock.
func (q Queue) Parked() string { return q.all[parked] }

// Leased is the ZSET of claimed ids, and of lots, by lease deadline.
func (q Queue) Leased() string { return q.all[leased] }

// Dead is the ZSET of dead ids by time of death.
func (q Queue) Dead() string { return q.all[dead] }

// Msg is the HASH from id to request.
func (q Queue) Msg() string { return q.all[msg] }

// State is the HASH from id to the request's packed state.
func (q Queue) State() string { return q.all[state] }

// Held is the HASH from lock to the id whose turn it is.
func (q Queue) Held() string { return q.all[held] }

// Wake is the LIST with at most one token, behind requests that are handed over or
// offered.
func (q Queue) Wake() string { return q.all[wake] }

// Clock is the STRING that names the timekeeper.
func (q Queue) Clock() string { return q.all[clock] }

// Gone is the SET of ids finished since the memory of them was last turned over.
func (q Queue) Gone() string { return q.all[gone] }

// Past is what Gone was before that.
func (q Queue) Past() string { return q.all[past] }

// Lots is the HASH from the token of a claim whose requests are leased as one to
// their ids.
func (q Queue) Lots() string { return q.all[lots] }

// Meta is the HASH of the queue's counters.
func (q Queue) Meta() string { return q.all[meta] }
