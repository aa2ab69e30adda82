// Package script is the state machine of a queue: one Lua script per
// transition, atomic on the server, and one typed function per script.
//
// The rules are those of docs/queue.md. Every request is in exactly one of
// ready, delayed, parked, leased and dead; the time is the server's; a script
// that is sent again with the same ids and tokens changes nothing more.
package script

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/batch"
	"github.com/sidestep-go/sidestep/internal/keys"
)

// Code is what a script answers about one request.
type Code int

// The codes. Which of them a script can answer stands in its header.
const (
	Stale   Code = 0 // nothing changed: unknown, or leased to somebody else
	Done    Code = 1
	Already Code = 2 // nothing changed: this very call was applied before, or the request was cancelled a short while ago
	Refused Code = 3 // nothing changed: not possible where the request is
	Died    Code = 3 // nack, park: a cap was reached, the request is dead
)

// Buried is a request that a script moved to the dead because a cap was reached.
type Buried struct {
	ID, Reason string
}

// Bound is how many requests one script call takes or moves at the most.
const Bound = 128

// Queue runs the scripts on one queue. It is safe for concurrent use.
type Queue struct {
	rdb   redis.UniversalClient
	keys  keys.Queue
	args  []any // the keys
	wait  Wait
	heeds bool // rdb heeds contexts

	memory time.Duration            // of finished ids; 0: nothing is offered
	here   func(Handed) (took bool) // starts in this process what is offered
	idle   idleness
	open   openOffers

	pushes *batch.Room[*pushing] // where those meet who push at once
}

// New returns the scripts of the queue with the given keys.
func New(rdb redis.UniversalClient, k keys.Queue) *Queue {
	q := &Queue{rdb: rdb, keys: k, heeds: heedsContext(rdb), idle: idleness{start: time.Now()}}
	q.pushes = batch.New(q.pushAll, (*pushing).weight, Bound*entryWeight, q.heeds)
	for _, key := range k.All() {
		q.args = append(q.args, key)
	}
	return q
}

// Client returns the client the scripts run on.
func (q *Queue) Client() redis.UniversalClient { return q.rdb }

// Keys returns the queue's keys.
func (q *Queue) Keys() keys.Queue { return q.keys }

// Entry is a request as push, schedule and parknew store it.
type Entry struct {
	ID      string
	Body    string
	Lock    string        // "" for none
	MaxWait time.Duration // 0 for no limit
	// Deferrals counts the held locks that the request has met before Schedule.
	Deferrals int
	// New says that nobody has pushed the ID before, or will but with this entry.
	New bool
}

var push, pushone = compile("push"), compile("pushone")

// Push accepts requests, at least one, at the tail of ready. What several push at
// once goes in one call of the script, if it would have to wait anyway: each is
// answered for its own, and has its error if the call has one.
func (q *Queue) Push(ctx context.Context, entries []Entry) ([]Code, error) {
	if ctx.Done() == nil { // saves an allocation
		return q.meet(ctx, entries)
	}
	return Until(ctx, func(ctx context.Context) ([]Code, error) { return q.meet(ctx, entries) })
}

// meet pushes entries, with those of others if it would have to wait.
func (q *Queue) meet(ctx context.Context, entries []Entry) ([]Code, error) {
	x, ok := q.pushes.Enter()
	if !ok {
		var sent bool
		var err error
		p := &pushing{entries: entries}
		if x, sent, err = q.pushes.Join(ctx, p); err != nil && !errors.Is(err, batch.ErrLost) {
			return nil, err // p may be under way
		}
		switch {
		case err != nil:
			return q.push(ctx, entries)
		case sent:
			return p.codes, p.err
		}
	}
	defer q.pushes.Leave(x)
	return q.push(ctx, entries)
}

func (q *Queue) push(ctx context.Context, entries []Entry) ([]Code, error) {
	for _, e := range entries {
		if err := q.close(ctx, e.ID); err != nil {
			return nil, err
		}
	}
	if e := entries[0]; len(entries) == 1 && e.Lock == "" && e.MaxWait == 0 {
		code, err := q.pushOne(ctx, e)
		return []Code{code}, err
	}
	q.idle.found.Store(nil)
	args := make([]any, 0, 4*len(entries))
	for _, e := range entries {
		args = append(args, e.ID, e.Body, e.Lock, ms(e.MaxWait))
	}
	return codes(q.accept(ctx, push, args...), len(entries))
}

