package script

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
)

// rested is for how long nothing was pushed before a request is offered. A server that has
// had something to do runs a push as soon as an offer.
const rested = 2 * time.Millisecond

// idleness is what the answer to the last push by itself said, and when that was.
type idleness struct {
	last  atomic.Int64            // when a request was last pushed by itself, since start
	start time.Time               // when q was made
	found atomic.Pointer[resting] // nil: it was not idle
}

// resting is an idle queue whose consumers take what is offered.
type resting struct {
	sent, answered time.Time // of the push
	server         time.Time // between the two, by the server's clock
	until          time.Time // by the server's clock
	lease          time.Duration
}

// Offer lets Push offer new requests to consumers that wait, when it knows of some, if finished
// ids are remembered for so long; 0: not at all. here is asked first whether it takes a request,
// as who pops it does. It must be called before Push.
func (q *Queue) Offer(memory time.Duration, here func(Handed) (took bool)) {
	q.memory, q.here = memory, here
}

// pushOne pushes a request without a lock and a max wait.
//
// If the queue was idle after the last one, and has rested since, the request is offered
// first: put into wake as one that is handed over, by a plain command, since a server that
// has had nothing to do runs a script slowly. Whoever waits there begins with it while the
// script stores it. The answer is that of the script. If somebody in this process takes it, as one
// who waits there could have been the first to do, wake is left out.
func (q *Queue) pushOne(ctx context.Context, e Entry) (Code, error) {
	now := time.Now()
	last := q.idle.last.Swap(int64(now.Sub(q.idle.start)))
	if r := q.idle.found.Load(); r != nil && e.New && now.Sub(q.idle.start)-time.Duration(last) > rested {
		if h, ok := r.offer(e, now); ok {
			if q.here(h) {
				return q.confirm(ctx, h, now)
			}
			q.open.add(h, now.Add(h.Lease)) // ctx may end at any time
			offered, err := q.offer(ctx, h)
			if offered {
				return q.confirm(ctx, h, now)
			}
			if q.open.drop(h.ID); err != nil {
				return 0, err
			}
		}
	}
	return q.pushed(now, q.accept(ctx, pushone, e.ID, e.Body))
}

// offer returns how e is offered, unless that has become too late.
func (r *resting) offer(e Entry, now time.Time) (h Handed, ok bool) {
	if !r.server.Add(now.Sub(r.sent)).Before(r.until) {
		return Handed{}, false
	}
	// The lease begins no earlier than this, also if the server's clock is a little slower.
	at := r.server.Add(now.Sub(r.answered)).UnixMilli() - 1
	return Handed{
		Item:  Item{ID: e.ID, Body: e.Body, Deliveries: 1, Accepted: time.UnixMilli(at)},
		Token: "o" + strconv.FormatInt(at, 10), Lease: r.lease,
	}, true
}

// Offered reports whether h was offered: its push comes later than itself.
func (h *Handed) Offered() bool { return h.Token != "" && h.Token[0] == 'o' }

// state is the packed state of a request that was offered.
func (h *Handed) state() string {
	return "l" + h.Token + "|1|" + strconv.FormatInt(h.Accepted.UnixMilli(), 10)
}

// String is how h stands in wake.
func (h *Handed) String() string { return string(h.text()) }

func (h *Handed) text() []byte {
	state := h.state()
	out := make([]byte, 0, 64+len(h.ID)+len(state)+len(h.Body))
	for _, n := range []int64{ms(h.Lease), int64(len(h.ID)), int64(len(state))} {
		out = append(strconv.AppendInt(out, n, 10), ' ')
	}
	return append(append(append(out, h.ID...), state...), h.Body...)
}

// offering is the command that puts an offer into wake. It is sent once.
type offering struct {
	*redis.IntCmd
	refused bool // by the server, whatever its client made of that
}

// NoRetry keeps the client from sending it again.
func (o *offering) NoRetry() bool { return true }

// SetErr is called with the error of each attempt: a ClusterClient makes another where the
// server has named another node.
func (o *offering) SetErr(err error) {
	var reply redis.Error
	o.refused = o.refused || errors.As(err, &reply)
	o.IntCmd.SetErr(err)
}

