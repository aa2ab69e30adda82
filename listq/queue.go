package listq

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/client"
	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
)

// Queue is a queue in Redis. It is safe for concurrent use. Make one with [New].
type Queue struct {
	name   string
	cfg    Config
	script *script.Queue
	feeder string
	lanes  [2]lane
	takers takers

	anchor atomic.Pointer[anchor] // of the last answered claim
}

// lane is a sequence of claims, each of which is answered before the next is made. A
// second one lets a claim be under way while another is.
type lane struct {
	feed script.Feed

	mu     sync.Mutex // held while a claim is under way; guards the fields below
	claims int64      // made and answered
	sent   time.Time  // when the next one was first sent; zero: it was not
}

// anchor pairs the server's time in an answer with when the question was sent, which
// was no later than that, and with when the answer came, which was no earlier.
type anchor struct{ sent, answered, server time.Time }

// New returns the queue of that name on rdb. It sends nothing. It panics if rdb
// is nil, name is empty, over 255 bytes, or has a brace or a control character,
// or a value of cfg is out of its range.
func New(rdb redis.UniversalClient, name string, cfg Config) *Queue {
	if client.IsNil(rdb) {
		panic("listq: New with a nil client")
	}
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '{' || r == '}' || r == 0x7f }) {
		panic(fmt.Sprintf("listq: New with the queue name %q: it must have 1 to 255 bytes, no brace and no control character", name))
	}
	cfg = cfg.withDefaults()
	scripts := script.New(rdb, keys.Of(keys.Base(cfg.Prefix, name)))
	scripts.Replicate(script.Wait(cfg.Wait))
	q := &Queue{name: name, cfg: cfg, script: scripts, feeder: feederID()}
	scripts.Offer(cfg.Resend, q.takeHere)
	// Those who are not the timekeeper look after it, each at another time: not so
	// soon that every due request costs every idle process a command.
	slack := cfg.Poll/4 + rand.N(cfg.Poll/2)
	for i := range q.lanes {
		q.lanes[i].feed = script.Feed{
			Feeder: q.feeder, Lane: i, Lease: cfg.Lease, MaxDeliveries: cfg.MaxDeliveries,
			Slack: slack, MaxDead: cfg.MaxDead, DeadAge: cfg.DeadAge, ProbeAgain: time.Second,
			// A consumer that listens claims once a poll. What is handed over to one that
			// dies runs again after half of this, as what a lost token was for is found.
			Listen: 2 * max(cfg.Poll, leastLease),
		}
	}
	return q
}

// feederID is short, since it is part of every lease's token.
func feederID() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

// Name returns the queue's name.
func (q *Queue) Name() string { return q.name }

// Key returns what all keys of the queue in Redis begin with. It names the queue
// among all that wait for one lock.
func (q *Queue) Key() string { return q.script.Keys().Base() }

// Script returns the queue's scripts, for package delayq.
func (q *Queue) Script() *script.Queue { return q.script }

// Entry checks a request and returns it in the form that the scripts take, for
// package delayq. It sets r.ID if that is empty.
func (q *Queue) Entry(r *Request) (script.Entry, error) { return q.entry(r) }

// Resend returns how long finished ids are remembered, for package delayq.
func (q *Queue) Resend() time.Duration { return q.cfg.Resend }

// Push appends requests to the queue, in order and all or none, in one round
// trip, and sets the ID of those that have none. A new request by itself that names no lock
// takes two where the queue has rested, and its handler begins in the first; but one if a
// consumer of this Queue has nothing to do, in which it begins at once. Push returns how many
// were new: one whose ID is in the queue, or was finished less than [Config.Resend] ago,
// is left as it is. At most 128 requests; none is no error.
//
// What several goroutines push at once may share that round trip, and then an
// error of it; each is told of its own requests. Who waits for a place there when
// ctx ends has pushed nothing, though the error may say that it could have been.
//
// After an error of the network the requests may have been accepted; to push
// them again is safe, as they have their IDs now.
func (q *Queue) Push(ctx context.Context, reqs ...*Request) (added int, err error) {
	return q.push(ctx, false, reqs)
}