// pushing is one call of Push among others.
type pushing struct {
	entries []Entry
	codes   []Code
	err     error
}

// entryWeight is what a request weighs, beside its bytes, in a call that several
// share: no more than Bound of them go together, and fewer large ones.
const entryWeight = 1 << 10

func (p *pushing) weight() int {
	n := 0
	for _, e := range p.entries {
		n += entryWeight + len(e.ID) + len(e.Body) + len(e.Lock)
	}
	return n
}

func (q *Queue) pushAll(ctx context.Context, all []*pushing) {
	var entries []Entry
	for _, p := range all {
		entries = append(entries, p.entries...)
	}
	codes, err := q.push(ctx, entries)
	for _, p := range all {
		if p.err = err; err == nil {
			n := len(p.entries)
			p.codes, codes = codes[:n:n], codes[n:]
		}
	}
}

// heedsContext reports whether a client leaves a command behind when its context
// ends.
func heedsContext(rdb redis.UniversalClient) bool {
	switch c := rdb.(type) {
	case *redis.Client:
		return c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c.Options().ContextTimeoutEnabled
	}
	return false
}

// Due is a time for schedule, parknew and reschedule.
type Due string

// In is a time d from now by the server's clock.
func In(d time.Duration) Due { return Due("+" + strconv.FormatInt(ms(d), 10)) }

// At is an instant by the server's clock.
func At(t time.Time) Due { return Due(strconv.FormatInt(t.UnixMilli(), 10)) }

var (
	schedule = compile("schedule")
	parknew  = compile("parknew")
)

// Schedule accepts a request that is due at a time.
func (q *Queue) Schedule(ctx context.Context, e Entry, due Due) (Code, time.Time, error) {
	return dated(q.acceptUntil(ctx, schedule, e.ID, e.Body, e.Lock, ms(e.MaxWait), string(due), e.Deferrals))
}

// ParkNew accepts a request in line for its lock, with a probe at due at the
// latest.
func (q *Queue) ParkNew(ctx context.Context, e Entry, due Due) (Code, time.Time, error) {
	return dated(q.acceptUntil(ctx, parknew, e.ID, e.Body, e.Lock, ms(e.MaxWait), string(due)))
}

// Feed is what the claims of one feeder have in common.
type Feed struct {
	Feeder        string        // unique, no spaces, no slash
	Lane          int           // of the feeder's claims, where several may be under way: each counts its own
	Lease         time.Duration // of claimed requests
	MaxDeliveries int           // 0 for no limit
	Slack         time.Duration // by which the other feeders' clocks lag behind the timekeeper's
	MaxDead       int           // 0 for no limit
	DeadAge       time.Duration // 0 for no limit
	ProbeAgain    time.Duration // after which an unanswered probe is due again
	Listen        time.Duration // how long a claim that leaves slots free lets requests be handed over, with leases of at most half of it; 0: not at all
	Offers        bool          // what is offered may be handed over as well
}

// Item is a claimed request.
type Item struct {
	ID, Body                        string
	Deliveries, Attempts, Deferrals int
	Accepted                        time.Time
}

// Claimed is the answer to a claim.
type Claimed struct {
	Items  []Item
	Probes []string      // locks with parked requests, to be looked at
	Wait   time.Duration // until something is due; negative: nothing is
	More   bool          // ready is not empty, or more is due
	Buried []Buried
	Acked  []Code    // by Exchange
	Now    time.Time // by the server's clock
}

// Name is that of the feeder's lane.
func (f *Feed) Name() string {
	if f.Lane == 0 {
		return f.Feeder
	}
	return f.Feeder + "/" + strconv.Itoa(f.Lane)
}

// Token returns the lease token of a feeder's claim.
func (f *Feed) Token(claim int64) string { return f.Name() + ":" + strconv.FormatInt(claim, 10) }

var claim = compile("claim")

