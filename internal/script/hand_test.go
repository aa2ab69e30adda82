package script_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A consumer that waits gets a request with all that a claim says about it, and settles
// it like any other.
func TestHandOver(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q, feed := testQueue(rdb), defaultFeed()
		feed.Listen = seconds(20)
		if _, err := q.Claim(t.Context(), feed, 1, 1); err != nil {
			t.Fatal(err)
		}
		e := script.Entry{ID: "1 2 3", Body: "a body\nof \x00 lines", Lock: "l|o c\nk", MaxWait: time.Hour}
		for _, want := range []script.Code{script.Done, script.Already} {
			if codes, err := q.Push(t.Context(), []script.Entry{e}); err != nil || codes[0] != want {
				t.Fatalf("Push = %v, %v, want %v", codes, err, want)
			}
		}
		all, err := rdb.LRange(t.Context(), q.Keys().Wake(), 0, -1).Result()
		if err != nil || len(all) != 1 {
			t.Fatalf("in wake: %q, %v; want the request alone", all, err)
		}
		h, ok, err := script.ParseHanded(all[0])
		if !ok || err != nil {
			t.Fatalf("ParseHanded(%q) = %v, %v", all[0], ok, err)
		}
		state, body, _, err := q.Get(t.Context(), e.ID)
		if err != nil || state.Place != "leased" || state.Token != h.Token || body != e.Body {
			t.Errorf("the queue has %+v, %q, %v", state, body, err)
		}
		want := script.Item{ID: e.ID, Body: e.Body, Deliveries: 1, Accepted: state.Accepted}
		if h.Item != want || h.Lease != seconds(10) {
			t.Errorf("handed over: %+v for %v, want %+v for 10s", h.Item, h.Lease, want)
		}
		codes, _, _, err := q.Ack(t.Context(), window, []script.Lease{{ID: h.ID, Token: h.Token}})
		if err != nil || codes[0] != script.Done {
			t.Errorf("Ack = %v, %v", codes, err)
		}
	})
}

// What stands in wake for an offer is read as what it was, by consumers and by scripts.
func TestHandedString(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := testQueue(rdb)
		for n, item := range []script.Item{
			{ID: "1", Body: "b1"},
			{ID: "1 2 3", Body: "20 1 4 a body\nof \x00 lines"},
			{ID: " l", Body: ""},
			{ID: "a\x00b ", Body: "\x00 |"},
		} {
			item.Deliveries, item.Accepted = 1, at
			h := script.Handed{Item: item, Token: "o1700000000123", Lease: 1500 * time.Millisecond}
			got, ok, err := script.ParseHanded(h.String())
			if got != h || !ok || err != nil {
				t.Errorf("%q is read as %+v, %v, %v, want %+v", h.String(), got, ok, err, h)
			}
			if err := rdb.LPush(t.Context(), q.Keys().Wake(), h.String()).Err(); err != nil {
				t.Fatal(err)
			}
			c, err := q.Claim(t.Context(), defaultFeed(), int64(n+1), 1)
			if err != nil || len(c.Items) != 1 || c.Items[0] != h.Item {
				t.Errorf("of %q a claim makes %+v, %v", h.String(), c.Items, err)
			}
		}
	})
}

func TestHandedOffered(t *testing.T) {
	for token, want := range map[string]bool{"o1700000000123": true, "o": true, "h1700000000123": false, "f:1": false, "": false} {
		if h := (script.Handed{Token: token}); h.Offered() != want {
			t.Errorf("%q: Offered() = %v", token, !want)
		}
	}
}

// around is a hook around each command.
type around func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error

func (around) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h around) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return h(ctx, cmd, next) }
}

func (around) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// wait passes time in a bubble.
func wait(d time.Duration) { <-time.After(d) }

