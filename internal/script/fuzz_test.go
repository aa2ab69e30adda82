package script

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

// fuzzed are the servers that a fuzz target asks: miniredis, and a real one where
// it is installed.
func fuzzed(f *testing.F) map[string]*redis.Client {
	f.Helper()
	servers := map[string]*redis.Client{"mini": redistest.Mini(f)}
	if _, err := exec.LookPath("redis-server"); err == nil {
		servers["real"] = redistest.Real(f)
	}
	return servers
}

// inLua is a body behind the whole prelude, as a script of a queue has it.
func inLua(body string) *redis.Script { return redis.NewScript(read("prelude") + "\n" + body) }

var readState = inLua(`
local s = parse(ARGV[1])
return {s.place, whole(s.seq), whole(s.deliveries), whole(s.attempts), whole(s.deferrals), whole(s.accepted), whole(s.maxwait),
  s.stamp, s.token, s.lock, s.note, pack(s)}`)

// FuzzStateInLua: what Go reads of a packed state is what the scripts read of it,
// and what they write back is read as the same.
func FuzzStateInLua(f *testing.F) {
	f.Add("r|0|0|0|0|0|0|||0|")
	f.Add("p|12|3|2|1|1700000000000|60000|s|f:1|1|Aboom")
	f.Add("l|9007199254740991|1|1|1|9007199254740991|9223372036854|st|tok|3|a|b\x00c\nd")
	f.Add("x|1|1|1|1|1|1|||99|A")
	f.Add("d|01|1|1|1|1|1|||001|\xff\xfe")
	f.Add("q|1|1|1|1|1|1|||0|")
	f.Add("r|0|99999999999999|0|0|0|0|||0|")
	servers := fuzzed(f)
	k := keys.Of(keys.Base("t:", "q")).All()
	f.Fuzz(func(t *testing.T, packed string) {
		want, err := ParseState(packed)
		if err != nil {
			return
		}
		for name, rdb := range servers {
			got, err := readState.Run(context.Background(), rdb, k, packed).StringSlice()
			if err != nil {
				t.Fatalf("%s: the scripts cannot read %q, which Go reads as %+v: %v", name, packed, want, err)
			}
			places := map[string]string{"r": "ready", "d": "delayed", "p": "parked", "l": "leased", "x": "dead"}
			fields := []string{
				want.Place, strconv.FormatInt(want.Seq, 10), strconv.Itoa(want.Deliveries), strconv.Itoa(want.Attempts), strconv.Itoa(want.Deferrals),
				strconv.FormatInt(want.Accepted.UnixMilli(), 10), strconv.FormatInt(want.MaxWait.Milliseconds(), 10),
				want.Stamp, want.Token, want.Lock, want.Note,
			}
			got[0] = places[got[0]]
			if !reflect.DeepEqual(got[:11], fields) {
				t.Errorf("%s: %q is %q to the scripts, %q to Go", name, packed, got[:11], fields)
			}
			if max(want.Deliveries, want.Attempts, want.Deferrals) >= 1e14 {
				continue // Lua would write an exponent, a thousand years on
			}
			if again, err := ParseState(got[11]); err != nil || again != want {
				t.Errorf("%s: written back as %q, which is %+v, %v, want %+v", name, got[11], again, err, want)
			}
		}
	})
}

// FuzzRepliesWhole: a reader that is content has read all that its callers rely
// on, and nothing of a reply makes it hold more than the reply itself has.
func FuzzRepliesWhole(f *testing.F) {
	f.Add("", 0)
	f.Add("((tti1i2i3i4)(t)i5i0(tt)(i1i0))", 2)
	f.Add("((t)()i1i1()(i1))", 1)
	f.Add("((i1i2)i1(tt))", 2)
	f.Add("(i1(tt))", 0)
	f.Add("(i1i9(t))", 0)
	f.Fuzz(func(t *testing.T, text string, n int) {
		if len(text) > 1000 || n < 0 || n > Bound {
			t.Skip()
		}
		reply, size := shape(text)
		cmd := &redis.Cmd{}
		cmd.SetVal(reply)
		if c, err := codes(cmd, n); err == nil && len(c) != n {
			t.Errorf("codes of %v: %d, want %d", reply, len(c), n)
		}
		c, err := claimed(cmd, n)
		if err == nil && len(c.Acked) != n {
			t.Errorf("claimed of %v: %d codes, want %d", reply, len(c.Acked), n)
		}
		if held := len(c.Items) + len(c.Probes) + len(c.Buried); held > size+3 {
			t.Errorf("claimed of %v holds %d things, the reply %d", reply, held, size)
		}
		if c, _, b, err := acked(cmd, n); err == nil && len(c) != n || len(b) > size+1 {
			t.Errorf("acked of %v: %d codes, want %d; %d buried", reply, len(c), n, len(b))
		}
	})
}

// shape makes a reply from text: ( ) lists, i integers, t texts, and everything
// else what no script answers. It counts the values.
func shape(text string) (any, int) {
	stack := [][]any{nil}
	n := 0
	put := func(x any) {
		n++
		stack[len(stack)-1] = append(stack[len(stack)-1], x)
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '(':
			stack = append(stack, []any{})
		case ')':
			if len(stack) > 1 {
				top := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				put(top)
			}
		case 'i':
			put(int64(i) * int64(i))
		case 'I':
			put(int64(math.MinInt64))
		case 't':
			put(text[:i])
		case 'f':
			put(1.5)
		case 'n':
			put(nil)
		case 'e':
			put(fmt.Errorf("nested"))
		}
	}
	for len(stack) > 1 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		put(top)
	}
	if len(stack[0]) == 1 {
		return stack[0][0], n
	}
	return stack[0], n
}

