package listq

import (
	"sync"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
)

// Handlers that are quicker than a round trip would wait for most of their time.
// So a busy consumer claims ahead of its free slots: as much as its handlers are
// going to finish during two round trips, at most six claims' worth. What it
// has claimed ahead is leased like all else, and is started by the next handler
// that ends.
//
// It must not keep work from processes that have nothing to do: nothing is
// claimed ahead of handlers that take longer than two round trips, or twice
// patience, nor once ready is known to be empty; and what has waited for longer
// than patience goes back to the head of the queue, as if it had not been claimed.

// patience is how long a claimed request may wait for a slot.
const patience = 5 * time.Millisecond

// ahead is what a consumer has claimed ahead of its slots, first come first. It is
// safe for concurrent use.
type ahead struct {
	mu      sync.Mutex // guards the fields below
	waiting []waiting
	stopped bool // nothing more is started
}

type waiting struct {
	*Delivery
	since time.Time
}

func (a *ahead) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiting)
}

// add puts deliveries at the end; it returns those for which it is too late.
func (a *ahead) add(all []*Delivery) (back []*Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return all
	}
	now := time.Now()
	for _, d := range all {
		a.waiting = append(a.waiting, waiting{d, now})
	}
	return nil
}

// next takes the first whose lease runs; nil: there is none, or nothing more starts.
func (a *ahead) next() *Delivery {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || len(a.waiting) == 0 || a.waiting[0].left() <= 0 { // impatience takes that one
		return nil
	}
	d := a.waiting[0].Delivery
	a.waiting = a.waiting[1:]
	return d
}

// impatient takes all if the first has waited for too long. If not, it returns
// how long until it will have; 0: nothing waits.
func (a *ahead) impatient() (back []*Delivery, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return nil, 0
	}
	if waited := time.Since(a.waiting[0].since); waited < patience {
		return nil, patience - waited
	}
	return a.clear(), 0
}

// stop has nothing more started.
func (a *ahead) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
}

// startable tells whether a delivery that was taken may still be started.
func (a *ahead) startable(d *Delivery) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.stopped && d.left() > 0
}

// close takes all, for good.
func (a *ahead) close() []*Delivery {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	return a.clear()
}

func (a *ahead) clear() []*Delivery {
	all := make([]*Delivery, len(a.waiting))
	for i, w := range a.waiting {
		all[i] = w.Delivery
	}
	a.waiting = nil
	return all
}

// pace says how much a feeder claims ahead.
type pace struct {
	handlers int           // that ended since the last claim
	ran      time.Duration // all of them together
	mean     time.Duration // of those before the last claim
	took     time.Duration // the last claim's round trip
	paused   bool          // until a claim for free slots
}

// ended records a handler.
func (p *pace) ended(ran time.Duration) {
	p.handlers++
	p.ran += ran
}

// want returns how much to claim ahead of so many slots while so much waits.
func (p *pace) want(slots, waiting int) int {
	mean := p.mean
	if p.handlers > 0 {
		mean = p.ran / time.Duration(p.handlers)
	}
	const most = 6 * script.Bound // as much again as two claims are bringing, and some to work on meanwhile
	target := most
	switch trips := 2 * min(p.took, patience); {
	case p.paused || mean > trips:
		return 0
	case mean > 0:
		target = min(int(trips/mean)*slots, most)
	}
	return max(target-waiting, 0)
}

// claimed records a claim's round trip.
func (p *pace) claimed(took time.Duration) {
	p.took = took
	if p.handlers > 0 {
		p.mean = p.ran / time.Duration(p.handlers)
		p.handlers, p.ran = 0, 0
	}
}
