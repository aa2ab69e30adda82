package lock

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-redsync/redsync/v4"
	rsredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/redis/go-redis/v9"
)

// NewQuorum returns a Locker whose locks are held by whoever has a majority of
// independent servers: the Redlock algorithm, with fences. A minority of nodes
// that are down, hung or slow costs nothing but their votes; a majority that does
// not answer is an [*UnavailableError], with Nodes saying why.
//
// Everything else is as with [New], except that
//   - a release wakes the first in line, who then asks all nodes, instead of
//     handing it the lock: order of arrival is what usually happens, no more;
//   - whoever is refused takes back at once the votes that it did get; of several
//     that try in the same moment all may be refused, though none gets the lock;
//   - [Locker.Look] and [Locker.Inspect] believe a majority that names the same
//     holder. If there is none, Inspect says that the lock is free, and Look does if a
//     majority of the nodes are free: else whoever tried would be refused, and it says
//     that the lock is held, for a tenth of a second at most.
//
// The nodes must not replicate each other. A node that restarts without its data
// must stay away for the longest TTL in use, or two can hold one lock; fences
// stay in order if one node does that, see docs/lock.md. All processes have to
// use the same nodes; their order does not matter. An even number of nodes
// tolerates no more failures than the odd number below it.
//
// The caller closes the Locker before the clients. NewQuorum panics where New
// does, and if there are no clients.
func NewQuorum(clients []redis.UniversalClient, cfg Config) *Locker {
	if len(clients) == 0 {
		panic("lock: a quorum of no clients")
	}
	l := newLocker(slices.Clone(clients), cfg)
	q := &quorum{l: l, majority: len(clients)/2 + 1, lanes: make(map[laneID]chan struct{}), open: make([]int, len(clients))}
	var pools []rsredis.Pool
	for i, rdb := range clients {
		q.nodes = append(q.nodes, newSingle(rdb, &quorumScripts, l.cfg.LapseDelay))
		pools = append(pools, pool(i))
	}
	q.redsync = redsync.New(pools...)
	l.node = q
	return l
}

// quorum is a node made of several, of which a majority has to agree. redsync
// asks them for one lock at a time and counts; see pool. What it has no call for
// is a round of its own.
type quorum struct {
	l        *Locker
	nodes    []*single
	majority int
	redsync  *redsync.Redsync

	noRaise bool // for tests: what breaks without

	mu    sync.Mutex // guards the fields below
	lanes map[laneID]chan struct{}
	open  []int // commands under way at each node
}

// timeout is how long a node may take: at most a part of the lease asked for.
func (q *quorum) timeout(lease time.Duration) time.Duration {
	return min(q.l.cfg.NodeTimeout, lease/3)
}

// mutex is redsync's part in one round: it counts votes until a majority is
// reached or out of reach.
func (q *quorum) mutex(k *keys, value string, lease time.Duration) *redsync.Mutex {
	return q.redsync.NewMutex(k.lock,
		redsync.WithExpiry(lease),
		redsync.WithFailFast(true),
		redsync.WithGenValueFunc(func() (string, error) { return value, nil }),
		redsync.WithTimeoutFactor(float64(q.timeout(lease))/float64(lease)),
		redsync.WithValue(value),
	)
}

func (q *quorum) acquire(ctx context.Context, k *keys, a *acquireArgs) (acquireReply, error) {
	r := newRound(q, *a.value, func(i int) (acquireReply, error) {
		mine := *a
		return q.nodes[i].acquire(ctx, k, &mine)
	})
	r.spare = func(int) bool { return true }
	undo := newRound(q, *a.value, func(i int) (struct{}, error) {
		if mayHaveGranted(&r.calls[i]) { // answered by now: this is its lane
			q.l.insist(k, func() error { return q.nodes[i].discard(ctx, k, *a.value) })
		}
		return struct{}{}, nil
	})
	err := q.mutex(k, *a.value, a.lease).TryLockContext(withCarrier(ctx, &carrier{
		setNX: func(ctx context.Context, i int) (bool, error) {
			reply, err := r.wait(ctx, i)
			return reply.granted, err
		},
		del: func(ctx context.Context, i int) (int64, error) {
			if takeBack(r, undo, i) {
				_, _ = undo.wait(ctx, i) // it is taken back sooner or later
			}
			return 0, nil
		},
	}))
	if err != nil {
		for i := range q.nodes {
			takeBack(r, undo, i) // redsync may not have come to all of them yet, and the next round may begin
		}
		return q.refused(k, r.votes())
	}
	r.begin()
	var fence int64
	agree := 0
	var spared []int
	for _, v := range r.votes() {
		switch {
		case errors.Is(v.err, errBusy):
			spared = append(spared, v.node)
		case v.err != nil || !v.reply.granted:
		case v.reply.fence > fence:
			fence, agree = v.reply.fence, 1
		case v.reply.fence == fence:
			agree++
		}
	}
	if agree < q.majority && !q.noRaise {
		if err := q.raise(ctx, k, a, fence); err != nil {
			return acquireReply{}, err
		}
	}
	return acquireReply{granted: true, fence: fence, spared: spared}, nil
}