// offer puts a request into wake. It reports true if it may have: then what is confirmed runs
// when its lease ends, at the latest, and who pushed it instead could make it run beside
// itself. The error is that of a push that could not be sent.
func (q *Queue) offer(ctx context.Context, h Handed) (offered bool, err error) {
	word := attempts.NewOnce(h.text())
	cmd := &offering{IntCmd: redis.NewIntCmd(ctx, "lpush", q.keys.Wake(), word)}
	err = q.rdb.Process(ctx, cmd)
	var reply redis.Error
	switch {
	case err == nil:
		return true, nil
	case cmd.refused || errors.As(err, &reply):
		return false, nil
	case !word.Written():
		return false, err
	}
	return true, nil
}

var offered = compile("offered")

// Confirm is the push of a request that was offered. Who took it sends that before all that
// concerns the request, unless it is acknowledged.
func (q *Queue) Confirm(ctx context.Context, h Handed) error {
	_, err := offered.run(ctx, q, nil, h.args()...).Result()
	if err == nil {
		q.open.drop(h.ID)
	}
	return err
}

func (h *Handed) args() []any { return []any{h.ID, h.Body, h.state(), ms(h.Lease)} }

// confirm is Confirm by who offered the request at a time, whatever became of ctx since: it may
// be running.
func (q *Queue) confirm(ctx context.Context, h Handed, at time.Time) (Code, error) {
	runtime.Gosched() // whoever took it in this process comes first
	now := time.Now()
	left := q.memory - max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
	if left <= 0 { // it may be done, and forgotten
		return 0, attempts.Again(fmt.Errorf("offered %v ago, which is too long to store it", q.memory-left))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	cmd := q.accept(ctx, offered, h.args()...)
	if err := cmd.Err(); err != nil {
		q.idle.found.Store(nil)
		return 0, attempts.Again(err)
	}
	q.open.drop(h.ID)
	_, err := q.pushed(now, cmd)
	return Done, err // also if who took it was sooner: the id is new
}

// pushed reads the answer to the push of one request.
func (q *Queue) pushed(sent time.Time, cmd *redis.Cmd) (Code, error) {
	v, err := cmd.Slice()
	if err != nil {
		return 0, err
	}
	r := reader{v: v}
	code := Code(r.number())
	var found *resting
	if len(r.v) > 0 && q.memory > 0 {
		found = &resting{sent: sent, answered: time.Now()}
		found.until = time.UnixMilli(r.number())
		found.lease = time.Duration(r.number()) * time.Millisecond
		found.server = time.UnixMilli(r.number())
	}
	q.idle.found.Store(found)
	return code, first("push", r.err)
}

// openOffers are those made, or taken, here that are not known to be stored.
type openOffers struct {
	n   atomic.Int32 // how many
	mu  sync.Mutex
	all map[string]openOffer // by id; guarded by mu
}

type openOffer struct {
	Handed
	until time.Time // then its taker has stored it, or lost it
}

func (o *openOffers) add(h Handed, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[string]openOffer)
	}
	maps.DeleteFunc(o.all, func(_ string, x openOffer) bool { return !time.Now().Before(x.until) })
	o.all[h.ID] = openOffer{h, until}
	o.n.Store(int32(len(o.all)))
}

func (o *openOffers) drop(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, id)
	o.n.Store(int32(len(o.all)))
}

// of returns the open offer of a request.
func (o *openOffers) of(id string) (h Handed, ok bool) {
	if o.n.Load() == 0 {
		return h, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	x, ok := o.all[id]
	return x.Handed, ok && time.Now().Before(x.until)
}

// Took says that a request which was offered was taken here, and has so long a lease.
func (q *Queue) Took(h Handed, lease time.Duration) { q.open.add(h, time.Now().Add(lease)) }

// Stored says that a request which was taken here is stored, or done.
func (q *Queue) Stored(id string) { q.open.drop(id) }

// close stores a request whose offer is open: whatever else is asked about it by its ID is
// asked of what is stored. To push it as any other could run it beside itself.
func (q *Queue) close(ctx context.Context, id string) error {
	if h, ok := q.open.of(id); ok {
		return q.Confirm(ctx, h)
	}
	return nil
}

// closing is do, for a request whose offer may be open.
func (q *Queue) closing(id string, do func(context.Context) *redis.Cmd) func(context.Context) *redis.Cmd {
	return func(ctx context.Context) *redis.Cmd {
		if err := q.close(ctx, id); err != nil {
			return failed(ctx, err)
		}
		return do(ctx)
	}
}
