package chaos

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/clock"
)

// Replacement is that the sentinels made the replica the master: because the
// nemesis killed the master, or because they took a living one for dead, such as
// one that had just been restarted. What the old one accepted in the time given
// here is lost, where accepting does not wait.
type Replacement struct {
	Old  string `json:"old"`
	New  string `json:"new"`
	From int64  `json:"from_ns"` // of the shared clock; until then the new one, as a replica, surely had all
	At   int64  `json:"at_ns"`   // the new one was seen to be a master
	To   int64  `json:"to_ns"`   // from then on the old one surely was none
	Both bool   `json:"both"`    // the old one served meanwhile
}

// sentry watches the two nodes of a Sentinel set.
type sentry struct {
	mu       sync.Mutex // guards the fields below
	seen     map[*server]*sighting
	replaced []Replacement
}

// sighting is what a node was when it last answered.
type sighting struct {
	master bool
	full   int64 // until then the replica of this master surely had all
	open   int   // index of the replacement of this master, until it is seen to follow; else -1
}

// watch looks at the nodes of a Sentinel set until ctx ends, and returns which
// master was replaced by which.
func (s *servers) watch(ctx context.Context) []Replacement {
	if len(s.sentinels) == 0 {
		return nil
	}
	const beat = 20 * time.Millisecond
	w := &sentry{seen: make(map[*server]*sighting)}
	for i, n := range s.nodes {
		w.seen[n] = &sighting{master: i == 0, full: clock.Now(), open: -1}
	}
	var each sync.WaitGroup
	for i, n := range s.nodes {
		each.Go(func() {
			rdb := n.client()
			defer rdb.Close()
			for ctx.Err() == nil {
				w.look(ctx, rdb, n, s.nodes[1-i])
				pause(ctx, beat)
			}
		})
	}
	each.Wait()
	return w.replaced
}

// look asks a node what it is and, if it is a master, whether its replica has all.
func (w *sentry) look(ctx context.Context, rdb *redis.Client, n, other *server) {
	role, err := rdb.Do(ctx, "ROLE").Slice()
	if err != nil || len(role) == 0 {
		return // it is down, or stands still
	}
	master := role[0] == "master"
	w.saw(n, other, master, clock.Now())
	at := clock.Now()
	if master && hasAll(ctx, rdb, 100*time.Millisecond) {
		w.mu.Lock()
		w.seen[n].full = at
		w.mu.Unlock()
	}
}

// saw enters that a node was a master at a time, or was none.
func (w *sentry) saw(n, other *server, master bool, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.seen[n]
	if master && !was.master {
		w.seen[other].open = len(w.replaced)
		w.replaced = append(w.replaced, Replacement{Old: other.name, New: n.name, From: w.seen[other].full, At: at, To: at})
	}
	was.master = master
	if was.open < 0 {
		return
	}
	r := &w.replaced[was.open]
	r.Both = r.Both || master
	if r.Both {
		r.To = at
	}
	if !master {
		was.open = -1
	}
}
