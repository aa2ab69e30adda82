package script_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// A row is one call on a queue in a state, both as text (see parse).
type row struct {
	name  string
	seed  string
	call  call
	reply string
	want  string // "=" for no change
	again string // reply when the call is sent once more, which must change nothing but wake; "" not tried
}

type call func(ctx context.Context, q *script.Queue) (string, error)

const window = time.Minute

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// defaultFeed is the claim parameters of the tables: lease 30 s, a probe again
// after 20 s, slack 10 s.
func defaultFeed() *script.Feed {
	return &script.Feed{Feeder: "f", Lease: seconds(30), Slack: seconds(10), ProbeAgain: seconds(20)}
}

// entry reads "id [lock] [wait=s]".
func entry(text string) script.Entry {
	f := strings.Fields(text)
	e := script.Entry{ID: f[0], Body: "b" + f[0]}
	for _, o := range f[1:] {
		if w, ok := strings.CutPrefix(o, "wait="); ok {
			e.MaxWait = seconds(int(number(w)))
		} else if n, ok := strings.CutPrefix(o, "dfr="); ok {
			e.Deferrals = int(number(n))
		} else {
			e.Lock = o
		}
	}
	return e
}

// lease reads "id token".
func lease(text string) script.Lease {
	id, tok, _ := strings.Cut(text, " ")
	return script.Lease{ID: id, Token: tok}
}

func leases(texts []string) (out []script.Lease) {
	for _, s := range texts {
		out = append(out, lease(s))
	}
	return out
}

func withBuried(s string, buried []script.Buried) string {
	for _, b := range buried {
		s += fmt.Sprintf(" buried %s: %s", b.ID, b.Reason)
	}
	return s
}

func showClaim(c script.Claimed) string {
	var out []string
	for _, i := range c.Items {
		out = append(out, fmt.Sprintf("%s:%d/%d/%d", i.ID, i.Deliveries, i.Attempts, i.Deferrals))
		if i.Body != "b"+i.ID {
			out = append(out, "body="+i.Body)
		}
	}
	for _, p := range c.Probes {
		out = append(out, "look "+p)
	}
	if c.Wait >= 0 {
		out = append(out, fmt.Sprintf("wait %d", (c.Wait+unit*time.Millisecond-1)/(unit*time.Millisecond)*unit/1000))
	}
	if c.More {
		out = append(out, "more")
	}
	s := withBuried(strings.Join(out, " "), c.Buried)
	if len(c.Acked) > 0 {
		s += " acked " + fmt.Sprint(c.Acked)
	}
	return strings.TrimSpace(s)
}

func push(entries ...string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		var es []script.Entry
		for _, e := range entries {
			es = append(es, entry(e))
		}
		codes, err := q.Push(ctx, es)
		return fmt.Sprint(codes), err
	}
}

func schedule(e string, in int) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, _, err := q.Schedule(ctx, entry(e), script.In(seconds(in)))
		return fmt.Sprint(code), err
	}
}

func parkNew(e string, in int) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, _, err := q.ParkNew(ctx, entry(e), script.In(seconds(in)))
		return fmt.Sprint(code), err
	}
}

func claim(n int64, slots int, opts ...func(*script.Feed)) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		f := defaultFeed()
		for _, o := range opts {
			o(f)
		}
		c, err := q.Claim(ctx, f, n, slots)
		return showClaim(c), err
	}
}

// listen is an option of claim: requests may be handed over for 20 s.
func listen(f *script.Feed) { f.Listen = seconds(20) }

// offers is an option of claim: with listen, requests may be offered as well.
func offers(f *script.Feed) { f.Offers = true }

func exchange(n int64, slots int, done ...string) call { return exchangeFor(window, n, slots, done...) }

func exchangeFor(window time.Duration, n int64, slots int, done ...string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		c, err := q.Exchange(ctx, defaultFeed(), n, slots, window, leases(done), true)
		return showClaim(c), err
	}
}

func maxDeliveries(n int) func(*script.Feed) { return func(f *script.Feed) { f.MaxDeliveries = n } }

func ack(ls ...string) call { return ackFor(window, ls...) }

func ackFor(window time.Duration, ls ...string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		codes, more, buried, err := q.Ack(ctx, window, leases(ls))
		s := fmt.Sprint(codes)
		if more {
			s += " more"
		}
		return withBuried(s, buried), err
	}
}

func nack(l string, in int, cost script.Cost, most int, strict bool) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, buried, err := q.Nack(ctx, lease(l), seconds(in), cost, most, strict, "boom")
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func park(l string, in, most int) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, buried, err := q.Park(ctx, lease(l), seconds(in), most)
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func bury(l string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, buried, err := q.Bury(ctx, lease(l), "bad payload")
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func requeue(ls ...string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		codes, err := q.Requeue(ctx, leases(ls))
		return fmt.Sprint(codes), err
	}
}

func extend(s int, ls ...string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		codes, err := q.Extend(ctx, seconds(s), leases(ls))
		return fmt.Sprint(codes), err
	}
}

func promote(lock string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, buried, err := q.Promote(ctx, lock)
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func rearm(lock string, in int) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		return "", q.Rearm(ctx, lock, seconds(in))
	}
}

func cancel(id string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, buried, err := q.Cancel(ctx, window, id)
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func reschedule(id string, in int, stamp string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, _, buried, err := q.Reschedule(ctx, id, script.In(seconds(in)), stamp)
		return withBuried(fmt.Sprint(code), buried), err
	}
}

func revive(id, stamp string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		code, err := q.Revive(ctx, id, stamp)
		return fmt.Sprint(code), err
	}
}

// base is the key of a context for the time from which a row counts.
type base struct{}

// offer puts a request into wake.
func offer(h func() script.Handed) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		one := h()
		return "", q.Client().LPush(ctx, q.Keys().Wake(), one.String()).Err()
	}
}

// confirmed is the push of a request that was offered.
func confirmed(h func() script.Handed) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		all, err := q.Answer(ctx, h())
		return showAnswer(all), err
	}
}

// confirm is confirmed for "id token lease", where a token is one as in parse.
func confirm(text string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) {
		f := strings.Fields(text)
		now, _ := ctx.Value(base{}).(int64)
		at := now + number(strings.TrimPrefix(f[1], "o@"))*1000
		return confirmed(func() script.Handed {
			return script.Handed{
				Item:  script.Item{ID: f[0], Body: "b" + f[0], Deliveries: 1, Accepted: time.UnixMilli(at)},
				Token: fmt.Sprintf("o%d", at), Lease: seconds(int(number(f[2]))),
			}
		})(ctx, q)
	}
}

// pushOne is a push of one request with the whole answer.
func pushOne(id string) call {
	return confirmed(func() script.Handed { return script.Handed{Item: script.Item{ID: id, Body: "b" + id}} })
}

// showAnswer writes the answer to a push: the code, and for how long the next one may be
// offered with what lease.
func showAnswer(all []int64) string {
	if len(all) != 4 {
		return strings.Trim(fmt.Sprint(all), "[]")
	}
	return fmt.Sprintf("%d offers %d@%d", all[0], all[2]/1000, (all[1]-all[3]+unit-1)/unit*unit/1000)
}

func yield(feeder string) call {
	return func(ctx context.Context, q *script.Queue) (string, error) { return "", q.Yield(ctx, feeder, "") }
}

