package lock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/client"
)

const (
	processLen = 13                          // of a process's id
	tokenLen   = processLen + 1 + 8 + 1 + 32 // process "." counter "." random
)

const (
	releaseTimeout = 5 * time.Second        // Release returns by then,
	connectTimeout = time.Second            // or by so much later if it had to wait for a connection first
	giveBackTries  = 3                      // of a clean-up that nobody waits for
	giveBackPause  = 100 * time.Millisecond // before the second try; then twice that
)

// Locker acquires locks on one Redis, or on a majority of several. It is safe
// for concurrent use; one per process and Redis is enough, and only goroutines
// that share a Locker hand locks to each other without a round trip. Make one
// with [New] or [NewQuorum].
type Locker struct {
	clients     []redis.UniversalClient // one, or the nodes of a quorum
	node        node
	cfg         Config
	process     string // part of every token; also names the mailbox
	sharded     bool   // several servers: a mailbox per lock, in its slot
	prefixBrace bool
	fromReceipt bool            // for tests: a grant counts from its receipt, which is wrong
	ctx         context.Context // ends at Close
	stop        context.CancelFunc
	limits      limits

	mu       sync.Mutex // guards the fields below, and all leases, slots and mailboxes
	closed   bool
	counter  atomic.Uint32
	workers  workers
	drained  sync.Cond // there are no workers
	live     map[string]*lease
	sweep    *time.Timer // of live
	sweeping bool        // it runs: live is not empty
	slots    map[slotID]*slot
	mails    map[string]*mailbox
	batons   map[relayID]*baton
	dog      watchdog
	post     []func() // to run once mu is free: hooks
	freed    []func(name string, queues []string)
	shared   any // of package sidestep: see reports.Shared
}

// New returns a Locker that keeps its locks on rdb: a client of one server, of a
// Sentinel set, or of a Cluster. Nothing is sent and nothing started before it
// is needed. The caller closes the Locker, before rdb.
//
// To one server, what several goroutines ask for at once goes together when it
// would have to wait anyway: acquires and releases in one script, which hooks of
// rdb see as one command, the rest in a pipeline. A goroutine that is alone sends
// each command by itself, and at once.
//
// New panics if rdb is nil or is a Cluster client that sends commands to
// replicas (ReadOnly, RouteByLatency, RouteRandomly), and if a value of cfg is
// out of range.
func New(rdb redis.UniversalClient, cfg Config) *Locker {
	l := newLocker([]redis.UniversalClient{rdb}, cfg)
	l.node = newSingle(rdb, &aloneScripts, l.cfg.LapseDelay)
	return l
}

// newLocker returns a Locker that has no node yet.
func newLocker(clients []redis.UniversalClient, cfg Config) *Locker {
	l := &Locker{
		clients: clients,
		cfg:     cfg.withDefaults(),
		process: rand.Text()[:processLen],
		live:    make(map[string]*lease),
		slots:   make(map[slotID]*slot),
		mails:   make(map[string]*mailbox),
		batons:  make(map[relayID]*baton),
	}
	for _, rdb := range clients {
		if client.IsNil(rdb) {
			panic("lock: the Redis client is nil")
		}
		if c, ok := rdb.(*redis.ClusterClient); ok && c.Options().ReadOnly {
			panic("lock: the Cluster client is ReadOnly: it would subscribe at replicas")
		}
		if _, one := rdb.(*redis.Client); !one {
			l.sharded = true
		}
	}
	l.prefixBrace = strings.ContainsAny(l.cfg.Prefix, "{}")
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.drained.L = &l.mu
	l.dog.wake = make(chan struct{}, 1)
	return l
}

