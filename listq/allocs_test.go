package listq_test

import (
	"context"
	"testing"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A push that meets no other pays nothing for those that do: go-redis's share and
// the request's own form are all it allocates.
func TestAllocationsOfAPush(t *testing.T) {
	q := listq.New(redistest.Real(t), "q", listq.Config{})
	ctx, payload := context.Background(), make([]byte, 256)
	n := testing.AllocsPerRun(500, func() {
		if _, err := q.Push(ctx, &listq.Request{Payload: payload}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", n)
	if n > 18 {
		t.Errorf("a push allocates %v times, want at most 18", n)
	}
}
