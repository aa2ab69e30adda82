// Package batch lets goroutines that have something for one server at the same
// time send it in one exchange.
//
// Nothing waits as long as few exchanges are under way: each is sent by its own
// caller, as it comes. Who comes while they are stands in line, and when one of
// them ends, or enough have come, the first in line sends all that stand there. So
// what is sent at once grows with the load by itself, and a caller that is alone pays
// nothing.
package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// least is how many exchanges are under way before others wait, where the
	// server is near: more of them make smaller batches, which cost the server more.
	least = 2
	// step is what a place in line may cost a caller, about. An exchange that takes
	// longer for the way it has to go leaves room for one more per step: waiting for
	// one of them to end would cost more than sharing it saves.
	step = 50 * time.Microsecond
	// share is what each further item adds to the time of an exchange, about.
	share = 5 * time.Microsecond
	// patience is how long the first in line waits at the most. Then it goes, as if
	// there were room: those before it may never be answered.
	patience = 5 * time.Millisecond
	// window is for how long the quickest exchange counts.
	window = time.Second
)

// ErrLost says that whoever was to send an item with its own had its goroutine
// ended by a panic: the item may have been sent or not.
var ErrLost = errors.New("the exchange was ended by a panic")

// Room is where those meet who have something for one server. It is safe for
// concurrent use. Make one with [New].
type Room[T any] struct {
	send   func(ctx context.Context, items []T)
	weight func(item T) int
	limit  int
	leaves bool
	spare  sync.Pool // of *waiter[T]

	mu      sync.Mutex // guards the fields below
	room    int        // how many exchanges may be under way
	under   int        // how many are
	epoch   int        // begins when somebody ran out of patience with those
	fresh   int        // how many of them are of this epoch
	items   int        // and of how many items
	line    []*waiter[T]
	timer   *time.Timer   // runs while somebody stands in line
	quick   time.Duration // the quickest exchange in this window, but for its further items; 0: none yet
	before  time.Duration // and in the one before
	windows time.Time     // when this window ends
}

// waiter is one call of Join.
type waiter[T any] struct {
	item  T
	turn  chan []*waiter[T] // those to send, the receiver first; empty: its item was sent
	in    Exchange          // of the one that leads
	taken bool              // no longer in line
	leads bool
	lost  bool
}

// New returns a room whose items are sent by send, which is called with two or
// more of them, in the order in which they came, and returns when all have their
// answers; those keep their own errors. weight is that of an item; all that are sent at
// once weigh no more than limit. leaves says that a caller whose context ends
// leaves an item behind that is being sent, rather than wait for its answer.
func New[T any](send func(ctx context.Context, items []T), weight func(item T) int, limit int, leaves bool) *Room[T] {
	return &Room[T]{send: send, weight: weight, limit: limit, leaves: leaves, room: least}
}

// Exchange is one that is under way.
type Exchange struct {
	began time.Time
	epoch int
	items int
}

// Leave ends an exchange.
func (r *Room[T]) Leave(x Exchange) {
	now := time.Now()
	r.mu.Lock()
	r.took(x, now)
	r.next(x)
	r.mu.Unlock()
}

// Enter is Join for who has no item yet: it reports whether there is room. If so, the caller
// makes the exchange, and calls Leave with x, whatever happens; if not, it calls Join.
func (r *Room[T]) Enter() (x Exchange, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.admit()
}

// Join waits until the item has been sent with others, and reports true; or until
// there is room, which may be at once, and reports false: then the caller sends it by itself,
// and calls Leave with x, whatever happens. The error is that of ctx, if it ended
// first, or ErrLost. In the batch no caller's context ends anything; the values are those of
// the first one's.
func (r *Room[T]) Join(ctx context.Context, item T) (x Exchange, sent bool, err error) {
	r.mu.Lock()
	if x, ok := r.admit(); ok {
		r.mu.Unlock()
		return x, false, nil
	}
	w := r.enqueue(item)
	if r.fits(len(r.line)) {
		r.begin()
	}
	r.mu.Unlock()

	var all []*waiter[T]
	if ctx.Done() == nil {
		all = <-w.turn
	} else {
		select {
		case all = <-w.turn:
		case <-ctx.Done():
			if r.withdraw(w) {
				return x, false, ctx.Err()
			}
			all = <-w.turn // at once, or when there is an answer
		}
	}
	defer r.forget(w)
	switch {
	case len(all) > 1:
		r.lead(ctx, all)
	case len(all) == 1:
		x = w.in
		x.began = time.Now()
		return x, false, nil
	}
	if w.lost {
		err = ErrLost
	}
	return x, true, err
}

