package script_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
)

// req is all that a queue keeps about one request.
type req struct {
	place             byte  // r d p l x
	at                int64 // score in delayed, leased or dead
	lock              string
	seq               int64
	token             string
	del, att, dfr     int
	accepted, maxwait int64
	note, stamp, body string
	bodyless          bool // seeds only: its body is lost
}

type record struct {
	claim   int64
	ids     []string
	expires int64 // the model's; not read
}

// handed is a request that was handed over or offered, and that nobody has taken.
type handed struct {
	id, token string
	body      string // of one that was offered, as what follows
	accepted  int64
}

// stale reports whether the request has gone on meanwhile.
func (w *world) stale(h handed) bool {
	r := w.reqs[h.id]
	return r.place != 'l' || r.token != h.token
}

func (h handed) offered() bool { return offered(h.token) }

// offered reports whether a token is that of a request which was offered.
func offered(token string) bool {
	kind, _ := stamped(token)
	return kind == "o"
}

// stamped takes a token apart that is a kind and a time, h or o. The kind of others is "".
func stamped(token string) (kind string, ms int64) {
	if token == "" || token[0] != 'h' && token[0] != 'o' {
		return "", 0
	}
	ms, err := strconv.ParseInt(token[1:], 10, 64)
	if err != nil {
		return "", 0
	}
	return token[:1], ms
}

// world is the whole state of a queue. Tables write it down as text, the model
// computes with it, and read gets it from Redis.
type world struct {
	now    int64
	list   []string // ready as it is, with what was left behind in it
	reqs   map[string]req
	probes map[string]int64
	held   map[string]string
	wake   int      // tokens
	over   []handed // in front of them
	idle   int64    // until when a request may be handed over; 0: not at all
	listen int64    // its lease
	offers bool     // or offered
	keeper string   // clock's owner
	until  int64    // clock's deadline
	lapses int64    // clock's expiry: the model's; not read
	last   map[string]record
	gone   map[string]bool
	past   map[string]bool
	turned int64
	seq    int64
	healed int64
}

func newWorld() *world {
	return &world{
		reqs: map[string]req{}, probes: map[string]int64{}, held: map[string]string{},
		last: map[string]record{}, gone: map[string]bool{}, past: map[string]bool{},
	}
}

func (w *world) clone() *world {
	c := *w
	c.list, c.over = slices.Clone(w.list), slices.Clone(w.over)
	c.reqs, c.probes, c.held = maps.Clone(w.reqs), maps.Clone(w.probes), maps.Clone(w.held)
	c.last, c.gone, c.past = maps.Clone(w.last), maps.Clone(w.gone), maps.Clone(w.past)
	return &c
}

func testQueue(rdb redis.UniversalClient) *script.Queue {
	return script.New(rdb, keys.Of(keys.Base("t:", "q")))
}

// spot is a request's member in parked.
func spot(id string, r req) string {
	seq := strconv.FormatInt(r.seq, 10)
	return r.lock + "\x00" + string(rune('0'+len(seq))) + seq + "\x00" + id
}

var letters = map[string]byte{"ready": 'r', "delayed": 'd', "parked": 'p', "leased": 'l', "dead": 'x'}

