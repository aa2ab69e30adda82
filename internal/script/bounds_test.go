package script_test

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// count is how many requests are in each place.
func count(w *world) map[byte]int {
	n := map[byte]int{}
	for _, r := range w.reqs {
		n[r.place]++
	}
	return n
}

// many writes n requests that differ by their number, %d in part.
func many(n int, part string) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		b.WriteString(strings.ReplaceAll(part, "%d", fmt.Sprint(i)) + "\n")
	}
	return b.String()
}

// list is a ready list of n requests.
func list(n int) string {
	s := "ready"
	for i := 1; i <= n; i++ {
		s += fmt.Sprintf(" %d", i)
	}
	return s
}

// No claim takes or moves more than Bound, whatever has piled up, and the next
// one goes on (I9).
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name  string
		seed  string
		slots int
		after []map[byte]int // after each claim
	}{
		{"due", many(300, "%d d@-10"), 0, []map[byte]int{{'d': 172, 'r': 128}, {'d': 44, 'r': 256}, {'r': 300}}},
		{"leases", many(300, "%d l@-10 tok=g:1"), 0, []map[byte]int{{'l': 172, 'r': 128}, {'l': 44, 'r': 256}, {'r': 300}}},
		{"slots", many(300, "%d r") + list(300), 1000, []map[byte]int{{'r': 172, 'l': 128}, {'r': 44, 'l': 256}, {'l': 300}}},
		{
			"gated", many(300, "%d r A#%d") + list(300) + "; 999 l@60 A#1 tok=g:1; held A=999; seq 999", 1000,
			[]map[byte]int{{'r': 172, 'l': 1, 'p': 128}, {'r': 44, 'l': 1, 'p': 256}, {'l': 1, 'p': 300}},
		},
		{"left behind", list(300) + "; 300 r", 1000, []map[byte]int{{'r': 1}, {'r': 1}, {'l': 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				q := testQueue(rdb)
				parse(t, serverTime(t, rdb), c.seed).write(t, q)
				for i, want := range c.after {
					got, err := q.Claim(t.Context(), defaultFeed(), int64(i+1), c.slots)
					if err != nil {
						t.Fatalf("claim %d: %v", i+1, err)
					}
					w, bad := read(t, q)
					if n := count(w); fmt.Sprint(n) != fmt.Sprint(want) || len(bad) > 0 {
						t.Errorf("after claim %d: %v, want %v; %v", i+1, n, want, bad)
					}
					if len(got.Items) > script.Bound {
						t.Errorf("claim %d took %d, want at most %d", i+1, len(got.Items), script.Bound)
					}
					if more := len(w.list) > 0; got.More != more || more && w.wake != 1 {
						t.Errorf("claim %d: more=%v, wake=%d, want %v and a token", i+1, got.More, w.wake, more)
					}
				}
			})
		})
	}
}

// A promotion buries at most 32 requests that waited too long; the probe goes on
// with the others, if there are any.
func TestPromotionBound(t *testing.T) {
	for _, c := range []struct {
		parked, dead int
		want         []string // of lock, probe, wake
	}{
		{31, 31, nil},
		{32, 32, nil},
		{33, 32, []string{"probe A@0", "wake"}},
	} {
		t.Run(fmt.Sprint(c.parked), func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				q := testQueue(rdb)
				base := serverTime(t, rdb)
				parse(t, base, many(c.parked, "%d p A#%d acc=-60 wait=60")+"probe A@60").write(t, q)
				code, buried, err := q.Promote(t.Context(), "A")
				if err != nil || code != 0 || len(buried) != c.dead {
					t.Fatalf("Promote = %v, %d buried, %v, want 0, %d buried", code, len(buried), err, c.dead)
				}
				w, bad := read(t, q)
				if len(bad) > 0 {
					t.Errorf("after Promote: %v", bad)
				}
				w.reqs = nil
				if got, want := w.text(base, unit), strings.Join(c.want, "\n"); got != want {
					t.Errorf("after Promote: %q, want %q", got, want)
				}
				if len(c.want) == 0 {
					return
				}
				got, err := q.Claim(t.Context(), defaultFeed(), 1, 1)
				if err != nil || len(got.Buried) != 1 {
					t.Errorf("Claim = %+v, %v, want the last one buried", got, err)
				}
				if _, bad := read(t, q); len(bad) > 0 {
					t.Errorf("after Claim: %v", bad)
				}
			})
		})
	}
}

// Every claim drops the dead that are too many, and every sixteenth of a feeder those
// that are too old.
func TestDeadAreTrimmed(t *testing.T) {
	seed := many(9, "%d x@-%d0") + many(200, "1%d x@-900")
	for _, c := range []struct {
		name    string
		number  int64
		seed    string
		maxDead int
		age     int
		dead    int
	}{
		{"by age, not yet", 15, seed, 0, 50, 209},
		{"no limits", 16, seed, 0, 0, 209},
		{"by count, bounded", 15, seed, 5, 0, 81},
		{"by count", 31, many(9, "%d x@-%d0"), 5, 0, 5},
		{"by count, enough room", 32, many(9, "%d x@-%d0"), 9, 0, 9},
		{"by age, bounded", 16, seed, 0, 50, 81},
		{"by age", 32, many(9, "%d x@-%d0"), 0, 50, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				q := testQueue(rdb)
				parse(t, serverTime(t, rdb), c.seed).write(t, q)
				f := defaultFeed()
				f.MaxDead, f.DeadAge = c.maxDead, seconds(c.age)
				if _, err := q.Claim(t.Context(), f, c.number, 1); err != nil {
					t.Fatalf("Claim: %v", err)
				}
				w, bad := read(t, q)
				if got := count(w)['x']; got != c.dead || len(bad) > 0 {
					t.Errorf("%d dead left, want %d; %v", got, c.dead, bad)
				}
				if _, ok := w.reqs["1"]; !ok {
					t.Errorf("request 1, which died last, was trimmed")
				}
			})
		})
	}
}