// refused makes one reply of an acquire that found no majority.
func (q *quorum) refused(k *keys, votes []vote[acquireReply]) (acquireReply, error) {
	granted := 0
	var held tally
	q.l.mu.Lock()
	for _, v := range votes {
		switch {
		case v.err != nil:
		case v.reply.granted:
			granted++
		default:
			held.add(v.reply.holder, v.reply.left)
			q.l.refusedBy(k, v.reply.holder)
		}
	}
	q.l.unlock()
	switch {
	case held.votes > 0 && granted+held.votes >= q.majority:
		holder, left, n := held.most()
		if n < q.majority {
			return acquireReply{holder: holder, split: true}, nil
		}
		return acquireReply{holder: holder, left: left}, nil
	case granted >= q.majority:
		return acquireReply{}, errLate
	}
	return acquireReply{}, q.short(failures(votes))
}

// takeBack undoes one node's part in an acquire that found no majority. A node
// that refused, or was not asked yet, has nothing to undo, and what a silent one
// may grant later is taken back then. It reports whether the node has granted, so
// that a redsync mutex, or the caller's next try, had better wait for the undoing.
func takeBack(r *round[acquireReply], undo *round[struct{}], i int) bool {
	c := &r.calls[i]
	c.drop()
	answered := c.answered()
	if !answered || mayHaveGranted(c) {
		undo.start(i)
	}
	return answered && c.reply.granted
}

// mayHaveGranted reports whether a call that was answered may have taken the lock.
func mayHaveGranted(c *ballot[acquireReply]) bool {
	return c.reply.granted || c.err != nil && mayHold(c.err)
}

// raise makes sure that whoever holds the lock next mints a larger fence: a
// majority that still has our token knows this one.
func (q *quorum) raise(ctx context.Context, k *keys, a *acquireArgs, fence int64) error {
	r := newRound(q, "", func(i int) (bool, error) {
		return q.nodes[i].raise(ctx, k, *a.value, fence, a.margin)
	})
	votes := r.until(q.timeout(a.lease), func(votes []vote[bool]) bool {
		yes, no := count(votes, isTrue)
		return yes >= q.majority || len(votes)-no < q.majority
	})
	if yes, _ := count(votes, isTrue); yes < q.majority {
		return &shortError{text: "the fence was not acknowledged by a majority", nodes: failures(votes), kept: true}
	}
	return nil
}

func (q *quorum) release(ctx context.Context, k *keys, a *releaseArgs) (releaseReply, error) {
	r := newRound(q, *a.value, func(i int) (releaseReply, error) {
		mine := *a
		return q.nodes[i].release(ctx, k, &mine)
	})
	r.spare = func(i int) bool { return slices.Contains(a.spared, i) }
	// Release returns by releaseTimeout: which nodes are silent has to be known before.
	limited, cancel := context.WithTimeout(ctx, min(q.l.cfg.NodeTimeout, releaseTimeout*9/10))
	defer cancel()
	_, _ = q.mutex(k, *a.value, q.l.cfg.TTL).UnlockContext(withCarrier(limited, &carrier{
		del: func(ctx context.Context, i int) (int64, error) {
			reply, err := r.wait(ctx, i)
			return one(reply.released), err
		},
	})) // the votes say more
	r.begin()
	votes := r.votes()
	ours, not := count(votes, func(r releaseReply) bool { return r.released })
	if ours < q.majority && len(votes)-not >= q.majority {
		return releaseReply{}, q.short(failures(votes))
	}
	return releaseReply{released: ours >= q.majority, queues: reported(votes)}, nil
}

// reported returns the queues that any node reports.
func reported(votes []vote[releaseReply]) (queues []string) {
	for _, v := range votes {
		for _, name := range v.reply.queues {
			if !slices.Contains(queues, name) {
				queues = append(queues, name)
			}
		}
	}
	return queues
}