// read gets the state of q, and what in it contradicts itself: I1 to I3.
func read(t testing.TB, q *script.Queue) (*world, []string) {
	t.Helper()
	ctx, k := context.Background(), q.Keys()
	p := q.Client().TxPipeline()
	now := p.Time(ctx)
	list, wake := p.LRange(ctx, k.Ready(), 0, -1), p.LRange(ctx, k.Wake(), 0, -1)
	delayed, parked := p.ZRangeWithScores(ctx, k.Delayed(), 0, -1), p.ZRange(ctx, k.Parked(), 0, -1)
	leased, dead := p.ZRangeWithScores(ctx, k.Leased(), 0, -1), p.ZRangeWithScores(ctx, k.Dead(), 0, -1)
	gone, past := p.SMembers(ctx, k.Gone()), p.SMembers(ctx, k.Past())
	state, msg := p.HGetAll(ctx, k.State()), p.HGetAll(ctx, k.Msg())
	held, meta, lots := p.HGetAll(ctx, k.Held()), p.HGetAll(ctx, k.Meta()), p.HGetAll(ctx, k.Lots())
	clock := p.Get(ctx, k.Clock())
	last := map[string]*redis.StringCmd{}
	for _, f := range []string{"f", "f/1", "g", "h"} {
		last[f] = p.Get(ctx, k.Base()+"last:"+f)
	}
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("read the queue: %v", err)
	}
	w := newWorld()
	var bad []string
	w.now = now.Val().UnixMilli()
	w.list, w.held = list.Val(), held.Val()
	if len(w.list) == 0 {
		w.list = nil
	}
	for id, packed := range state.Val() {
		s, err := script.ParseState(packed)
		if err != nil {
			t.Fatalf("state of %s: %v", id, err)
		}
		body, ok := msg.Val()[id]
		if !ok {
			bad = append(bad, "I1: "+id+" has no body")
		}
		w.reqs[id] = req{
			place: letters[s.Place], lock: s.Lock, seq: s.Seq, token: s.Token,
			del: s.Deliveries, att: s.Attempts, dfr: s.Deferrals,
			accepted: s.Accepted.UnixMilli(), maxwait: s.MaxWait.Milliseconds(),
			note: s.Note, stamp: s.Stamp, body: body,
		}
	}
	for id := range msg.Val() {
		if _, ok := w.reqs[id]; !ok {
			bad = append(bad, "I1: "+id+" has a body and no state")
		}
	}
	seen := map[string]int{}
	in := func(id string, place byte, at int64) {
		r, ok := w.reqs[id]
		switch {
		case !ok || r.place != place:
			bad = append(bad, fmt.Sprintf("I1: %q stands in %c, its state says %c", id, place, r.place))
		default:
			seen[id]++
			r.at = at
			w.reqs[id] = r
		}
	}
	for _, z := range delayed.Val() {
		if m := z.Member.(string); m[0] == 0 {
			w.probes[m[1:]] = int64(z.Score)
		} else {
			in(m, 'd', int64(z.Score))
		}
	}
	for _, z := range leased.Val() {
		tok, ok := strings.CutPrefix(z.Member.(string), "\x00")
		if !ok {
			in(z.Member.(string), 'l', int64(z.Score))
			continue
		}
		n := int64(0)
		for id := range strings.SplitSeq(lots.Val()[tok], "\n") {
			if r := w.reqs[id]; r.place == 'l' && r.token == tok {
				in(id, 'l', int64(z.Score))
				n++
			}
		}
		if left := number(meta.Val()["lot:"+tok]); left != n || n == 0 {
			bad = append(bad, fmt.Sprintf("I14: lot %s has %d requests and says %d", tok, n, left))
		}
		delete(lots.Val(), tok)
		delete(meta.Val(), "lot:"+tok)
	}
	for tok := range lots.Val() {
		bad = append(bad, "I14: lot "+tok+" is not leased")
	}
	for field := range meta.Val() {
		if strings.HasPrefix(field, "lot:") {
			bad = append(bad, "I14: "+field+" is not leased")
		}
	}
	for _, z := range dead.Val() {
		in(z.Member.(string), 'x', int64(z.Score))
	}
	for _, m := range parked.Val() {
		id := m[strings.LastIndexByte(m, 0)+1:]
		in(id, 'p', 0)
		if r := w.reqs[id]; m != spot(id, r) {
			bad = append(bad, fmt.Sprintf("I2: parked has %q for %s, whose lock is %q and seq %d", m, id, r.lock, r.seq))
		}
	}
	lines := map[string]bool{}
	for id, r := range w.reqs {
		if r.place == 'r' && slices.Contains(w.list, id) {
			seen[id]++
		}
		if seen[id] != 1 {
			bad = append(bad, fmt.Sprintf("I1: %s (%c) is in %d places", id, r.place, seen[id]))
		}
		if r.place == 'p' {
			lines[r.lock] = true
		}
	}
	for _, lock := range slices.Concat(slices.Collect(maps.Keys(lines)), slices.Collect(maps.Keys(w.probes))) {
		if _, armed := w.probes[lock]; armed != lines[lock] {
			bad = append(bad, fmt.Sprintf("I3: probe(%s)=%v, parked=%v", lock, armed, lines[lock]))
		}
	}
	for _, id := range gone.Val() {
		w.gone[id] = true
	}
	for _, id := range past.Val() {
		w.past[id] = true
	}
	if c := clock.Val(); c != "" {
		w.keeper, c, _ = strings.Cut(c, " ")
		w.until = number(c)
	}
	for f, cmd := range last {
		if v := cmd.Val(); v != "" {
			parts := strings.Split(v, "\n")
			w.last[f] = record{claim: number(parts[0]), ids: slices.Clip(parts[1:])}
		}
	}
	w.seq, w.healed, w.turned = number(meta.Val()["seq"]), number(meta.Val()["healed"]), number(meta.Val()["turned"])
	if w.turned != 0 != (len(w.past) > 0) {
		bad = append(bad, fmt.Sprintf("turned is %d, and past %q", w.turned, past.Val()))
	}
	if v := meta.Val()["idle"]; v != "" {
		f := strings.Fields(v)
		w.idle, w.listen, w.offers = number(f[0]), number(f[1]), len(f) > 2 && f[2] == "offers"
	}
	for _, v := range wake.Val() {
		h, ok, err := script.ParseHanded(v)
		switch {
		case err != nil:
			t.Fatal(err)
		case !ok:
			w.wake++
		case w.wake > 0:
			bad = append(bad, "I10: "+h.ID+" is handed over and stands behind a token")
		default:
			over := handed{id: h.ID, token: h.Token}
			if h.Offered() {
				over.body, over.accepted = h.Body, h.Accepted.UnixMilli()
			}
			w.over = append(w.over, over)
			if r := w.reqs[h.ID]; !w.stale(over) && (h.Body != r.body || h.Deliveries != r.del || h.Accepted.UnixMilli() != r.accepted) {
				bad = append(bad, fmt.Sprintf("I1: %+v is handed over, and the queue has %+v", h, r))
			}
		}
	}
	slices.Sort(bad)
	return w, bad
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// pack is the form of a state in Redis.
func pack(r req) string {
	zero := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	short := fmt.Sprintf("%c%s|%s|%d", r.place, r.token, zero(int64(r.del)), r.accepted)
	if r.lock+r.note+r.stamp == "" && r.seq == 0 && r.att == 0 && r.dfr == 0 && r.maxwait == 0 {
		return short
	}
	return short + fmt.Sprintf("|%s|%s|%s|%s|%s|%s|%s%s", zero(r.seq), zero(int64(r.att)), zero(int64(r.dfr)),
		zero(r.maxwait), r.stamp, zero(int64(len(r.lock))), r.lock, r.note)
}

