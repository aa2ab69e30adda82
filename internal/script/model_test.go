package script_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

type ctx = context.Context

var seed = flag.Uint64("seed", 0, "run the random tests with this seed only")

// The model: the rules of docs/queue.md on a world. Each transition answers as
// its script does, in the words of the calls in tables_test.go.

func (w *world) token() { w.wake = 1 }

// due returns what stands in delayed, the next first.
func (w *world) due() []string {
	at := map[string]int64{}
	for lock, t := range w.probes {
		at["\x00"+lock] = t
	}
	for id, r := range w.reqs {
		if r.place == 'd' {
			at[id] = r.at
		}
	}
	return byTime(at)
}

func byTime(at map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(at), func(a, b string) int {
		return cmp.Or(cmp.Compare(at[a], at[b]), cmp.Compare(a, b))
	})
}

func (w *world) leased() []string {
	at := map[string]int64{}
	for id, r := range w.reqs {
		if r.place == 'l' {
			at[id] = r.at
		}
	}
	return byTime(at)
}

func (w *world) headed(member string) {
	if w.due()[0] == member {
		w.token()
	}
}

// line returns who is parked on a lock, the oldest first.
func (w *world) line(lock string) []string {
	var out []string
	for id, r := range w.reqs {
		if r.place == 'p' && r.lock == lock {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(w.reqs[a].seq, w.reqs[b].seq) })
	return out
}

func (w *world) known(id string) bool {
	_, ok := w.reqs[id]
	return ok || w.recalled(id)
}

func (w *world) recalled(id string) bool { return w.gone[id] || w.past[id] }

func (w *world) mint(r *req) {
	if r.lock != "" && r.seq == 0 {
		w.seq++
		r.seq = w.seq
	}
}

func (w *world) late(r req) bool { return r.maxwait > 0 && w.now >= r.accepted+r.maxwait }

func (w *world) die(id string, r req, why string, buried *string) {
	r.place, r.at, r.note = 'x', w.now, why
	w.reqs[id] = r
	*buried += fmt.Sprintf(" buried %s: %s", id, why)
}

func (w *world) stand(id string, r req, due int64) {
	r.place, r.at = 'p', 0
	w.reqs[id] = r
	if r.maxwait > 0 {
		due = min(due, r.accepted+r.maxwait)
	}
	if old, ok := w.probes[r.lock]; !ok || due < old {
		w.probes[r.lock] = due
		w.headed("\x00" + r.lock)
	}
}

// quiet drops a probe that has no line.
func (w *world) quiet(lock string) {
	if len(w.line(lock)) == 0 {
		delete(w.probes, lock)
	}
}

func (w *world) promote(lock string, buried *string) int {
	if _, taken := w.held[lock]; taken {
		return 0
	}
	for i, id := range w.line(lock) {
		if i == 32 {
			w.probes[lock] = w.now
			w.token()
			return 0
		}
		r := w.reqs[id]
		if w.late(r) {
			w.die(id, r, "max wait", buried)
			continue
		}
		r.place = 'r'
		w.reqs[id] = r
		w.list = append([]string{id}, w.list...)
		w.held[lock] = id
		w.token()
		w.quiet(lock)
		return 1
	}
	delete(w.probes, lock)
	return 0
}

func (w *world) leave(id string, r req, buried *string) {
	if w.held[r.lock] == id && r.lock != "" {
		delete(w.held, r.lock)
		w.promote(r.lock, buried)
	}
}

// mine is the code of a worker's call: 1 if it may go on.
func (w *world) mine(id, token string) int {
	r, ok := w.reqs[id]
	switch {
	case !ok && w.recalled(id):
		return 2
	case !ok || r.token != token:
		return 0
	case r.place == 'l':
		return 1
	}
	return 2
}

func (w *world) forget(id string) {
	delete(w.reqs, id)
	w.gone[id] = true
}

func (w *world) accept(e script.Entry) req {
	return req{lock: e.Lock, body: e.Body, accepted: w.now, maxwait: e.MaxWait.Milliseconds()}
}

func (w *world) push(es []script.Entry) string {
	codes := make([]int, len(es))
	alone := len(w.list) == 0 && w.wake == 0 && len(w.over) == 0
	for i, e := range es {
		if codes[i] = 2; w.known(e.ID) {
			continue
		}
		codes[i] = 1
		r := w.accept(e)
		r.place = 'r'
		w.mint(&r)
		if alone && w.idle > w.now && w.passes(e.ID, r) {
			r.place, r.at, r.token, r.del = 'l', w.now+w.listen, fmt.Sprintf("h%d", w.now), 1
			w.over = []handed{{id: e.ID, token: r.token}}
			if r.lock != "" {
				w.held[r.lock] = e.ID
			}
		} else {
			w.list = append(w.list, e.ID)
		}
		alone = false
		w.reqs[e.ID] = r
	}
	if len(w.list) > 0 {
		w.token()
	}
	return fmt.Sprint(codes)
}

func (w *world) schedule(e script.Entry, in int) string {
	if w.known(e.ID) {
		return "2"
	}
	r := w.accept(e)
	r.place, r.at, r.dfr = 'd', w.now+int64(in)*1000, e.Deferrals
	w.reqs[e.ID] = r
	w.headed(e.ID)
	return "1"
}

