package listq_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A request follows the one with whose acknowledgement it came, if both have the same
// lock, and the end of a line is told once it is known.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{})
		for i, lock := range []string{"a", "", "b", "a", "b", "", "a"} {
			push(t, q, &listq.Request{ID: fmt.Sprint(i), Lock: lock})
		}
		var mu sync.Mutex
		var seen []string
		consume(t, q, listq.ConsumeConfig{
			LineEnds: func(lock string) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, lock+" ends")
			},
		}, func(_ context.Context, d *listq.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if d.Follows {
				seen = append(seen, d.ID+" follows")
			} else {
				seen = append(seen, d.ID)
			}
			return nil
		})
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(seen)
		if want := []string{"0", "1", "2", "3 follows", "4 follows", "5", "6 follows", "a ends", "b ends"}; !slices.Equal(seen, want) {
			t.Errorf("seen %q, want %q", seen, want)
		}
	})
}

// A request that failed is not followed: its lock was released before that was known
// to the queue.
func TestNobodyFollowsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{})
		for i := range 3 {
			push(t, q, &listq.Request{ID: fmt.Sprint(i), Lock: "a"})
		}
		var mu sync.Mutex
		var seen []string
		consume(t, q, listq.ConsumeConfig{Backoff: after(time.Hour), Workers: 1}, func(_ context.Context, d *listq.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(d.ID, d.Follows))
			if d.ID == "0" {
				return context.Canceled
			}
			return nil
		})
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"0false", "1false", "2true"}; !slices.Equal(seen, want) {
			t.Errorf("seen %q, want %q", seen, want)
		}
	})
}

// Even while no slot is free, an exchange claims as many as there are turns that it
// ends: whoever gets them would else go to another process.
func TestClaimsForTheTurnsThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{})
		for _, c := range []struct {
			locks []string
			want  int
		}{
			{[]string{"", ""}, 0},
			{[]string{"a", "", "b"}, 2},
			{slices.Repeat([]string{"a"}, 200), 128},
		} {
			if got := q.Wanted(t.Context(), c.locks...); got != c.want {
				t.Errorf("with %d to be acknowledged it claims %d, want %d", len(c.locks), got, c.want)
			}
		}
	})
}

// What goes back to the queue does not follow any more.
func TestLineEndsWithWhatGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := listq.New(redistest.Mini(t), "q", listq.Config{})
		for i, lock := range []string{"a", "", "b"} {
			push(t, q, &listq.Request{ID: fmt.Sprint(i), Lock: lock})
		}
		var ended []string
		if err := q.Return(t.Context(), func(lock string) { ended = append(ended, lock) }); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a", "b"}; !slices.Equal(ended, want) {
			t.Errorf("lines that ended: %q, want %q", ended, want)
		}
	})
}
