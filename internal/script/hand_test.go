package script_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
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
