package listq

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sidestep-go/sidestep/internal/script"
)

// feeder is what feed keeps from one exchange with the queue to the next.
type feeder struct {
	*consumer
	claims     context.Context // of the exchanges
	timer      *time.Timer     // something is due, or it is time to look
	impatience *time.Timer     // what was claimed ahead may have waited for too long
	handing    sync.WaitGroup  // an answer is being handed out

	mu        sync.Mutex  // guards the fields below, which both lanes use
	alarm     time.Time   // for when timer runs, which lane0 waits for after a failure; zero: it has gone off
	impatient bool        // impatience runs
	done      []*Delivery // finished, and not yet acknowledged
	pace      pace
	under     int    // exchanges under way
	asked     int    // by them, beyond the free slots
	failures  [2]int // of each lane's exchanges, in a row
}

// The lanes of a feeder. The first makes all exchanges, as a rule, one after the other;
// the second makes some beside those.
const (
	lane0 = iota
	lane1
)

// feed acknowledges what the handlers finished, and claims for the free slots, and
// ahead of them, when there is reason to, in one command. All that comes in while
// the last answer is under way goes into the next.
func (c *consumer) feed(ctx context.Context) {
	cut, cutOff := context.WithCancel(c.base)
	defer cutOff()
	claims, end := outlive(c.base, ctx, grace)
	f := c.feeder(claims)
	var waking, beside sync.WaitGroup
	if c.handler != nil && !c.queue.cfg.PollOnly {
		c.listening.Store(true)
		waking.Go(func() { c.wake(ctx, cut) })
	}
	if c.cfg.Slots.size > 1 {
		beside.Go(func() { f.beside(ctx) })
	}
	defer context.AfterFunc(ctx, c.ahead.stop)() // an exchange under way may take long
	signal(c.token)                              // the first look
	for ctx.Err() == nil {
		if due, ok := f.reason(ctx); ok {
			f.turn(ctx, due)
		}
	}
	beside.Wait()
	f.timer.Stop()
	f.impatience.Stop()
	end()
	c.giveBack(c.ahead.close())
	c.acking.Go(f.ackAll)
	c.place.leave()
	defer time.AfterFunc(grace, cutOff).Stop() // of a pop that nobody answers
	f.leave()
	waking.Wait()
}

func (c *consumer) feeder(claims context.Context) *feeder {
	return &feeder{
		consumer: c, claims: claims, timer: time.NewTimer(time.Hour), impatience: time.NewTimer(time.Hour),
		pace: pace{mean: time.Hour}, // nothing is known of the handlers
	}
}

// reason waits for one to make an exchange; due is set if that is to be made even
// while no slot is free.
func (f *feeder) reason(ctx context.Context) (due, ok bool) {
	select {
	case <-ctx.Done():
		return false, false
	case x := <-f.acks:
		f.gather(x)
	case <-f.token:
		due = true
	case <-f.timer.C:
		f.mu.Lock()
		f.alarm = time.Time{}
		f.mu.Unlock()
		due = true
	case <-f.impatience.C:
		f.mu.Lock() // before, so that what the other lane adds now is not overlooked
		back, wait := f.ahead.impatient()
		f.pace.paused = f.pace.paused || len(back) > 0
		if f.impatient = wait > 0; f.impatient {
			f.impatience.Reset(wait)
		}
		f.mu.Unlock()
		f.giveBack(back)
		return false, false
	case <-f.kick:
	}
	return due, ctx.Err() == nil
}

// turn makes an exchange, if there is anything to exchange. While handlers are so
// quick that they would wait for the next, that is under way while the answer to
// the last is handed out.
func (f *feeder) turn(ctx context.Context, due bool) {
	if f.cfg.Slots.size == 1 {
		if f.awaitGone(ctx); ctx.Err() != nil {
			return
		}
	}
	free, n, ok := f.plan(due)
	if !ok {
		return
	}
	for {
		x, err := f.exchange(ctx, lane0, free, n)
		f.handing.Wait()
		if err != nil {
			break
		}
		if free, n = 0, f.atOnce(ctx, x); n == 0 {
			f.handOut(ctx, x)
			break
		}
		f.handing.Go(func() { f.handOut(ctx, x) })
	}
	f.watchAhead()
}