// Claim leases up to n requests, at most Bound. number counts the claims of the
// feeder's lane, from 1; a claim whose answer was lost is made again with its number.
// Its window is 0: a sixteenth one turns the memory of finished ids over at once.
func (q *Queue) Claim(ctx context.Context, f *Feed, number int64, n int) (Claimed, error) {
	return q.Exchange(ctx, f, number, n, 0, nil, true)
}

// Exchange is Ack and then Claim, in one command. Every sixteenth one turns the
// memory of finished ids over if that was last done window ago. once says that no
// acknowledgement of any of done has been sent before, but by this very call: that is
// cheaper, and must be true.
func (q *Queue) Exchange(ctx context.Context, f *Feed, number int64, n int, window time.Duration, done []Lease, once bool) (Claimed, error) {
	name := f.Name()
	args := append(make([]any, 0, 17+len(done)), name, number, min(n, Bound), ms(f.Lease),
		f.MaxDeliveries, ms(f.Slack), f.MaxDead, ms(f.DeadAge), ms(f.ProbeAgain), ms(window), ms(f.Listen), flag(once), flag(f.Offers))
	return claimed(claim.run(ctx, q, []string{q.keys.Last(name)}, appendDone(args, done)...), len(done))
}

func claimed(cmd *redis.Cmd, finished int) (Claimed, error) {
	v, err := cmd.Slice()
	if err != nil {
		return Claimed{}, err
	}
	r := reader{v: v}
	var c Claimed
	items := reader{v: r.list()}
	c.Items = make([]Item, 0, len(items.v)/3)
	var s State
	var last string // that s was read from: of many the states are the same
	for len(items.v) > 0 && items.err == nil {
		id, body, packed := items.text(), items.text(), items.text()
		if packed != last || last == "" {
			var err error
			if s, err = ParseState(packed); err != nil && items.err == nil {
				items.err = err
			}
			last = packed
		}
		c.Items = append(c.Items, s.item(id, body))
	}
	probes := reader{v: r.list()}
	for len(probes.v) > 0 && probes.err == nil {
		c.Probes = append(c.Probes, probes.text())
	}
	c.Wait = time.Duration(min(r.number(), maxMillis)) * time.Millisecond
	c.More = r.number() == 1
	c.Buried = r.buried()
	c.Acked = r.acked(finished)
	c.Now = time.UnixMilli(r.number())
	return c, first("claim", r.err, items.err, probes.err)
}

func (s *State) item(id, body string) Item {
	return Item{
		ID: id, Body: body, Deliveries: s.Deliveries, Attempts: s.Attempts, Deferrals: s.Deferrals, Accepted: s.Accepted,
	}
}

// Handed is a request that was handed over when it was pushed, as it comes out of
// wake. Its lease began when it was accepted.
type Handed struct {
	Item
	Token string
	Lease time.Duration
}

// ParseHanded reads what comes out of wake; ok is false if that is a token.
func ParseHanded(v string) (h Handed, ok bool, err error) {
	if v == "1" {
		return h, false, nil
	}
	bad := func(what string) (Handed, bool, error) {
		return Handed{}, true, fmt.Errorf("hand-over %.80q: %s", v, what)
	}
	var nums [3]int64
	rest := v
	for i := range nums {
		field, after, found := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(field, 10, 64)
		if !found || err != nil || n < 0 {
			return bad("no number where one should be")
		}
		nums[i], rest = n, after
	}
	if nums[0] > maxMillis || nums[1] > int64(len(rest)) || nums[2] > int64(len(rest))-nums[1] {
		return bad("a number is out of range")
	}
	id, packed, body := rest[:nums[1]], rest[nums[1]:nums[1]+nums[2]], rest[nums[1]+nums[2]:]
	s, err := ParseState(packed)
	if err != nil {
		return Handed{}, true, err
	}
	return Handed{Item: s.item(id, body), Token: s.Token, Lease: time.Duration(nums[0]) * time.Millisecond}, true, nil
}

// Lease names a claimed request and its holder.
type Lease struct {
	ID, Token string
}

var ack = compile("ack")