// handOver is the form of a hand-over in Redis.
func (w *world) handOver(h handed) string {
	r := w.reqs[h.id]
	if h.offered() {
		r = req{del: 1, accepted: h.accepted, body: h.body}
	}
	r.place, r.token = 'l', h.token
	v := pack(r)
	return fmt.Sprintf("%d %d %d %s%s%s", w.listen, len(h.id), len(v), h.id, v, r.body)
}

// listening is the form in Redis of what idle, listen and offers say.
func (w *world) listening() string {
	s := fmt.Sprintf("%d %d", w.idle, w.listen)
	if w.offers {
		s += " offers"
	}
	return s
}

// write puts w into an empty queue.
func (w *world) write(t testing.TB, q *script.Queue) {
	t.Helper()
	ctx, k := context.Background(), q.Keys()
	// No pipeline: the in-memory pipe takes none longer than the server's buffer.
	p := q.Client()
	do := func(cmd redis.Cmder) {
		if err := cmd.Err(); err != nil {
			t.Fatalf("write the queue: %v", err)
		}
	}
	var list, state, msg, held []any
	zsets := map[string][]redis.Z{}
	add := func(key string, at int64, member string) {
		zsets[key] = append(zsets[key], redis.Z{Score: float64(at), Member: member})
	}
	for _, id := range w.list {
		list = append(list, id)
	}
	for id, r := range w.reqs {
		state = append(state, id, pack(r))
		if !r.bodyless {
			msg = append(msg, id, r.body)
		}
		switch r.place {
		case 'd':
			add(k.Delayed(), r.at, id)
		case 'l':
			add(k.Leased(), r.at, id)
		case 'x':
			add(k.Dead(), r.at, id)
		case 'p':
			add(k.Parked(), 0, spot(id, r))
		}
	}
	for lock, at := range w.probes {
		add(k.Delayed(), at, "\x00"+lock)
	}
	for lock, id := range w.held {
		held = append(held, lock, id)
	}
	if len(list) > 0 {
		do(p.RPush(ctx, k.Ready(), list...))
	}
	for key, pairs := range map[string][]any{k.State(): state, k.Msg(): msg, k.Held(): held} {
		if len(pairs) > 0 {
			do(p.HSet(ctx, key, pairs...))
		}
	}
	for id := range w.gone {
		do(p.SAdd(ctx, k.Gone(), id))
	}
	for id := range w.past {
		do(p.SAdd(ctx, k.Past(), id))
	}
	for key, zs := range zsets {
		do(p.ZAdd(ctx, key, zs...))
	}
	for _, h := range w.over {
		do(p.RPush(ctx, k.Wake(), w.handOver(h)))
	}
	if w.wake > 0 {
		do(p.RPush(ctx, k.Wake(), "1"))
	}
	if w.idle > 0 {
		do(p.HSet(ctx, k.Meta(), "idle", w.listening()))
	}
	if w.keeper != "" {
		do(p.Set(ctx, k.Clock(), fmt.Sprintf("%s %d", w.keeper, w.until), 0))
	}
	for f, r := range w.last {
		do(p.Set(ctx, k.Base()+"last:"+f, strings.Join(append([]string{strconv.FormatInt(r.claim, 10)}, r.ids...), "\n"), 0))
	}
	if w.seq > 0 {
		do(p.HSet(ctx, k.Meta(), "seq", w.seq))
	}
	if w.healed > 0 {
		do(p.HSet(ctx, k.Meta(), "healed", w.healed))
	}
	if w.turned != 0 {
		do(p.HSet(ctx, k.Meta(), "turned", w.turned))
	}
}