func (w *world) parkNew(e script.Entry, in int) string {
	if w.known(e.ID) {
		return "2"
	}
	r := w.accept(e)
	r.dfr = 1
	w.mint(&r)
	w.stand(e.ID, r, w.now+int64(in)*1000)
	return "1"
}

func (w *world) claim(f *script.Feed, number int64, n int, done ...script.Lease) string {
	var c, buried string
	var repeat []string
	last := w.last[f.Name()]
	item := func(id string) {
		r := w.reqs[id]
		c += fmt.Sprintf(" %s:%d/%d/%d", id, r.del, r.att, r.dfr)
	}
	if n > 0 && number < last.claim {
		if len(done) == 0 {
			return ""
		}
		return fmt.Sprint("acked ", make([]int, len(done)))
	}
	if n > 0 && number == last.claim {
		n, repeat = 0, last.ids
	}
	wake := w.wake // a claim is quiet, and leaves a token at its end
	var acked string
	if len(done) > 0 {
		acked = " acked " + fmt.Sprint(w.finish(done, &buried))
	}
	w.takeBack()
	var look string
	few := script.Bound // are brought, at most
	if n > 0 {
		few = min(few, max(n-len(w.list), 16))
	}
	for i, m := range w.due() {
		if lock, isProbe := strings.CutPrefix(m, "\x00"); i >= few {
			break
		} else if isProbe {
			if w.probes[lock] <= w.now {
				look += w.probe(lock, f.ProbeAgain.Milliseconds(), &buried)
			}
		} else if r := w.reqs[m]; r.at <= w.now {
			w.mint(&r)
			r.place, r.at = 'r', 0
			w.reqs[m] = r
			if r.lock != "" && w.held[r.lock] == m {
				w.list = append([]string{m}, w.list...)
			} else {
				w.list = append(w.list, m)
			}
		}
	}
	var back []string
	for i, id := range w.leased() {
		r := w.reqs[id]
		if r.at > w.now || i >= script.Bound {
			break
		}
		r.token = ""
		w.reqs[id] = r
		back = append([]string{id}, back...)
	}
	for _, id := range back {
		r := w.reqs[id]
		if f.MaxDeliveries > 0 && r.del-r.att-r.dfr >= f.MaxDeliveries {
			w.die(id, r, "crash loop", &buried)
			w.leave(id, r, &buried)
			continue
		}
		r.place, r.at = 'r', 0
		w.reqs[id] = r
		w.list = append([]string{id}, w.list...)
	}
	token := f.Token(number)
	for _, id := range repeat {
		if r := w.reqs[id]; r.place == 'l' && r.token == token {
			item(id)
		}
	}
	if n > 0 {
		rec := record{claim: number, expires: w.now + max(f.Lease.Milliseconds(), 300_000)}
		for seen := 0; n > 0 && len(w.list) > 0 && seen < script.Bound; seen++ {
			id := w.list[0]
			w.list = w.list[1:]
			r, ok := w.reqs[id]
			if !ok || r.place != 'r' {
				continue
			}
			if !w.passes(id, r) {
				w.stand(id, r, w.now+f.Lease.Milliseconds())
				continue
			}
			if r.lock != "" {
				w.held[r.lock] = id
			}
			r.place, r.at, r.token, r.del = 'l', w.now+f.Lease.Milliseconds(), token, r.del+1
			w.reqs[id] = r
			rec.ids = append(rec.ids, id)
			item(id)
			n--
		}
		w.last[f.Name()] = rec
	}
	w.trim(f, number%16 == 0)
	if number%16 == 0 {
		w.turn()
	}
	w.wake = wake
	more := len(w.list) > 0
	for _, r := range w.reqs {
		more = more || r.place == 'd' && r.at <= w.now
	}
	for _, at := range w.probes {
		more = more || at <= w.now
	}
	if more {
		w.token()
	} else if n > 0 && f.Listen > 0 {
		w.idle, w.listen, w.offers = w.now+f.Listen.Milliseconds(), min(f.Listen/2, f.Lease).Milliseconds(), f.Offers
	}
	c += look
	if at, ok := w.clock(f); ok {
		c += fmt.Sprintf(" wait %d", (at-w.now+unit-1)/unit*unit/1000)
	}
	if more {
		c += " more"
	}
	return strings.TrimSpace(c + buried + acked)
}

// takeBack puts what nobody took into ready.
func (w *world) takeBack() {
	over := w.over
	w.over = nil
	for _, h := range over {
		r, known := w.reqs[h.id]
		switch {
		case !w.stale(h):
		case !known && h.offered() && !w.recalled(h.id):
			r = req{body: h.body, accepted: h.accepted}
		default:
			continue
		}
		r.place, r.at, r.token, r.del = 'r', 0, "", 0
		w.reqs[h.id] = r
		w.list = append([]string{h.id}, w.list...)
		w.token()
	}
}

// offer is what a client does before the push of a new request.
func (w *world) offer(h script.Handed) {
	over := handed{id: h.ID, token: h.Token, body: h.Body, accepted: h.Accepted.UnixMilli()}
	w.over = append([]handed{over}, w.over...)
}

