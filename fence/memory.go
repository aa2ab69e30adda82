package fence

import (
	"sync"
	"time"
)

// Memory guards resources of this process. It keeps a register for each
// resource's name, about 100 bytes and the name, until Forget. It is safe for
// concurrent use; the zero value is ready. It must not be copied after first
// use.
type Memory struct {
	// MaxAhead is how far ahead of the local clock a fence may be. 0 means
	// DefaultMaxAhead, a negative value any distance. It must not be changed
	// after first use.
	MaxAhead time.Duration

	mu    sync.Mutex // guards the field below; never held while waiting for a mark
	marks map[string]*mark
}

// mark is the register of one resource.
type mark struct {
	mu   sync.Mutex // held during Do; guards the fields below
	seen int64
	gone bool // Forget has taken it out of the map
}

// Enter registers a fence with the resource: from its return on, smaller ones
// are refused. Call it before the first read of each section. It waits for a
// function that Do runs on the same resource.
//
// The error is a [*StaleError] if a larger fence has been seen, an [*AheadError]
// if this one is too far ahead of the local clock, and matches [ErrInvalid] if
// it is not positive or the name is empty. A fence that is refused is not
// registered.
func (m *Memory) Enter(resource string, fence int64) error {
	k, err := m.enter(resource, fence)
	if err != nil {
		return err
	}
	k.mu.Unlock()
	return nil
}

// Do registers the fence as Enter does, and runs fn before any other fence can
// enter the resource: what fn reads and writes is of one piece. Its error is that
// of Enter, without fn having run, or fn's. fn must not call m with the same
// resource, which would wait for ever.
func (m *Memory) Do(resource string, fence int64, fn func() error) error {
	if fn == nil {
		return invalid("fn is nil")
	}
	k, err := m.enter(resource, fence)
	if err != nil {
		return err
	}
	defer k.mu.Unlock()
	return fn()
}

// Check returns the error that Enter would, and registers nothing. A later holder
// may enter right after it: what must not be overtaken by one belongs in Do.
func (m *Memory) Check(resource string, fence int64) error {
	if err := m.valid(resource, fence); err != nil {
		return err
	}
	m.mu.Lock()
	k := m.marks[resource]
	m.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.check(resource, fence)
}

// Forget drops the register of a resource; one that has none is left alone.
// From then on any fence may enter, so no holder that is older than the last may
// still be running. It waits for a function that Do runs on the resource.
func (m *Memory) Forget(resource string) {
	m.mu.Lock()
	k := m.marks[resource]
	m.mu.Unlock()
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return
	}
	k.gone = true
	m.mu.Lock()
	delete(m.marks, resource)
	m.mu.Unlock()
}

func (m *Memory) valid(resource string, fence int64) error {
	if resource == "" {
		return invalid("resource is empty")
	}
	return valid(resource, fence, m.MaxAhead)
}

// enter returns the resource's mark, raised and locked.
func (m *Memory) enter(resource string, fence int64) (*mark, error) {
	if err := m.valid(resource, fence); err != nil {
		return nil, err
	}
	k := m.lock(resource)
	if err := k.check(resource, fence); err != nil {
		k.mu.Unlock()
		return nil, err
	}
	k.seen = fence
	return k, nil
}

// lock returns the resource's mark, locked.
func (m *Memory) lock(resource string) *mark {
	for {
		m.mu.Lock()
		k := m.marks[resource]
		if k == nil {
			if m.marks == nil {
				m.marks = make(map[string]*mark)
			}
			k = new(mark)
			m.marks[resource] = k
		}
		m.mu.Unlock()
		k.mu.Lock()
		if !k.gone {
			return k
		}
		k.mu.Unlock() // forgotten while we waited: there is another by now, or none
	}
}

func (k *mark) check(resource string, fence int64) error {
	if fence < k.seen && !k.gone {
		return &StaleError{Resource: resource, Fence: fence, Seen: k.seen}
	}
	return nil
}
