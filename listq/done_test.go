package listq

import (
	"context"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// args has the arguments of the last command.
type args struct{ last []any }

func (*args) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*args) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a *args) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		a.last = cmd.Args()
		return next(ctx, cmd)
	}
}

// What was claimed together is acknowledged together, each lease named once, in
// whatever order its requests end.
func TestDoneOfOneLeaseGoesTogether(t *testing.T) {
	rdb := redistest.Mini(t)
	q := New(rdb, "q", Config{})
	for range 8 {
		if _, err := q.Push(t.Context(), &Request{}); err != nil {
			t.Fatal(err)
		}
	}
	var claims [2][]*Delivery
	for i := range claims {
		c, err := q.claimNext(t.Context(), &q.lanes[i], 4, hearing{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		claims[i], _ = q.decodeAll(t.Context(), c)
	}
	var done []*Delivery
	for i := range claims[0] {
		done = append(done, claims[0][i], claims[1][i])
	}
	sent := &args{}
	rdb.AddHook(sent)
	c, err := q.claimNext(t.Context(), &q.lanes[0], 0, hearing{}, done)
	if err != nil || slices.ContainsFunc(c.Acked, func(code script.Code) bool { return code != script.Done }) {
		t.Fatalf("acked: %v, %v", c.Acked, err)
	}
	for i := range claims {
		tok, n := claims[i][0].lease.Token, 0
		for _, a := range sent.last {
			if a == tok {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the token of claim %d was sent %d times, want once", i+1, n)
		}
	}
	if s, err := q.Stats(t.Context()); err != nil || s.Leased != 0 {
		t.Errorf("then %+v, %v", s, err)
	}
}
