package listq

import (
	"slices"
	"sync"
)

// Slots are the places of a worker pool: how many handlers may run at once. One
// pool may serve several queues, of which none is left out while another is
// busy: slots go to those who wait for one in turn. It is safe for concurrent
// use. Make one with [NewSlots]: the zero value has no slots.
type Slots struct {
	size int

	mu    sync.Mutex // guards the fields below, and those of the seats
	free  int
	line  []*seat       // consumers with work and no slot, longest waiting first
	freed chan struct{} // closed when a slot becomes free; nil: nobody waits
}

// NewSlots returns n free slots. It panics if n is less than 1.
func NewSlots(n int) *Slots {
	if n < 1 {
		panic("listq: NewSlots with less than one slot")
	}
	return &Slots{size: n, free: n}
}

// put gives n slots back: one each to those in line, the rest to whoever comes.
func (s *Slots) put(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	for s.free > 0 && len(s.line) > 0 {
		next := s.line[0]
		s.line = s.line[1:]
		s.free--
		next.kept++
		signal(next.turn)
	}
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// seat is one consumer's place at a pool.
type seat struct {
	slots *Slots
	turn  chan<- struct{} // told when a slot is kept for it
	kept  int
}

func (s *Slots) seat(turn chan<- struct{}) *seat { return &seat{slots: s, turn: turn} }

// take takes up to n free slots and returns how many. If there is none and
// inLine is set, the consumer will be told when it has one.
func (t *seat) take(n int, inLine bool) int {
	s := t.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	got := min(n, t.kept+s.free)
	s.free -= got - t.kept // never more is kept than one, and n is not less
	t.kept = 0
	if got == 0 && inLine && !slices.Contains(s.line, t) {
		s.line = append(s.line, t)
	}
	return got
}

// takeFirst takes a slot if all are free, and reports whether they were.
func (t *seat) takeFirst() bool {
	s := t.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free < s.size {
		return false
	}
	s.free--
	return true
}

// wanted tells whether another consumer waits for a slot.
func (t *seat) wanted() bool {
	s := t.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.line) > 1 || len(s.line) == 1 && s.line[0] != t
}

// wait returns nil if a slot is free for this consumer, or else a channel that is
// closed when one may be.
func (t *seat) wait() <-chan struct{} {
	s := t.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 || t.kept > 0 {
		return nil
	}
	if s.freed == nil {
		s.freed = make(chan struct{})
	}
	return s.freed
}

// leave gives up the place in line and what is kept.
func (t *seat) leave() {
	s := t.slots
	s.mu.Lock()
	s.line = slices.DeleteFunc(s.line, func(o *seat) bool { return o == t })
	kept := t.kept
	t.kept = 0
	s.mu.Unlock()
	s.put(kept)
}
