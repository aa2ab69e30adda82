package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/lockmodel"
)

// Walks of internal/lockmodel, played on the scripts: they answer what the model
// says, and after each the keys hold what the model's state says.
func TestScriptsDoWhatTheModelDoes(t *testing.T) {
	cases := []lockmodel.Case{
		{Goroutines: [3]uint8{2, 1, 1}, Rounds: 3, LateCopies: 4, Resends: 2, Cancels: 2, Drops: 1, Extends: 2, Ticks: 30},
		{Goroutines: [3]uint8{2, 2, 1}, OnlyTries: [3]bool{2: true}, Rounds: 3, LateCopies: 2, Deaths: 1, Drops: 2, Extends: 2, Ticks: 30},
	}
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		seen := map[string]int{}
		for seed := range uint64(40) {
			c := cases[seed%uint64(len(cases))]
			c.TTL, c.Claim, c.Block = 4, 2, 2
			if err := rdb.FlushDB(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
			w := &walk{t: t, rdb: rdb, n: n, k: keysOf("", "x"), block: int64(c.Block), seed: seed, seen: seen}
			t.Cleanup(w.close) // if it fails
			lockmodel.Walk(c, rand.New(rand.NewPCG(seed, 1)), 400, func(e lockmodel.Event, k lockmodel.Keys) bool {
				w.play(e)
				w.compare(e, k)
				return true
			})
			w.close()
		}
		t.Log(seen)
		for _, what := range []string{"acquire granted", "acquire in line", "try granted", "try refused", "extend ok", "extend refused", "release", "expire"} {
			if seen[what] == 0 {
				t.Errorf("never played: %s", what)
			}
		}
	})
}

// walk plays the events of one walk.
type walk struct {
	t     *testing.T
	rdb   *redis.Client
	n     *single
	k     keys
	block int64
	seed  uint64
	seen  map[string]int

	subs          [3]*redis.PubSub
	log           []string
	fence, before int64 // the real one, and the model's, after the last event
}

func (w *walk) close() {
	for _, s := range w.subs {
		if s != nil {
			s.Close()
		}
	}
}

func (w *walk) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("walk %d: %s\nthe events:\n%s", w.seed, fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func walkValue(token uint8) string { return fmt.Sprintf("token%d me", token) }

func walkEntry(token uint8) string {
	return entryOf(walkClaim, 2, fmt.Sprintf("mail:%d", lockmodel.Process(token)), walkValue(token))
}

const (
	walkLease = time.Hour
	walkClaim = time.Minute
)

// listen makes the server count the subscriptions that the model counts.
func (w *walk) listen(up [3]bool) {
	ctx := context.Background()
	for i, is := range up {
		channel := fmt.Sprintf("mail:%d", i)
		switch {
		case is == (w.subs[i] != nil):
		case is:
			w.subs[i] = w.rdb.Subscribe(ctx, channel)
			if _, err := w.subs[i].Receive(ctx); err != nil {
				w.fail("subscribe: %v", err)
			}
			go func(sub *redis.PubSub) {
				for range sub.Channel() { // so that nobody waits to write to it
				}
			}(w.subs[i])
		default:
			w.subs[i].Close()
			w.subs[i] = nil
			for { // until the server has noticed
				n, err := w.rdb.PubSubNumSub(ctx, channel).Result()
				if err != nil {
					w.fail("count the subscribers: %v", err)
				}
				if n[channel] == 0 {
					break
				}
			}
		}
	}
}

func (w *walk) play(e lockmodel.Event) {
	w.log = append(w.log, fmt.Sprintf("%+v", e))
	ctx := context.Background()
	what := e.Script
	count := func(yes bool, good, bad string) {
		if what += " " + bad; yes {
			what = e.Script + " " + good
		}
	}
	switch e.Script {
	case "acquire", "try":
		a := &acquireArgs{value: new(walkValue(e.Token)), lease: walkLease, claim: walkClaim, block: w.block, margin: time.Minute}
		if e.Script == "acquire" {
			a.entry = walkEntry(e.Token)
		}
		w.listen(e.Listening)
		r, err := w.n.acquire(ctx, &w.k, a)
		if err != nil || r.granted != e.Granted {
			w.fail("%s = %+v, %v; the model says %v", e.Script, r, err, e.Granted)
		}
		if e.Granted && w.rdb.Get(ctx, w.k.fence).Val() != strconv.FormatInt(r.fence, 10) {
			w.fail("%s answers fence %d, and another is kept", e.Script, r.fence)
		}
		if e.Script == "acquire" {
			count(e.Granted, "granted", "in line")
		} else {
			count(e.Granted, "granted", "refused")
		}
	case "extend":
		held, err := w.n.extend(ctx, &w.k, &extendArgs{value: walkValue(e.Token), lease: walkLease})
		if err != nil || held != e.OK {
			w.fail("extend = %v, %v; the model says %v", held, err, e.OK)
		}
		count(e.OK, "ok", "refused")
	case "release":
		w.listen(e.Listening)
		if _, err := w.n.release(ctx, &w.k, &releaseArgs{value: new(walkValue(e.Token)), entry: walkEntry(e.Token), margin: time.Minute}); err != nil {
			w.fail("release: %v", err)
		}
	case "expire":
		w.rdb.Del(ctx, w.k.lock)
	}
	w.seen[what]++
}

func (w *walk) compare(e lockmodel.Event, k lockmodel.Keys) {
	w.t.Helper()
	ctx := context.Background()
	p := w.rdb.Pipeline()
	value, ttl, line, minted := p.Get(ctx, w.k.lock), p.PTTL(ctx, w.k.lock), p.ZRange(ctx, w.k.line, 0, -1), p.Get(ctx, w.k.fence)
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		w.fail("read the keys: %v", err)
	}
	want := ""
	if k.Lock != 0 {
		want = walkValue(k.Lock)
	}
	if value.Val() != want {
		w.fail("after %s the lock holds %q, in the model %q", e.Script, value.Val(), want)
	}
	if claimed := ttl.Val() <= walkClaim; k.Lock != 0 && claimed != k.Claimed {
		w.fail("after %s the lease lasts %v, in the model it is a claim lease: %v", e.Script, ttl.Val(), k.Claimed)
	}
	var entries []string
	for _, t := range k.Line {
		entries = append(entries, walkEntry(t))
	}
	if !slices.Equal(line.Val(), entries) {
		w.fail("after %s the line is %q, in the model %q", e.Script, line.Val(), entries)
	}
	fence, _ := strconv.ParseInt(minted.Val(), 10, 64)
	if fence < w.fence || (fence > w.fence) != (int64(k.Fence) > w.before) {
		w.fail("after %s the fence is %d after %d, in the model %d after %d", e.Script, fence, w.fence, k.Fence, w.before)
	}
	w.fence, w.before = fence, int64(k.Fence)
}