// offering returns a queue on which a consumer waited when request 1 was pushed, which it
// took.
func offering(t *testing.T, rdb *redis.Client, allowed bool, options ...func(*script.Feed)) *script.Queue {
	t.Helper()
	q := testQueue(rdb)
	if allowed {
		q.Offer(window, func(script.Handed) bool { return false })
	}
	for _, name := range []string{"push", "pushone", "offered"} {
		if err := rdb.ScriptLoad(t.Context(), script.Source(name)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := claim(1, 1, options...)(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	pushNew(t, q, "1")
	if err := rdb.LPop(t.Context(), q.Keys().Wake()).Err(); err != nil {
		t.Fatal(err)
	}
	return q
}

func pushNew(t *testing.T, q *script.Queue, id string) {
	t.Helper()
	codes, err := q.Push(t.Context(), []script.Entry{{ID: id, Body: "b" + id, New: true}})
	if err != nil || codes[0] != script.Done {
		t.Fatalf("Push = %v, %v", codes, err)
	}
}

// found compares the queue with text. Of what was there before 1 is leased, and the
// consumer waits.
func found(t *testing.T, q *script.Queue, start int64, text string) {
	t.Helper()
	w, bad := read(t, q)
	want := parse(t, start, "1 l@10 tok=h@0 n=1/0/0; last f:1; idle 10@20 offers; "+text)
	if d := diff(w.text(start, unit), want.text(start, unit)); d != "" || len(bad) > 0 {
		t.Errorf("the queue: %s\n%s", strings.Join(bad, "; "), d)
	}
}

// A new request is offered when the queue has rested: it is in wake before its push.
func TestPushOffers(t *testing.T) {
	for name, c := range map[string]struct {
		pop  bool // it is taken before its push
		ack  bool // and done
		want string
		next []string // what the next push sends
	}{
		"nobody takes it": {want: "2 r; ready 2; wake", next: []string{"evalsha"}},
		"taken":           {pop: true, want: "2 l@10 tok=o@0 n=1/0/0", next: []string{"lpush", "evalsha"}},
		"taken and done":  {pop: true, ack: true, want: "gone 2", next: []string{"lpush", "evalsha"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				start := serverTime(t, rdb)
				q := offering(t, rdb, true, listen, offers)
				wait(3 * time.Millisecond)
				other := testQueue(redis.NewClient(rdb.Options()))
				t.Cleanup(func() { other.Client().Close() })
				sent := redistest.Count(rdb)
				looked := false
				rdb.AddHook(around(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					if cmd.Name() != "evalsha" || looked {
						return next(ctx, cmd)
					}
					looked = true
					rdb := other.Client()
					all, err := rdb.LRange(ctx, q.Keys().Wake(), 0, -1).Result()
					if err != nil || len(all) != 1 {
						t.Fatalf("in wake: %q, %v; want the offer alone", all, err)
					}
					h, ok, err := script.ParseHanded(all[0])
					at := time.Now().Add(-time.Millisecond)
					want := script.Handed{
						Item:  script.Item{ID: "2", Body: "b2", Deliveries: 1, Accepted: at},
						Token: h.Token, Lease: seconds(10),
					}
					if !ok || err != nil || !h.Offered() || !h.Accepted.Equal(at) {
						t.Errorf("ParseHanded = %+v, %v, %v, want %+v", h, ok, err, want)
					}
					if want.Accepted = h.Accepted; h != want {
						t.Errorf("offered: %+v, want %+v", h, want)
					}
					if _, _, known, err := other.Get(ctx, "2"); known || err != nil {
						t.Errorf("before its push the queue has it: %v, %v", known, err)
					}
					if c.pop {
						rdb.LPop(ctx, q.Keys().Wake())
					}
					if c.ack {
						if codes, _, _, err := other.Ack(ctx, window, []script.Lease{{ID: h.ID, Token: h.Token}}); err != nil || codes[0] != script.Done {
							t.Errorf("Ack = %v, %v", codes, err)
						}
					}
					return next(ctx, cmd)
				}))
				pushNew(t, q, "2")
				if names := sent.Names(); !slices.Equal(names, []string{"lpush", "evalsha"}) {
					t.Errorf("the push sent %q", names)
				}
				found(t, q, start, c.want)
				wait(3 * time.Millisecond)
				sent.Reset()
				pushNew(t, q, "3")
				if names := sent.Names(); !slices.Equal(names, c.next) {
					t.Errorf("the next push sent %q, want %q", names, c.next)
				}
			})
		})
	}
}

func TestPushOffersOnly(t *testing.T) {
	one := []script.Entry{{ID: "2", Body: "b2", New: true}}
	with := func(change func(*script.Entry)) []script.Entry {
		e := one[0]
		change(&e)
		return []script.Entry{e}
	}
	both := []func(*script.Feed){listen, offers}
	for _, c := range []struct {
		name    string
		off     bool
		options []func(*script.Feed)
		before  call
		rest    time.Duration
		entries []script.Entry
		want    bool
	}{
		{"a new one", false, both, nil, 2*time.Millisecond + 1, one, true},
		{"as long as somebody waits", false, both, nil, seconds(20) - time.Millisecond, one, true},
		{"nobody waits any more", false, both, nil, seconds(20), one, false},
		{"the queue has not rested", false, both, nil, 2 * time.Millisecond, one, false},
		{"not by this client", true, both, nil, seconds(1), one, false},
		{"not to this consumer", false, both[:1], nil, seconds(1), one, false},
		{"no consumer waits", false, nil, push("0"), seconds(1), one, false},
		{"the one before waits in ready", false, both, push("0"), seconds(1), one, false},
		{"it may be known", false, both, nil, seconds(1), with(func(e *script.Entry) { e.New = false }), false},
		{"a lock", false, both, nil, seconds(1), with(func(e *script.Entry) { e.Lock = "A" }), false},
		{"a max wait", false, both, nil, seconds(1), with(func(e *script.Entry) { e.MaxWait = seconds(60) }), false},
		{"several", false, both, nil, seconds(1), append([]script.Entry{{ID: "3", New: true}}, one...), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				q := offering(t, rdb, !c.off, c.options...)
				if c.before != nil {
					if err := rdb.RPush(t.Context(), q.Keys().Wake(), "1").Err(); err != nil {
						t.Fatal(err)
					}
					if _, err := c.before(t.Context(), q); err != nil {
						t.Fatal(err)
					}
				}
				wait(c.rest)
				sent := redistest.Count(rdb)
				if codes, err := q.Push(t.Context(), c.entries); err != nil || codes[0] != script.Done {
					t.Fatalf("Push = %v, %v", codes, err)
				}
				want := []string{"evalsha"}
				if c.want {
					want = []string{"lpush", "evalsha"}
				}
				if names := sent.Names(); !slices.Equal(names, want) {
					t.Errorf("the push sent %q, want %q", names, want)
				}
			})
		})
	}
}