// Ack removes finished requests. Their ids are remembered for at least window.
//
// A worker that was told of parked requests when it released the lock, and whose
// Ack, Nack or Bury then answers anything but Done or Died, calls Promote: the
// request may have been cancelled or leased anew in the meantime, and the next in
// line have met the worker's own lock.
func (q *Queue) Ack(ctx context.Context, window time.Duration, leases []Lease) (codes []Code, more bool, _ []Buried, err error) {
	return acked(ack.run(ctx, q, nil, appendDone(append(make([]any, 0, 3+len(leases)), ms(window)), leases)...), len(leases))
}

func acked(cmd *redis.Cmd, n int) (codes []Code, more bool, _ []Buried, err error) {
	v, err := cmd.Slice()
	if err != nil {
		return nil, false, nil, err
	}
	r := reader{v: v}
	codes = r.codes(n)
	more = r.number() == 1
	return codes, more, r.buried(), first("ack", r.err)
}

// Cost is what a nack adds one to.
type Cost string

// The counters of nack.
const (
	Attempt  Cost = "attempt"
	Deferral Cost = "deferral"
	Nothing  Cost = "nothing"
)

var nack = compile("nack")

// Nack delays a claimed request. most caps the counter cost, 0 for no limit.
// keep keeps its lock's turn meanwhile. note is remembered.
func (q *Queue) Nack(ctx context.Context, l Lease, delay time.Duration, cost Cost, most int, keep bool, note string) (Code, []Buried, error) {
	return settled(nack.run(ctx, q, nil, l.ID, l.Token, ms(delay), string(cost), most, flag(keep), note))
}

var park = compile("park")

// Park puts a claimed request in line for its lock, with a probe after delay at
// the latest. most caps its deferrals, 0 for no limit.
func (q *Queue) Park(ctx context.Context, l Lease, delay time.Duration, most int) (Code, []Buried, error) {
	return settled(park.run(ctx, q, nil, l.ID, l.Token, ms(delay), most))
}

var bury = compile("bury")

// Bury moves a claimed request to the dead.
func (q *Queue) Bury(ctx context.Context, l Lease, reason string) (Code, []Buried, error) {
	return settled(bury.run(ctx, q, nil, l.ID, l.Token, reason))
}

var requeue = compile("requeue")

// Requeue puts claimed requests back at the head of ready, uncounted.
func (q *Queue) Requeue(ctx context.Context, leases []Lease) ([]Code, error) {
	args := make([]any, 0, 2*len(leases))
	for _, l := range leases {
		args = append(args, l.ID, l.Token)
	}
	return codes(requeue.run(ctx, q, nil, args...), len(leases))
}

var extend = compile("extend")

// Extend makes leases last for d from now.
func (q *Queue) Extend(ctx context.Context, d time.Duration, leases []Lease) ([]Code, error) {
	args := append(make([]any, 0, 1+2*len(leases)), ms(d))
	for _, l := range leases {
		args = append(args, l.ID, l.Token)
	}
	return codes(extend.run(ctx, q, nil, args...), len(leases))
}

var promote = compile("promote")

// Promote gives a lock's turn to its oldest parked request, if nobody has it.
func (q *Queue) Promote(ctx context.Context, lock string) (Code, []Buried, error) {
	return settled(promote.ask(ctx, q, lock))
}

var rearm = compile("rearm")

// Rearm makes a lock's probe due after d.
func (q *Queue) Rearm(ctx context.Context, lock string, d time.Duration) error {
	return rearm.ask(ctx, q, lock, ms(d)).Err()
}

var cancel = compile("cancel")

// Cancel drops a request, wherever it is. Its id is remembered for at least window.
func (q *Queue) Cancel(ctx context.Context, window time.Duration, id string) (Code, []Buried, error) {
	return settled(cancel.askOf(ctx, q, id, ms(window), id))
}

var reschedule = compile("reschedule")

// Reschedule makes an unclaimed request due at another time. stamp is unique to
// the call.
func (q *Queue) Reschedule(ctx context.Context, id string, due Due, stamp string) (Code, time.Time, []Buried, error) {
	return rescheduled(reschedule.askOf(ctx, q, id, id, string(due), stamp))
}

func rescheduled(cmd *redis.Cmd) (Code, time.Time, []Buried, error) {
	v, err := cmd.Slice()
	if err != nil {
		return 0, time.Time{}, nil, err
	}
	r := reader{v: v}
	code, at := Code(r.number()), time.UnixMilli(r.number())
	return code, at, r.buried(), first("reschedule", r.err)
}