// PushNew is Push for a request whose ID was just made by [NewID], and is nobody else's, for
// package sidestep.
func (q *Queue) PushNew(ctx context.Context, r *Request) error {
	_, err := q.push(ctx, true, []*Request{r})
	return err
}

func (q *Queue) push(ctx context.Context, news bool, reqs []*Request) (added int, err error) {
	if len(reqs) == 0 {
		return 0, nil
	}
	if len(reqs) > script.Bound {
		return 0, fmt.Errorf("listq: push to %q: %w: %d requests, more than %d", q.name, ErrInvalid, len(reqs), script.Bound)
	}
	entries := make([]script.Entry, len(reqs))
	for i, r := range reqs {
		if entries[i], err = q.entry(r); err != nil {
			return 0, fmt.Errorf("listq: push to %q: %w", q.name, err)
		}
		entries[i].New = entries[i].New || news
	}
	codes, err := q.script.Push(ctx, entries)
	if err != nil {
		return 0, fmt.Errorf("listq: push to %q: %w", q.name, err)
	}
	for _, c := range codes {
		if c == script.Done {
			added++
		}
	}
	return added, nil
}

// Claimed is what a [Queue.Claim] brought.
type Claimed struct {
	Deliveries []*Delivery
	// Probes are locks with requests in line, of which nobody has said for a
	// while whether they are free: package delayq looks at them.
	Probes []string
	// Wait is how long until something is due; negative: nothing is.
	Wait time.Duration
	// More says that requests were left that can run now.
	More bool
}

// Claim leases up to n requests, at most 128 whatever n is, to the caller, in one round trip,
// and brings back what is due: expired leases, and as many delayed requests as it
// leases, or sixteen. It does not wait: no request is no error. n = 0, or less,
// only brings back, up to 128.
//
// Most callers want [Queue.Consume] instead. Those who claim by themselves
// extend the leases, and settle each delivery by Ack, Nack or Requeue. Requests
// that cannot be decoded are buried, at a further round trip each. Claims of one
// Queue run one after another.
//
// After an error of the network, the next call returns what the lost reply held,
// which may be more than it asked for, and whose leases began with the first try. A Redis
// that hangs is waited for as long as the client's own timeouts say.
func (q *Queue) Claim(ctx context.Context, n int) (Claimed, error) {
	c, err := q.claimNext(ctx, &q.lanes[0], max(n, 0), hearing{}, nil)
	if err != nil {
		return Claimed{}, err
	}
	all, bad := q.decodeAll(ctx, c)
	for _, b := range bad {
		b.bury(ctx)
	}
	return Claimed{Deliveries: all, Probes: c.Probes, Wait: c.Wait, More: c.More}, nil
}

// undecodable is a claimed request whose stored form this program cannot read.
type undecodable struct {
	*Delivery
	why error
}

func (u undecodable) bury(ctx context.Context) {
	if err := u.Bury(ctx, "undecodable: "+u.why.Error()); err != nil {
		u.queue.cfg.Logger.WarnContext(ctx, "an undecodable request could not be buried", "queue", u.queue.name, "id", u.ID, "error", err)
	}
}

// claim is the answer to a claim.
type claim struct {
	script.Claimed
	sent  time.Time // when it was first sent: the leases began no earlier
	token string    // of the leases
}

// hearing says what the consumer that claims hears of without a claim.
type hearing struct {
	wake   bool // requests may be handed over while slots are free
	offers bool // and offered, so that some of them come before older ones
}

// claimNext makes the next claim of a lane, or makes one again whose reply was lost, and
// acknowledges in the same command what is done, which it puts in order, those of one
// lease together.
func (q *Queue) claimNext(ctx context.Context, l *lane, n int, hears hearing, done []*Delivery) (c claim, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil { // nothing is sent, so no lease begins
		return claim{}, fmt.Errorf("listq: claim from %q: %w", q.name, err)
	}
	number, sent, feed := l.claims+1, time.Now(), l.feed
	if n > 0 && l.sent.IsZero() {
		l.sent = sent
	}
	if !hears.wake {
		feed.Listen = 0
	}
	feed.Offers = hears.offers
	c.sent, c.token = l.sent, feed.Token(number)
	slices.SortStableFunc(done, func(a, b *Delivery) int { return strings.Compare(a.lease.Token, b.lease.Token) })
	once := !slices.ContainsFunc(done, func(d *Delivery) bool { return d.told })
	if c.Claimed, err = q.script.Exchange(ctx, &feed, number, n, q.cfg.Resend, leases(done), once); err != nil {
		for _, d := range done {
			d.told = true
		}
		return claim{}, fmt.Errorf("listq: claim from %q: %w", q.name, err)
	}
	q.anchor.Store(&anchor{sent, time.Now(), c.Now})
	if n > 0 {
		l.claims, l.sent = number, time.Time{}
	}
	return c, nil
}