// confirm is the push of a request that was offered.
func (w *world) confirm(h script.Handed) string {
	code := int64(2)
	if !w.known(h.ID) {
		code = 1
		w.reqs[h.ID] = req{
			place: 'l', at: w.now + h.Lease.Milliseconds(), token: h.Token, del: 1,
			accepted: h.Accepted.UnixMilli(), body: h.Body,
		}
	}
	w.takeBack()
	if w.offers && w.idle > w.now && len(w.list) == 0 && w.wake == 0 {
		return showAnswer([]int64{code, w.idle, w.listen, w.now})
	}
	return showAnswer([]int64{code})
}

// passes is the gate.
func (w *world) passes(id string, r req) bool {
	h, taken := w.held[r.lock]
	return r.lock == "" || h == id || !taken && len(w.line(r.lock)) == 0
}

// probe is what a claim does with a lock's probe that is due.
func (w *world) probe(lock string, again int64, buried *string) (look string) {
	for i, id := range w.line(lock) {
		if r := w.reqs[id]; i < 32 && w.late(r) {
			w.die(id, r, "max wait", buried)
		} else {
			break
		}
	}
	line := w.line(lock)
	if len(line) == 0 {
		delete(w.probes, lock)
		return ""
	}
	at := w.now + again
	h, taken := w.held[lock]
	if r := w.reqs[h]; taken && r.place == 'l' {
		at = max(at, r.at)
	}
	if r := w.reqs[line[0]]; r.maxwait > 0 {
		at = min(at, r.accepted+r.maxwait)
	}
	w.probes[lock] = at
	if taken {
		return ""
	}
	return " look " + lock
}

func (w *world) trim(f *script.Feed, byAge bool) {
	at := map[string]int64{}
	for id, r := range w.reqs {
		if r.place == 'x' {
			at[id] = r.at
		}
	}
	dead := byTime(at)
	over := len(dead) - f.MaxDead
	for i, id := range dead {
		tooMany := f.MaxDead > 0 && i < over
		tooOld := byAge && f.DeadAge > 0 && !(f.MaxDead > 0 && over > 0) && at[id] <= w.now-f.DeadAge.Milliseconds()
		if i < script.Bound && (tooMany || tooOld) {
			delete(w.reqs, id)
		}
	}
}

// turn turns the memory of finished ids over.
func (w *world) turn() {
	switch {
	case w.turned > w.now:
		w.turned = w.now
	case w.now-w.turned >= window.Milliseconds():
		w.past, w.gone = w.gone, map[string]bool{}
		if w.turned = 0; len(w.past) > 0 {
			w.turned = w.now
		}
	}
}

// clock decides who times what is due next, and until when f may sleep.
func (w *world) clock(f *script.Feed) (int64, bool) {
	var head int64
	var any bool
	next := func(at int64) {
		if !any || at < head {
			head, any = at, true
		}
	}
	for _, at := range w.probes {
		next(at)
	}
	for _, r := range w.reqs {
		if r.place == 'd' || r.place == 'l' {
			next(r.at)
		}
	}
	switch {
	case !any:
		if w.keeper == f.Feeder {
			w.keeper, w.until = "", 0
		}
		return 0, false
	case w.keeper == "", w.keeper == f.Feeder, w.until <= w.now, head < w.until:
		w.keeper, w.until, w.lapses = f.Feeder, head, max(head, w.now)+60_000
		return max(head, w.now), true
	}
	return max(head, w.now) + f.Slack.Milliseconds(), true
}

func (w *world) finish(ls []script.Lease, buried *string) []int {
	codes := make([]int, len(ls))
	for i, l := range ls {
		codes[i] = w.mine(l.ID, l.Token)
		if codes[i] == 1 {
			r := w.reqs[l.ID]
			w.forget(l.ID)
			w.leave(l.ID, r, buried)
		} else if offered(l.Token) && !w.known(l.ID) { // its push is to come
			codes[i], w.gone[l.ID] = 1, true
		}
	}
	return codes
}

func (w *world) ack(ls []script.Lease) string {
	var buried string
	s := fmt.Sprint(w.finish(ls, &buried))
	if len(w.list) > 0 {
		s += " more"
	}
	return s + buried
}

func (w *world) nack(l script.Lease, in int, cost script.Cost, most int, strict bool) string {
	code := w.mine(l.ID, l.Token)
	if code != 1 {
		return fmt.Sprint(code)
	}
	r, why, buried := w.reqs[l.ID], "", ""
	if cost == script.Attempt {
		if r.att++; most > 0 && r.att >= most {
			why = "attempts: boom"
		}
	}
	if cost == script.Deferral {
		if r.dfr++; most > 0 && r.dfr > most {
			why = "deferrals"
		}
	}
	if cost == script.Nothing {
		r.del--
	}
	if why != "" {
		w.die(l.ID, r, why, &buried)
		w.leave(l.ID, r, &buried)
		return "3" + buried
	}
	r.place, r.at, r.note = 'd', w.now+int64(in)*1000, "boom"
	w.reqs[l.ID] = r
	w.headed(l.ID)
	if !strict {
		w.leave(l.ID, r, &buried)
	}
	return "1" + buried
}