var revive = compile("revive")

// Revive starts a dead request anew. stamp is unique to the call.
func (q *Queue) Revive(ctx context.Context, id, stamp string) (Code, error) {
	n, err := revive.ask(ctx, q, id, stamp).Int()
	return Code(n), err
}

var yield = compile("yield")

// Yield hands a stopping feeder's clock and token to the others. It ends the
// blocking pop of that consumer on [keys.Queue.Stop], if one is named.
func (q *Queue) Yield(ctx context.Context, feeder, consumer string) error {
	var stop []string
	if consumer != "" {
		stop = []string{q.keys.Stop(consumer)}
	}
	return yield.run(ctx, q, stop, feeder).Err()
}

// flag is a bool for a script.
func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}

// ms is a duration in whole milliseconds, rounded up as far as that is a duration.
func ms(d time.Duration) int64 {
	n := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 && n < maxMillis { // adding to d first would overflow
		n++
	}
	return n
}

// appendDone appends what is done, as finish reads it.
func appendDone(args []any, done []Lease) []any {
	for len(done) > 0 {
		tok, n := done[0].Token, 1
		for n < len(done) && done[n].Token == tok {
			n++
		}
		args = append(args, tok, n)
		for i := range done[:n] {
			args = append(args, &done[i].ID)
		}
		done = done[n:]
	}
	return args
}

// codes reads a reply of n codes.
func codes(cmd *redis.Cmd, n int) ([]Code, error) {
	v, err := cmd.Slice()
	if err != nil {
		return nil, err
	}
	r := reader{v: []any{v}}
	return r.codes(n), first("codes", r.err)
}

func dated(cmd *redis.Cmd) (Code, time.Time, error) {
	v, err := cmd.Slice()
	if err != nil {
		return 0, time.Time{}, err
	}
	r := reader{v: v}
	code, at := Code(r.number()), time.UnixMilli(r.number())
	return code, at, first("due", r.err)
}

func settled(cmd *redis.Cmd) (Code, []Buried, error) {
	v, err := cmd.Slice()
	if err != nil {
		return 0, nil, err
	}
	r := reader{v: v}
	code := Code(r.number())
	return code, r.buried(), first("settle", r.err)
}

// reader takes a reply apart, from the front. After an error it returns zeros.
type reader struct {
	v   []any
	err error
}

func (r *reader) next() any {
	if len(r.v) == 0 {
		r.fail("ends early")
		return nil
	}
	x := r.v[0]
	r.v = r.v[1:]
	return x
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("reply %s", what)
	}
}

func (r *reader) number() int64 {
	n, ok := r.next().(int64)
	if !ok {
		r.fail("has no number where one should be")
	}
	return n
}

func (r *reader) text() string {
	s, ok := r.next().(string)
	if !ok {
		r.fail("has no text where some should be")
	}
	return s
}

func (r *reader) list() []any {
	l, ok := r.next().([]any)
	if !ok {
		r.fail("has no list where one should be")
	}
	return l
}

// codes reads a list of n codes, of which its callers rely on having n.
func (r *reader) codes(n int) []Code {
	l := reader{v: r.list()}
	out := make([]Code, n)
	for i := range out {
		out[i] = Code(l.number())
	}
	if len(l.v) > 0 {
		l.fail("has too many codes")
	}
	if l.err != nil && r.err == nil {
		r.err = l.err
	}
	return out
}

// acked reads what codes does, or an empty list for n times Done.
func (r *reader) acked(n int) []Code {
	if len(r.v) > 0 {
		if l, ok := r.v[0].([]any); ok && len(l) == 0 {
			r.next()
			return slices.Repeat([]Code{Done}, n)
		}
	}
	return r.codes(n)
}

func (r *reader) buried() []Buried {
	l := reader{v: r.list()}
	var out []Buried
	for len(l.v) > 0 && l.err == nil {
		out = append(out, Buried{ID: l.text(), Reason: l.text()})
	}
	if l.err != nil && r.err == nil {
		r.err = l.err
	}
	return out
}

func first(what string, errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}
