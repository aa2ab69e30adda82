package lock

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// A Locker that closes while a section waits for what was passed on to it releases that
// before Close returns, rather than after.
func TestCloseReleasesWhatIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		l := New(rdb, Config{})
		if err := l.TryDo(t.Context(), "x", func(context.Context, *Lock) error { return nil }, Relay("q")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.mu.Lock()
		var b *baton
		for _, b = range l.batons {
			b.awaited = true // as takeOver has set it; it wakes, and comes to await's l.mu.Lock after Close
		}
		l.mu.Unlock()
		l.Close()
		l.mu.Lock()
		b.awaited = false // what takeOver does then
		b.unwant()
		n := l.workers.n
		l.unlock()
		if n > 0 {
			t.Errorf("%d goroutines after Close has returned, to release the lock by a client that may be closed", n)
		}
		synctest.Wait()
	})
}
