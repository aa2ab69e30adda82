package listq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/retry"
)

// The answer to a claim is lost, and it is sent again when Redis has forgotten that it was
// made, while as much as one claim divides stands overdue before what it had leased.
func TestClaimSentAgainWhenItIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb := srv.Client()
		defer rdb.Close()
		type lost struct{}
		rdb.AddHook(loseReply{lost{}})
		q := listq.New(rdb, "q", listq.Config{})
		ctx := t.Context()
		const n = 3 * 128
		many(t, q, n)
		for range 2 { // these are never settled
			if c, err := q.Claim(ctx, 128); err != nil || len(c.Deliveries) != 128 {
				t.Fatalf("Claim = %d, %v", len(c.Deliveries), err)
			}
		}
		if _, err := q.Claim(context.WithValue(ctx, lost{}, true), 128); err == nil {
			t.Fatal("the answer was not lost")
		}
		time.Sleep(6 * time.Minute)
		if _, err := q.Claim(ctx, 128); err != nil {
			t.Fatal(err)
		}
		other := listq.New(rdb, "q", listq.Config{})
		ran := make(map[string]bool)
		for range 20 {
			c, err := other.Claim(ctx, 128)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range c.Deliveries {
				ran[d.ID] = true
				if err := d.Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
		}
		if len(ran) != n {
			t.Errorf("%d of %d requests ran", len(ran), n)
		}
	})
}

// An id may look like what a script writes for a moment.
func TestNoIDIsInTheWayOfAScript(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		dashes := strings.Repeat("-", 65)
		push(t, q, &listq.Request{ID: dashes})
		for i := range 17 { // each with a lease of its own, and more than a few
			push(t, q, &listq.Request{Lock: fmt.Sprint(i)})
		}
		if c, err := q.Claim(t.Context(), 128); err != nil || len(c.Deliveries) != 18 {
			t.Fatalf("Claim = %d, %v", len(c.Deliveries), err)
		}
		if err := rdb.ZScore(t.Context(), q.Key()+"leased", dashes).Err(); err != nil {
			t.Errorf("lease of %s: %v", dashes, err)
		}
	})
}

// A name that can be no lock's is refused: in the ZSET of lines it would name the middle of
// another's.
func TestHintsAreOfLocks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		q := listq.New(rdb, "q", listq.Config{})
		ctx := t.Context()
		if _, err := delayq.New(q).Park(ctx, &listq.Request{ID: "x", Lock: "a"}, time.Second); err != nil {
			t.Fatal(err)
		}
		if err := q.Promote(ctx, "a\x0011"); !errors.Is(err, listq.ErrInvalid) {
			t.Errorf("Promote = %v, want ErrInvalid", err)
		}
		if err := delayq.HintKey(ctx, rdb, q.Key(), "a\x0011"); !errors.Is(err, listq.ErrInvalid) {
			t.Errorf("HintKey = %v, want ErrInvalid", err)
		}
		if err := q.Promote(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if d := claim(t, q); d.ID != "x" {
			t.Errorf("claimed %q", d.ID)
		}
	})
}

// Who only moves what is due leases nothing, whatever is lost.
func TestMoveLeasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb, mover := srv.Client(), srv.Client()
		defer rdb.Close()
		defer mover.Close()
		mover.AddHook(loseScripts{})
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{ID: "x"})
		ctx, stop := context.WithCancel(t.Context())
		moved := make(chan error, 1)
		go func() { moved <- listq.New(mover, "q", listq.Config{}).Move(ctx, nil) }()
		time.Sleep(5 * time.Second)
		during, err := q.Get(t.Context(), "x")
		stop()
		<-moved
		after, err2 := q.Get(t.Context(), "x")
		if err != nil || err2 != nil || during.Place != "ready" || after.Place != "ready" {
			t.Errorf("%s, then %s (%v, %v)", during.Place, after.Place, err, err2)
		}
	})
}

// A Backoff that panics costs no more than itself.
func TestBackoffThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb := srv.Client()
		defer rdb.Close()
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{ID: "x"})
		var ran atomic.Int64
		stop := consume(t, q, listq.ConsumeConfig{
			MaxAttempts: 3,
			Backoff:     retry.BackoffFunc(func(int, time.Duration) (time.Duration, bool) { panic("no idea") }),
		}, func(context.Context, *listq.Delivery) error { ran.Add(1); return errors.New("no") })
		time.Sleep(time.Minute)
		stop()
		if r, err := q.Get(t.Context(), "x"); err != nil || r.Place != "dead" || ran.Load() != 3 {
			t.Errorf("%s after %d runs (%v), want dead after 3", r.Place, ran.Load(), err)
		}
	})
}

// A handler that ignores that its own settlement failed has not finished its request.
func TestSettlementThatFailedIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t)
		rdb := srv.Client()
		defer rdb.Close()
		type lost struct{}
		rdb.AddHook(refuse{lost{}})
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{ID: "x"})
		stop := consume(t, q, listq.ConsumeConfig{}, func(ctx context.Context, d *listq.Delivery) error {
			_ = d.Bury(context.WithValue(ctx, lost{}, true), "hopeless")
			return nil
		})
		time.Sleep(time.Second)
		stop()
		if r, err := q.Get(t.Context(), "x"); err != nil || r.Place != "dead" {
			t.Errorf("%s (%v), want dead", r.Place, err)
		}
	})
}

// loseScripts loses the answers to all scripts.
type loseScripts struct{ refuse }

func (loseScripts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if strings.HasPrefix(cmd.Name(), "eval") && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			err = errLost
			cmd.SetErr(err)
		}
		return err
	}
}

// refuse answers commands whose context has the key with an error that stays.
type refuse struct{ key any }

func (refuse) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h refuse) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(h.key) == nil {
			return next(ctx, cmd)
		}
		cmd.SetErr(errRefused)
		return errRefused
	}
}

func (refuse) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

var errRefused = refusal("NOPERM not for you")

type refusal string

func (e refusal) Error() string { return string(e) }

// RedisError makes it an error reply.
func (refusal) RedisError() {}
