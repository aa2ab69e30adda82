package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// maxOpen bounds the commands that wait for one node: further acquires go without
// it, and so do the releases of what they took elsewhere.
const maxOpen = 4096

// What a node says that has not answered.
var (
	errSilent  = errors.New("no answer in time")
	errNotSent = notSent("not asked: the outcome was clear without it")
	errBusy    = notSent("not asked: too many commands wait for its answer")
)

// notSent is a definite answer: the command did not run.
type notSent string

func (e notSent) Error() string { return string(e) }

// RedisError implements redis.Error.
func (notSent) RedisError() {}

// round is one script for each node. The commands run on goroutines that Close
// waits for, since go-redis by default does not look at a context while it waits
// for a reply; those who want the answers wait for as long as they like.
//
// The commands for one token run one after another at each node, in the order of
// their rounds: a release cannot overtake the acquire that it is to undo, nor an
// acquire the clean-up of an earlier one.
type round[T any] struct {
	q     *quorum
	value string // whose lane; "": any order will do
	send  func(node int) (T, error)
	spare func(node int) bool // whether it may go without that node if that has too much to do; nil: no
	calls []ballot[T]
	news  chan struct{} // a token for each answer
}

// ballot is one node's part in a round.
type ballot[T any] struct {
	once    sync.Once
	dropped atomic.Bool   // not to be sent any more
	done    chan struct{} // closed when the fields below are set
	reply   T
	err     error
}

// vote is a node's answer so far.
type vote[T any] struct {
	node  int
	reply T
	err   error
}

func newRound[T any](q *quorum, value string, send func(node int) (T, error)) *round[T] {
	r := &round[T]{q: q, value: value, send: send, calls: make([]ballot[T], len(q.nodes)), news: make(chan struct{}, len(q.nodes))}
	for i := range r.calls {
		r.calls[i].done = make(chan struct{})
	}
	return r
}

// begin sends to all nodes that were not sent to yet.
func (r *round[T]) begin() {
	for i := range r.calls {
		r.start(i)
	}
}

// start sends to one node.
func (r *round[T]) start(i int) {
	c := &r.calls[i]
	c.once.Do(func() {
		wait, leave, busy := r.q.enter(i, r.value, r.spare != nil && r.spare(i))
		if busy {
			c.err = errBusy
			close(c.done)
			r.news <- struct{}{}
			return
		}
		l := r.q.l
		l.mu.Lock()
		l.spawn(func() {
			if wait != nil {
				<-wait
			}
			if c.dropped.Load() {
				c.err = errNotSent
			} else {
				c.reply, c.err = r.send(i)
			}
			close(c.done)
			leave()
			r.news <- struct{}{}
		})
		l.mu.Unlock()
	})
}

// drop keeps a call from being sent, if that is still possible.
func (c *ballot[T]) drop() {
	c.dropped.Store(true)
	c.once.Do(func() {
		c.err = errNotSent
		close(c.done)
	})
}

func (c *ballot[T]) answered() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait sends to one node, if need be, and returns its answer.
func (r *round[T]) wait(ctx context.Context, i int) (T, error) {
	r.start(i)
	c := &r.calls[i]
	select {
	case <-c.done:
		return c.reply, c.err
	case <-ctx.Done():
		var none T
		return none, errSilent
	}
}

// until sends to all nodes and returns the answers once they are enough, or all
// are there, or the time is over.
func (r *round[T]) until(timeout time.Duration, enough func([]vote[T]) bool) []vote[T] {
	r.begin()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for range r.calls {
		select {
		case <-r.news:
		case <-timer.C:
			return r.votes()
		}
		if votes := r.votes(); enough(votes) {
			return votes
		}
	}
	return r.votes()
}

// votes returns the answers so far.
func (r *round[T]) votes() []vote[T] {
	votes := make([]vote[T], len(r.calls))
	for i := range r.calls {
		if c := &r.calls[i]; c.answered() {
			votes[i] = vote[T]{i, c.reply, c.err}
		} else {
			votes[i] = vote[T]{node: i, err: errSilent}
		}
	}
	return votes
}

// laneID is a token at a node.
type laneID struct {
	node  int
	value string
}

// enter stands in the lane: the command may run when wait is closed or nil, and
// calls leave when it has. It also counts who is under way at the node. One to be
// shed does not enter if those are too many: then busy is true.
func (q *quorum) enter(node int, value string, shed bool) (wait <-chan struct{}, leave func(), busy bool) {
	id := laneID{node, value}
	mine := make(chan struct{})
	q.mu.Lock()
	defer q.mu.Unlock()
	if shed && q.open[node] >= maxOpen {
		return nil, nil, true
	}
	if value != "" {
		wait = q.lanes[id]
		q.lanes[id] = mine
	}
	q.open[node]++
	return wait, func() {
		close(mine)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.open[node]--
		if q.lanes[id] == mine {
			delete(q.lanes, id)
		}
	}, false
}