// An offer that cannot be sent is a push that cannot.
func TestOfferIsNotSent(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		q := offering(t, rdb, true, listen, offers)
		wait(3 * time.Millisecond)
		sent := redistest.Count(rdb)
		rdb.AddHook(around(func(context.Context, redis.Cmder, redis.ProcessHook) error { return broken }))
		if codes, err := q.Push(t.Context(), []script.Entry{{ID: "2", Body: "b2", New: true}}); !errors.Is(err, broken) || attempts.Repeated(err) {
			t.Errorf("Push = %v, %v, want the error, as of a command that was not sent", codes, err)
		}
		if names := sent.Names(); !slices.Equal(names, []string{"lpush"}) {
			t.Errorf("the push sent %q", names)
		}
	})
}

// An offer that the server refuses is a push like any other. One that may have come is
// confirmed.
func TestOfferFails(t *testing.T) {
	for name, c := range map[string]struct {
		fail around
		want string
	}{
		"refused": {func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			return next(ctx, redis.NewIntCmd(ctx, "lpush", "text", cmd.Args()[2]))
		}, "2 l@10 tok=h@0 n=1/0/0; over 2 h@0"},
		"written, and lost": {func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			return errors.Join(io.EOF, next(ctx, redis.NewIntCmd(ctx, "lpush", "elsewhere", cmd.Args()[2])))
		}, "2 l@10 tok=o@0 n=1/0/0"},
		"written, and not answered": {func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			return errors.Join(io.EOF, next(ctx, cmd))
		}, "2 r; ready 2; wake"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				start := serverTime(t, rdb)
				q := offering(t, rdb, true, listen, offers)
				if err := rdb.Set(t.Context(), "text", "x", 0).Err(); err != nil {
					t.Fatal(err)
				}
				wait(3 * time.Millisecond)
				sent := redistest.Count(rdb)
				rdb.AddHook(around(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					if cmd.Name() == "lpush" {
						err := c.fail(ctx, cmd, next)
						if err == nil {
							t.Error("the offer did not fail")
						}
						return err
					}
					return next(ctx, cmd)
				}))
				pushNew(t, q, "2")
				if names := sent.Names(); !slices.Equal(names, []string{"lpush", "evalsha"}) {
					t.Errorf("the push sent %q", names)
				}
				found(t, q, start, c.want)
			})
		})
	}
}

// What was offered is confirmed also if its caller does not wait for that.
func TestOfferIsConfirmedWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		start := serverTime(t, rdb)
		q := offering(t, rdb, true, listen, offers)
		wait(3 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		rdb.AddHook(around(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			if cmd.Name() == "lpush" {
				cancel()
				wait(time.Millisecond) // its caller goes
			}
			return err
		}))
		_, err := q.Push(ctx, []script.Entry{{ID: "2", Body: "b2", New: true}})
		if !errors.Is(err, script.ErrUnanswered) || !errors.Is(err, context.Canceled) {
			t.Errorf("Push: %v", err)
		}
		wait(time.Second)
		found(t, q, start, "2 r; ready 2; wake")
	})
}

// A push of which only the offer is known to have come may have been carried out.
func TestConfirmFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		start := serverTime(t, rdb)
		q := offering(t, rdb, true, listen, offers)
		wait(3 * time.Millisecond)
		broken := errors.New("broken")
		rdb.AddHook(around(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if cmd.Name() == "evalsha" {
				cmd.SetErr(broken)
				return broken
			}
			return next(ctx, cmd)
		}))
		_, err := q.Push(t.Context(), []script.Entry{{ID: "2", Body: "b2", New: true}})
		if !errors.Is(err, broken) || !attempts.Repeated(err) {
			t.Errorf("Push: %v, repeated: %v", err, attempts.Repeated(err))
		}
		found(t, q, start, "over 2 o@0")
	})
}