// Close ends the waits in progress with [ErrClosed], takes them out of line,
// closes the subscription, and returns when all goroutines of the Locker have
// ended; commands in flight are waited for. Locks that are held stay held: they
// can still be extended and released, but no watchdog does so any more, so end
// the sections in [Lock.Hold] first. Further calls do the same nothing. The
// error is always nil.
func (l *Locker) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		l.stop()
		for _, s := range l.slots {
			s.fail(ErrClosed)
			s.abandoned()
		}
		for _, m := range l.mails {
			m.close()
		}
		for _, b := range l.batons {
			b.refuse()
		}
		l.dog.poke()
		if l.sweep != nil {
			l.sweep.Stop()
		}
		l.workers.end(len(l.workers.idle))
	}
	for l.workers.n > 0 {
		l.drained.Wait()
	}
	l.unlock()
	return nil
}

// unlock ends a critical section and then runs the hooks it has left behind.
func (l *Locker) unlock() {
	post := l.post
	l.post = nil
	l.mu.Unlock()
	for _, f := range post {
		f()
	}
}

// newValue returns what a lock key holds for a new ticket: token, space, label.
func (l *Locker) newValue(owner string) string {
	var raw [20]byte
	binary.BigEndian.PutUint32(raw[:], l.counter.Add(1))
	_, _ = rand.Read(raw[4:]) // never fails
	var text [40]byte
	hex.Encode(text[:], raw[:])
	return l.process + "." + string(text[:8]) + "." + string(text[8:]) + " " + owner
}

// giveBack releases in the background what a lease may still hold in Redis, and
// takes it out of line. Call with mu held.
func (l *Locker) giveBack(ls *lease) {
	l.spawn(func() {
		l.undo(ls.keys, ls.value, ls.entry)
		l.mu.Lock()
		delete(l.live, ls.value)
		l.unlock()
	})
}

// undo releases a value, and leaves the line. If that frees the lock, the delay
// queues that have registered are told, or, if nobody here can, stay registered
// for the next release to report.
func (l *Locker) undo(k keys, value, entry string) { l.report(&k, l.undone(k, value, entry).queues) }

// undone is undo, but returns the queues instead of telling them. After no answer it
// returns the zero reply.
func (l *Locker) undone(k keys, value, entry string) (r releaseReply) {
	l.insist(&k, func() (err error) {
		a := releaseArgs{value: &value, entry: entry, margin: l.cfg.FenceMargin, report: len(l.listeners()) > 0}
		r, err = l.node.release(context.Background(), &k, &a)
		return err
	})
	return r
}

// report tells those who listen of queues whose lock was freed.
func (l *Locker) report(k *keys, queues []string) {
	if len(queues) > 0 {
		l.reportFreed(k, queues)
	}
}

// reportLost tells them that a lock was freed, and that the names of the queues that
// had registered with it, if there were any, are lost.
func (l *Locker) reportLost(k *keys) { l.reportFreed(k, nil) }

func (l *Locker) reportFreed(k *keys, queues []string) {
	for _, fn := range l.listeners() {
		fn(strings.TrimPrefix(k.lock, l.cfg.Prefix), queues)
	}
}