func (w *world) park(l script.Lease, in, most int) string {
	code := w.mine(l.ID, l.Token)
	if code != 1 {
		return fmt.Sprint(code)
	}
	r, buried := w.reqs[l.ID], ""
	if r.dfr++; most > 0 && r.dfr > most {
		w.die(l.ID, r, "deferrals", &buried)
		w.leave(l.ID, r, &buried)
		return "3" + buried
	}
	w.stand(l.ID, r, w.now+int64(in)*1000)
	if w.held[r.lock] == l.ID {
		delete(w.held, r.lock)
	}
	return "1"
}

func (w *world) bury(l script.Lease) string {
	code := w.mine(l.ID, l.Token)
	if code != 1 {
		return fmt.Sprint(code)
	}
	r, buried := w.reqs[l.ID], ""
	w.die(l.ID, r, "bad payload", &buried)
	w.leave(l.ID, r, &buried)
	return "1" + buried
}

func (w *world) requeue(ls []script.Lease) string {
	codes := make([]int, len(ls))
	for i, l := range slices.Backward(ls) {
		codes[i] = w.mine(l.ID, l.Token)
		if codes[i] == 1 {
			r := w.reqs[l.ID]
			r.place, r.at, r.del = 'r', 0, r.del-1
			w.reqs[l.ID] = r
			w.list = append([]string{l.ID}, w.list...)
			w.token()
		}
	}
	return fmt.Sprint(codes)
}

func (w *world) extend(in int, ls []script.Lease) string {
	codes := make([]int, len(ls))
	for i, l := range ls {
		if w.mine(l.ID, l.Token) == 1 {
			codes[i] = 1
			r := w.reqs[l.ID]
			r.at = w.now + int64(in)*1000
			w.reqs[l.ID] = r
		}
	}
	return fmt.Sprint(codes)
}

func (w *world) rearm(lock string, in int) {
	line := w.line(lock)
	if len(line) == 0 {
		return
	}
	before, due := w.probes[lock], w.now+int64(in)*1000
	if r := w.reqs[line[0]]; r.maxwait > 0 {
		due = min(due, r.accepted+r.maxwait)
	}
	w.probes[lock] = due
	if due < before {
		w.headed("\x00" + lock)
	}
}

func (w *world) cancel(id string) string {
	w.takeBack()
	r, ok := w.reqs[id]
	if !ok {
		return "0"
	}
	var buried string
	w.forget(id)
	if r.place == 'p' {
		w.quiet(r.lock)
	}
	w.leave(id, r, &buried)
	return "1" + buried
}

func (w *world) reschedule(id string, in int, stamp string) string {
	w.takeBack()
	r, ok := w.reqs[id]
	switch {
	case !ok:
		return "0"
	case r.stamp == stamp:
		return "2"
	case r.place == 'l' || r.place == 'x':
		return "3"
	}
	var buried string
	r.place, r.at, r.stamp = 'd', w.now+int64(in)*1000, stamp
	w.reqs[id] = r
	if r.lock != "" {
		w.quiet(r.lock)
	}
	w.headed(id)
	if in > 0 {
		w.leave(id, r, &buried)
	}
	return "1" + buried
}

func (w *world) revive(id, stamp string) string {
	r, ok := w.reqs[id]
	switch {
	case !ok:
		return "0"
	case r.stamp == stamp:
		return "2"
	case r.place != 'x':
		return "3"
	}
	n := req{place: 'r', lock: r.lock, body: r.body, accepted: w.now, maxwait: r.maxwait, stamp: stamp}
	w.mint(&n)
	w.reqs[id] = n
	w.list = append(w.list, id)
	w.token()
	return "1"
}

func (w *world) yield(feeder string) {
	if w.keeper == feeder {
		w.keeper, w.until = "", 0
	}
	w.idle, w.listen, w.offers = 0, 0, false
	w.token()
}

// lapse drops what has expired.
func (w *world) lapse() {
	if w.keeper != "" && w.lapses <= w.now {
		w.keeper, w.until = "", 0
	}
	for f, r := range w.last {
		if r.expires <= w.now {
			delete(w.last, f)
		}
	}
}

// adopt takes over the real times that lie within slack of the model's: on a real
// server the clock runs while a script does.
func (w *world) adopt(got *world, slack int64) {
	near := func(a, b int64) bool { return a-b <= slack && b-a <= slack }
	sameHand := func(a, b string) string {
		k, x := stamped(a) // one that was offered has a token of the test's own
		if l, y := stamped(b); k == "h" && l == "h" && near(x, y) {
			return b
		}
		return a
	}
	for id, r := range w.reqs {
		if g, ok := got.reqs[id]; ok {
			if near(g.at, r.at) {
				r.at = g.at
			}
			if near(g.accepted, r.accepted) {
				r.accepted = g.accepted
			}
			r.token = sameHand(r.token, g.token)
			w.reqs[id] = r
		}
	}
	for lock, at := range w.probes {
		if near(at, got.probes[lock]) {
			w.probes[lock] = got.probes[lock]
		}
	}
	if near(w.until, got.until) {
		w.until = got.until
	}
	if near(w.turned, got.turned) {
		w.turned = got.turned
	}
	if near(w.idle, got.idle) {
		w.idle = got.idle
	}
	for i := range min(len(w.over), len(got.over)) {
		w.over[i].token = sameHand(w.over[i].token, got.over[i].token)
	}
}

