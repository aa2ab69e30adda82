package listq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A call that waits for replicas writes something each time, also when it finds its
// request stored: since Redis 7.2, WAIT is about the last write of its connection,
// and without one it would confirm what no replica has.
func TestWaitAlwaysWrites(t *testing.T) {
	t.Parallel()
	redistest.Real(t)
	ctx := t.Context()
	rdb := redistest.NewServer(t).Client(t) // no replica at all
	changes := func() string {
		t.Helper()
		info, err := rdb.Info(ctx, "persistence").Result()
		_, after, ok := strings.Cut(info, "rdb_changes_since_last_save:")
		if err != nil || !ok {
			t.Fatalf("INFO persistence = %q, %v", info, err)
		}
		n, _, _ := strings.Cut(after, "\r")
		return n
	}
	q := listq.New(rdb, "q", listq.Config{Wait: listq.Wait{Replicas: 1, Timeout: 10 * time.Millisecond}})
	for i := range 3 {
		before := changes()
		if _, err := q.Push(ctx, &listq.Request{ID: "a", Lock: "k"}); !errors.Is(err, listq.ErrNotReplicated) {
			t.Fatalf("Push %d = %v, want ErrNotReplicated", i+1, err)
		}
		if changes() == before {
			t.Errorf("push %d wrote nothing", i+1)
		}
	}
}