// Members whose request is lost, as after a failover or an eviction, are dropped
// and counted.
func TestLostRequestsAreRepaired(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(t *testing.T, rdb *redis.Client, q *script.Queue, now int64)
		want string
	}{
		{"delayed", func(t *testing.T, rdb *redis.Client, q *script.Queue, now int64) {
			rdb.ZAdd(t.Context(), q.Keys().Delayed(), redis.Z{Score: float64(now - 1), Member: "8"})
		}, "1 p A#1; probe A@60; seq 1; healed 1"},
		{"leased", func(t *testing.T, rdb *redis.Client, q *script.Queue, now int64) {
			rdb.ZAdd(t.Context(), q.Keys().Leased(), redis.Z{Score: float64(now - 1), Member: "8"})
		}, "1 p A#1; probe A@60; seq 1; healed 1"},
		{"parked", func(t *testing.T, rdb *redis.Client, q *script.Queue, now int64) {
			rdb.ZAdd(t.Context(), q.Keys().Parked(), redis.Z{Member: spot("8", req{lock: "A"})})
			rdb.ZAdd(t.Context(), q.Keys().Delayed(), redis.Z{Score: float64(now - 1), Member: "\x00A"})
		}, "1 p A#1; probe A@20; seq 1; healed 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				q := testQueue(rdb)
				base := serverTime(t, rdb)
				parse(t, base, "1 p A#1; probe A@60; seq 1").write(t, q)
				c.harm(t, rdb, q, base)
				if _, err := q.Claim(t.Context(), defaultFeed(), 1, 0); err != nil {
					t.Fatalf("Claim: %v", err)
				}
				w, bad := read(t, q)
				w.keeper = ""
				if d := diff(w.text(base, unit), parse(t, base, c.want).text(base, unit)); d != "" || len(bad) > 0 {
					t.Errorf("after Claim: %v\n%s", bad, d)
				}
			})
		})
	}
}

// No claim takes more after the first MiB, so that its answer comes in time on a slow
// line; the rest keeps its order. That its requests are due makes no difference.
func TestBytesBound(t *testing.T) {
	big := strings.Repeat("b", 400<<10)
	for name, accept := range map[string]func(ctx context.Context, q *script.Queue, e script.Entry) error{
		"ready": func(ctx context.Context, q *script.Queue, e script.Entry) error {
			_, err := q.Push(ctx, []script.Entry{e})
			return err
		},
		"due": func(ctx context.Context, q *script.Queue, e script.Entry) error {
			_, _, err := q.Schedule(ctx, e, script.At(time.UnixMilli(1)))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				q := testQueue(rdb)
				for i := range 12 {
					body := big
					if i < 5 { // of which many are read at a time
						body = "b"
					}
					if err := accept(t.Context(), q, script.Entry{ID: string(rune('a' + i)), Body: body}); err != nil {
						t.Fatal(err)
					}
				}
				for i, want := range []string{"a b c d e f g h", "i j k", "l"} {
					for range 2 { // the second is answered as the first was
						got, err := q.Claim(t.Context(), defaultFeed(), int64(i+1), 20)
						if err != nil {
							t.Fatal(err)
						}
						var ids []string
						for _, it := range got.Items {
							ids = append(ids, it.ID)
						}
						if s := strings.Join(ids, " "); s != want || got.More != (i < 2) {
							t.Errorf("claim %d took %q, more=%v, want %q", i+1, s, got.More, want)
						}
					}
				}
				if _, bad := read(t, q); len(bad) > 0 {
					t.Error(bad)
				}
			})
		})
	}
}

// Nor does it read much more than it takes, which would hold up the server; and of small
// ones it reads many at a time.
func TestClaimReadsWhatItTakes(t *testing.T) {
	rdb := redistest.Real(t)
	q := testQueue(rdb)
	for _, c := range []struct {
		size, most, calls int // of a body; read; to read it
	}{
		{1 << 20, 1, 1},
		{100 << 10, 14, 4},
		{100, 128, 8},
	} {
		rdb.FlushDB(t.Context())
		for i := range 128 {
			if _, err := q.Push(t.Context(), []script.Entry{{ID: fmt.Sprint(i), Body: strings.Repeat("b", c.size)}}); err != nil {
				t.Fatal(err)
			}
		}
		conn, err := rdb.Options().Dialer(t.Context(), rdb.Options().Network, rdb.Options().Addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "MONITOR\r\n")
		lines := bufio.NewScanner(conn)
		lines.Scan() // OK
		if _, err := q.Claim(t.Context(), defaultFeed(), 1, 128); err != nil {
			t.Fatal(err)
		}
		rdb.Echo(t.Context(), "over")
		reads, calls := 0, 0
		for lines.Scan() && !strings.Contains(lines.Text(), `"over"`) {
			if l := lines.Text(); strings.Contains(l, "lua") && strings.Contains(l, `"HMGET" "`+q.Keys().Msg()) {
				calls++
				reads += strings.Count(l, `" "`) - 1
			}
		}
		conn.Close()
		if reads < 1 || reads > c.most || calls > c.calls {
			t.Errorf("of bodies of %d bytes %d were read, by %d calls, want at most %d, by %d", c.size, reads, calls, c.most, c.calls)
		}
	}
}