// plan decides about an exchange: free slots are taken for it, and it is to claim n.
func (f *feeder) plan(due bool) (free, n int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	paused := f.failures[lane0] > 0 && !f.alarm.IsZero()
	free = f.startAhead(f.place.take(script.Bound, !due && !paused))
	if paused {
		f.cfg.Slots.put(free)
		return 0, 0, false
	}
	for free == 0 && !due { // until it stands in line for the next slot
		got := f.place.take(script.Bound, true)
		if got == 0 {
			break
		}
		free = f.startAhead(got)
	}
	n = free
	if f.more.Load() {
		n = min(free+f.wanted(0), script.Bound)
		if free == 0 && f.ahead.len()+f.asked > n && !due && len(f.done) < script.Bound/2 && !locked(f.done) {
			return 0, 0, false // there is enough to do until more is done
		}
	}
	if f.failures[lane0] > 0 && f.handler != nil {
		n = max(n, 1) // for what the lost answer held
	}
	n = max(n, min(turns(f.done), script.Bound)) // whoever gets those turns had better come here

	return free, n, n > 0 || due || len(f.done) > 0 // else the next free slot kicks
}

// beside makes exchanges while the first lane has one under way, when there is so much
// to do that the server need not wait for the next. Which of the two is first at the
// server is not known, so a single worker, who takes one after the other, has no second
// lane.
func (f *feeder) beside(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
		case <-f.pressing:
		}
		if ctx.Err() != nil {
			return
		}
		free, n := f.planBeside()
		if n == 0 {
			continue
		}
		if x, err := f.exchange(ctx, lane1, free, n); err == nil {
			f.handOut(ctx, x)
			f.watchAhead()
		}
	}
}

// planBeside is plan for the second lane; n is 0 if there is to be no exchange.
func (f *feeder) planBeside() (free, n int) {
	f.mu.Lock()
	n = f.wanted(0)
	if f.failures[lane1] > 0 {
		n = max(n, 1) // for what the lost answer held
	} else if n < script.Bound/2 {
		n = 0
	}
	f.mu.Unlock()
	if n == 0 {
		return 0, 0
	}
	f.gather()
	free = f.startAhead(f.place.take(script.Bound, false))
	return free, min(free+n, script.Bound)
}

// wanted returns how much to claim ahead of the slots, with so much on its way to be
// kept ahead already; 0 if ready is not known to hold any. Call with mu held.
func (f *feeder) wanted(coming int) int {
	if !f.more.Load() {
		return 0
	}
	return f.pace.want(f.cfg.Slots.size, f.ahead.len()+f.asked+coming)
}

// watchAhead sees to it that nothing claimed ahead waits for long.
func (f *feeder) watchAhead() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.impatient && f.ahead.len() > 0 {
		f.impatience.Reset(patience)
		f.impatient = true
	}
}

// exchange is a claim with its acknowledgements, and its answer.
type exchange struct {
	claim
	free int         // slots taken for it
	n    int         // requests asked for
	done []*Delivery // to be acknowledged
}

// exchange acknowledges what is done and claims n requests, for so many free slots
// and ahead of them.
func (f *feeder) exchange(ctx context.Context, lane, free, n int) (x exchange, err error) {
	f.mu.Lock()
	k := min(len(f.done), script.Bound)
	x = exchange{free: free, n: n, done: f.done[:k:k]}
	f.done = f.done[k:]
	alone := f.under == 0
	f.under++
	f.asked += n - free
	f.mu.Unlock()

	began := time.Now()
	x.claim, err = f.queue.claimNext(f.claims, &f.queue.lanes[lane], n, hearing{wake: f.listening.Load(), offers: f.hearsOffers()}, x.done)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.under--
	f.asked -= n - free
	if err != nil {
		f.unanswered(ctx, lane, x, err)
		return x, err
	}
	if f.failures[lane] > 0 {
		f.queue.cfg.Logger.InfoContext(ctx, "claims succeed again", "queue", f.queue.name, "failures", f.failures[lane])
		f.failures[lane] = 0
	}
	f.pace.claimed(time.Since(began))
	f.pace.paused = suspect(x.Items[min(free, len(x.Items)):]) || f.pace.paused && free == 0
	f.more.Store(x.More)
	if len(f.done) > 0 {
		signal(f.kick)
	}
	if x.More {
		signal(f.kick)
		if f.wanted(len(x.Items)-free) >= script.Bound/2 {
			signal(f.pressing)
		}
	} else {
		signal(f.calm)
	}
	wait := jitter(f.queue.cfg.Poll)
	if x.Wait >= 0 {
		wait = min(wait, x.Wait)
	}
	if f.failures[lane0] > 0 {
		wait = 0 // the server answers again
	}
	// Of two answers it is not known which one is the later: the earlier time counts.
	if at := time.Now().Add(wait); alone && f.under == 0 || f.alarm.IsZero() || at.Before(f.alarm) {
		f.alarm = at
		f.timer.Reset(wait)
	}
	return x, nil
}