func (q *quorum) extend(ctx context.Context, k *keys, a *extendArgs) (bool, error) {
	r := newRound(q, a.value, func(i int) (bool, error) {
		mine := *a
		return q.nodes[i].extend(ctx, k, &mine)
	})
	limited, cancel := context.WithTimeout(ctx, q.timeout(a.lease))
	defer cancel()
	_, _ = q.mutex(k, a.value, a.lease).ExtendContext(withCarrier(limited, &carrier{
		touch: func(ctx context.Context, i int) (int64, error) {
			held, err := r.wait(ctx, i)
			return one(held), err
		},
	})) // the votes say more
	r.begin()
	return q.agreed(r.votes())
}

// agreed is what a majority says, or an error if it says nothing.
func (q *quorum) agreed(votes []vote[bool]) (bool, error) {
	ok, not := count(votes, isTrue)
	switch {
	case ok >= q.majority:
		return true, nil
	case len(votes)-not < q.majority:
		return false, nil
	}
	return false, q.short(failures(votes))
}

func (q *quorum) extendAll(ctx context.Context, batch []extendItem) {
	copies := make([][]extendItem, len(q.nodes)) // some nodes may still be at it when this returns
	for i := range copies {
		copies[i] = slices.Clone(batch)
	}
	r := newRound(q, "", func(i int) ([]extendItem, error) {
		q.nodes[i].extendAll(ctx, copies[i])
		return copies[i], nil
	})
	item := func(votes []vote[[]extendItem], i int) []vote[bool] {
		out := make([]vote[bool], len(votes))
		for j, v := range votes {
			if out[j] = (vote[bool]{node: v.node, err: v.err}); v.err == nil {
				out[j].reply, out[j].err = v.reply[i].held, v.reply[i].err
			}
		}
		return out
	}
	timeout := q.l.cfg.NodeTimeout
	for i := range batch {
		timeout = min(timeout, q.timeout(batch[i].args.lease))
	}
	votes := r.until(timeout, func(votes []vote[[]extendItem]) bool {
		for i := range batch {
			if _, err := q.agreed(item(votes, i)); err != nil {
				return false
			}
		}
		return true
	})
	for i := range batch {
		batch[i].held, batch[i].err = q.agreed(item(votes, i))
	}
}

func (q *quorum) adopt(ctx context.Context, k *keys, a *adoptArgs) (bool, error) {
	lagging := *a
	lagging.margin = q.l.cfg.FenceMargin
	r := newRound(q, a.value, func(i int) (bool, error) { return q.nodes[i].adopt(ctx, k, &lagging) })
	votes := r.until(q.timeout(a.lease), func(votes []vote[bool]) bool {
		_, err := q.agreed(votes)
		return err == nil
	})
	ok, err := q.agreed(votes)
	if err == nil && !ok { // a minority may have agreed
		newRound(q, a.value, func(i int) (struct{}, error) {
			return struct{}{}, q.nodes[i].discard(ctx, k, a.value)
		}).begin()
	}
	return ok, err
}

func (q *quorum) revoke(ctx context.Context, k *keys, margin time.Duration, report bool, seen func(value string)) (releaseReply, error) {
	r := newRound(q, "", func(i int) (releaseReply, error) { return q.nodes[i].revoke(ctx, k, margin, report, seen) })
	was := func(r releaseReply) bool { return r.released }
	// An acquire may be under way to a node that says nobody held it.
	votes := r.until(q.l.cfg.NodeTimeout, func(votes []vote[releaseReply]) bool {
		n, _ := count(votes, was)
		return n >= q.majority
	})
	if bad := failures(votes); len(bad) > len(votes)-q.majority {
		return releaseReply{}, q.short(bad)
	}
	n, _ := count(votes, was)
	return releaseReply{released: n > 0, queues: reported(votes)}, nil
}

func (q *quorum) look(ctx context.Context, k *keys, queue string, floor time.Duration) (lookReply, error) {
	r := newRound(q, "", func(i int) (lookReply, error) { return q.nodes[i].look(ctx, k, queue, floor) })
	names := func(votes []vote[lookReply]) (t tally) {
		for _, v := range votes {
			switch {
			case v.err != nil:
			case v.reply.held:
				t.add(v.reply.value, v.reply.left)
			default:
				t.free++
			}
		}
		return t
	}
	votes := r.until(q.l.cfg.NodeTimeout, func(votes []vote[lookReply]) bool {
		t := names(votes)
		_, _, n := t.most()
		return n >= q.majority || t.free >= q.majority
	})
	if bad := failures(votes); len(bad) > len(votes)-q.majority {
		return lookReply{}, q.short(bad)
	}
	t := names(votes)
	value, left, n := t.most()
	switch {
	case n >= q.majority:
		return lookReply{held: true, left: left, value: value}, nil
	case t.free >= q.majority:
		return lookReply{}, nil
	}
	// Split. An acquire would be refused, and who takes votes back announces nothing.
	return lookReply{held: true, left: t.soonest(splitTime), value: value}, nil
}