// Who took an offer stores it, and so does who offered it: the second changes nothing.
func TestConfirmByWhoTookIt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q, now := testQueue(rdb), time.UnixMilli(serverTime(t, rdb))
		h := script.Handed{Item: script.Item{ID: "1", Body: "b1", Deliveries: 1, Accepted: now}, Token: "o1", Lease: seconds(20)}
		l := []script.Lease{{ID: h.ID, Token: h.Token}}
		for range 2 {
			if err := q.Confirm(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		if codes, err := q.Extend(t.Context(), seconds(60), l); err != nil || codes[0] != script.Done {
			t.Errorf("Extend = %v, %v", codes, err)
		}
		if codes, _, _, err := q.Ack(t.Context(), window, l); err != nil || codes[0] != script.Done {
			t.Errorf("Ack = %v, %v", codes, err)
		}
		if err := q.Confirm(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if w, bad := read(t, q); len(w.reqs) > 0 || len(bad) > 0 {
			t.Errorf("the queue has %v; %v", w.reqs, bad)
		}
	})
}

// cut is a connection that breaks when an offer was written to it, and counts those.
type cut struct {
	net.Conn

	offers *atomic.Int32
	broken atomic.Bool
}

func (c *cut) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "lpush") {
		c.offers.Add(1)
		c.broken.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *cut) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b) // so the server has run it
	if c.broken.Load() {
		return 0, io.EOF
	}
	return n, err
}

// The client would send a command again whose answer was lost. An offer could be taken twice.
func TestAnOfferIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		opt := srv.Options()
		dial := opt.Dialer
		var offered atomic.Int32
		opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &cut{Conn: conn, offers: &offered}, err
		}
		rdb := redis.NewClient(opt)
		t.Cleanup(func() {
			rdb.Close()
			srv.Close()
		})
		start := serverTime(t, rdb)
		q := offering(t, rdb, true, listen, offers)
		wait(3 * time.Millisecond)
		pushNew(t, q, "2")
		if n := offered.Load(); n != 1 {
			t.Errorf("the offer was sent %d times", n)
		}
		found(t, q, start, "2 r; ready 2; wake")
	})
}

func TestParseHandedRefuses(t *testing.T) {
	if _, ok, err := script.ParseHanded("1"); ok || err != nil {
		t.Errorf("a token is read as %v, %v", ok, err)
	}
	for _, v := range []string{
		"", "x", "1 1", "1 1 1", "20 1 x 1r||1b", "-1 1 4 1r||1b", "20 -1 4 1r||1b", "20 9 4 1r||1b", "20 1 9 1r||1b",
		"20 9223372036854775807 9223372036854775807 1r||1b", "9223372036854775807 1 4 1r||1b", "20 1 4 1z||1b", "20 1 0 1r||1b",
	} {
		if h, ok, err := script.ParseHanded(v); !ok || err == nil {
			t.Errorf("%q is read as %+v, %v, %v", v, h, ok, err)
		}
	}
}

// Yield ends a pop that also waits for a token, and leaves that to the others.
func TestYieldEndsThePop(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := testQueue(rdb)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := q.Yield(ctx, "f", "c"); err != nil {
			t.Fatal(err)
		}
		kv, err := rdb.BLPop(ctx, time.Second, q.Keys().Stop("c"), q.Keys().Wake()).Result()
		if err != nil || kv[0] != q.Keys().Stop("c") {
			t.Fatalf("BLPOP = %v, %v", kv, err)
		}
		if n, err := rdb.LLen(ctx, q.Keys().Wake()).Result(); n != 1 || err != nil {
			t.Errorf("%d tokens for the others, %v", n, err)
		}
		if err := q.Yield(ctx, "f", "c"); err != nil {
			t.Fatal(err)
		}
		if ttl, err := rdb.PTTL(ctx, q.Keys().Stop("c")).Result(); ttl <= 0 || ttl > time.Minute || err != nil {
			t.Errorf("it stays for %v, %v", ttl, err)
		}
	})
}

// Whatever stands in wake is read or refused, and what is read was written so.
func FuzzParseHanded(f *testing.F) {
	f.Add("10000 1 6 1lh1||1b1")
	f.Add("1")
	f.Add("10 3 5 a b")
	f.Fuzz(func(t *testing.T, v string) {
		h, ok, err := script.ParseHanded(v)
		if !ok || err != nil {
			return
		}
		if h.ID+h.Token == "" && h.Accepted.IsZero() || h.Lease < 0 || len(h.ID)+len(h.Body) >= len(v) || !strings.HasSuffix(v, h.Body) {
			t.Errorf("%q is read as %+v", v, h)
		}
	})
}
