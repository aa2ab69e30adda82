package lock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// Close ends the goroutines that wait for work, and those that are at work end with
// it: none rests until it is swept away.
func TestCloseEndsWorkersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{})
		busy := make(chan struct{})
		l.mu.Lock()
		l.spawn(func() {})
		l.spawn(func() { <-busy })
		l.mu.Unlock()
		synctest.Wait()
		if len(l.workers.idle) != 1 || l.workers.n != 2 {
			t.Fatalf("%d goroutines, %d idle, want one of two", l.workers.n, len(l.workers.idle))
		}
		began := time.Now()
		go func() {
			synctest.Wait() // until Close waits for the second
			close(busy)
		}()
		l.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("Close took %v longer than the work", took)
		}
		if l.workers.n != 0 {
			t.Errorf("%d goroutines after Close", l.workers.n)
		}
	})
}

// A sweep ends those goroutines that nobody has needed since the last one, and not as
// many as were idle then.
func TestSweepSparesThoseInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(redistest.Mini(t), Config{})
		spawn := func(n int, f func()) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for range n {
				l.spawn(f)
			}
		}
		spawn(5, func() {})
		time.Sleep(idleLinger * 3 / 2) // five idle at the first sweep
		busy := make(chan struct{})
		spawn(3, func() { <-busy })
		time.Sleep(idleLinger) // the second one
		close(busy)
		synctest.Wait()
		if l.workers.n != 3 || len(l.workers.idle) != 3 {
			t.Errorf("%d goroutines, %d idle, want the three that were in use", l.workers.n, len(l.workers.idle))
		}
		l.Close()
	})
}
