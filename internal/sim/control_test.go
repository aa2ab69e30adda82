package sim

import (
	"context"
	"crypto/sha1"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
)

// Each of these breaks one thing, in the server, in the resource or in what a
// process does, and the oracle has to say so. What it cannot see it does not
// prove.
func TestControls(t *testing.T) {
	const within = 300 // seeds, of which the first is one that may well do
	for name, c := range map[string]struct {
		first   uint64
		options options
		want    string
	}{
		"the resource does not check fences":             {24, options{unfenced: true}, "stale write"},
		"who is refused enters all the same":             {12, options{trespass: true}, "L1: "},
		"a worker acknowledges before it runs":           {0, options{ackFirst: true}, "accepted and is lost"},
		"what is finished comes back":                    {0, options{resurrect: true, faultless: true}, "nothing had gone wrong"},
		"the server loses its data and nobody is told":   {0, options{forgetful: true}, "accepted and is lost"},
		"a key without a TTL is left":                    {0, options{litter: true, faultless: true}, "is left for ever"},
		"a body without a request is left":               {0, options{orphan: true, faultless: true}, "I1: "},
		"the fences go back":                             {0, options{rejuvenate: true, faultless: true}, "L2: "},
		"what is delayed becomes due":                    {5, options{hasty: true, faultless: true}, "early"},
		"the token is lost, so that workers sleep":       {0, options{faultless: true, tap: swallow("BLPOP")}, "I4: "},
		"nobody is told that a lock is free":             {0, options{faultless: true, tap: swallowScript("return {promote(ARGV[1])")}, "I13: "},
		"one process takes the lock ahead of all others": {0, options{faultless: true, crowd: true, tap: scatter}, "came later have entered"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(within) {
				seed := c.first + i
				for _, p := range simulate(t, seed, c.options).problems {
					if strings.Contains(p, c.want) {
						t.Logf("seed %d: %s", seed, p)
						return
					}
				}
			}
			t.Errorf("no seed of %d says %q", within, c.want)
		})
	}
}

// swallow loses all commands of a name, without a word.
func swallow(name string) func(*wire, []byte) bool {
	return func(_ *wire, unit []byte) bool { return strings.EqualFold(commandName(unit), name) }
}

// swallowScript loses all runs of a script with these words in it.
func swallowScript(words string) func(*wire, []byte) bool {
	var mu sync.Mutex
	shas := make(map[string]bool)
	return func(_ *wire, unit []byte) bool {
		args, _, err := command(unit)
		if err != nil || len(args) < 2 {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if strings.EqualFold(string(args[0]), "eval") && strings.Contains(string(args[1]), words) {
			shas[fmt.Sprintf("%x", sha1.Sum(args[1]))] = true
			return true
		}
		return shas[string(args[1])]
	}
}

// scatter takes everybody else out of line when a process of the first seat does
// anything.
func scatter(w *wire, _ []byte) bool {
	if w.p.seat == 0 {
		for _, l := range w.net.s.plan.locks {
			w.net.s.admin.Del(context.Background(), "{"+l+"}:line")
		}
	}
	return false
}

// sabotage does what the options ask for to the server, behind the back of all.
func (s *simulation) sabotage(ctx context.Context) {
	o, q := &s.plan.opts, keys.Of(keys.Base("sidestep:", "q"))
	switch {
	case o.forgetful:
		s.srv.FlushAll()
	case o.litter:
		s.admin.Set(ctx, "litter", 1, 0)
	case o.orphan:
		s.admin.HSet(ctx, q.Msg(), "nobody", "body")
	case o.rejuvenate:
		s.mu.Lock()
		s.net.offset, s.net.stepped = -24*time.Hour, true
		s.mu.Unlock()
		s.setClock()
		for _, l := range s.plan.locks {
			s.admin.Del(ctx, "{"+l+"}:fence")
		}
	case o.hasty:
		for _, id := range s.admin.ZRange(ctx, q.Delayed(), 0, -1).Val() {
			s.admin.ZAddXX(ctx, q.Delayed(), redis.Z{Score: 0, Member: id})
		}
	case o.resurrect:
		s.mu.Lock()
		var back []script.Entry
		for _, r := range s.plan.requests {
			if r.done != nil && r.body != "" {
				back = append(back, script.Entry{ID: r.id, Lock: r.lock, Body: r.body})
				r.body = ""
			}
		}
		s.mu.Unlock()
		for _, e := range back {
			s.admin.SRem(ctx, q.Gone(), e.ID)
			s.admin.SRem(ctx, q.Past(), e.ID)
			_, _ = script.New(s.admin, q).Push(ctx, []script.Entry{e}) // has no network
		}
	}
}

// sabotageDelivery does what the options ask for to a delivery whose handler has
// just begun.
func (s *simulation) sabotageDelivery(r *request) {
	ctx, o, q := context.Background(), &s.plan.opts, keys.Of(keys.Base("sidestep:", "q"))
	switch {
	case o.ackFirst:
		if st, err := script.ParseState(s.admin.HGet(ctx, q.State(), r.id).Val()); err == nil {
			_, _, _, _ = script.New(s.admin, q).Ack(ctx, time.Minute, []script.Lease{{ID: r.id, Token: st.Token}}) // has no network
		}
	case o.resurrect:
		body := s.admin.HGet(ctx, q.Msg(), r.id).Val()
		s.mu.Lock()
		r.body = body
		s.mu.Unlock()
	}
}

// trespass enters a lock that was refused.
func (p *process) trespass(q *request) {
	s := p.s
	if !s.plan.opts.trespass {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oracle.leave(s.oracle.enter(p, q.lock, s.oracle.highest[q.lock]+1, time.Time{}, func() bool { return true }))
}
