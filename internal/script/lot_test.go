package script_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// What has no lock is leased as one: one member, whatever the claim took.
func TestLot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := testQueue(rdb)
		sizes := func(leased, leases int64) {
			t.Helper()
			s, err := q.Sizes(t.Context())
			n := rdb.ZCard(t.Context(), q.Keys().Leased()).Val()
			if err != nil || int64(s.Leased) != leased || n != leases {
				t.Errorf("%d are leased, with %d leases, %v, want %d with %d", s.Leased, n, err, leased, leases)
			}
			if _, bad := read(t, q); len(bad) > 0 {
				t.Error(bad)
			}
		}
		do := func(c call) {
			t.Helper()
			if _, err := c(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		do(push("1", "2", "3", "4", "5", "6 A", "7"))
		do(claim(1, 3))
		sizes(3, 1)
		do(claim(2, 1))
		sizes(4, 2)
		do(exchange(3, 3, "2 f:1")) // brings one with a lock
		sizes(6, 5)
		do(exchange(4, 3, "1 f:1", "3 f:1", "4 f:2"))
		sizes(3, 3)
	})
}

// ackAgain is exchange with an acknowledgement that was sent before.
func ackAgain(n int64, slots int, done ...string) call {
	return func(ctx ctx, q *script.Queue) (string, error) {
		c, err := q.Exchange(ctx, defaultFeed(), n, slots, 0, leases(done), false)
		return showClaim(c), err
	}
}

// forgetful is exchange, and remembers no ids.
func forgetful(n int64, slots int, done ...string) call {
	return func(ctx ctx, q *script.Queue) (string, error) {
		c, err := q.Exchange(ctx, defaultFeed(), n, slots, 0, leases(done), true)
		return showClaim(c), err
	}
}

func TestLotEndsWithItsLast(t *testing.T) {
	play(t,
		act{push("1", "2", "3"), "[1 1 1]", ""},
		act{claim(1, 3), "1:1/0/0 2:1/0/0 3:1/0/0 wait 30", "1 l@30; 2 l@30; 3 l@30"},
		act{exchange(2, 1, "3 f:1"), "wait 30 acked [1]", "1 l@30; 2 l@30; gone 3"},
		act{exchange(3, 1, "1 f:1", "2 f:1"), "acked [1 1]", "no 1; no 2"},
		act{exchange(3, 1, "1 f:1", "2 f:1"), "acked [2 2]", "no 1; no 2"}, // sent again
	)
}

// An id that is used again is another request: to acknowledge the old one again
// leaves it alone.
func TestLotAcknowledgedAgain(t *testing.T) {
	first := []act{
		{push("1", "2"), "[1 1]", ""},
		{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30", "1 l@30; 2 l@30"},
		{forgetful(2, 1, "1 f:1"), "wait 30 acked [1]", "no 1; 2 l@30"},
		{push("1"), "[1]", "1 r; 2 l@30"},
	}
	for name, again := range map[string]act{
		"by the next claim": {ackAgain(3, 1, "1 f:1"), "1:1/0/0 wait 30 acked [0]", "1 l@30 tok=f:3; 2 l@30"},
		"by the same claim": {forgetful(2, 1, "1 f:1"), "wait 30 more acked [0]", "1 r; 2 l@30"},
		"by itself":         {ack("1 f:1"), "[0] more", "1 r; 2 l@30"},
		"and divided":       {nack("2 f:1", 60, script.Attempt, 0, false), "1", "1 r; 2 d@60"},
	} {
		t.Run(name, func(t *testing.T) { play(t, append(first[:len(first):len(first)], again)...) })
	}
}

// Whatever else happens to a request of a lot happens to it alone.
func TestLotIsDivided(t *testing.T) {
	for name, c := range map[string]struct {
		call  call
		reply string
		has   string
		end   string
	}{
		"ack":     {ack("1 f:1"), "[1]", "no 1", "[1 1]"},
		"nack":    {nack("1 f:1", 60, script.Attempt, 0, false), "1", "1 d@60", "[1 1]"},
		"bury":    {bury("1 f:1"), "1 buried 1: bad payload", "1 x@0", "[1 1]"},
		"requeue": {requeue("1 f:1"), "[1]", "1 r", "[1 1] more"},
		"extend":  {extend(90, "1 f:1"), "[1]", "1 l@90", "[1 1]"},
		"cancel":  {cancel("1"), "1", "no 1", "[1 1]"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t,
				act{push("1", "2", "3"), "[1 1 1]", ""},
				act{claim(1, 3), "1:1/0/0 2:1/0/0 3:1/0/0 wait 30", "1 l@30; 2 l@30; 3 l@30"},
				act{c.call, c.reply, c.has + "; 2 l@30; 3 l@30"},
				act{extend(60, "2 f:1"), "[1]", c.has + "; 2 l@60; 3 l@30"},
				act{ack("2 f:1", "3 f:1"), c.end, "no 2; no 3"},
			)
		})
	}
}

// Lots that lapse come back in order.
func TestLotsLapse(t *testing.T) {
	play(t,
		act{push("1", "2", "3", "4"), "[1 1 1 1]", ""},
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30 more", "1 l@30; 2 l@30"},
		act{claim(2, 2), "3:1/0/0 4:1/0/0 wait 30", "3 l@30; 4 l@30"},
		act{expire, "", ""},
		act{claim(1, 0, feeder("g")), "more", "ready 1 2 3 4"},
		act{exchange(3, 1, "1 f:1", "3 f:2"), "1:2/0/0 wait 30 more acked [0 0]", "1 l@30; ready 2 3 4"},
	)
}

// What many have claimed and left comes back a claim's worth at a time.
func TestLotsLapseBounded(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := testQueue(rdb)
		parse(t, serverTime(t, rdb), many(384, "%d r")+list(384)).write(t, q)
		for i := range int64(3) {
			if c, err := q.Claim(t.Context(), defaultFeed(), i+1, script.Bound); err != nil || len(c.Items) != script.Bound {
				t.Fatalf("Claim = %d, %v", len(c.Items), err)
			}
		}
		if _, err := expire(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		g := defaultFeed()
		g.Feeder = "g"
		left := int64(3)
		for n := 1; ; n++ {
			if _, err := q.Claim(t.Context(), g, 1, 0); err != nil {
				t.Fatal(err)
			}
			w, bad := read(t, q)
			lots := rdb.HLen(t.Context(), q.Keys().Lots()).Val()
			if len(bad) > 0 || lots < left-1 {
				t.Errorf("claim %d divided %d lots; %v", n, left-lots, bad)
			}
			if left = lots; count(w)['r'] == 384 {
				break
			}
			if n == 4 {
				t.Fatalf("after claim %d: %v", n, count(w))
			}
		}
	})
}