// unit is what the times in tables are whole multiples of: so much may pass on
// the real server while a row runs.
const unit = 10_000

// parse reads a world from text. Times are seconds from now. The parts, divided
// by ";" or line ends:
//
//	id place[@time] [lock#seq] [tok=t] [n=deliveries/attempts/deferrals] [wait=s]
//	   [acc=time] [note=x] [stamp=x] [body=x] [nobody]
//	   where a token h@time is that of a request handed over then, and o@time of one offered
//	ready id…  probe lock@time  held lock=id  wake  over id token  idle lease@time [offers]
//	clock feeder@time  last feeder:claim id…  gone id  past id  turned @time  seq n  healed n
//
// Those who are over stand in wake in that order.
func parse(t testing.TB, now int64, text string) *world {
	t.Helper()
	w := newWorld()
	w.now = now
	at := func(s string) (string, int64) {
		name, secs, ok := strings.Cut(s, "@")
		n, err := strconv.ParseInt(secs, 10, 64)
		if ok && err != nil {
			t.Fatalf("time in %q: %v", s, err)
		}
		return name, now + n*1000
	}
	token := func(s string) string {
		if name, ms := at(s); name == "h" || name == "o" {
			return fmt.Sprintf("%s%d", name, ms)
		}
		return s
	}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		f := strings.Fields(part)
		if len(f) == 0 {
			continue
		}
		var arg string
		if len(f) > 1 {
			arg = f[1]
		}
		switch f[0] {
		case "ready":
			w.list = f[1:]
		case "probe":
			name, due := at(arg)
			w.probes[name] = due
		case "held":
			lock, id, _ := strings.Cut(arg, "=")
			w.held[lock] = id
		case "wake":
			w.wake = 1
		case "over":
			h := handed{id: arg, token: token(f[2])}
			if h.offered() {
				h.body = "b" + arg
				_, h.accepted = stamped(h.token)
			}
			w.over = append(w.over, h)
		case "idle":
			lease, till := at(arg)
			w.idle, w.listen, w.offers = till, number(lease)*1000, len(f) > 2 && f[2] == "offers"
		case "clock":
			w.keeper, w.until = at(arg)
		case "last":
			name, n, _ := strings.Cut(arg, ":")
			w.last[name] = record{claim: number(n), ids: f[2:]}
		case "gone":
			w.gone[arg] = true
		case "past":
			w.past[arg] = true
		case "turned":
			_, w.turned = at(arg)
		case "seq":
			w.seq = number(arg)
		case "healed":
			w.healed = number(arg)
		default:
			id := f[0]
			r := req{accepted: now, body: "b" + id}
			place, when := at(arg)
			r.place = place[0]
			if strings.ContainsRune("dlx", rune(r.place)) {
				r.at = when
			}
			for _, o := range f[2:] {
				name, v, _ := strings.Cut(o, "=")
				switch name {
				case "tok":
					r.token = token(v)
				case "n":
					if _, err := fmt.Sscanf(v, "%d/%d/%d", &r.del, &r.att, &r.dfr); err != nil {
						t.Fatalf("%q: %v", part, err)
					}
				case "wait":
					r.maxwait = number(v) * 1000
				case "acc":
					r.accepted = now + number(v)*1000
				case "note":
					r.note = strings.ReplaceAll(v, "_", " ")
				case "stamp":
					r.stamp = v
				case "body":
					r.body = v
				case "nobody":
					r.bodyless, r.body = true, ""
				default:
					lock, seq, ok := strings.Cut(o, "#")
					if !ok {
						t.Fatalf("%q: what is %q?", part, o)
					}
					r.lock, r.seq = lock, number(seq)
				}
			}
			w.reqs[id] = r
		}
	}
	return w
}

