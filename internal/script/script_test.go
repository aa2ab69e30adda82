package script_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestLifeOfARequest(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		q := script.New(rdb, keys.Of(keys.Base("t:", "q")))
		feed := &script.Feed{Feeder: "f", Lease: 30 * time.Second, ProbeAgain: time.Second}
		for _, id := range []string{"1", "2"} {
			got, err := q.Push(ctx, []script.Entry{{ID: id, Body: "body", Lock: "A"}})
			if err != nil || got[0] != script.Done {
				t.Fatalf("Push(%s) = %v, %v", id, got, err)
			}
		}
		c, err := q.Claim(ctx, feed, 1, 2)
		if err != nil || len(c.Items) != 1 || c.Items[0].ID != "1" {
			t.Fatalf("Claim(2) = %+v, %v, want request 1 alone: 2 is gated", c, err)
		}
		again, err := q.Claim(ctx, feed, 1, 2)
		if err != nil || len(again.Items) != 1 || again.Items[0] != c.Items[0] {
			t.Fatalf("Claim sent again = %+v, %v", again, err)
		}
		l := script.Lease{ID: "1", Token: feed.Token(1)}
		codes, more, _, err := q.Ack(ctx, time.Minute, []script.Lease{l})
		if err != nil || codes[0] != script.Done || !more {
			t.Fatalf("Ack = %v, more=%v, %v", codes, more, err)
		}
		if codes, _, _, err = q.Ack(ctx, time.Minute, []script.Lease{l}); err != nil || codes[0] != script.Already {
			t.Fatalf("Ack again = %v, %v", codes, err)
		}
		c, err = q.Claim(ctx, feed, 2, 2)
		if err != nil || len(c.Items) != 1 || c.Items[0].ID != "2" {
			t.Fatalf("Claim(2) = %+v, %v, want request 2", c, err)
		}
	})
}
