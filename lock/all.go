package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxAll bounds the names of one TryAcquireAll.
const maxAll = 256

// TryAcquireAll takes all of the locks named, or none, in one round trip: no one
// else ever sees some of them held for this call alone. The locks come in the
// order of the names; each has a fence of its own and is released on its own. If
// another holds one, the [*LockedError] tells of the first such name. The other
// errors are those of [Locker.TryAcquire].
//
// At least one name, at most 256, all different. With a Cluster the names must
// share a hash tag, as in "{order:7}:stock" and "{order:7}:till". With
// [NewQuorum] it takes a round trip for each name and gives back on a refusal, so
// that others may see some of the locks held for a moment; the TTL must cover all
// of that.
func (l *Locker) TryAcquireAll(ctx context.Context, names ...string) ([]*Lock, error) {
	if err := l.checkAll(names); err != nil {
		return nil, err
	}
	if _, ok := l.node.(*quorum); ok {
		return l.tryEach(ctx, names)
	}
	s, err := l.settings(names[0], nil)
	if err != nil {
		return nil, err
	}
	all := &tries{list: make([]*try, len(names)), args: acquireAllArgs{lease: s.ttl, margin: l.cfg.FenceMargin}}
	if ctx.Err() != nil {
		k := keysOf(l.cfg.Prefix, names[0])
		return nil, cutOff(ctx, "acquire", &k)
	}
	for i, name := range names {
		t := l.newTry(name, s)
		all.list[i] = t
		all.args.keys = append(all.args.keys, &t.lease.keys)
		all.args.values = append(all.args.values, t.lease.value)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	for _, t := range all.list {
		l.track(&t.lease)
	}
	began := time.Now()
	done := make(chan struct{})
	l.spawn(func() { all.call(detached(ctx), l); close(done) })
	l.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return all.result(ctx, began)
}

// tries are the parts of one TryAcquireAll.
type tries struct {
	list []*try
	args acquireAllArgs
}

// call asks Redis, and gives each try its part of the answer.
func (a *tries) call(ctx context.Context, l *Locker) {
	sent := time.Now()
	reply, err := l.node.(*single).acquireAll(ctx, &a.args)
	l.mu.Lock()
	defer l.unlock()
	for i, t := range a.list {
		t.lease.since, t.err = sent, err
		switch {
		case err != nil:
		case reply.fences != nil:
			t.reply = acquireReply{granted: true, fence: reply.fences[i]}
		case i == reply.refused:
			t.reply = acquireReply{left: reply.left, holder: reply.holder}
		default:
			t.err = errOther
		}
		t.answer()
	}
}

// errOther is what a try ends with that another try's refusal ended.
var errOther = notSent("another lock was refused")

// result makes locks of the tries, or the first error that says why not.
func (a *tries) result(ctx context.Context, began time.Time) ([]*Lock, error) {
	locks := make([]*Lock, 0, len(a.list))
	var failed error
	for _, t := range a.list {
		t.lease.l.mu.Lock()
		lk, err := t.result(ctx, began)
		switch {
		case err == nil:
			locks = append(locks, lk)
		case failed == nil || errors.Is(failed, errOther):
			failed = err
		}
	}
	if failed == nil {
		return locks, nil
	}
	if len(locks) > 0 { // the lease ran out between two of them
		locks[0].ls.l.putBack(ctx, locks)
	}
	return nil, failed
}

// putBack releases locks, and returns when that is done or ctx has ended.
func (l *Locker) putBack(ctx context.Context, locks []*Lock) {
	done := make(chan struct{}, len(locks))
	l.mu.Lock()
	for _, lk := range locks { // all at once: nodes that hang would keep Close for as many times as long
		l.spawn(func() {
			_ = lk.Release(ctx) // what it cannot release it has released in the background
			done <- struct{}{}
		})
	}
	l.mu.Unlock()
	for range locks {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// tryEach takes one lock after another.
func (l *Locker) tryEach(ctx context.Context, names []string) ([]*Lock, error) {
	locks := make([]*Lock, 0, len(names))
	for _, name := range names {
		lk, err := l.TryAcquire(ctx, name)
		if err != nil {
			l.putBack(ctx, locks)
			return nil, err
		}
		locks = append(locks, lk)
	}
	for i, lk := range locks {
		if past(lk.Expires()) {
			l.putBack(ctx, locks)
			return nil, &UnavailableError{Op: "acquire", Key: l.cfg.Prefix + names[i], Sent: true, Err: errLate}
		}
	}
	return locks, nil
}

// checkAll returns an error that matches ErrInvalid for names that cannot be
// taken at once.
func (l *Locker) checkAll(names []string) error {
	if len(names) == 0 || len(names) > maxAll {
		return fmt.Errorf("%w: %d names, not 1 to %d", ErrInvalid, len(names), maxAll)
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if err := l.checkName(name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("%w: name %q comes twice", ErrInvalid, name)
		}
		seen[name] = true
		if l.sharded && len(names) > 1 && tagOf(l.cfg.Prefix+name) != tagOf(l.cfg.Prefix+names[0]) {
			return fmt.Errorf("%w: names %q and %q do not share a hash tag", ErrInvalid, names[0], name)
		}
	}
	return nil
}

// tagOf is the part of key that a Cluster hashes: all of it, if it has no tag.
func tagOf(key string) string {
	if !hasTag(key) {
		return key
	}
	_, rest, _ := strings.Cut(key, "{")
	tag, _, _ := strings.Cut(rest, "}")
	return tag
}