// check is the invariants that hold after every script. before may be nil.
func check(before, w *world, strict bool) []string {
	var bad []string
	say := func(f string, a ...any) { bad = append(bad, fmt.Sprintf(f, a...)) }
	live := false
	for id, r := range w.reqs {
		if r.place == 'r' {
			live = true
		}
		if r.att > r.del {
			say("I8: %s has %d deliveries, %d attempts", id, r.del, r.att)
		}
		if r.lock == "" && r.seq != 0 {
			say("%s has a seq and no lock", id)
		}
		if r.place == 'p' && r.seq == 0 {
			say("%s is parked without a seq", id)
		}
		if r.place == 'l' && r.lock != "" && w.held[r.lock] != id {
			say("I12: %s is leased, held[%s]=%s", id, r.lock, w.held[r.lock])
		}
	}
	if live && w.wake == 0 {
		say("I4: ready is not empty and there is no token")
	}
	if w.wake > 1 {
		say("I10: %d tokens", w.wake)
	}
	for lock, id := range w.held {
		r, ok := w.reqs[id]
		if !ok || r.lock != lock || r.place != 'r' && r.place != 'l' && !(strict && r.place == 'd') {
			say("I11: held[%s]=%s, which is %+v", lock, id, r)
		}
	}
	if w.healed > 0 {
		say("healed %d", w.healed)
	}
	if before == nil {
		return bad
	}
	for id, r := range before.reqs {
		now := w.reqs[id]
		if now.att > r.att && now.dfr > r.dfr {
			say("I8: %s: a deferral raised the attempts", id)
		}
		if r.place == 'p' && now.place == 'r' {
			for _, older := range before.line(r.lock) {
				if older == id {
					break
				}
				if w.reqs[older].place == 'p' {
					say("I7: %s was promoted before %s", id, older)
				}
			}
		}
	}
	return bad
}

// harness plays calls on a queue and on the model.
type harness struct {
	t     *testing.T
	q     *script.Queue
	rdb   *redis.Client
	w     *world
	rng   *rand.Rand
	pass  func(time.Duration) // moves the clock
	seed  uint64
	log   []string
	slack int64 // ms that the server's clock may run on during a call

	shifted int64 // ms by which pass has moved the queue instead of the clock
}

func (h *harness) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("-seed %d: %s\nlast calls:\n%s", h.seed, fmt.Sprintf(format, args...), strings.Join(h.log[max(0, len(h.log)-25):], "\n"))
}

// step plays one call and compares. settled calls must leave the queue as it is.
func (h *harness) step(what string, real call, model func() string, settled bool) string {
	h.t.Helper()
	h.w.now = serverTime(h.t, h.rdb)
	h.w.lapse()
	before := h.w.clone()
	got, err := real(h.t.Context(), h.q)
	h.log = append(h.log, what+" -> "+got)
	if err != nil {
		h.fail("%s: %v", what, err)
	}
	want := model()
	if got != want {
		h.fail("%s answered %q, want %q", what, got, want)
	}
	after, bad := read(h.t, h.q)
	h.w.adopt(after, h.slack)
	base := h.w.now
	if d := diff(after.text(base, 1), h.w.text(base, 1)); d != "" {
		h.fail("after %s:\n%s", what, d)
	}
	if bad = append(bad, check(before, after, true)...); len(bad) > 0 {
		h.fail("after %s: %s", what, strings.Join(bad, "; "))
	}
	if settled {
		before.wake = after.wake
		if d := diff(after.text(base, 1), before.text(base, 1)); d != "" {
			h.fail("%s, sent again, changed the queue (I6):\n%s", what, d)
		}
	}
	return got
}

// sent is a call that may be sent again.
type sent struct {
	what    string
	real    call
	model   func() string
	settled func() bool // whether it must change nothing now; nil: no promise
}