// lead sends what all have, and tells them, also if a hook of the client panics.
func (r *Room[T]) lead(ctx context.Context, all []*waiter[T]) {
	x := all[0].in
	x.began = time.Now()
	lost := true
	defer func() {
		r.Leave(x) // first of all: the server has nothing to do
		for _, w := range all[1:] {
			w.lost = lost
			w.turn <- nil
		}
	}()
	items := make([]T, len(all))
	for i, w := range all {
		items[i] = w.item
	}
	r.send(context.WithoutCancel(ctx), items)
	lost = false
}

// enqueue puts an item in line. Call with mu held, as all of the following.
func (r *Room[T]) enqueue(item T) *waiter[T] {
	w, _ := r.spare.Get().(*waiter[T])
	if w == nil {
		w = &waiter[T]{turn: make(chan []*waiter[T], 1)}
	}
	w.item = item
	r.line = append(r.line, w)
	if len(r.line) == 1 {
		r.arm()
	}
	return w
}

// withdraw takes a waiter whose context has ended out of the line. It reports
// false if its turn has come and it has to stay for that.
func (r *Room[T]) withdraw(w *waiter[T]) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.taken {
		return r.leaves && !w.leads
	}
	i := slices.Index(r.line, w)
	r.line = slices.Delete(r.line, i, i+1)
	if len(r.line) == 0 {
		r.timer.Stop()
	}
	return true
}

// fits reports whether n items may be sent: they are no fewer than what an exchange
// that is under way has in the mean. Small exchanges follow each other quickly, and would
// stay small beside a large one.
func (r *Room[T]) fits(n int) bool {
	return r.under == 0 || r.under < r.room && n*r.fresh >= r.items
}

// admit begins an exchange of one item, if that may be sent.
func (r *Room[T]) admit() (x Exchange, ok bool) {
	if !r.fits(1) {
		return x, false
	}
	return r.enter(1), true
}

// enter begins an exchange of n items.
func (r *Room[T]) enter(n int) Exchange {
	r.under++
	r.fresh++
	r.items += n
	return Exchange{began: time.Now(), epoch: r.epoch, items: n}
}

// next ends an exchange and lets others begin.
func (r *Room[T]) next(x Exchange) {
	r.under--
	if x.epoch == r.epoch {
		r.fresh--
		r.items -= x.items
	}
	for len(r.line) > 0 && r.fits(len(r.line)) {
		r.begin()
	}
}

// begin makes the first in line send what stands there.
func (r *Room[T]) begin() {
	n, weight := 0, 0
	for _, w := range r.line {
		if weight += r.weight(w.item); n > 0 && weight > r.limit {
			break
		}
		w.taken = true
		n++
	}
	all := slices.Clone(r.line[:n])
	r.line = slices.Delete(r.line, 0, n)
	if len(r.line) > 0 {
		r.arm()
	} else {
		r.timer.Stop()
	}
	all[0].leads = true
	all[0].in = r.enter(n)
	all[0].turn <- all
}

// arm gives the first in line its patience.
func (r *Room[T]) arm() {
	if r.timer == nil {
		r.timer = time.AfterFunc(patience, r.ring)
		return
	}
	r.timer.Reset(patience)
}

func (r *Room[T]) ring() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.line) > 0 {
		r.epoch++ // what is under way may hang: others do not wait to become as many
		r.fresh, r.items = 0, 0
		r.begin()
	}
}

// forget keeps a waiter for the next Join.
func (r *Room[T]) forget(w *waiter[T]) {
	*w = waiter[T]{turn: w.turn}
	r.spare.Put(w)
}

// took takes in how long an exchange took.
func (r *Room[T]) took(x Exchange, now time.Time) {
	d := max(now.Sub(x.began)-time.Duration(x.items-1)*share, 1)
	switch {
	case now.After(r.windows):
		r.before, r.quick, r.windows = r.quick, d, now.Add(window)
	case r.quick == 0 || d < r.quick:
		r.quick = d
	default:
		return
	}
	quick := r.quick
	if r.before > 0 {
		quick = min(quick, r.before)
	}
	r.room = least + int(quick/step)
}
