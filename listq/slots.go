package listq

import "sync"

// Slots are the places of a worker pool: how many handlers may run at once. One
// pool may serve several queues. It is safe for concurrent use. Make one with
// [NewSlots].
type Slots struct {
	mu     sync.Mutex // guards the fields below
	free   int
	freed  chan struct{} // closed and replaced when a slot becomes free
	waking bool          // somebody waits on freed
}

// NewSlots returns n free slots. It panics if n is less than 1.
func NewSlots(n int) *Slots {
	if n < 1 {
		panic("listq: NewSlots with less than one slot")
	}
	return &Slots{free: n, freed: make(chan struct{})}
}

// take takes up to n free slots and returns how many.
func (s *Slots) take(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, s.free)
	s.free -= n
	return n
}

// put gives n slots back.
func (s *Slots) put(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	if s.waking {
		close(s.freed)
		s.freed, s.waking = make(chan struct{}), false
	}
}

// wait returns nil if a slot is free, or else a channel that is closed when one
// may be.
func (s *Slots) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 {
		return nil
	}
	s.waking = true
	return s.freed
}
