package script_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

func limit(t *testing.T, rdb *redis.Client, bytes string) {
	t.Helper()
	if err := rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
		t.Fatal(err)
	}
}

// While Redis is out of memory it takes no more requests, but those that are there are
// worked off.
func TestOutOfMemory(t *testing.T) {
	rdb := redistest.NewServer(t).Client(t)
	const running = "1 l@30 tok=f:1 n=1/0/0; last f:1 1"
	for name, c := range map[string]struct {
		seed  string
		call  call
		reply string // "OOM": it is refused
	}{
		"push":                     {"", push("1"), "OOM"},
		"push several":             {"", push("1 A", "2"), "OOM"},
		"schedule":                 {"", schedule("1", 30), "OOM"},
		"parknew":                  {"", parkNew("1 A", 30), "OOM"},
		"claim":                    {"1 r; 2 r; ready 1 2", claim(1, 2), "1:1/0/0 2:1/0/0 wait 30"},
		"claim with locks":         {"1 r A#1; 2 r A#2; ready 1 2; seq 2", claim(1, 2), "1:1/0/0 wait 30"},
		"claim nothing":            {"", claim(1, 2, listen), ""},
		"claim of what is due":     {"1 d@-10 A#0; 2 d@-10", claim(1, 2), "1:1/0/0 2:1/0/0 wait 30"},
		"claim beside a due probe": {"1 p A#1; probe A@-10; seq 1; 2 r; ready 2", claim(1, 2), "2:1/0/0 look A wait 20"},
		"claim of a late lease":    {"1 l@-10 tok=g:1", claim(1, 1), "1:1/0/0 wait 30"},
		"claim made again":         {"1 l@30 tok=f:1; last f:1 1; 2 r; ready 2", claim(1, 1), "1:0/0/0 wait 30 more"},
		"claim of no more":         {"1 d@10; 2 r; ready 2", claim(1, 0), "wait 10 more"},
		"exchange":                 {running, exchange(2, 1, "1 f:1"), "acked [1]"},
		"exchange that only acks":  {running + "; 2 d@10", exchange(2, 0, "1 f:1"), "wait 10 acked [1]"},
		"ack":                      {running, ack("1 f:1"), "[1]"},
		"extend":                   {running, extend(30, "1 f:1"), "[1]"},
		"nack":                     {running, nack("1 f:1", 30, "attempt", 0, false), "1"},
		"park":                     {"1 l@30 A#1 tok=f:1; held A=1; seq 1", park("1 f:1", 30, 0), "1"},
		"bury":                     {running, bury("1 f:1"), "1 buried 1: bad payload"},
		"requeue":                  {running, requeue("1 f:1"), "[1]"},
		"cancel":                   {"1 r; ready 1", cancel("1"), "1"},
		"promote":                  {"1 p A#1; probe A@30; seq 1", promote("A"), "1"},
		"rearm":                    {"1 p A#1; probe A@30; seq 1", rearm("A", 10), ""},
		"yield":                    {"1 r; ready 1", yield("f"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			limit(t, rdb, "0")
			rdb.FlushDB(t.Context())
			q := testQueue(rdb)
			parse(t, serverTime(t, rdb), c.seed).write(t, q)
			limit(t, rdb, "1")
			switch got, err := c.call(t.Context(), q); {
			case c.reply == "OOM":
				if !redis.HasErrorPrefix(err, "OOM") {
					t.Errorf("answered %q, %v, want an error of no memory", got, err)
				}
			case err != nil || got != c.reply:
				t.Errorf("answered %q, %v, want %q", got, err, c.reply)
			}
			limit(t, rdb, "0") // which reads may need too
			if _, bad := read(t, q); len(bad) > 0 {
				t.Error(bad)
			}
		})
	}
}

// So are the requests of a lot.
func TestOutOfMemoryWithALot(t *testing.T) {
	rdb := redistest.NewServer(t).Client(t)
	for name, c := range map[string]struct {
		call  call
		reply string
	}{
		"exchange": {exchange(2, 1, "1 f:1"), "wait 30 acked [1]"},
		"ack":      {ack("1 f:1"), "[1]"},
		"extend":   {extend(30, "1 f:1"), "[1]"},
		"requeue":  {requeue("1 f:1"), "[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			limit(t, rdb, "0")
			rdb.FlushDB(t.Context())
			q := testQueue(rdb)
			for _, do := range []call{push("1", "2", "3"), claim(1, 3)} {
				if _, err := do(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			limit(t, rdb, "1")
			if got, err := c.call(t.Context(), q); err != nil || got != c.reply {
				t.Errorf("answered %q, %v, want %q", got, err, c.reply)
			}
			limit(t, rdb, "0")
			if _, bad := read(t, q); len(bad) > 0 {
				t.Error(bad)
			}
		})
	}
}