// decodeAll makes deliveries of what was claimed, and tells the hook what was buried.
func (q *Queue) decodeAll(ctx context.Context, c claim) (all []*Delivery, bad []undecodable) {
	q.buried(ctx, c.Buried)
	for _, it := range c.Items {
		d, err := q.decode(it, c.token, c.sent.Add(q.cfg.Lease))
		if err != nil {
			bad = append(bad, undecodable{d, err})
			continue
		}
		all = append(all, d)
	}
	return all, bad
}

// decode makes a delivery of a request that is leased until a time.
func (q *Queue) decode(it script.Item, token string, until time.Time) (d *Delivery, err error) {
	d = &Delivery{
		Deliveries: it.Deliveries, Attempts: it.Attempts, Deferrals: it.Deferrals, Accepted: it.Accepted,
		queue: q, lease: script.Lease{ID: it.ID, Token: token},
	}
	d.until.Store(&until)
	d.Request, err = decode(it.ID, it.Body)
	return d, err
}

// handed makes a delivery of a request that was handed over. Its lease began when
// it was pushed, by the server's clock, of which the last answered claim says how
// long ago that is at the most; or now at the latest, if that clock has been stepped.
func (q *Queue) handed(h script.Handed) (*Delivery, error) {
	began := time.Now()
	a := q.anchor.Load()
	if a == nil {
		began = began.Add(-h.Lease) // nothing is known: too late
	} else if at := a.sent.Add(h.Accepted.Sub(a.server) - time.Millisecond); at.Before(began) { // both are in whole ms
		began = at
	}
	// Who listened may have another Config.Lease than this process, which extends to its own.
	d, err := q.decode(h.Item, h.Token, began.Add(min(h.Lease, q.cfg.Lease)))
	if h.Offered() {
		d.offer.Store(&h)
		q.script.Took(h, h.Lease)
	}
	return d, err
}

// Promote tells the queue that a lock may be free: its oldest request in line
// gets its turn, unless another has it. It is a hint and may be repeated.
func (q *Queue) Promote(ctx context.Context, lock string) error {
	if err := CheckLock(lock); err != nil {
		return fmt.Errorf("listq: promote in %q: %w", q.name, err)
	}
	_, buried, err := q.script.Promote(ctx, lock)
	if err != nil {
		return fmt.Errorf("listq: promote %q in %q: %w", lock, q.name, err)
	}
	q.buried(ctx, buried)
	return nil
}

// Revive makes a dead request start anew, at the tail of the queue and with its
// counters at zero. It returns false if there is no dead request of that ID.
func (q *Queue) Revive(ctx context.Context, id string) (bool, error) {
	if err := CheckID(id); err != nil {
		return false, fmt.Errorf("listq: revive: %w", err)
	}
	code, err := q.script.Revive(ctx, id, feederID())
	if err != nil {
		return false, fmt.Errorf("listq: revive %q in %q: %w", id, q.name, err)
	}
	return code == script.Done || code == script.Already, nil
}

func (q *Queue) buried(ctx context.Context, buried []script.Buried) {
	if q.cfg.Hooks.Dead == nil {
		return
	}
	for _, b := range buried {
		q.cfg.Hooks.Dead(ctx, DeadEvent{Queue: q.name, ID: b.ID, Reason: b.Reason})
	}
}

// Settled reports requests that a script of package delayq buried to the hook.
func (q *Queue) Settled(ctx context.Context, buried []script.Buried) { q.buried(ctx, buried) }