// text writes w for people and for comparison, with times in steps of grain ms
// from base.
func (w *world) text(base, grain int64) string {
	var at func(ms int64) string
	token := func(s string) string {
		if kind, ms := stamped(s); kind != "" {
			return kind + "@" + at(ms)
		}
		return s
	}
	at = func(ms int64) string {
		n := ms - base
		q := n / grain
		if n%grain < 0 {
			q--
		}
		if grain >= 1000 {
			return strconv.FormatInt(q*grain/1000, 10)
		}
		return strconv.FormatInt(q*grain, 10) + "ms"
	}
	var out []string
	for _, id := range slices.SortedFunc(maps.Keys(w.reqs), ids) {
		r := w.reqs[id]
		s := id + " " + string(r.place)
		if strings.ContainsRune("dlx", rune(r.place)) {
			s += "@" + at(r.at)
		}
		if r.lock != "" {
			s += fmt.Sprintf(" %s#%d", r.lock, r.seq)
		} else if r.seq != 0 {
			s += fmt.Sprintf(" seq-without-lock=%d", r.seq)
		}
		if r.token != "" {
			s += " tok=" + token(r.token)
		}
		if r.del+r.att+r.dfr != 0 {
			s += fmt.Sprintf(" n=%d/%d/%d", r.del, r.att, r.dfr)
		}
		if r.maxwait != 0 {
			s += fmt.Sprintf(" wait=%d", r.maxwait/1000)
		}
		if a := at(r.accepted); a != "0" && a != "0ms" {
			s += " acc=" + a
		}
		if r.note != "" {
			s += " note=" + strings.ReplaceAll(r.note, " ", "_")
		}
		if r.stamp != "" {
			s += " stamp=" + r.stamp
		}
		if r.body != "b"+id {
			s += " body=" + r.body
		}
		out = append(out, s)
	}
	if len(w.list) > 0 {
		out = append(out, "ready "+strings.Join(w.list, " "))
	}
	for _, lock := range slices.Sorted(maps.Keys(w.probes)) {
		out = append(out, "probe "+lock+"@"+at(w.probes[lock]))
	}
	for _, lock := range slices.Sorted(maps.Keys(w.held)) {
		out = append(out, "held "+lock+"="+w.held[lock])
	}
	if w.wake != 0 {
		out = append(out, "wake"+strings.Repeat(" again", w.wake-1))
	}
	var over []string // one line, since their order counts
	for _, h := range w.over {
		s := "over " + h.id + " " + token(h.token)
		if _, ms := stamped(h.token); h.offered() && h.accepted != ms {
			s += " acc=" + at(h.accepted)
		}
		if h.offered() && h.body != "b"+h.id {
			s += " body=" + h.body
		}
		over = append(over, s)
	}
	if len(over) > 0 {
		out = append(out, strings.Join(over, "; "))
	}
	if w.idle != 0 {
		s := fmt.Sprintf("idle %d@%s", w.listen/1000, at(w.idle))
		if w.offers {
			s += " offers"
		}
		out = append(out, s)
	}
	if w.keeper != "" {
		out = append(out, "clock "+w.keeper+"@"+at(w.until))
	}
	for _, f := range slices.Sorted(maps.Keys(w.last)) {
		r := w.last[f]
		out = append(out, strings.TrimSpace(fmt.Sprintf("last %s:%d %s", f, r.claim, strings.Join(r.ids, " "))))
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.gone), ids) {
		out = append(out, "gone "+id)
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.past), ids) {
		out = append(out, "past "+id)
	}
	if w.turned != 0 {
		out = append(out, "turned @"+at(w.turned))
	}
	if w.seq != 0 {
		out = append(out, fmt.Sprintf("seq %d", w.seq))
	}
	if w.healed != 0 {
		out = append(out, fmt.Sprintf("healed %d", w.healed))
	}
	return strings.Join(out, "\n")
}