// random plays n random calls.
func (h *harness) random(n int) {
	rng, w := h.rng, h.w
	locks := []string{"", "", "A", "A", "A", "B", "C\nc|7|"}
	feeds := map[string]*script.Feed{}
	claims := map[string]int64{}
	names := []string{"f", "f/1", "g", "h"} // f has two lanes
	for i, name := range names {
		f := defaultFeed()
		f.Feeder, f.MaxDeliveries, f.MaxDead, f.DeadAge = name[:1], 4, 12, seconds(400)
		f.Listen = seconds([]int{20, 20, 40, 0}[i])
		f.Offers = i != 1
		if name == "f/1" {
			f.Lane = 1
		}
		feeds[name] = f
	}
	var history []sent
	var given []script.Lease
	var taken []script.Lease          // those of given that came out of wake
	var offers []func() script.Handed // also those that were confirmed; a shift moves their times
	var late []func() script.Handed   // their offers come after other calls
	acked := map[script.Lease]bool{}  // by a claim or by itself
	plain := rng.IntN(2) * 4          // of five requests so many have no lock, and some of the others
	next := 0
	tens := func(max int) int { return 10 * (1 + rng.IntN(max)) }
	fresh := func() script.Entry {
		next++
		e := script.Entry{ID: strconv.Itoa(next), Body: "b" + strconv.Itoa(next), Lock: locks[rng.IntN(len(locks))]}
		if rng.IntN(5) < plain {
			e.Lock = ""
		}
		if rng.IntN(4) == 0 {
			e.MaxWait = seconds(tens(12))
		}
		return e
	}
	someID := func() string {
		if all := slices.SortedFunc(maps.Keys(w.reqs), ids); len(all) > 0 && rng.IntN(8) > 0 {
			return all[rng.IntN(len(all))]
		}
		return strconv.Itoa(1 + rng.IntN(next+1))
	}
	someLease := func() script.Lease {
		if len(taken) > 0 && rng.IntN(8) == 0 {
			return taken[max(0, len(taken)-1-rng.IntN(5))]
		}
		if live := w.leased(); len(live) > 0 && rng.IntN(4) > 0 {
			id := live[rng.IntN(len(live))]
			return script.Lease{ID: id, Token: w.reqs[id].token}
		}
		if len(given) == 0 {
			return script.Lease{ID: "1", Token: "f:0"}
		}
		return given[max(0, len(given)-1-rng.IntN(20))]
	}
	someLeases := func() (ls []script.Lease) {
		for range 1 + rng.IntN(3) {
			if l := someLease(); !slices.Contains(ls, l) {
				ls = append(ls, l)
			}
		}
		return ls
	}
	show := func(ls ...script.Lease) (out []string) {
		for _, l := range ls {
			out = append(out, l.ID+" "+l.Token)
		}
		return out
	}
	always := func() bool { return true }
	within := func(codes func(string) bool) func(string) func() bool {
		return func(reply string) func() bool {
			// A call that was refused once may be accepted later.
			until := w.now + h.shifted + window.Milliseconds()
			return func() bool { return codes(reply) && w.now+h.shifted < until }
		}
	}
	accepted := within(func(reply string) bool { return !strings.Contains(reply, "2") })
	// Before its push a worker's call for what was offered finds nothing, and later it may.
	done := within(func(reply string) bool {
		codes, _, _ := strings.Cut(reply, " buried")
		return !strings.ContainsAny(codes, "02")
	})
	settles := func(ls ...script.Lease) func(string) func() bool {
		if slices.ContainsFunc(ls, func(l script.Lease) bool { return offered(l.Token) }) {
			return done
		}
		return func(string) func() bool { return always }
	}
	// What takes back what stands in wake changes nothing else.
	alone := func(settled func() bool) func() bool {
		return func() bool { return len(w.over) == 0 && settled() }
	}
	for i := range n {
		var s sent
		var after func(reply string) func() bool
		kind := rng.IntN(112)
		if len(w.reqs) > 40 && kind < 22 {
			kind = 30 // enough of them
		}
		switch {
		case kind >= 106:
			if len(offers) == 0 {
				continue
			}
			o := offers[max(0, len(offers)-1-rng.IntN(6))]
			if rng.IntN(4) == 0 {
				o = offers[rng.IntN(len(offers))]
			}
			id := o().ID
			s = sent{
				"confirm(" + id + ")", confirmed(o), func() string { return w.confirm(o()) },
				alone(func() bool { return w.known(id) }),
			}
		case kind >= 100:
			var o func() script.Handed
			if len(late) > 0 && rng.IntN(2) == 0 {
				o, late = late[0], late[1:]
			} else {
				w.now = serverTime(h.t, h.rdb)
				e, born, token, lease := fresh(), w.now+h.shifted, fmt.Sprintf("o%d", w.now), seconds(tens(3))
				o = func() script.Handed {
					at := time.UnixMilli(born - h.shifted)
					return script.Handed{Item: script.Item{ID: e.ID, Body: e.Body, Deliveries: 1, Accepted: at}, Token: token, Lease: lease}
				}
				offers = append(offers, o)
				if rng.IntN(5) == 0 {
					late = append(late, o)
					continue
				}
			}
			h.step("offer("+o().ID+")", offer(o), func() string { w.offer(o()); return "" }, false)
			continue // it is never sent again
		case kind < 12:
			var es []script.Entry
			for range 1 + rng.IntN(3) {
				es = append(es, fresh())
			}
			if rng.IntN(2) == 0 { // pushone
				es = es[:1]
				es[0].Lock, es[0].MaxWait = "", 0
			}
			s.what = fmt.Sprintf("push%v", es)
			s.real = func(ctx ctx, q *script.Queue) (string, error) {
				c, err := q.Push(ctx, es)
				return fmt.Sprint(c), err
			}
			s.model = func() string { return w.push(es) }
			after = accepted
		case kind < 16:
			e, in := fresh(), tens(9)
			e.Deferrals = rng.IntN(2)
			s.what = fmt.Sprintf("schedule(%v, %d)", e, in)
			s.real = func(ctx ctx, q *script.Queue) (string, error) {
				c, _, err := q.Schedule(ctx, e, script.In(seconds(in)))
				return fmt.Sprint(c), err
			}
			s.model = func() string { return w.schedule(e, in) }
			after = accepted
		case kind < 22:
			e, in := fresh(), tens(9)
			e.Lock = cmp.Or(e.Lock, "A")
			s.what = fmt.Sprintf("parknew(%v, %d)", e, in)
			s.real = func(ctx ctx, q *script.Queue) (string, error) {
				c, _, err := q.ParkNew(ctx, e, script.In(seconds(in)))
				return fmt.Sprint(c), err
			}
			s.model = func() string { return w.parkNew(e, in) }
			after = accepted
		case kind < 46:
			name := names[rng.IntN(len(names))]
			f, slots := feeds[name], rng.IntN(4)
			if slots > 0 {
				claims[name]++
			}
			number := claims[name]
			if rng.IntN(2) == 0 {
				if l, ok := h.takeToken(); ok {
					given, taken = append(given, l), append(taken, l)
				}
			}
			var done []script.Lease
			if rng.IntN(2) == 0 {
				done = someLeases()
			}
			once := !slices.ContainsFunc(done, func(l script.Lease) bool { return acked[l] })
			if once { // of two leases of a request, one in a lot, the other is told that it is done
				slices.SortStableFunc(done, func(a, b script.Lease) int { return cmp.Compare(a.ID, b.ID) })
				done = slices.CompactFunc(done, func(a, b script.Lease) bool { return a.ID == b.ID })
			}
			for _, l := range done {
				acked[l] = true
			}
			s.what = fmt.Sprintf("claim(%s:%d, %d, ack%v, %v)", name, number, slots, show(done...), once)
			s.real = func(ctx ctx, q *script.Queue) (string, error) {
				c, err := q.Exchange(ctx, f, number, slots, window, done, once)
				for _, item := range c.Items {
					given = append(given, script.Lease{ID: item.ID, Token: f.Token(number)})
				}
				return showClaim(c), err
			}
			s.model = func() string { return w.claim(f, number, slots, done...) }
		case kind < 56:
			ls := someLeases()
			for _, l := range ls {
				acked[l] = true
			}
			s = sent{fmt.Sprintf("ack%v", show(ls...)), ack(show(ls...)...), func() string { return w.ack(ls) }, nil}
			after = settles(ls...)
		case kind < 64:
			l, in, strict := someLease(), tens(9), rng.IntN(3) == 0
			cost, most := []script.Cost{script.Attempt, script.Deferral, script.Nothing}[rng.IntN(3)], rng.IntN(4)
			s = sent{
				fmt.Sprintf("nack(%v, %d, %s, %d, %v)", l, in, cost, most, strict),
				nack(show(l)[0], in, cost, most, strict), func() string { return w.nack(l, in, cost, most, strict) }, nil,
			}
			after = settles(l)
		case kind < 71:
			l, in, most := someLease(), tens(9), rng.IntN(6)
			if r, ok := w.reqs[l.ID]; ok && r.lock == "" || offered(l.Token) {
				continue // nothing to stand in line for
			}
			s = sent{fmt.Sprintf("park(%v, %d, %d)", l, in, most), park(show(l)[0], in, most), func() string { return w.park(l, in, most) }, always}
		case kind < 73:
			l := someLease()
			s = sent{fmt.Sprintf("bury(%v)", l), bury(show(l)[0]), func() string { return w.bury(l) }, nil}
			after = settles(l)
		case kind < 75:
			ls := someLeases()
			s = sent{fmt.Sprintf("requeue%v", show(ls...)), requeue(show(ls...)...), func() string { return w.requeue(ls) }, nil}
			after = settles(ls...)
		case kind < 77:
			ls, in := someLeases(), tens(9)
			s = sent{fmt.Sprintf("extend(%d)%v", in, show(ls...)), extend(in, show(ls...)...), func() string { return w.extend(in, ls) }, nil}
		case kind < 81:
			lock := locks[2+rng.IntN(len(locks)-2)]
			s = sent{"promote(" + lock + ")", promote(lock), func() string {
				var buried string
				code := w.promote(lock, &buried)
				return fmt.Sprint(code) + buried
			}, nil}
		case kind < 83:
			lock, in := locks[2+rng.IntN(len(locks)-2)], tens(9)
			s = sent{fmt.Sprintf("rearm(%s, %d)", lock, in), rearm(lock, in), func() string { w.rearm(lock, in); return "" }, nil}
		case kind < 86:
			id := someID()
			s = sent{"cancel(" + id + ")", cancel(id), func() string { return w.cancel(id) }, nil}
			cancelled := within(func(reply string) bool { return strings.HasPrefix(reply, "1") })
			after = func(reply string) func() bool { return alone(cancelled(reply)) }
		case kind < 88:
			id, in, stamp := someID(), 10*max(rng.IntN(18)-8, 0), fmt.Sprintf("s%d", i) // half at once
			s = sent{
				fmt.Sprintf("reschedule(%s, %d)", id, in), reschedule(id, in, stamp),
				func() string { return w.reschedule(id, in, stamp) }, alone(func() bool { return w.reqs[id].stamp == stamp }),
			}
		case kind < 90:
			id, stamp := someID(), fmt.Sprintf("s%d", i)
			s = sent{
				"revive(" + id + ")", revive(id, stamp),
				func() string { return w.revive(id, stamp) }, func() bool { return w.reqs[id].stamp == stamp },
			}
		case kind < 91:
			name := []string{"f", "g", "h"}[rng.IntN(3)]
			s = sent{"yield(" + name + ")", yield(name), func() string { w.yield(name); return "" }, nil}
		case kind < 95:
			h.advance(seconds(tens(4)))
			continue
		default:
			if len(history) == 0 {
				continue
			}
			old := history[max(0, len(history)-1-rng.IntN(12))]
			if rng.IntN(3) == 0 {
				old = history[rng.IntN(len(history))]
			}
			h.w.now = serverTime(h.t, h.rdb)
			h.step("again "+old.what, old.real, old.model, old.settled != nil && old.settled())
			continue
		}
		reply := h.step(s.what, s.real, s.model, false)
		if after != nil {
			s.settled = after(reply)
		}
		history = append(history, s)
	}
}

