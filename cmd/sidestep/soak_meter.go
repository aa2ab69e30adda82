package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
)

// metric compares what was measured in the last third of a run with the middle
// third: the first is for warming up.
type metric struct {
	Name   string  `json:"name"`
	Middle float64 `json:"median_of_middle_third"`
	Last   float64 `json:"median_of_last_third"`
	Bound  float64 `json:"bound"` // which Last may not exceed
	Max    float64 `json:"max"`   // of all samples
	Flat   bool    `json:"flat"`
}

// leeway is by how much a metric may always grow.
func leeway(name string) float64 {
	switch name {
	case "heap bytes":
		return 1 << 20
	case "server bytes":
		return 512 << 10
	case "goroutines":
		return 16
	}
	return 12
}

// judge compares the thirds of a run. A metric may grow by its leeway, by 5 %, or
// by three times what it changes from one sample to the next, which for a steady
// growth is little.
func judge(samples []readings) []metric {
	n := len(samples)
	if n < 12 {
		return nil
	}
	var out []metric
	for _, name := range slices.Sorted(maps.Keys(samples[n-1])) {
		values := make([]float64, n)
		for i, s := range samples {
			values[i] = s[name]
		}
		middle := values[n/3 : 2*n/3]
		steps := make([]float64, 0, len(middle))
		for i := 1; i < len(middle); i++ {
			steps = append(steps, math.Abs(middle[i]-middle[i-1]))
		}
		m := metric{Name: name, Middle: median(middle), Last: median(values[2*n/3:]), Max: slices.Max(values)}
		m.Bound = m.Middle + max(leeway(name), 0.05*m.Middle, 3*median(steps))
		m.Flat = m.Last <= m.Bound
		out = append(out, m)
	}
	return out
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// server measures the server: its memory and clients, its keys by kind, and the
// members of the queue's own keys.
func (m *meter) server(ctx context.Context, s readings) error {
	info, err := m.rdb.InfoMap(ctx, "memory", "clients").Result()
	if err != nil {
		return err
	}
	s["server bytes"] = figure(info["Memory"]["used_memory"])
	s["server clients"] = figure(info["Clients"]["connected_clients"])
	mails, err := m.rdb.PubSubChannels(ctx, "sidestep:mail:*").Result()
	if err != nil {
		return err
	}
	s["mailboxes"] = float64(len(mails))
	for _, kind := range keyKinds {
		s["keys: "+kind] = 0
	}
	it := m.rdb.Scan(ctx, 0, "*"+globQuote(m.prefix)+"*", 1000).Iterator()
	for it.Next(ctx) {
		s["keys: "+m.kind(it.Val())]++
	}
	if err := it.Err(); err != nil {
		return err
	}
	return m.members(ctx, s)
}

// even makes up for a machine that could not keep the rate: what is remembered for
// a while after each call is taken as many times as calls are missing in it.
func (m *meter) even(s readings, rate float64) {
	now, calls := time.Now(), float64(m.load.counts.get("call"))
	m.past = append(m.past, moment{now, calls})
	i := len(m.past) - 1
	for i > 0 && now.Sub(m.past[i].at) < m.load.memory {
		i--
	}
	m.past = m.past[i:] // as far back as the memory goes
	made, due := calls-m.past[0].calls, rate*now.Sub(m.past[0].at).Seconds()
	if made <= 0 {
		return
	}
	for _, name := range []string{"keys: fence", "queue: gone"} {
		s[name] *= due / made
	}
}

// moment is how many calls were made by then.
type moment struct {
	at    time.Time
	calls float64
}

func figure(text string) float64 {
	f, _ := strconv.ParseFloat(text, 64) // not told by this server: 0
	return f
}

// The kinds of keys of locks that a run makes in Redis. The queue's are another.
var keyKinds = []string{"lock", "fence", "line", "parked flag"}

// kind tells what a key of the run is.
func (m *meter) kind(key string) string {
	switch {
	case strings.HasPrefix(key, m.prefix+"{"):
		return "queue"
	case strings.HasSuffix(key, ":fence"):
		return "fence"
	case strings.HasSuffix(key, ":line"):
		return "line"
	case strings.HasSuffix(key, ":parked"):
		return "parked flag"
	}
	return "lock"
}

// members counts what the queue's keys hold.
func (m *meter) members(ctx context.Context, s readings) error {
	k := keys.Of(keys.Base(m.prefix, soakQueue))
	counts := make(map[string]*redis.IntCmd)
	_, err := m.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		counts["ready"], counts["wake"] = p.LLen(ctx, k.Ready()), p.LLen(ctx, k.Wake())
		counts["delayed"], counts["parked"] = p.ZCard(ctx, k.Delayed()), p.ZCard(ctx, k.Parked())
		counts["leased"], counts["dead"] = p.ZCard(ctx, k.Leased()), p.ZCard(ctx, k.Dead())
		counts["lots"] = p.HLen(ctx, k.Lots())
		counts["gone"], counts["past"] = p.SCard(ctx, k.Gone()), p.SCard(ctx, k.Past())
		counts["bodies"], counts["states"], counts["held"] = p.HLen(ctx, k.Msg()), p.HLen(ctx, k.State()), p.HLen(ctx, k.Held())
		return nil
	})
	if err != nil {
		return err
	}
	for name, c := range counts {
		s["queue: "+name] = float64(c.Val())
	}
	s["queue: gone"] += s["queue: past"]
	delete(s, "queue: past")
	return nil
}

// settle waits until all leases and memories of a load that has ended have run
// out, and tells what is then left that should not be.
func (m *meter) settle(ctx context.Context, limit time.Duration) (map[string]int64, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; {
		s := readings{}
		if err := m.server(ctx, s); err != nil {
			return nil, err
		}
		left := make(map[string]int64)
		for _, kind := range keyKinds {
			left["keys: "+kind] = int64(s["keys: "+kind])
		}
		for _, of := range []string{"ready", "delayed", "parked", "leased", "lots", "held"} {
			left["queue: "+of] = int64(s["queue: "+of])
		}
		left["mailboxes"] = int64(s["mailboxes"])
		left["bodies of none"] = int64(s["queue: bodies"] - s["queue: dead"])
		left["states of none"] = int64(s["queue: states"] - s["queue: dead"])
		total := int64(0)
		for _, n := range left {
			total += max(n, -n)
		}
		if total == 0 || time.Now().After(deadline) {
			return left, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return left, context.Cause(ctx)
		}
	}
}

// openFiles returns how many files this process has open, or -1 where the
// system does not tell.
func openFiles() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(names)
}

func writeCounts(out io.Writer, counts map[string]int64) {
	for _, name := range slices.SortedFunc(maps.Keys(counts), cmp.Compare) {
		fmt.Fprintf(out, "  %-20s %9d\n", name, counts[name])
	}
}