// unanswered takes in that an exchange failed. Call with mu held.
func (f *feeder) unanswered(ctx context.Context, lane int, x exchange, err error) {
	f.cfg.Slots.put(x.free)
	f.done = append(f.giveUp(x.done, err), f.done...)
	if f.failures[lane]++; f.failures[lane] == 1 {
		f.queue.cfg.Logger.WarnContext(ctx, "claims fail; trying on", "queue", f.queue.name, "error", err)
	}
	pause := backoff(f.failures[lane])
	if lane == lane1 {
		time.AfterFunc(pause, func() { signal(f.pressing) }) // what a lost answer held is in the next
		return
	}
	f.alarm = time.Now().Add(pause)
	f.timer.Reset(pause)
}

// atOnce returns how many requests to claim before x is handed out; 0: none.
func (f *feeder) atOnce(ctx context.Context, x exchange) int {
	if !x.More || ctx.Err() != nil {
		return 0
	}
	f.gather()
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.wanted(len(x.Items) - x.free)
	if n < script.Bound/2 {
		return 0 // the kick goes on
	}
	return min(n, script.Bound)
}

// handOut starts what was claimed for the free slots, gives back the slots
// that remain, and keeps the rest of what was asked for to be started later. What
// cannot start goes back to the queue: what is too much, since the answer to a
// claim whose first reply was lost can hold more than was asked for; what came too
// late; what others had better not stand behind; and all of it if ctx has ended
// meanwhile.
func (f *feeder) handOut(ctx context.Context, x exchange) {
	all, bad := f.queue.decodeAll(ctx, x.claim)
	f.follow(x.done, all)
	var back, later []*Delivery
	ahead := x.n - x.free
	free := x.free
	if free < len(all) {
		free += f.startAhead(f.place.take(len(all)-free, false)) // those that have become free meanwhile
	}
	for _, d := range all {
		switch {
		case d.left() <= 0 || ctx.Err() != nil:
			back = append(back, d)
		case free > 0:
			free--
			f.start(d)
		case ahead > 0 && !died(d.Deliveries, d.Attempts, d.Deferrals):
			ahead--
			later = append(later, d)
		default:
			back = append(back, d)
		}
	}
	f.cfg.Slots.put(free)
	if len(later) > 0 {
		back = append(back, f.ahead.add(later)...)
		signal(f.kick) // a slot may have become free meanwhile
	}
	f.giveBack(back)
	for _, b := range bad {
		f.buryUndecodable(b)
	}
	for _, lock := range x.Probes {
		f.running.Go(func() { f.cfg.Probe(f.late, lock) })
	}
	f.acked(f.claims, x.done, x.Acked, nil)
}

// follow marks those of all that came by the end of one of done, with whose lock, and
// tells of the locks with which none came.
func (c *consumer) follow(done, all []*Delivery) {
	if !locked(done) {
		return
	}
	next := make(map[string]*Delivery, len(all))
	for _, d := range all {
		next[d.Lock] = d
	}
	for _, d := range done {
		switch n := next[d.Lock]; {
		case d.Lock == "":
		case n != nil:
			n.Follows = true
		case c.cfg.LineEnds != nil:
			c.cfg.LineEnds(d.Lock)
		}
	}
}

// suspect tells whether among all is one whose worker died: the next one may as
// well, and with it whatever else it has claimed.
func suspect(all []script.Item) bool {
	return slices.ContainsFunc(all, func(i script.Item) bool { return died(i.Deliveries, i.Attempts, i.Deferrals) })
}

