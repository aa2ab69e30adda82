package lock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// Goroutines are used again, end when nothing needs them, and never outlive Close.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{})
		run := func(n int) {
			release := make(chan struct{})
			l.mu.Lock()
			for range n {
				l.spawn(func() { <-release })
			}
			l.mu.Unlock()
			close(release)
			synctest.Wait()
		}
		want := func(when string, n int) {
			t.Helper()
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.workers.n != n || len(l.workers.idle) != n {
				t.Errorf("%s: %d goroutines, %d idle, want %d", when, l.workers.n, len(l.workers.idle), n)
			}
		}
		run(100)
		want("after 100 at once", maxIdle)
		for range 10 {
			run(3)
			want("after 3 at once", maxIdle)
		}
		for range 20 {
			time.Sleep(idleLinger / 4)
			run(3)
		}
		want("after some time with 3 in use", 3)
		time.Sleep(3 * idleLinger)
		synctest.Wait()
		want("after some time with none in use", 0)
		run(5)
		l.Close()
		want("after Close", 0)
	})
}