// takeToken is what a waker does before a claim. ok: it got a request, with that lease.
func (h *harness) takeToken() (l script.Lease, ok bool) {
	if err := h.rdb.LPop(h.t.Context(), h.q.Keys().Wake()).Err(); err != nil && !errors.Is(err, redis.Nil) {
		h.fail("take the token: %v", err)
	}
	if over := h.w.over; len(over) > 0 {
		h.w.over = over[1:]
		h.log = append(h.log, "takes "+over[0].id+" "+over[0].token)
		return script.Lease{ID: over[0].id, Token: over[0].token}, true
	}
	h.w.wake = 0
	return l, false
}

// advance takes the queue into the future: a millisecond more than asked for, so
// that no expiry falls on the very end of a step.
func (h *harness) advance(d time.Duration) {
	h.log = append(h.log, "time "+d.String())
	h.pass(d + time.Millisecond)
}

// drain settles all that is left, and looks that nothing is stuck.
func (h *harness) drain() {
	f := defaultFeed()
	f.Feeder = "f"
	for n := int64(1_000_000); ; n++ {
		h.w.now = serverTime(h.t, h.rdb)
		left := len(h.w.over)
		for _, r := range h.w.reqs {
			if r.place != 'x' {
				left++
			}
		}
		if left == 0 {
			break
		}
		if n > 1_000_300 {
			h.fail("%d requests are stuck:\n%s", left, h.w.text(h.w.now, 1))
		}
		var ls []script.Lease
		var looks []string
		h.step("claim(drain)", func(ctx ctx, q *script.Queue) (string, error) {
			c, err := q.Exchange(ctx, f, n, 8, window, nil, true)
			for _, item := range c.Items {
				ls = append(ls, script.Lease{ID: item.ID, Token: f.Token(n)})
			}
			looks = c.Probes
			return showClaim(c), err
		}, func() string { return h.w.claim(f, n, 8) }, false)
		if len(ls) > 0 {
			h.step("ack(drain)", func(ctx ctx, q *script.Queue) (string, error) {
				codes, more, buried, err := q.Ack(ctx, window, ls)
				s := fmt.Sprint(codes)
				if more {
					s += " more"
				}
				return withBuried(s, buried), err
			}, func() string { return h.w.ack(ls) }, false)
		}
		for _, lock := range looks {
			h.step("promote(drain)", promote(lock), func() string {
				var buried string
				code := h.w.promote(lock, &buried)
				return fmt.Sprint(code) + buried
			}, false)
		}
		if len(ls)+len(looks) == 0 {
			h.advance(seconds(30))
		}
	}
	if len(h.w.held) > 0 || len(h.w.probes) > 0 {
		h.fail("left behind: held %v, probes %v", h.w.held, h.w.probes)
	}
}

