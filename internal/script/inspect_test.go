package script_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

func TestGet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, q := t.Context(), testQueue(rdb)
		// Names and errors are whatever people write.
		lock, note, body := "a|7|\nb\xff", "x|\x00|\n\xfe", "\x00{}|"
		if _, _, ok, err := q.Get(ctx, "1"); ok || err != nil {
			t.Fatalf("Get of nothing = %v, %v, want false", ok, err)
		}
		before := serverTime(t, rdb)
		if _, err := q.Push(ctx, []script.Entry{{ID: "1", Body: body, Lock: lock, MaxWait: time.Hour}}); err != nil {
			t.Fatalf("Push: %v", err)
		}
		if c, err := q.Claim(ctx, defaultFeed(), 7, 1); err != nil || len(c.Items) != 1 || c.Items[0].Body != body {
			t.Fatalf("Claim = %+v, %v", c, err)
		}
		l := script.Lease{ID: "1", Token: "f:7"}
		if code, _, err := q.Nack(ctx, l, time.Hour, script.Attempt, 0, true, note); err != nil || code != script.Done {
			t.Fatalf("Nack = %v, %v", code, err)
		}
		if code, _, _, err := q.Reschedule(ctx, "1", script.In(time.Hour), "stamp"); err != nil || code != script.Done {
			t.Fatalf("Reschedule = %v, %v", code, err)
		}
		got, gotBody, ok, err := q.Get(ctx, "1")
		if err != nil || !ok || gotBody != body {
			t.Fatalf("Get = %q, %v, %v, want %q", gotBody, ok, err, body)
		}
		if at := got.Accepted.UnixMilli(); at < before || at > serverTime(t, rdb) {
			t.Errorf("Accepted = %v, want a time after %v", at, before)
		}
		got.Accepted = time.Time{}
		want := script.State{Place: "delayed", Lock: lock, Seq: 1, Deliveries: 1, Attempts: 1, MaxWait: time.Hour, Stamp: "stamp", Token: "f:7", Note: note}
		if got != want {
			t.Errorf("Get = %+v, want %+v", got, want)
		}
		for _, bad := range []string{
			"", "r", "r|", "r||", "r|||", "r||x", "r|x|1", "q||1", "\xff||1", "r||1|", "r||1|||||", "r||1||||||9|short",
			"r||1|x|||||1|A", "r||1||||9000000000000000||1|A", "r||-1",
		} {
			rdb.HSet(ctx, q.Keys().State(), "2", bad)
			if s, _, ok, err := q.Get(ctx, "2"); err == nil || ok {
				t.Errorf("Get of state %q = %+v, %v, want an error", bad, s, ok)
			}
		}
	})
}

func TestSizes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, q := t.Context(), testQueue(rdb)
		if got, err := q.Sizes(ctx); err != nil || got != (script.Sizes{}) {
			t.Errorf("Sizes of nothing = %+v, %v", got, err)
		}
		base := serverTime(t, rdb)
		parse(t, base, "1 r; ready 1; 2 d@10; 3 d@20; 4 p A#1; 5 p A#2; 6 p B#3; probe A@30; probe B@40; 7 l@30; 8 x@0; seq 3").write(t, q)
		got, err := q.Sizes(ctx)
		want := script.Sizes{Ready: 1, Delayed: 2, Parked: 3, Leased: 1, Dead: 1, Requests: 8, Next: time.UnixMilli(base + 10_000)}
		if err != nil || got != want {
			t.Errorf("Sizes = %+v, %v, want %+v", got, err, want)
		}
		rdb.RPush(ctx, q.Keys().Ready(), "left", "behind", "here")
		if got, err = q.Sizes(ctx); err != nil || got.Ready != 4 || got.Delayed != 0 {
			t.Errorf("Sizes with ids left behind = %+v, %v, want 4 ready, 0 delayed", got, err)
		}
	})
}

