package sim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
)

// view is what a queue's keys say.
type view struct {
	all       map[string]script.State
	leased    int
	claimable map[string]bool // ids that a worker may have
	stuck     map[string]bool // locks with a line that are free, and nobody has the turn
}

// look reads a queue, and says which invariants of docs/queue.md, section 4, it
// breaks: those that hold between any two scripts.
func look(ctx context.Context, rdb *redis.Client, k keys.Queue) (v view, bad []string) {
	p := rdb.TxPipeline()
	delayed, parked := p.ZRange(ctx, k.Delayed(), 0, -1), p.ZRange(ctx, k.Parked(), 0, -1)
	leased, dead := p.ZRange(ctx, k.Leased(), 0, -1), p.ZRange(ctx, k.Dead(), 0, -1)
	ready, wake := p.LRange(ctx, k.Ready(), 0, -1), p.LRange(ctx, k.Wake(), 0, -1)
	state, msg, held := p.HGetAll(ctx, k.State()), p.HGetAll(ctx, k.Msg()), p.HGetAll(ctx, k.Held())
	lots, meta := p.HGetAll(ctx, k.Lots()), p.HGetAll(ctx, k.Meta())
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return v, []string{fmt.Sprintf("read the queue: %v", err)}
	}
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }

	all := make(map[string]script.State)
	for id, packed := range state.Val() {
		st, err := script.ParseState(packed)
		if err != nil {
			say("I1: state of %s: %v", id, err)
			continue
		}
		all[id] = st
		if _, ok := msg.Val()[id]; !ok {
			say("I2: %s has no body", id)
		}
		if st.Deliveries < st.Attempts {
			say("I8: %s has %d deliveries and %d attempts", id, st.Deliveries, st.Attempts)
		}
	}
	if b, st := len(msg.Val()), len(all); b != st {
		say("I1: %d bodies, %d states", b, st)
	}
	// Every request stands in the place that its state names, once, and nowhere else.
	seen := make(map[string]int)
	stands := func(id, place string) {
		seen[id]++
		if all[id].Place != place {
			say("I1: %s stands among the %s, its state says %q", id, place, all[id].Place)
		}
	}
	probes, lines := make(map[string]bool), make(map[string]bool)
	for _, m := range delayed.Val() {
		if lock, ok := strings.CutPrefix(m, "\x00"); ok {
			probes[lock] = true
			continue
		}
		stands(m, "delayed")
	}
	for _, m := range parked.Val() {
		f := strings.Split(m, "\x00")
		if len(f) != 3 {
			say("I1: %q stands in line", m)
			continue
		}
		lines[f[0]] = true
		stands(f[2], "parked")
		if all[f[2]].Lock != f[0] {
			say("I1: %s stands in line for %q, its state says %q", f[2], f[0], all[f[2]].Lock)
		}
	}
	for _, m := range leased.Val() {
		tok, ok := strings.CutPrefix(m, "\x00")
		if !ok {
			v.leased++
			stands(m, "leased")
			continue
		}
		n := 0
		for id := range strings.SplitSeq(lots.Val()[tok], "\n") {
			if all[id].Place == "leased" && all[id].Token == tok {
				n++
				stands(id, "leased")
			}
		}
		v.leased += n
		if left := meta.Val()["lot:"+tok]; left != strconv.Itoa(n) {
			say("I14: lot %s has %d requests and says %s", tok, n, left)
		}
		delete(lots.Val(), tok)
	}
	for tok := range lots.Val() {
		say("I14: lot %s is not leased", tok)
	}
	for _, m := range dead.Val() {
		stands(m, "dead")
	}
	once := make(map[string]bool)
	for _, id := range ready.Val() { // what a cancel or a reschedule left behind may stand here as well
		if all[id].Place == "ready" && !once[id] {
			once[id] = true
			seen[id]++
		}
	}
	for id, st := range all {
		if seen[id] != 1 {
			say("I1: %s, %s, stands in %d places", id, st.Place, seen[id])
		}
		if st.Place == "leased" && st.Lock != "" && held.Val()[st.Lock] != id {
			say("I12: %s is leased, and the turn on %q has %q", id, st.Lock, held.Val()[st.Lock])
		}
	}
	for lock := range probes {
		if !lines[lock] {
			say("I3: a probe for %q, and nobody in line", lock)
		}
	}
	for lock := range lines {
		if !probes[lock] {
			say("I3: a line for %q without a probe", lock)
		}
	}
	for i, v := range wake.Val() {
		if _, handed, err := script.ParseHanded(v); err != nil || i > 0 && (handed || wake.Val()[i-1] == v) {
			say("I10: in wake stand %q", wake.Val())
		}
	}
	for lock, id := range held.Val() {
		st, ok := all[id]
		switch {
		case !ok:
			say("I11: %q has the turn on %q and does not exist", id, lock)
		case st.Lock != lock:
			say("I11: %s has the turn on %q and wants %q", id, lock, st.Lock)
		case st.Place != "ready" && st.Place != "leased" && st.Place != "delayed": // strict order keeps it there
			say("I11: %s has the turn on %q and is %s", id, lock, st.Place)
		}
	}
	v = view{all: all, leased: v.leased, claimable: make(map[string]bool), stuck: make(map[string]bool)}
	for id := range once {
		turn, lock := held.Val()[all[id].Lock], all[id].Lock
		if lock == "" || turn == id || turn == "" && !lines[lock] {
			v.claimable[id] = true
		}
	}
	for lock := range lines {
		if held.Val()[lock] == "" && rdb.Exists(ctx, lock).Val() == 0 {
			v.stuck[lock] = true
		}
	}
	return v, bad
}