// ids sorts ids that are numbers as numbers.
func ids(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// diff shows the lines that only got or only want has.
func diff(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	for _, l := range g {
		if !slices.Contains(w, l) {
			b.WriteString("  got  " + l + "\n")
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			b.WriteString("  want " + l + "\n")
		}
	}
	return b.String()
}

// serverTime is what the server's clock says.
func serverTime(t testing.TB, rdb redis.UniversalClient) int64 {
	t.Helper()
	now, err := rdb.Time(context.Background()).Result()
	if err != nil {
		t.Fatalf("TIME: %v", err)
	}
	return now.UnixMilli()
}

// shift takes the queue d into the future, where the server's clock cannot be
// set: all its times move into the past.
func shift(t testing.TB, q *script.Queue, d time.Duration) {
	t.Helper()
	ctx, k, rdb := context.Background(), q.Keys(), q.Client()
	w, _ := read(t, q)
	delta := d.Milliseconds()
	p := rdb.TxPipeline()
	for _, key := range []string{k.Delayed(), k.Leased(), k.Dead()} {
		zs, err := rdb.ZRange(ctx, key, 0, -1).Result()
		if err != nil {
			t.Fatalf("shift: %v", err)
		}
		for _, m := range zs {
			p.ZIncrBy(ctx, key, -float64(delta), m)
		}
	}
	for id, r := range w.reqs {
		r.accepted -= delta
		w.reqs[id] = r
		p.HSet(ctx, k.State(), id, pack(r))
	}
	for i, h := range w.over {
		h.accepted -= delta
		if _, ok := w.reqs[h.id]; ok || h.offered() {
			p.LSet(ctx, k.Wake(), int64(i), w.handOver(h))
		}
	}
	if w.idle > 0 {
		w.idle -= delta
		p.HSet(ctx, k.Meta(), "idle", w.listening())
	}
	if w.turned != 0 {
		p.HIncrBy(ctx, k.Meta(), "turned", -delta)
	}
	age := func(key string) {
		ttl, err := rdb.PTTL(ctx, key).Result()
		if err != nil {
			t.Fatalf("shift: %v", err)
		}
		if ttl > 0 {
			p.PExpire(ctx, key, ttl-d)
		}
	}
	if w.keeper != "" {
		p.SetArgs(ctx, k.Clock(), fmt.Sprintf("%s %d", w.keeper, w.until-delta), redis.SetArgs{KeepTTL: true})
		age(k.Clock())
	}
	for f := range w.last {
		age(k.Base() + "last:" + f)
	}
	if _, err := p.Exec(ctx); err != nil {
		t.Fatalf("shift: %v", err)
	}
}