// tell is report, or reportLost, on a goroutine of the Locker.
func (l *Locker) tell(k *keys, queues []string, lost bool) {
	if len(queues) == 0 && !lost {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spawn(func() { l.reportFreed(k, queues) })
}

// OnFreed has fn called when a command of this Locker has freed a lock with which
// delay queues were registered: a [Lock.Release] ([Lock.Reported] has the same names), a
// [Locker.Revoke], or what gives back a lock that went to a waiter who had just given
// up. The end of what runs under a sidestep.Acquirer is told of by that, and not here,
// unless the answer came too late for it.
// Until there is such a function, the registrations stay for the next release, but for
// those that a Release or the end of a [Relay] takes out.
//
// fn gets the lock's name, and no queues if their names may have been lost with an
// answer that did not come, as [Lock.ReportLost] tells: then whatever queue may wait for
// the lock should be told. It runs on a goroutine of the Locker, which Close
// waits for; several may run at once. Further functions are called as well. A
// nil fn panics.
func (l *Locker) OnFreed(fn func(name string, queues []string)) {
	if fn == nil {
		panic("lock: OnFreed with a nil function")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freed = append(slices.Clip(l.freed), fn)
}

// listeners returns the functions given to OnFreed.
func (l *Locker) listeners() []func(name string, queues []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freed
}

// insist does what gives a lock back, with a few tries.
func (l *Locker) insist(k *keys, do func() error) {
	pause := giveBackPause
	for try := 1; ; try++ {
		err := do()
		if err == nil {
			return
		}
		if try == giveBackTries {
			l.cfg.Logger.Warn("lock: could not give back; it ends with its lease", "key", k.lock, "error", err)
			return
		}
		l.sleep(pause)
		pause *= 2
	}
}

// sleep waits, or reports false as soon as the Locker is closed.
func (l *Locker) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// refusedBy looks at the holder that a refusal names. A ticket of this process
// that nobody has any more is the work of a command that ran late: it is
// released. Call with mu held.
func (l *Locker) refusedBy(k *keys, holder string) {
	token, _ := splitValue(holder)
	if token == "" || token[:processLen] != l.process {
		return
	}
	if _, ok := l.live[holder]; ok {
		return
	}
	ls := &lease{l: l, keys: *k, value: holder}
	l.live[holder] = ls // until it is given back: once is enough
	l.giveBack(ls)
}

// State is what [Locker.Inspect] found.
type State struct {
	Held    bool
	Owner   string        // the holder's label; "" if a client of another library holds it
	TTL     time.Duration // what is left of the holder's lease; -1 if it has no end; 0 if not held
	Fence   int64         // the last fence minted; 0 if that is no longer remembered
	Waiters int           // processes in line, those that died there included
	Queues  []string      // delay queues that registered with Look
}

// Inspect reports the state of a lock. It changes nothing and takes one round
// trip. An error is an [*UnavailableError], or matches [ErrInvalid] or the cause of ctx;
// not [ErrClosed], since a Locker that was closed still answers.
func (l *Locker) Inspect(ctx context.Context, name string) (State, error) {
	k, err := l.keysFor(name)
	if err != nil {
		return State{}, err
	}
	var r inspectReply
	if err := l.ask(ctx, "inspect", &k, func(ctx context.Context) (err error) {
		r, err = l.node.inspect(ctx, &k)
		return err
	}); err != nil {
		return State{}, err
	}
	st := State{Fence: r.fence, Waiters: r.waiters, Queues: r.queues}
	if r.held {
		_, owner := splitValue(r.value)
		st.Held, st.Owner, st.TTL = true, owner, r.left
	}
	return st, nil
}

// Revoke takes a lock from whoever holds it and gives it to the first in line,
// if there is one. It is for operators: the holder learns of it only when it
// next extends, and until then believes that it holds the lock; what keeps its
// writes out is the fence, which is higher for the next holder. If it is one of this
// Locker's, who waits here enters only when Redis has been asked. Queues that had
// registered for the lock are told if it is free then (see [Locker.OnFreed]). Revoke
// reports false if nobody held the lock. It takes two round trips: it looks who holds
// the lock, and takes it from that one only, so that a command which is sent again
// takes it from nobody else.
//
// A key that another program keeps under the same name is deleted if it is a
// string, so revoke names that you know. The errors are those of [Locker.Inspect].
func (l *Locker) Revoke(ctx context.Context, name string) (bool, error) {
	k, err := l.keysFor(name)
	if err != nil {
		return false, err
	}
	seen := func(value string) { // before it is taken from there
		l.mu.Lock()
		defer l.mu.Unlock()
		if ls := l.live[value]; ls != nil {
			ls.given = true
		}
	}
	var r releaseReply
	err = l.ask(ctx, "revoke", &k, func(ctx context.Context) (err error) {
		r, err = l.node.revoke(ctx, &k, l.cfg.FenceMargin, len(l.listeners()) > 0, seen)
		l.tell(&k, r.queues, false)
		return err
	})
	if err != nil {
		return false, err
	}
	return r.released, nil
}

// lookFloor is the least lease that a registration reckons with: its holder may
// extend it for hours, and a release takes the registration away.
const lookFloor = 12 * time.Hour

// Look reports whether a lock is held. If it is, then in the same step the delay
// queue of the given name is registered with it, so that the release which frees
// the lock reports the queue (see [Lock.Reported]), and left is what remains of
// the holder's lease, or the claim lease if that has no end. If the lock is
// free, nothing is registered.
//
// In a quorum a lock is free if a majority of the nodes say so. If there is neither such
// a majority nor one that names the same holder, a try would be refused: then Look says
// that it is held, and left is a tenth of a second at most, since nobody announces the
// end of that: look again.
//
// A registration lasts until a release reports it, or for a day, or for twice the
// holder's remaining lease if that is longer. Look takes one round trip. The errors are
// those of [Locker.Inspect]; an empty queue is [ErrInvalid] too.
func (l *Locker) Look(ctx context.Context, name, queue string) (left time.Duration, held bool, err error) {
	k, err := l.keysFor(name)
	if err != nil {
		return 0, false, err
	}
	if queue == "" {
		return 0, false, invalid("queue is empty")
	}
	var got lookReply
	if err := l.ask(ctx, "look", &k, func(ctx context.Context) (err error) {
		got, err = l.node.look(ctx, &k, queue, lookFloor)
		return err
	}); err != nil {
		return 0, false, err
	}
	switch {
	case !got.held:
		return 0, false, nil
	case got.left < 0:
		return l.cfg.claim(l.cfg.TTL), true, nil
	}
	return got.left, true, nil
}

func (l *Locker) keysFor(name string) (keys, error) {
	if err := l.checkName(name); err != nil {
		return keys{}, err
	}
	return keysOf(l.cfg.Prefix, name), nil
}

// limits makes contexts that end connectTimeout from now, or up to a tenth of that
// earlier: one timer serves all of a while. The zero value is ready.
type limits struct {
	last atomic.Pointer[limit]
}

// limit is a context that ends at a time.
type limit struct {
	context.Context
	cancel context.CancelFunc // is never called, for others may still use it
	end    time.Time
}

// limit returns a context with the values of ctx, and an end of its own.
func (s *limits) limit(ctx context.Context, now time.Time) context.Context {
	l := s.last.Load()
	if l == nil || l.end.Sub(now) < connectTimeout*9/10 {
		l = &limit{end: now.Add(connectTimeout)}
		l.Context, l.cancel = context.WithDeadline(context.Background(), l.end)
		s.last.Store(l)
	}
	return limited{l.Context, detached(ctx)}
}

// limited is a context with the values of another.
type limited struct {
	context.Context
	values context.Context
}

func (c limited) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// detached is ctx without its end.
func detached(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// ask runs do, which sends one command, and returns when it has ended or when
// ctx has, whichever is first: go-redis by default looks at neither the deadline
// nor the end of a context while it waits for a reply. After an error do may
// still be running.
func (l *Locker) ask(ctx context.Context, op string, k *keys, do func(context.Context) error) error {
	if ctx.Err() != nil {
		return cutOff(ctx, op, k)
	}
	if ctx.Done() == nil {
		var err error
		l.mu.Lock()
		l.here(func() { err = do(ctx) })
		l.unlock()
		if err != nil {
			return unavailable(op, k.lock, err)
		}
		return nil
	}
	done := make(chan error, 1)
	l.mu.Lock()
	l.spawn(func() { done <- do(detached(ctx)) })
	l.unlock()
	select {
	case err := <-done:
		if err != nil {
			return unavailable(op, k.lock, err)
		}
		return nil
	case <-ctx.Done():
		return cutOff(ctx, op, k)
	}
}