func died(deliveries, attempts, deferrals int) bool { return deliveries-attempts-deferrals > 1 }

// locked tells whether a request with a lock is among all: somebody may wait for
// its turn.
func locked(all []*Delivery) bool {
	return slices.ContainsFunc(all, func(d *Delivery) bool { return d.Lock != "" })
}

// turns counts the requests with a lock, whose turn goes to the next in line when they
// are acknowledged.
func turns(all []*Delivery) (n int) {
	for _, d := range all {
		if d.Lock != "" {
			n++
		}
	}
	return n
}

// startAhead starts what was claimed ahead in so many free slots, and returns how
// many remain.
func (c *consumer) startAhead(slots int) int {
	for slots > 0 {
		d := c.ahead.next()
		if d == nil {
			break
		}
		slots--
		c.start(d)
	}
	return slots
}

// giveBack requeues what has not been started, in a goroutine of its own: the last
// first, since each goes to the head of the queue. None of it follows anything here. A
// single worker, who takes one after the other, gives back one after the other as well.
func (c *consumer) giveBack(all []*Delivery) {
	if len(all) == 0 {
		return
	}
	for _, d := range all {
		if d.Follows && c.cfg.LineEnds != nil {
			c.cfg.LineEnds(d.Lock)
		}
	}
	gone := make(chan struct{})
	c.mu.Lock()
	before := c.gone
	c.gone = gone
	c.mu.Unlock()
	c.running.Go(func() {
		defer close(gone)
		ctx, cancel := c.settling()
		defer cancel()
		if c.cfg.Slots.size == 1 && before != nil {
			<-before
		}
		for _, batch := range slices.Backward(slices.Collect(slices.Chunk(all, script.Bound))) {
			c.handBack(ctx, batch)
		}
		signal(c.kick)
	})
}

// awaitGone waits until all that a single worker has given back is in the queue: the next
// claim is to find it there.
func (c *consumer) awaitGone(ctx context.Context) {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone == nil {
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// buryUndecodable makes a request dead, in a goroutine of its own.
func (c *consumer) buryUndecodable(b undecodable) {
	c.running.Go(func() {
		ctx, cancel := c.settling()
		defer cancel()
		b.bury(ctx)
	})
}

// gather adds what is finished by now, and gives the slots back that it freed.
func (f *feeder) gather(first ...finished) {
	f.mu.Lock()
	defer f.mu.Unlock()
	freed := 0
	add := func(x finished) {
		f.done = append(f.done, x.Delivery)
		f.pace.ended(x.ran)
		if x.freed {
			freed++
		}
	}
	for _, x := range first {
		add(x)
	}
	for len(f.done) < script.Bound {
		select {
		case x, ok := <-f.acks:
			if ok {
				add(x)
				continue
			}
		default:
		}
		break
	}
	f.cfg.Slots.put(freed)
}

// giveUp returns those of the finished that are worth another try after err.
func (c *consumer) giveUp(done []*Delivery, err error) (again []*Delivery) {
	for _, d := range done {
		if d.left() > 0 {
			again = append(again, d)
		} else {
			c.acked(c.base, []*Delivery{d}, nil, err)
		}
	}
	return again
}

// leave hands over what a feeder that ends has in its hands: the requests of claims
// whose replies were lost, the clock, and the token. It ends the waker's pop.
func (f *feeder) leave() {
	ctx, cancel := context.WithTimeout(f.base, grace)
	defer cancel()
	q := f.queue
	for i := range q.lanes {
		if f.failures[i] == 0 || f.handler == nil {
			continue
		}
		if claimed, err := q.claimNext(ctx, &q.lanes[i], 1, hearing{}, nil); err == nil {
			all, bad := q.decodeAll(ctx, claimed)
			f.handBack(ctx, append(all, deliveries(bad)...))
		}
	}
	waker := ""
	if f.listening.Load() {
		waker = f.id
	}
	if err := q.script.Yield(ctx, q.feeder, waker); err != nil {
		q.cfg.Logger.WarnContext(ctx, "the clock was not handed over; the others notice within their poll",
			"queue", q.name, "error", err)
	}
}