// splitTime is how long votes that are split are taken to stay so.
const splitTime = 100 * time.Millisecond

// settled reports whether a majority names the same holder, or none can.
func (q *quorum) settled(t tally) bool {
	_, _, n := t.most()
	return n >= q.majority || t.free > len(q.nodes)-q.majority
}

func (q *quorum) inspect(ctx context.Context, k *keys) (inspectReply, error) {
	r := newRound(q, "", func(i int) (inspectReply, error) { return q.nodes[i].inspect(ctx, k) })
	names := func(votes []vote[inspectReply]) (t tally) {
		for _, v := range votes {
			switch {
			case v.err != nil:
			case v.reply.held:
				t.add(v.reply.value, v.reply.left)
			default:
				t.free++
			}
		}
		return t
	}
	votes := r.until(q.l.cfg.NodeTimeout, func(votes []vote[inspectReply]) bool { return q.settled(names(votes)) })
	if bad := failures(votes); len(bad) > len(votes)-q.majority {
		return inspectReply{}, q.short(bad)
	}
	var all inspectReply
	for _, v := range votes {
		if v.err == nil {
			all.fence = max(all.fence, v.reply.fence)
			all.waiters = max(all.waiters, v.reply.waiters)
			all.queues = append(all.queues, v.reply.queues...)
		}
	}
	slices.Sort(all.queues)
	all.queues = slices.Compact(all.queues)
	t := names(votes)
	if value, left, n := t.most(); n >= q.majority {
		all.held, all.value, all.left = true, value, left
	}
	return all, nil
}

// short is the error of a round that too few nodes answered.
func (q *quorum) short(bad []NodeError) error {
	return &shortError{text: "no majority of the nodes answered", nodes: bad}
}

// shortError is the cause of an UnavailableError with Nodes.
type shortError struct {
	text  string
	nodes []NodeError
	kept  bool // some nodes do hold what was asked for
}

func (e *shortError) Error() string {
	var b strings.Builder
	b.WriteString(e.text)
	for i, n := range e.nodes {
		b.WriteString([]string{" (", ", "}[min(i, 1)])
		b.WriteString(n.Error())
	}
	if len(e.nodes) > 0 {
		b.WriteByte(')')
	}
	return b.String()
}

// Unwrap returns the nodes' errors.
func (e *shortError) Unwrap() []error {
	errs := make([]error, len(e.nodes))
	for i := range e.nodes {
		errs[i] = &e.nodes[i]
	}
	return errs
}

// any reports whether is holds for one of the nodes' errors.
func (e *shortError) any(is func(error) bool) bool {
	return slices.ContainsFunc(e.nodes, func(n NodeError) bool { return is(n.Err) })
}

// tally counts which holder the nodes name.
type tally struct {
	free  int // nodes that name none
	votes int // nodes that name one
	by    []candidate
}

type candidate struct {
	value string
	n     int
	left  time.Duration // the least that a node says
}

func (t *tally) add(value string, left time.Duration) {
	t.votes++
	for i := range t.by {
		if h := &t.by[i]; h.value == value {
			h.n++
			if left >= 0 && (h.left < 0 || left < h.left) {
				h.left = left
			}
			return
		}
	}
	t.by = append(t.by, candidate{value, 1, left})
}

// most is the holder with the most votes.
func (t *tally) most() (value string, left time.Duration, n int) {
	for _, h := range t.by {
		if h.n > n {
			value, left, n = h.value, h.left, h.n
		}
	}
	return value, left, n
}

// soonest is the least that a node says is left to a holder, or limit if that is less.
func (t *tally) soonest(limit time.Duration) time.Duration {
	for _, h := range t.by {
		if h.left >= 0 {
			limit = min(limit, h.left)
		}
	}
	return limit
}

// count counts the nodes whose answer is yes, and those whose answer is not.
func count[T any](votes []vote[T], is func(T) bool) (yes, no int) {
	for _, v := range votes {
		switch {
		case v.err != nil:
		case is(v.reply):
			yes++
		default:
			no++
		}
	}
	return yes, no
}

func isTrue(b bool) bool { return b }

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func failures[T any](votes []vote[T]) []NodeError {
	var bad []NodeError
	for _, v := range votes {
		if v.err != nil {
			bad = append(bad, NodeError{Node: v.node, Err: v.err})
		}
	}
	return bad
}