func TestScripts(t *testing.T) {
	for verb, rows := range map[string][]row{
		"push": {
			{"new", "", push("1"), "[1]", "1 r; ready 1; wake", "[2]"},
			{
				"seq only with a lock", "", push("1 A", "2", "3 B", "4 A"), "[1 1 1 1]",
				"1 r A#1; 2 r; 3 r B#2; 4 r A#3; seq 3; ready 1 2 3 4; wake", "[2 2 2 2]",
			},
			{"at the tail", "9 r; ready 9; wake", push("1 wait=60"), "[1]", "9 r; 1 r wait=60; ready 9 1; wake", "[2]"},
			{"twice in one call", "", push("1", "1"), "[1 2]", "1 r; ready 1; wake", "[2 2]"},
			{"known", "1 d@10", push("1"), "[2]", "=", "[2]"},
			{"known and dead", "1 x@-10", push("1"), "[2]", "=", "[2]"},
			{"finished", "gone 1", push("1 A"), "[2]", "=", "[2]"},
			{"finished before that", "past 1; turned @-10", push("1 A"), "[2]", "=", "[2]"},
			{"finished, one by itself", "gone 1", push("1"), "[2]", "=", "[2]"},
			{"finished before that, one by itself", "past 1; turned @-10", push("1"), "[2]", "=", "[2]"},
			{"finished, some of them", "gone 1; gone 3; past 4; turned @-10", push("1", "2", "3 A", "4", "5 B"), "[2 1 2 2 1]", "gone 1; gone 3; past 4; turned @-10; 2 r; 5 r B#1; seq 1; ready 2 5; wake", "[2 2 2 2 2]"},
			{"another is finished", "gone 2; past 3; turned @-10", push("1"), "[1]", "gone 2; past 3; turned @-10; 1 r; ready 1; wake", "[2]"},
			{"handed over", "idle 20@20", push("1"), "[1]", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; idle 20@20", "[2]"},
			{"handed over, with a max wait", "idle 20@20", push("1 wait=60"), "[1]", "1 l@20 tok=h@0 n=1/0/0 wait=60; over 1 h@0; idle 20@20", "[2]"},
			{"handed over with the turn", "idle 20@20", push("1 A"), "[1]", "1 l@20 A#1 tok=h@0 n=1/0/0; held A=1; seq 1; over 1 h@0; idle 20@20", "[2]"},
			{"handed over, the first of several", "idle 20@20; gone 9", push("9", "1", "2"), "[2 1 1]", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; 2 r; ready 2; wake; idle 20@20; gone 9", "[2 2 2]"},
			{"nobody listens any more", "idle 20@-10", push("1"), "[1]", "1 r; ready 1; wake; idle 20@-10", "[2]"},
			{"a token stands", "wake; idle 20@20", push("1"), "[1]", "1 r; ready 1; wake; idle 20@20", "[2]"},
			{"another stands in ready", "9 r; ready 9; idle 20@20", push("1"), "[1]", "9 r; 1 r; ready 9 1; wake; idle 20@20", "[2]"},
			{"others stand in ready", "9 r; ready 9; idle 20@20", push("1", "2"), "[1 1]", "9 r; 1 r; 2 r; ready 9 1 2; wake; idle 20@20", "[2 2]"},
			{"another is handed over", "9 l@20 tok=h@0 n=1/0/0; over 9 h@0; idle 20@20", push("1", "2 A"), "[1 1]", "9 l@20 tok=h@0 n=1/0/0; over 9 h@0; 1 r; 2 r A#1; seq 1; ready 1 2; wake; idle 20@20", "[2 2]"},
			{"another is handed over, one comes", "9 l@20 tok=h@0 n=1/0/0; over 9 h@0; idle 20@20", push("1"), "[1]", "9 l@20 tok=h@0 n=1/0/0; over 9 h@0; 1 r; ready 1; wake; idle 20@20", "[2]"},
			{"another has the turn", "9 l@20 A#1 tok=f:1; held A=9; seq 1; idle 20@20", push("1 A"), "[1]", "9 l@20 A#1 tok=f:1; held A=9; 1 r A#2; seq 2; ready 1; wake; idle 20@20", "[2]"},
			{"another stands in line", "9 p A#1; probe A@20; seq 1; idle 20@20", push("1 A", "2"), "[1 1]", "9 p A#1; probe A@20; 1 r A#2; 2 r; seq 2; ready 1 2; wake; idle 20@20", "[2 2]"},
			{"the next may be offered", "idle 20@20 offers", pushOne("1"), "1 offers 20@20", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; idle 20@20 offers", "2"},
			{"the next may not be offered", "idle 20@20", pushOne("1"), "1", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; idle 20@20", "2"},
			{"the next may not be offered any more", "idle 20@-10 offers", pushOne("1"), "1", "1 r; ready 1; wake; idle 20@-10 offers", "2"},
			{"the next may not be offered, since a token stands", "wake; idle 20@20 offers", pushOne("1"), "1", "1 r; ready 1; wake; idle 20@20 offers", "2"},
			{"known, and so nothing is said of the next", "1 d@10; idle 20@20 offers", pushOne("1"), "2", "=", "2"},
			{"another is offered", "over 9 o@0; idle 20@20 offers", pushOne("1"), "1", "over 9 o@0; 1 r; ready 1; wake; idle 20@20 offers", "2"},
			{"others are offered, and several come", "over 8 o@0; over 9 o@0; idle 20@20 offers", push("1", "2"), "[1 1]", "over 8 o@0; over 9 o@0; 1 r; 2 r; ready 1 2; wake; idle 20@20 offers", "[2 2]"},
		},
		"offered": {
			{"somebody has it", "", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0", "2"},
			{"its push comes late", "", confirm("1 o@-10 30"), "1", "1 l@30 tok=o@-10 n=1/0/0 acc=-10", "2"},
			{"ready", "1 r; ready 1", confirm("1 o@0 20"), "2", "=", "2"},
			{"delayed", "1 d@10 tok=o@0", confirm("1 o@0 20"), "2", "=", "2"},
			{"leased", "1 l@30 tok=f:1 n=1/0/0", confirm("1 o@0 20"), "2", "=", "2"},
			{"stored by who has it, and extended", "1 l@30 tok=o@0 n=1/0/0", confirm("1 o@0 20"), "2", "=", "2"},
			{"finished", "gone 1", confirm("1 o@0 20"), "2", "=", "2"},
			{"finished before that", "past 1; turned @-10", confirm("1 o@0 20"), "2", "=", "2"},
			{"nobody has taken it", "over 1 o@0", confirm("1 o@0 20"), "1", "1 r; ready 1; wake", "2"},
			{"nobody has taken it, and a token stands", "2 d@-10; wake; over 1 o@0", confirm("1 o@0 20"), "1", "1 r; 2 d@-10; ready 1; wake", "2"},
			{"nobody has taken it, and others wait", "2 r; 3 r; ready 2 3; wake; over 1 o@0", confirm("1 o@0 20"), "1", "1 r; 2 r; 3 r; ready 1 2 3; wake", "2"},
			{"stored, and nobody has taken it", "1 l@20 tok=o@0 n=1/0/0; over 1 o@0", confirm("1 o@0 20"), "2", "1 r; ready 1; wake", "2"},
			{"two offers, the first", "over 2 o@0; over 1 o@0", confirm("1 o@0 20"), "1", "1 r; 2 r; ready 1 2; wake", "2"},
			{"two offers, the second", "over 2 o@0; over 1 o@-10", confirm("2 o@0 20"), "1", "1 r acc=-10; 2 r; ready 1 2; wake", "2"},
			{"an offer behind which one is handed over", "1 l@20 tok=h@0 n=1/0/0; over 2 o@0; over 1 h@0", confirm("2 o@0 20"), "1", "1 r; 2 r; ready 1 2; wake", "2"},
			{"taken, and another's offer stands", "over 2 o@0", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0; 2 r; ready 2; wake", "2"},
			{"known, and another's offer stands", "1 d@10; over 2 o@0", confirm("1 o@0 20"), "2", "1 d@10; 2 r; ready 2; wake", "2"},
			{"finished, and its offer comes late", "gone 1; over 1 o@0", confirm("1 o@0 20"), "2", "gone 1", "2"},
			{"leased by a claim, and its offer comes late", "1 l@30 tok=f:1 n=2/0/0; over 1 o@0", confirm("1 o@0 20"), "2", "1 l@30 tok=f:1 n=2/0/0", "2"},
			{"the next may be offered", "idle 10@20 offers", confirm("1 o@0 20"), "1 offers 10@20", "1 l@20 tok=o@0 n=1/0/0; idle 10@20 offers", "2 offers 10@20"},
			{"finished, and the next may be offered", "gone 1; idle 10@20 offers", confirm("1 o@0 20"), "2 offers 10@20", "=", "2 offers 10@20"},
			{"the next may be handed over, not offered", "idle 10@20", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0; idle 10@20", "2"},
			{"the next may not be offered any more", "idle 10@-10 offers", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0; idle 10@-10 offers", "2"},
			{"the next may not be offered, since it waits itself", "over 1 o@0; idle 10@20 offers", confirm("1 o@0 20"), "1", "1 r; ready 1; wake; idle 10@20 offers", "2"},
			{"the next may not be offered, since another waits", "2 r; ready 2; idle 10@20 offers", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0; 2 r; ready 2; idle 10@20 offers", "2"},
			{"the next may not be offered, since a token stands", "wake; idle 10@20 offers", confirm("1 o@0 20"), "1", "1 l@20 tok=o@0 n=1/0/0; wake; idle 10@20 offers", "2"},
		},
		"schedule": {
			{"new head", "9 d@60", schedule("1 A wait=90", 30), "1", "9 d@60; 1 d@30 A#0 wait=90; wake", "2"},
			{"not the head", "9 d@10", schedule("1", 30), "1", "9 d@10; 1 d@30", "2"},
			{"after a conflict", "9 d@10", schedule("1 dfr=1", 30), "1", "9 d@10; 1 d@30 n=0/0/1", "2"},
			{"not before a probe", "9 p A#1; seq 1; probe A@10", schedule("1", 30), "1", "9 p A#1; seq 1; probe A@10; 1 d@30", "2"},
			{"known", "1 r; ready 1", schedule("1", 30), "2", "=", "2"},
			{"finished", "gone 1", schedule("1", 30), "2", "=", "2"},
			{"finished before that", "past 1; turned @-10", schedule("1", 30), "2", "=", "2"},
		},
		"parknew": {
			{"new", "", parkNew("1 A", 30), "1", "1 p A#1 n=0/0/1; seq 1; probe A@30; wake", "2"},
			{"later probe", "9 p A#1; seq 1; probe A@10", parkNew("1 A", 30), "1", "9 p A#1; 1 p A#2 n=0/0/1; seq 2; probe A@10", "2"},
			{"earlier probe", "9 p A#1; seq 1; probe A@60", parkNew("1 A", 30), "1", "9 p A#1; 1 p A#2 n=0/0/1; seq 2; probe A@30; wake", "2"},
			{"earlier probe, not the head", "8 d@10; 9 p A#1; seq 1; probe A@60", parkNew("1 A", 30), "1", "8 d@10; 9 p A#1; 1 p A#2 n=0/0/1; seq 2; probe A@30", "2"},
			{"held is left alone", "9 l@30 A#1 tok=f:1; held A=9; seq 1", parkNew("1 A", 30), "1", "9 l@30 A#1 tok=f:1; held A=9; 1 p A#2 n=0/0/1; seq 2; probe A@30; wake", "2"},
			{"probe no later than max wait", "", parkNew("1 A wait=10", 30), "1", "1 p A#1 n=0/0/1 wait=10; seq 1; probe A@10; wake", "2"},
			{"known", "1 l@30 tok=f:1", parkNew("1 A", 30), "2", "=", "2"},
			{"finished", "gone 1", parkNew("1 A", 30), "2", "=", "2"},
			{"finished before that", "past 1; turned @-10", parkNew("1 A", 30), "2", "=", "2"},
		},
		"claim": {
			{"nothing", "", claim(1, 2), "", "last f:1", ""},
			{"the sixteenth turns the memory over", "gone 2; past 3; turned @-60", exchange(16, 1), "", "past 2; turned @0; last f:16", ""},
			{"the others do not", "gone 2; past 3; turned @-60", exchange(17, 1), "", "gone 2; past 3; turned @-60; last f:17", ""},
			{"not before the window has passed", "gone 2; past 3; turned @-50", exchange(16, 1), "", "gone 2; past 3; turned @-50; last f:16", ""},
			{"for the first time", "gone 2", exchange(16, 1), "", "past 2; turned @0; last f:16", ""},
			{"nothing was finished since", "past 3; turned @-60", exchange(16, 1), "", "last f:16", ""},
			{"nothing was ever finished", "", exchange(16, 1), "", "last f:16", ""},
			{"what the same claim finishes is of the old memory", "1 l@30 tok=f:1; past 3; turned @-60", exchange(16, 1, "1 f:1"), "acked [1]", "past 1; turned @0; last f:16", ""},
			{"the clock was set back", "gone 2; past 3; turned @20", exchange(16, 1), "", "gone 2; past 3; turned @0; last f:16", ""},
			{"no window: no memory", "gone 2; past 3; turned @-10", claim(16, 1), "", "past 2; turned @0; last f:16", ""},
			{"no window: none at all", "past 3; turned @-10", claim(16, 1), "", "last f:16", ""},
			{"no slot", "1 r; ready 1", claim(1, 0), "more", "1 r; ready 1; wake", "more"},
			{"says that it listens", "", claim(1, 2, listen), "", "last f:1; idle 10@20", ""},
			{"listens for no longer than a lease", "", claim(1, 2, func(f *script.Feed) { f.Listen = seconds(90) }), "", "last f:1; idle 30@90", ""},
			{"listens with the slots that are left", "1 r; ready 1", claim(1, 2, listen), "1:1/0/0 wait 30", "1 l@30 tok=f:1 n=1/0/0; last f:1 1; clock f@30; idle 10@20", ""},
			{"no slot is left to listen with", "1 r; ready 1", claim(1, 1, listen), "1:1/0/0 wait 30", "1 l@30 tok=f:1 n=1/0/0; last f:1 1; clock f@30", ""},
			{"no slot to listen with", "", claim(1, 0, listen), "", "", ""},
			{"takes what was handed over", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; 2 r; ready 2; wake", claim(1, 2), "1:1/0/0 2:1/0/0 wait 30", "1 l@30 tok=f:1 n=1/0/0; 2 l@30 tok=f:1 n=1/0/0; wake; last f:1 1 2; clock f@30", ""},
			{"what was handed over keeps its turn", "1 l@20 A#1 tok=h@0 n=1/0/0; held A=1; over 1 h@0; 2 r; ready 2; seq 1", claim(1, 0), "more", "1 r A#1; held A=1; 2 r; seq 1; ready 1 2; wake", "more"},
			{"what was handed over is another's by now", "1 l@20 tok=g:1 n=2/0/0; over 1 h@0", claim(1, 1), "wait 20", "1 l@20 tok=g:1 n=2/0/0; last f:1; clock f@20", ""},
			{"what was handed over is done", "over 1 h@0; gone 1", claim(1, 1), "", "gone 1; last f:1", ""},
			{"takes what was offered", "over 1 o@0", claim(1, 2), "1:1/0/0 wait 30", "1 l@30 tok=f:1 n=1/0/0; last f:1 1; clock f@30", "1:1/0/0 wait 30"},
			{"accepts what was offered, and leaves a token for it", "over 1 o@-10", claim(1, 0), "more", "1 r acc=-10; ready 1; wake", "more"},
			{"takes those that were offered in order, and one that was handed over", "3 l@20 tok=h@0 n=1/0/0; 4 r; ready 4; over 1 o@0; over 2 o@0; over 3 h@0; wake", claim(1, 2), "3:1/0/0 2:1/0/0 wait 30 more", "3 l@30 tok=f:1 n=1/0/0; 2 l@30 tok=f:1 n=1/0/0; 1 r; 4 r; ready 1 4; wake; last f:1 3 2; clock f@30", ""},
			{"what was offered was stored, and nobody has taken it", "1 l@20 tok=o@0 n=1/0/0; over 1 o@0", claim(1, 0), "more", "1 r; ready 1; wake", "more"},
			{"what was offered is another's by now", "1 l@20 tok=g:1 n=2/0/0; over 1 o@0", claim(1, 1), "wait 20", "1 l@20 tok=g:1 n=2/0/0; last f:1; clock f@20", ""},
			{"what was offered waits elsewhere by now", "1 d@20 tok=o@0; over 1 o@0", claim(1, 1), "wait 20", "1 d@20 tok=o@0; last f:1; clock f@20", ""},
			{"what was offered is done", "gone 1; past 2; turned @-10; over 1 o@0; over 2 o@0; over 3 o@0", claim(1, 0), "more", "gone 1; past 2; turned @-10; 3 r; ready 3; wake", "more"},
			{"what was handed over is unknown", "over 1 o@0; over 2 h@0", claim(1, 0), "more", "1 r; ready 1; wake", "more"},
			{"says that it takes what is offered", "", claim(1, 2, listen, offers), "", "last f:1; idle 10@20 offers", ""},
			{"says no more that it takes what is offered", "idle 10@-10 offers", claim(1, 2, listen), "", "last f:1; idle 10@20", ""},
			{"takes what is offered, and does not listen", "", claim(1, 2, offers), "", "last f:1", ""},
			{"one, none left", "1 r n=2/1/3; ready 1", claim(1, 2), "1:3/1/3 wait 30", "1 l@30 tok=f:1 n=3/1/3; last f:1 1; clock f@30", "1:3/1/3 wait 30"},
			{"one of two", "1 r; 2 r; ready 1 2", claim(1, 1), "1:1/0/0 wait 30 more", "1 l@30 tok=f:1 n=1/0/0; 2 r; ready 2; last f:1 1; clock f@30; wake", "1:1/0/0 wait 30 more"},
			{"takes the turn", "1 r A#1; ready 1; seq 1", claim(1, 1), "1:1/0/0 wait 30", "1 l@30 A#1 tok=f:1 n=1/0/0; held A=1; seq 1; last f:1 1; clock f@30", ""},
			{"has the turn", "1 r A#1; 2 p A#2; probe A@60; held A=1; ready 1; seq 2", claim(1, 1), "1:1/0/0 wait 30", "1 l@30 A#1 tok=f:1 n=1/0/0; 2 p A#2; probe A@60; held A=1; seq 2; last f:1 1; clock f@30", ""},
			{
				"gate: another has the turn", "1 l@20 A#1 tok=f:1; held A=1; 2 r A#2; 3 r; ready 2 3; seq 2", claim(2, 1), "3:1/0/0 wait 20",
				"1 l@20 A#1 tok=f:1; held A=1; 2 p A#2; probe A@30; 3 l@30 tok=f:2 n=1/0/0; seq 2; last f:2 3; clock f@20", "",
			},
			{"gate: one waits in front", "1 p A#1; probe A@20; 2 r A#2; ready 2; seq 2", claim(1, 1), "wait 20", "1 p A#1; probe A@20; 2 p A#2; seq 2; last f:1; clock f@20", ""},
			{"gate: one waits behind", "2 p A#2; probe A@20; 1 r A#1; ready 1; seq 2", claim(1, 1), "wait 20", "2 p A#2; probe A@20; 1 p A#1; seq 2; last f:1; clock f@20", ""},
			{"gate: another lock of similar name", "1 p AA#1; probe AA@20; 2 r A#2; ready 2; seq 2", claim(1, 1), "2:1/0/0 wait 20", "1 p AA#1; probe AA@20; 2 l@30 A#2 tok=f:1 n=1/0/0; held A=2; seq 2; last f:1 2; clock f@20", ""},
			{
				"one lock, one in flight", "1 r A#1; 2 r A#2; 3 r B#3; ready 1 2 3; seq 3", claim(1, 9), "1:1/0/0 3:1/0/0 wait 30",
				"1 l@30 A#1 tok=f:1 n=1/0/0; 2 p A#2; probe A@30; 3 l@30 B#3 tok=f:1 n=1/0/0; held A=1; held B=3; seq 3; last f:1 1 3; clock f@30", "",
			},
			{"skips what was left behind", "1 d@60; 3 r; ready 1 2 3", claim(1, 1), "3:1/0/0 wait 30", "1 d@60; 3 l@30 tok=f:1 n=1/0/0; last f:1 3; clock f@30", ""},
			{"skips its own second entry", "1 r; ready 1 1", claim(1, 2), "1:1/0/0 wait 30", "1 l@30 tok=f:1 n=1/0/0; last f:1 1; clock f@30", ""},
			{"a lost body", "1 r A#1 nobody; held A=1; 2 p A#2; probe A@60; ready 1; seq 2", claim(1, 1), "2:1/0/0 wait 30", "2 l@30 A#2 tok=f:1 n=1/0/0; held A=2; seq 2; healed 1; last f:1 2; clock f@30", ""},
			{"due goes to the tail", "1 d@-10; 2 r; ready 2", claim(1, 1), "2:1/0/0 wait 30 more", "1 r; ready 1; 2 l@30 tok=f:1 n=1/0/0; last f:1 2; clock f@30; wake", ""},
			{"due in order of time", "1 d@-10; 2 d@-20; 3 d@10", claim(1, 0), "wait 10 more", "1 r; 2 r; 3 d@10; ready 2 1; clock f@10; wake", ""},
			{"due gets its seq", "1 d@-10 A#0; 2 d@-20 B#7; seq 7", claim(1, 0), "more", "1 r A#8; 2 r B#7; seq 8; ready 2 1; wake", ""},
			{"due with the turn goes to the head", "1 d@-10 A#1; held A=1; 2 r; ready 2; seq 1", claim(1, 0), "more", "1 r A#1; held A=1; 2 r; ready 1 2; seq 1; wake", ""},
			{"probe, nobody has the turn", "1 p A#1; probe A@-10; seq 1", claim(1, 0), "look A wait 20", "1 p A#1; probe A@20; seq 1; clock f@20", ""},
			{"probe, the turn is taken", "1 p A#2; 2 l@60 A#1 tok=f:1; held A=2; probe A@-10; seq 2", claim(2, 0), "wait 60", "1 p A#2; 2 l@60 A#1 tok=f:1; held A=2; probe A@60; seq 2; clock f@60", ""},
			{"probe, the turn ends before it comes again", "1 p A#2; 2 l@10 A#1 tok=f:1; held A=2; probe A@-10; seq 2", claim(2, 0), "wait 10", "1 p A#2; 2 l@10 A#1 tok=f:1; held A=2; probe A@20; seq 2; clock f@10", ""},
			{"probe, the turn waits in ready", "1 p A#2; 2 r A#1; held A=2; probe A@-10; ready 2; seq 2; wake", claim(2, 0), "wait 20 more", "1 p A#2; 2 r A#1; held A=2; probe A@20; ready 2; seq 2; clock f@20; wake", ""},
			{"probe, the turn waits out a backoff", "1 p A#2; 2 d@90 A#1; held A=2; probe A@-10; seq 2", claim(2, 0), "wait 20", "1 p A#2; 2 d@90 A#1; held A=2; probe A@20; seq 2; clock f@20", ""},
			{"probe comes again for max wait", "1 p A#2 acc=-50 wait=60; 2 l@60 A#1 tok=f:1; held A=2; probe A@-10; seq 2", claim(2, 0), "wait 10", "1 p A#2 acc=-50 wait=60; 2 l@60 A#1 tok=f:1; held A=2; probe A@10; seq 2; clock f@10", ""},
			{"probe buries while the turn is taken", "1 p A#2 acc=-60 wait=60; 3 p A#3; 2 l@60 A#1 tok=f:1; held A=2; probe A@-10; seq 3", claim(2, 0), "wait 60 buried 1: max wait", "1 x@0 A#2 acc=-60 wait=60 note=max_wait; 3 p A#3; 2 l@60 A#1 tok=f:1; held A=2; probe A@60; seq 3; clock f@60", ""},
			{"probe buries the last", "1 p A#2 acc=-60 wait=60; probe A@-10; seq 3", claim(2, 0), "buried 1: max wait", "1 x@0 A#2 acc=-60 wait=60 note=max_wait; seq 3", ""},
			{"probe without a line", "probe A@-10", claim(2, 0), "", "", ""},
			{"probe repairs a bad turn", "1 p A#2; held A=9; probe A@-10; seq 2", claim(2, 0), "look A wait 20", "1 p A#2; probe A@20; seq 2; healed 1; clock f@20", ""},
			{"lease ran out", "1 l@-10 tok=f:1 n=1/0/0; 2 r; ready 2", claim(2, 0), "more", "1 r n=1/0/0; 2 r; ready 1 2; wake", "more"},
			{"lease ran out, delivered again", "1 l@-10 tok=f:1 n=1/0/0; 2 r; ready 2", claim(2, 1), "1:2/0/0 wait 30 more", "1 l@30 tok=f:2 n=2/0/0; 2 r; ready 2; last f:2 1; clock f@30; wake", ""},
			{"lease ran out, the turn is kept", "1 l@-10 A#1 tok=f:1 n=1/0/0; held A=1; 2 p A#2; probe A@60; seq 2", claim(2, 0), "wait 60 more", "1 r A#1 n=1/0/0; held A=1; 2 p A#2; probe A@60; seq 2; ready 1; clock f@60; wake", ""},
			{"leases ran out, the first in front", "1 l@-10 tok=f:1; 2 l@-20 tok=f:1; 3 r; ready 3", claim(2, 0), "more", "1 r; 2 r; 3 r; ready 2 1 3; wake", ""},
			{"crash loop", "1 l@-10 A#1 tok=f:1 n=3/0/0; held A=1; 2 p A#2; probe A@60; seq 2", claim(2, 0, maxDeliveries(3)), "more buried 1: crash loop", "1 x@0 A#1 n=3/0/0 note=crash_loop; 2 r A#2; held A=2; ready 2; seq 2; wake", ""},
			{"no crash loop: it failed and met held locks", "1 l@-10 tok=f:1 n=5/1/2", claim(2, 0, maxDeliveries(3)), "more", "1 r n=5/1/2; ready 1; wake", ""},
			{"no crash loop yet", "1 l@-10 tok=f:1 n=2/0/0", claim(2, 0, maxDeliveries(3)), "more", "1 r n=2/0/0; ready 1; wake", ""},
			{"sent again", "1 l@30 tok=f:3 n=1/0/0; 2 l@30 tok=g:1 n=2/0/0; 3 d@60 tok=f:3; 5 r; ready 5; wake; last f:3 1 2 3 4", claim(3, 9), "1:1/0/0 wait 30 more", "1 l@30 tok=f:3 n=1/0/0; 2 l@30 tok=g:1 n=2/0/0; 3 d@60 tok=f:3; 5 r; ready 5; wake; last f:3 1 2 3 4; clock f@30", "1:1/0/0 wait 30 more"},
			{"sent again, its lease just ran out", "1 l@-10 tok=f:3 n=1/0/0; last f:3 1", claim(3, 9), "more", "1 r n=1/0/0; ready 1; last f:3 1; wake", "more"},
			{"overtaken by its successor", "1 l@-10 tok=f:3; 2 d@-10; 5 r; ready 5; last f:3 1", claim(2, 9), "", "=", ""},
			{"another feeder's number", "5 r; ready 5; last g:7 1", claim(1, 9), "5:1/0/0 wait 30", "5 l@30 tok=f:1 n=1/0/0; last g:7 1; last f:1 5; clock f@30", ""},
			{"clock: unset", "1 d@50", claim(1, 0), "wait 50", "1 d@50; clock f@50", ""},
			{"clock: mine", "1 d@50; clock f@20", claim(1, 0), "wait 50", "1 d@50; clock f@50", ""},
			{"clock: another's", "1 d@50; clock g@20", claim(1, 0), "wait 60", "=", ""},
			{"clock: another's, same time", "1 d@50; clock g@50", claim(1, 0), "wait 60", "=", ""},
			{"clock: another's, overdue", "1 d@50; clock g@-10", claim(1, 0), "wait 50", "1 d@50; clock f@50", ""},
			{"clock: another's, later", "1 d@50; clock g@70", claim(1, 0), "wait 50", "1 d@50; clock f@50", ""},
			{"clock: a lease counts", "1 d@50; 2 l@40 tok=f:1; clock g@70", claim(1, 0), "wait 40", "1 d@50; 2 l@40 tok=f:1; clock f@40", ""},
			{"clock: mine, nothing due", "clock f@50", claim(1, 0), "", "", ""},
			{"clock: another's, nothing due", "clock g@50", claim(1, 0), "", "=", ""},
		},
		"exchange": {
			{
				"the next in line at once, without a token", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@60; seq 2; last f:1 1", exchange(2, 1, "1 f:1"),
				"2:1/0/0 wait 30 acked [1]", "2 l@30 A#2 tok=f:2 n=1/0/0; held A=2; seq 2; gone 1; last f:2 2; clock f@30", "2:1/0/0 wait 30 acked [2]",
			},
			{
				"no slot: a token for the next in line", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@60; seq 2", exchange(2, 0, "1 f:1"),
				"more acked [1]", "2 r A#2; held A=2; ready 2; seq 2; gone 1; wake", "more acked [2]",
			},
			{"stale and finished", "1 l@30 tok=g:1; gone 2; past 3; turned @-10", exchange(1, 1, "1 f:1", "2 f:1", "3 f:1"), "wait 30 acked [0 2 2]", "1 l@30 tok=g:1; gone 2; past 3; turned @-10; last f:1; clock f@30", ""},
			{"late", "1 l@30 tok=f:1; last f:3 1", exchange(2, 1, "1 f:1"), "acked [0]", "=", "acked [0]"},
			{"offered, and its push is to come", "", exchange(1, 1, "1 o7"), "acked [1]", "gone 1; last f:1", "acked [2]"},
			{"offered and others", "2 l@30 tok=f:1", exchange(1, 1, "1 o7", "2 f:1", "3 f:1", "4 o8"), "acked [1 1 0 1]", "gone 1; gone 2; gone 4; last f:1", "acked [2 2 0 2]"},
			{"offered, and no window", "", exchangeFor(0, 1, 1, "1 o7"), "acked [0]", "last f:1", "acked [0]"},
			{"offered, late", "last f:3", exchange(2, 1, "1 o7"), "acked [0]", "=", "acked [0]"},
			{"done while its offer comes late", "over 1 o@0", exchange(1, 1, "1 o7"), "acked [1]", "gone 1; last f:1", "acked [2]"},
		},
		"ack": {
			{"done", "1 l@30 tok=f:1 n=1/0/0", ack("1 f:1"), "[1]", "gone 1", "[2]"},
			{"several", "1 l@30 tok=f:1; 2 l@30 tok=f:1; 3 l@30 tok=g:1; 4 r; ready 4", ack("1 f:1", "2 f:1", "3 f:1", "9 f:1"), "[1 1 0 0] more", "3 l@30 tok=g:1; 4 r; ready 4; gone 1; gone 2", "[2 2 0 0] more"},
			{"the next has its turn", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; 3 p A#3; probe A@60; 4 r; ready 4; seq 3", ack("1 f:1"), "[1] more", "2 r A#2; held A=2; 3 p A#3; probe A@60; 4 r; ready 2 4; gone 1; seq 3; wake", "[2] more"},
			{"the next by number", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#10; 3 p A#9; probe A@60; seq 10", ack("1 f:1"), "[1] more", "2 p A#10; 3 r A#9; held A=3; probe A@60; ready 3; gone 1; seq 10; wake", "[2] more"},
			{"the last in line", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@60; seq 2", ack("1 f:1"), "[1] more", "2 r A#2; held A=2; ready 2; gone 1; seq 2; wake", "[2] more"},
			{"the next waited too long", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2 acc=-60 wait=60; 3 p A#3; probe A@60; seq 3", ack("1 f:1"), "[1] more buried 2: max wait", "2 x@0 A#2 acc=-60 wait=60 note=max_wait; 3 r A#3; held A=3; ready 3; gone 1; seq 3; wake", "[2] more"},
			{"nobody in line", "1 l@30 A#1 tok=f:1; held A=1; seq 1", ack("1 f:1"), "[1]", "gone 1; seq 1", "[2]"},
			{"late, but not yet taken away", "1 l@-10 tok=f:1", ack("1 f:1"), "[1]", "gone 1", "[2]"},
			{"another's token", "1 l@30 tok=g:1", ack("1 f:1"), "[0]", "=", "[0]"},
			{"ran out", "1 r; ready 1", ack("1 f:1"), "[0] more", "=", "[0] more"},
			{"unknown", "", ack("1 f:1"), "[0]", "=", "[0]"},
			{"finished", "gone 1", ack("1 f:1"), "[2]", "=", "[2]"},
			{"finished before that", "past 1; turned @-10", ack("1 f:1"), "[2]", "=", "[2]"},
			{"accepted long ago", "1 l@30 tok=f:1 acc=-60", ack("1 f:1"), "[1]", "gone 1", "[2]"},
			{"offered, and its push is to come", "", ack("1 o7"), "[1]", "gone 1", "[2]"},
			{"offered and others", "2 l@30 tok=f:1", ack("1 o7", "2 f:1", "3 f:1", "4 o8"), "[1 1 0 1]", "gone 1; gone 2; gone 4", "[2 2 0 2]"},
			{"offered, named twice", "", ack("1 o7", "1 o7"), "[1 2]", "gone 1", "[2 2]"},
			{"offered and stored", "1 l@30 tok=o7 n=1/0/0", ack("1 o7"), "[1]", "gone 1", "[2]"},
			{"offered, and another's by now", "1 l@30 tok=f:1", ack("1 o7"), "[0]", "=", "[0]"},
			{"offered and finished", "gone 1; past 2; turned @-10", ack("1 o7", "2 o7"), "[2 2]", "=", "[2 2]"},
			{"offered, and no window", "", ackFor(0, "1 o7"), "[0]", "=", "[0]"},
			{"handed over, unknown", "", ack("1 h7"), "[0]", "=", "[0]"},
		},
		"nack": {
			{"failed", "1 l@30 tok=f:1 n=1/0/0", nack("1 f:1", 20, script.Attempt, 5, false), "1", "1 d@20 tok=f:1 n=1/1/0 note=boom; wake", "2"},
			{"not the head", "2 d@10; 1 l@30 tok=f:1 n=1/0/0", nack("1 f:1", 20, script.Attempt, 0, false), "1", "2 d@10; 1 d@20 tok=f:1 n=1/1/0 note=boom", "2"},
			{"deferral", "1 l@30 tok=f:1 n=1/0/4", nack("1 f:1", 20, script.Deferral, 5, false), "1", "1 d@20 tok=f:1 n=1/0/5 note=boom; wake", "2"},
			{"costs nothing", "1 l@30 tok=f:1 n=7/2/4", nack("1 f:1", 20, script.Nothing, 1, false), "1", "1 d@20 tok=f:1 n=6/2/4 note=boom; wake", "2"},
			{"steps out", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@10; seq 2", nack("1 f:1", 20, script.Attempt, 0, false), "1", "1 d@20 A#1 tok=f:1 n=0/1/0 note=boom; 2 r A#2; held A=2; ready 2; seq 2; wake", "2"},
			{"strict", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@10; seq 2", nack("1 f:1", 20, script.Attempt, 0, true), "1", "1 d@20 A#1 tok=f:1 n=0/1/0 note=boom; 2 p A#2; probe A@10; held A=1; seq 2", "2"},
			{"last attempt", "1 l@30 A#1 tok=f:1 n=5/4/0; held A=1; 2 p A#2; probe A@10; seq 2", nack("1 f:1", 20, script.Attempt, 5, true), "3 buried 1: attempts: boom", "1 x@0 A#1 tok=f:1 n=5/5/0 note=attempts:_boom; 2 r A#2; held A=2; ready 2; seq 2; wake", "2"},
			{"last deferral", "1 l@30 tok=f:1 n=1/0/5", nack("1 f:1", 20, script.Deferral, 5, false), "3 buried 1: deferrals", "1 x@0 tok=f:1 n=1/0/6 note=deferrals", "2"},
			{"another's token", "1 l@30 tok=g:1", nack("1 f:1", 20, script.Attempt, 0, false), "0", "=", "0"},
			{"ran out", "1 r; ready 1", nack("1 f:1", 20, script.Attempt, 0, false), "0", "=", "0"},
			{"unknown", "", nack("1 f:1", 20, script.Attempt, 0, false), "0", "=", "0"},
			{"finished", "gone 1", nack("1 f:1", 20, script.Attempt, 0, false), "2", "=", "2"},
		},
		"park": {
			{"in its old place, no one promoted", "1 l@30 A#1 tok=f:1 n=1/0/0; held A=1; 2 p A#2; probe A@60; seq 2", park("1 f:1", 20, 5), "1", "1 p A#1 tok=f:1 n=1/0/1; 2 p A#2; probe A@20; seq 2; wake", "2"},
			{"later probe", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@10; seq 2", park("1 f:1", 20, 0), "1", "1 p A#1 tok=f:1 n=0/0/1; 2 p A#2; probe A@10; seq 2", "2"},
			{"last deferral", "1 l@30 A#1 tok=f:1 n=1/0/5; held A=1; 2 p A#2; probe A@60; seq 2", park("1 f:1", 20, 5), "3 buried 1: deferrals", "1 x@0 A#1 tok=f:1 n=1/0/6 note=deferrals; 2 r A#2; held A=2; ready 2; seq 2; wake", "2"},
			{"probe no later than max wait", "1 l@30 A#1 tok=f:1 acc=-50 wait=60; held A=1; seq 2", park("1 f:1", 20, 5), "1", "1 p A#1 tok=f:1 n=0/0/1 acc=-50 wait=60; probe A@10; seq 2; wake", "2"},
			{"another's token", "1 l@30 A#1 tok=g:1; held A=1; seq 1", park("1 f:1", 20, 0), "0", "=", "0"},
			{"ran out", "1 r A#1; held A=1; ready 1; seq 1", park("1 f:1", 20, 0), "0", "=", "0"},
			{"unknown", "", park("1 f:1", 20, 0), "0", "=", "0"},
			{"finished", "gone 1", park("1 f:1", 20, 0), "2", "=", "2"},
			{"promoted since", "1 r A#1 tok=f:1; held A=1; ready 1; seq 1", park("1 f:1", 20, 0), "2", "=", "2"},
		},
		"bury": {
			{"dead", "1 l@30 A#1 tok=f:1 n=1/0/0; held A=1; 2 p A#2; probe A@60; seq 2", bury("1 f:1"), "1 buried 1: bad payload", "1 x@0 A#1 tok=f:1 n=1/0/0 note=bad_payload; 2 r A#2; held A=2; ready 2; seq 2; wake", "2"},
			{"another's token", "1 l@30 tok=g:1", bury("1 f:1"), "0", "=", "0"},
			{"unknown", "", bury("1 f:1"), "0", "=", "0"},
			{"finished", "gone 1", bury("1 f:1"), "2", "=", "2"},
		},
		"requeue": {
			{
				"at the head in order, turns kept", "1 l@30 A#1 tok=f:1 n=1/0/0; held A=1; 2 p A#2; probe A@60; 3 l@30 tok=f:1 n=4/2/1; 4 l@30 tok=g:1; 9 r; ready 9; seq 2", requeue("1 f:1", "3 f:1", "4 f:1"), "[1 1 0]",
				"1 r A#1 tok=f:1; held A=1; 2 p A#2; probe A@60; 3 r tok=f:1 n=3/2/1; 4 l@30 tok=g:1; 9 r; ready 1 3 9; seq 2; wake", "[2 2 0]",
			},
			{"unknown", "", requeue("1 f:1"), "[0]", "=", "[0]"},
			{"finished", "gone 1", requeue("1 f:1"), "[2]", "=", "[2]"},
		},
		"extend": {
			{"longer", "1 l@30 tok=f:1; 2 l@30 tok=g:1; 3 d@10 tok=f:1", extend(90, "1 f:1", "2 f:1", "3 f:1", "4 f:1"), "[1 0 0 0]", "1 l@90 tok=f:1; 2 l@30 tok=g:1; 3 d@10 tok=f:1", "[1 0 0 0]"},
			{"late, but not yet taken away", "1 l@-10 tok=f:1", extend(90, "1 f:1"), "[1]", "1 l@90 tok=f:1", "[1]"},
		},
		"promote": {
			{"the oldest", "1 p A#2; 2 p A#1; 3 p B#3; probe A@60; probe B@60; 9 r; ready 9; seq 3", promote("A"), "1", "1 p A#2; 2 r A#1; held A=2; 3 p B#3; probe A@60; probe B@60; 9 r; ready 2 9; seq 3; wake", "0"},
			{"the turn is taken: leased", "1 p A#2; 2 l@30 A#1 tok=f:1; held A=2; probe A@60; seq 2", promote("A"), "0", "=", "0"},
			{"the turn is taken: ready", "1 p A#2; 2 r A#1; ready 2; held A=2; probe A@60; seq 2", promote("A"), "0", "=", "0"},
			{"the turn is taken: backoff", "1 p A#2; 2 d@90 A#1; held A=2; probe A@60; seq 2", promote("A"), "0", "=", "0"},
			{"a bad turn", "1 p A#2; held A=9; probe A@60; seq 2", promote("A"), "1", "1 r A#2; held A=1; ready 1; seq 2; healed 1; wake", "0"},
			{"a turn of another lock", "1 p A#2; 2 r B#1; ready 2; held A=2; probe A@60; seq 2", promote("A"), "1", "1 r A#2; 2 r B#1; held A=1; ready 1 2; seq 2; healed 1; wake", "0"},
			{"a dead turn", "1 p A#2; 2 x@0 A#1; held A=2; probe A@60; seq 2", promote("A"), "1", "1 r A#2; 2 x@0 A#1; held A=1; ready 1; seq 2; healed 1; wake", "0"},
			{"all waited too long", "1 p A#1 acc=-60 wait=60; 2 p A#2 acc=-70 wait=60; probe A@60; seq 2", promote("A"), "0 buried 1: max wait buried 2: max wait", "1 x@0 A#1 acc=-60 wait=60 note=max_wait; 2 x@0 A#2 acc=-70 wait=60 note=max_wait; seq 2", "0"},
			{"nobody", "1 d@10", promote("A"), "0", "=", "0"},
		},
		"rearm": {
			{"later", "1 p A#1; probe A@10; 2 d@20; seq 1", rearm("A", 60), "", "1 p A#1; probe A@60; 2 d@20; seq 1", ""},
			{"earlier and the head", "1 p A#1; probe A@60; 2 d@50; seq 1", rearm("A", 10), "", "1 p A#1; probe A@10; 2 d@50; seq 1; wake", ""},
			{"earlier, not the head", "1 p A#1; probe A@60; 2 d@10; seq 1", rearm("A", 20), "", "1 p A#1; probe A@20; 2 d@10; seq 1", ""},
			{"no later than max wait", "1 p A#1 acc=-30 wait=60; probe A@10; seq 1", rearm("A", 90), "", "1 p A#1 acc=-30 wait=60; probe A@30; seq 1", ""},
			{"nobody", "1 d@10", rearm("A", 90), "", "=", ""},
		},
		"cancel": {
			{"handed over", "1 l@20 A#1 tok=h@0 n=1/0/0; held A=1; over 1 h@0; 2 p A#2; probe A@60; seq 2", cancel("1"), "1", "gone 1; 2 r A#2; held A=2; ready 2 1; seq 2; wake", ""},
			{"another is handed over", "1 r; ready 1; 2 l@20 tok=h@0 n=1/0/0; over 2 h@0", cancel("1"), "1", "gone 1; 2 r; ready 2 1; wake", ""},
			{"offered", "over 1 o@0", cancel("1"), "1", "gone 1; ready 1; wake", "0"},
			{"another is offered", "1 r; ready 1; over 2 o@0", cancel("1"), "1", "gone 1; 2 r; ready 2 1; wake", "0"},
			{"unknown, and another is offered", "over 2 o@0", cancel("1"), "0", "2 r; ready 2; wake", "0"},
			{"another was offered and is known otherwise", "1 r; ready 1; 2 d@10; over 2 o@0", cancel("1"), "1", "gone 1; 2 d@10; ready 1", "0"},
			{"ready, without the turn", "1 r A#1; 2 r A#2; ready 1 2; seq 2; wake", cancel("1"), "1", "2 r A#2; ready 1 2; seq 2; gone 1; wake", "0"},
			{"ready, with the turn", "1 r A#1; held A=1; 2 p A#2; probe A@60; ready 1; seq 2", cancel("1"), "1", "2 r A#2; held A=2; ready 2 1; seq 2; gone 1; wake", "0"},
			{"delayed", "1 d@30", cancel("1"), "1", "gone 1", "0"},
			{"delayed, with the turn", "1 d@30 A#1; held A=1; 2 p A#2; probe A@60; seq 2", cancel("1"), "1", "2 r A#2; held A=2; ready 2; seq 2; gone 1; wake", "0"},
			{"parked, not the last", "1 p A#1; 2 p A#2; probe A@60; seq 2", cancel("1"), "1", "2 p A#2; probe A@60; seq 2; gone 1", "0"},
			{"parked, the last", "1 p A#1; probe A@60; seq 1", cancel("1"), "1", "seq 1; gone 1", "0"},
			{"leased", "1 l@30 A#1 tok=f:1; held A=1; 2 p A#2; probe A@60; seq 2", cancel("1"), "1", "2 r A#2; held A=2; ready 2; seq 2; gone 1; wake", "0"},
			{"dead", "1 x@-30 acc=-90", cancel("1"), "1", "gone 1", "0"},
			{"unknown", "2 r; ready 2", cancel("1"), "0", "=", "0"},
		},
		"reschedule": {
			{"handed over", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0", reschedule("1", 60, "s"), "1", "1 d@60 stamp=s; ready 1; wake", "2"},
			{"leased, and another is handed over", "1 l@20 tok=f:1 n=1/0/0; 2 l@20 tok=h@0 n=1/0/0; over 2 h@0", reschedule("1", 60, "s"), "3", "1 l@20 tok=f:1 n=1/0/0; 2 r; ready 2; wake", "3"},
			{"offered", "over 1 o@0", reschedule("1", 60, "s"), "1", "1 d@60 stamp=s; ready 1; wake", "2"},
			{"leased, and others are offered", "1 l@20 tok=f:1 n=1/0/0; over 3 o@0; over 2 o@0", reschedule("1", 60, "s"), "3", "1 l@20 tok=f:1 n=1/0/0; 2 r; 3 r; ready 2 3; wake", "3"},
			{"leased, after it was offered", "1 l@20 tok=f:1 n=1/0/0; over 1 o@0", reschedule("1", 60, "s"), "3", "1 l@20 tok=f:1 n=1/0/0", "3"},
			{"done, after it was offered", "gone 1; over 1 o@0", reschedule("1", 60, "s"), "0", "gone 1", "0"},
			{"ready", "1 r A#1; ready 1; seq 1", reschedule("1", 30, "s"), "1", "1 d@30 A#1 stamp=s; ready 1; seq 1; wake", "2"},
			{"ready, with the turn", "1 r A#1; held A=1; 2 p A#2; probe A@60; ready 1; seq 2", reschedule("1", 30, "s"), "1", "1 d@30 A#1 stamp=s; 2 r A#2; held A=2; ready 2 1; seq 2; wake", "2"},
			{"ready, with the turn, at once", "1 r A#1; held A=1; 2 p A#2; probe A@60; ready 1; seq 2", reschedule("1", 0, "s"), "1", "1 d@0 A#1 stamp=s; 2 p A#2; held A=1; probe A@60; ready 1; seq 2; wake", "2"},
			{"delayed, with the turn, at once", "1 d@10 A#1; held A=1; 2 p A#2; probe A@60; seq 2", reschedule("1", 0, "s"), "1", "1 d@0 A#1 stamp=s; 2 p A#2; held A=1; probe A@60; seq 2; wake", "2"},
			{"delayed, later", "1 d@10; 2 d@20", reschedule("1", 30, "s"), "1", "1 d@30 stamp=s; 2 d@20", "2"},
			{"delayed, earlier", "1 d@90; 2 d@40", reschedule("1", 30, "s"), "1", "1 d@30 stamp=s; 2 d@40; wake", "2"},
			{"delayed, with the turn", "1 d@10 A#1; held A=1; 2 p A#2; probe A@60; seq 2", reschedule("1", 30, "s"), "1", "1 d@30 A#1 stamp=s; 2 r A#2; held A=2; ready 2; seq 2; wake", "2"},
			{"parked", "1 p A#1; probe A@60; seq 1", reschedule("1", 30, "s"), "1", "1 d@30 A#1 stamp=s; seq 1; wake", "2"},
			{"leased", "1 l@30 tok=f:1", reschedule("1", 30, "s"), "3", "=", "3"},
			{"dead", "1 x@0", reschedule("1", 30, "s"), "3", "=", "3"},
			{"unknown", "gone 1", reschedule("1", 30, "s"), "0", "=", "0"},
			{"another stamp", "1 d@10 stamp=r", reschedule("1", 30, "s"), "1", "1 d@30 stamp=s; wake", "2"},
		},
		"revive": {
			{"dead", "1 x@-30 A#1 tok=f:1 n=5/5/5 acc=-90 wait=60 note=boom; 2 r A#2; ready 2; seq 2", revive("1", "s"), "1", "1 r A#3 wait=60 stamp=s; 2 r A#2; ready 2 1; seq 3; wake", "2"},
			{"not dead", "1 l@30 tok=f:1", revive("1", "s"), "3", "=", "3"},
			{"dead again", "1 x@0 stamp=s", revive("1", "s"), "2", "=", "2"},
			{"unknown", "gone 1", revive("1", "s"), "0", "=", "0"},
		},
		"yield": {
			{"its own clock", "1 d@30; clock f@30", yield("f"), "", "1 d@30; wake", ""},
			{"another's clock", "1 d@30; clock g@30; wake", yield("f"), "", "=", ""},
			{"nobody listens", "idle 20@20", yield("f"), "", "wake", ""},
			{"what was handed over stays in front", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; idle 20@20", yield("f"), "", "1 l@20 tok=h@0 n=1/0/0; over 1 h@0; wake", ""},
			{"nobody takes what is offered any more", "over 1 o@0; idle 20@20 offers", yield("f"), "", "over 1 o@0; wake", ""},
		},
	} {
		for _, r := range rows {
			t.Run(verb+"/"+r.name, func(t *testing.T) {
				redistest.Each(t, func(t *testing.T, rdb *redis.Client) { r.run(t, testQueue(rdb)) })
			})
		}
	}
}

func (r row) run(t *testing.T, q *script.Queue) {
	t.Helper()
	start := serverTime(t, q.Client())
	ctx := context.WithValue(t.Context(), base{}, start)
	seed := parse(t, start, r.seed)
	seed.write(t, q)
	got, err := r.call(ctx, q)
	if err != nil {
		t.Fatalf("the call on %q: %v", r.seed, err)
	}
	if got != r.reply {
		t.Errorf("the call on %q answered %q, want %q", r.seed, got, r.reply)
	}
	want := r.want
	if want == "=" {
		want = r.seed
	}
	after, bad := read(t, q)
	if len(bad) > 0 {
		t.Errorf("after the call on %q: %v", r.seed, bad)
	}
	state := after.text(start, unit)
	if d := diff(state, parse(t, start, want).text(start, unit)); d != "" {
		t.Errorf("after the call on %q:\n%s", r.seed, d)
	}
	if r.again == "" {
		return
	}
	got, err = r.call(ctx, q)
	if err != nil || got != r.again {
		t.Errorf("the call sent again answered %q, %v, want %q", got, err, r.again)
	}
	second, _ := read(t, q)
	second.wake = after.wake
	if d := diff(second.text(start, unit), state); d != "" {
		t.Errorf("the call sent again changed the queue:\n%s", d)
	}
}
