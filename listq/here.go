package listq

import (
	"context"
	"slices"
	"sync"

	"github.com/sidestep-go/sidestep/internal/script"
)

// takers are the consumers of a [Queue], in this process, that wait for a request. It is
// safe for concurrent use.
type takers struct {
	mu  sync.Mutex
	all []*taker
}

// taker is a consumer, until ctx ends.
type taker struct {
	*consumer
	ctx context.Context
}

func (t *takers) add(c *taker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, c)
}

// remove takes c off; from then on nothing is started in it.
func (t *takers) remove(c *taker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = slices.DeleteFunc(t.all, func(o *taker) bool { return o == c })
}

// takeHere starts a request that would be offered to whoever waits in a consumer of this
// Queue that waits and runs nothing, and reports whether there is one: as if that had been
// the first to wait. One that runs something leaves it to other processes, if any waits.
func (q *Queue) takeHere(h script.Handed) bool {
	q.takers.mu.Lock()
	defer q.takers.mu.Unlock()
	i := slices.IndexFunc(q.takers.all, func(c *taker) bool { return c.ctx.Err() == nil && c.place.takeFirst() })
	if i < 0 {
		return false
	}
	c := q.takers.all[i]
	d, err := q.handed(h)
	if err != nil { // whoever pops it buries it
		c.cfg.Slots.put(1)
		return false
	}
	c.start(d)
	return true
}