// FuzzNames: whatever an id, a lock, a body or a note is made of, requests go
// through all places and leave nothing behind.
func FuzzNames(f *testing.F) {
	f.Add("1", "2", "A", "body", "boom")
	f.Add("a|b", "|", "\x01", "\x00", "|\n|")
	f.Add("%d", "%", "%s%", "", "")
	f.Add("ü", "\xff", "\n", "\r\n", "'")
	f.Add("{}", "}", "{q}", "{", "\"")
	f.Add("+1", "-", "nan", "inf", "1e9")
	servers := fuzzed(f)
	f.Fuzz(func(t *testing.T, id, other, lock, body, note string) {
		control := func(r rune) bool { return r < ' ' || r == 0x7f }
		if id == other || id == "" || other == "" || len(id)+len(other) > 255 || len(lock) > 1024 || strings.Contains(lock, "\x00") ||
			strings.ContainsFunc(id+other, control) || len(note) > 1024 {
			t.Skip("refused before it is sent")
		}
		for name, rdb := range servers {
			if err := life(rdb, id, other, lock, body, note); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

// life takes two requests of one lock through all places.
func life(rdb *redis.Client, id, other, lock, body, note string) error {
	ctx := context.Background()
	q := New(rdb, keys.Of(keys.Base("t:", "q")))
	if err := rdb.Del(ctx, q.Keys().All()...).Err(); err != nil {
		return err
	}
	feed := &Feed{Feeder: "f", Lease: time.Minute, ProbeAgain: time.Second}
	defer rdb.Del(ctx, append(slices.Clone(q.Keys().All()), q.Keys().Last("f"))...)
	number := int64(0)
	claim := func(want ...string) error {
		number++
		c, err := q.Claim(ctx, feed, number, 10)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		var got []string
		for _, it := range c.Items {
			if it.Body != body {
				return fmt.Errorf("body of %q is %q, want %q", it.ID, it.Body, body)
			}
			got = append(got, it.ID)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("claimed %q, want %q", got, want)
		}
		return nil
	}
	lease := func(id string) Lease { return Lease{ID: id, Token: feed.Token(number)} }

	added, err := q.Push(ctx, []Entry{{ID: id, Body: body, Lock: lock}, {ID: other, Body: body, Lock: lock}})
	if err != nil || added[0] != Done || added[1] != Done {
		return fmt.Errorf("push: %v, %w", added, err)
	}
	if lock == "" {
		if err := claim(id, other); err != nil {
			return err
		}
		if _, _, _, err := q.Ack(ctx, 0, []Lease{lease(id), lease(other)}); err != nil {
			return fmt.Errorf("ack: %w", err)
		}
		return empty(ctx, q)
	}
	if err := claim(id); err != nil {
		return err
	}
	if code, _, err := q.Park(ctx, lease(id), time.Minute, 0); err != nil || code != Done {
		return fmt.Errorf("park: %v, %w", code, err)
	}
	if line, err := q.Parked(ctx, lock, 10); err != nil || strings.Join(line, "\n") != id+"\n"+other {
		return fmt.Errorf("in line are %q, %w, want %q and %q", line, err, id, other)
	}
	if code, _, err := q.Promote(ctx, lock); err != nil || code != Done {
		return fmt.Errorf("promote: %v, %w", code, err)
	}
	if err := claim(id); err != nil {
		return err
	}
	if code, _, err := q.Nack(ctx, lease(id), time.Minute, Attempt, 0, false, note); err != nil || code != Done {
		return fmt.Errorf("nack: %v, %w", code, err)
	}
	s, _, ok, err := q.Get(ctx, id)
	if err != nil || !ok || s.Lock != lock || s.Note != note || s.Place != "delayed" || s.Seq != 1 {
		return fmt.Errorf("after nack: %+v, %t, %w", s, ok, err)
	}
	if err := claim(other); err != nil {
		return err
	}
	if code, _, err := q.Bury(ctx, lease(other), note); err != nil || code != Done {
		return fmt.Errorf("bury: %v, %w", code, err)
	}
	if code, err := q.Revive(ctx, other, "stamp"); err != nil || code != Done {
		return fmt.Errorf("revive: %v, %w", code, err)
	}
	if code, _, _, err := q.Reschedule(ctx, id, In(0), "stamp"); err != nil || code != Done {
		return fmt.Errorf("reschedule: %v, %w", code, err)
	}
	if code, _, err := q.Cancel(ctx, 0, id); err != nil || code != Done {
		return fmt.Errorf("cancel: %v, %w", code, err)
	}
	if err := claim(other); err != nil {
		return err
	}
	if codes, _, _, err := q.Ack(ctx, 0, []Lease{lease(other)}); err != nil || codes[0] != Done {
		return fmt.Errorf("ack: %v, %w", codes, err)
	}
	return empty(ctx, q)
}

// empty returns an error if the queue holds anything of a request.
func empty(ctx context.Context, q *Queue) error {
	k := q.Keys()
	n, err := q.Client().Exists(ctx, k.Ready(), k.Delayed(), k.Parked(), k.Leased(), k.Dead(), k.Msg(), k.State(), k.Held()).Result()
	if err != nil || n != 0 {
		return fmt.Errorf("%d keys are left, %w", n, err)
	}
	return nil
}