func TestParkedAndDead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, q := t.Context(), testQueue(rdb)
		base := serverTime(t, rdb)
		parse(t, base, "1 p A#20; 2 p A#3; 3 p A#100; 4 p AA#1; 5 x@-10; 6 x@-30; 7 x@-20; probe A@30; probe AA@30").write(t, q)
		for _, c := range []struct {
			lock string
			n    int
			want string
		}{{"A", 9, "[2 1 3]"}, {"A", 2, "[2 1]"}, {"A", 0, "[]"}, {"AA", 9, "[4]"}, {"B", 9, "[]"}} {
			if got, err := q.Parked(ctx, c.lock, c.n); err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("Parked(%s, %d) = %v, %v, want %s", c.lock, c.n, got, err, c.want)
			}
		}
		at := func(s int) time.Time { return time.UnixMilli(base - int64(s)*1000) }
		all := []script.Death{{"5", at(10)}, {"7", at(20)}, {"6", at(30)}}
		for _, n := range []int{0, 2, 9} {
			got, err := q.Dead(ctx, n)
			want := all[:min(n, 3)]
			if err != nil || len(got) != len(want) || n > 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("Dead(%d) = %v, %v, want %v", n, got, err, want)
			}
		}
	})
}

// FuzzReplies: whatever a server answers, the readers answer an error at worst.
func FuzzReplies(f *testing.F) {
	f.Add("i1")
	f.Add("(i1(st))")
	f.Add("((sti1)(s)i5i0(ss))")
	f.Add("(i1i2(ss))")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip()
		}
		reply, _ := tree(text)
		for i, err := range script.ReadReplies(reply) {
			if err == nil && !strings.Contains(text, "(") {
				t.Errorf("reader %d takes %v, which has no list", i, reply)
			}
		}
	})
}

// tree makes a reply from text: ( ) lists, i integers, s texts, n nothing.
func tree(text string) (any, string) {
	if text == "" {
		return nil, ""
	}
	head, rest := text[0], text[1:]
	switch head {
	case '(':
		var list []any
		for rest != "" && rest[0] != ')' {
			var x any
			x, rest = tree(rest)
			list = append(list, x)
		}
		return list, strings.TrimPrefix(rest, ")")
	case 'i':
		return int64(len(rest)), rest
	case 'n':
		return nil, rest
	}
	return text[:1], rest
}

// FuzzState: what ParseState reads is what was written, and nothing makes it
// panic.
func FuzzState(f *testing.F) {
	f.Add("r||1700000000000", "A", "boom", int64(7))
	f.Add("pf:1|3|1700000000000|12|2|1|60000|s|1|Aboom", "a|b", "x|\x00", int64(1)<<50)
	f.Add("x|1|1|1|1|1|1||99|A", "", "", int64(0))
	f.Fuzz(func(t *testing.T, packed, lock, note string, n int64) {
		if s, err := script.ParseState(packed); err == nil {
			again, err := script.ParseState(form(s))
			if err != nil || again != s {
				t.Errorf("ParseState of %q again = %+v, %v, want %+v", packed, again, err, s)
			}
		}
		n &= 1<<40 - 1
		want := script.State{
			Place: "parked", Lock: lock, Seq: n, Deliveries: 1, Attempts: 2, Deferrals: 3,
			Accepted: time.UnixMilli(n), MaxWait: time.Duration(n&(1<<30)) * time.Millisecond, Stamp: "s", Token: "f:1", Note: note,
		}
		if got, err := script.ParseState(form(want)); err != nil || got != want {
			t.Errorf("ParseState = %+v, %v, want %+v", got, err, want)
		}
	})
}

// form is the packed form of a state.
func form(s script.State) string {
	return pack(req{
		place: letters[s.Place], lock: s.Lock, seq: s.Seq, token: s.Token, del: s.Deliveries, att: s.Attempts,
		dfr: s.Deferrals, accepted: s.Accepted.UnixMilli(), maxwait: s.MaxWait.Milliseconds(), note: s.Note, stamp: s.Stamp,
	})
}
