package script

import (
	"context"
	"errors"
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
	open  openOffers
}

// openOffers are those that are not confirmed, and whose takers may be at work.
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

// resting is an idle queue whose consumers take what is offered.
type resting struct {
	sent, answered time.Time // of the push
	server         time.Time // between the two, by the server's clock
	until          time.Time // by the server's clock
	lease          time.Duration
}

// Offer lets Push offer new requests to consumers that wait, when it knows of some. Finished
// ids must be remembered for some time. It must be called before Push.
func (q *Queue) Offer(allowed bool) { q.offers = allowed }

// pushOne pushes a request without a lock and a max wait.
//
// If the queue was idle after the last one, and has rested since, the request is offered
// first: put into wake as one that is handed over, by a plain command, since a server that
// has had nothing to do runs a script slowly. Whoever waits there begins with it while the
// script stores it. The answer is that of the script.
func (q *Queue) pushOne(ctx context.Context, e Entry) (Code, error) {
	now := time.Now()
	if h, ok := q.idle.open.of(e.ID); ok && !e.New { // to push it as any other could run it beside itself
		return q.pushed(now, q.accept(ctx, offered, h.args()...))
	}
	last := q.idle.last.Swap(int64(now.Sub(q.idle.start)))
	if r := q.idle.found.Load(); r != nil && e.New && now.Sub(q.idle.start)-time.Duration(last) > rested {
		if h, ok := r.offer(e, now); ok && q.offer(ctx, h) {
			return q.confirm(ctx, h)
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

// offer puts a request into wake. It reports false if that is known to have failed. If it may
// have failed, what is confirmed runs when its lease ends: who pushed it instead could make it
// run beside itself.
func (q *Queue) offer(ctx context.Context, h Handed) bool {
	word := attempts.NewOnce(h.text())
	err := q.rdb.Process(ctx, redis.NewIntCmd(ctx, "lpush", q.keys.Wake(), word))
	var reply redis.Error
	return err == nil || word.Written() && !errors.As(err, &reply)
}

var offered = compile("offered")

// Confirm is the push of a request that was offered. Who took it sends that before all that
// concerns the request, unless it is acknowledged.
func (q *Queue) Confirm(ctx context.Context, h Handed) error {
	return offered.run(ctx, q, nil, h.args()...).Err()
}

func (h *Handed) args() []any { return []any{h.ID, h.Body, h.state(), ms(h.Lease)} }

// confirm is Confirm by who offered the request, whatever became of ctx: it may be running.
func (q *Queue) confirm(ctx context.Context, h Handed) (Code, error) {
	runtime.Gosched() // whoever took it in this process comes first
	now := time.Now()
	q.idle.open.add(h, now.Add(h.Lease)) // ctx may end before this does
	cmd := q.accept(context.WithoutCancel(ctx), offered, h.args()...)
	if err := cmd.Err(); err != nil {
		return 0, attempts.Again(err)
	}
	q.idle.open.drop(h.ID)
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
	if len(r.v) > 0 && q.offers {
		found = &resting{sent: sent, answered: time.Now()}
		found.until = time.UnixMilli(r.number())
		found.lease = time.Duration(r.number()) * time.Millisecond
		found.server = time.UnixMilli(r.number())
	}
	q.idle.found.Store(found)
	return code, first("push", r.err)
}