// seeds are those of a random test, or the one that was asked for.
func seeds(n uint64) []uint64 {
	if *seed != 0 {
		return []uint64{*seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i + 1)
	}
	return out
}

func frozen(t *testing.T) (*redis.Client, func(time.Duration)) {
	t.Helper()
	srv := sidesteptest.New()
	srv.Advance(0)
	rdb := srv.Client()
	t.Cleanup(func() {
		rdb.Close()
		srv.Close()
	})
	return rdb, srv.Advance
}

// Random calls, re-sent calls and steps of time: after each, the queue is what
// the model says, and keeps the invariants.
func TestModel(t *testing.T) {
	t.Run("mini", func(t *testing.T) {
		for _, s := range seeds(6) {
			rdb, pass := frozen(t)
			h := &harness{t: t, q: testQueue(rdb), rdb: rdb, w: newWorld(), rng: rand.New(rand.NewPCG(s, 1)), seed: s, pass: pass}
			h.random(600)
			h.drain()
		}
	})
	t.Run("real", func(t *testing.T) {
		for _, s := range seeds(2) {
			rdb := redistest.Real(t)
			h := &harness{t: t, q: testQueue(rdb), rdb: rdb, w: newWorld(), rng: rand.New(rand.NewPCG(s, 1)), seed: s, slack: 2000}
			h.pass = func(d time.Duration) {
				shift(t, h.q, d)
				h.w.shift(d.Milliseconds())
				h.shifted += d.Milliseconds()
			}
			h.random(400)
			h.drain()
		}
	})
}

// shift does to the model what the function shift does to a queue.
func (w *world) shift(ms int64) {
	for id, r := range w.reqs {
		if strings.ContainsRune("dlx", rune(r.place)) {
			r.at -= ms
		}
		r.accepted -= ms
		w.reqs[id] = r
	}
	for lock := range w.probes {
		w.probes[lock] -= ms
	}
	for i := range w.over {
		if w.over[i].offered() {
			w.over[i].accepted -= ms
		}
	}
	if w.turned != 0 {
		w.turned -= ms
	}
	for f, r := range w.last {
		r.expires -= ms
		w.last[f] = r
	}
	if w.keeper != "" {
		w.until -= ms
		w.lapses -= ms
	}
	if w.idle != 0 {
		w.idle -= ms
	}
}
