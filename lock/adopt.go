package lock

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Token returns the secret that proves to Redis who holds the lock. With it
// another process can take the lock over, see [Locker.Adopt]; it ends in the
// fence. Do not log it.
//
// As the lock may be another's from then on, Release hands it to no goroutine of
// this process without asking Redis. Once the section is over, other than by Disown,
// Token returns "".
func (lk *Lock) Token() string {
	lk.ls.l.mu.Lock()
	defer lk.ls.l.mu.Unlock()
	if lk.ls.cur != lk && !lk.disowned { // another goroutine may have the lock by now, in the same lease
		return ""
	}
	return lk.giveToken()
}

// giveToken is Token. Call with mu held.
func (lk *Lock) giveToken() string {
	lk.ls.given = true
	token, _ := splitValue(lk.ls.value)
	return token + "." + strconv.FormatInt(lk.fence, 10)
}

// splitToken splits what Token returned.
func splitToken(s string) (token string, fence int64, ok bool) {
	if len(s) < tokenLen+2 || s[tokenLen] != '.' || strings.IndexByte(s, ' ') >= 0 {
		return "", 0, false
	}
	fence, err := strconv.ParseInt(s[tokenLen+1:], 10, 64)
	return s[:tokenLen], fence, err == nil && fence > 0
}

// Disown ends the section without releasing the lock, so that whoever is given
// the token it returns can take the lock over with [Locker.Adopt]. Nothing is
// sent: the lock stays held until its lease runs out or is adopted, so make it
// long enough with [Lock.Extend] first. Nobody extends it meanwhile.
//
// From then on Extend says [ErrNotHeld] and Release does nothing and returns nil.
// In Hold, the context given to the function ends by [Lock.Expires], or when
// Config.MaxHold is over. The caller must not touch what the lock protects any
// more: the adopter's fence is the same as this one.
//
// The error matches ErrNotHeld if the section was over.
func (lk *Lock) Disown() (token string, err error) {
	ls, l := lk.ls, lk.ls.l
	l.mu.Lock()
	defer l.unlock()
	if ls.cur == lk && past(ls.deadline) {
		ls.lapse(ErrNotHeld)
	}
	if ls.cur != lk {
		return "", lk.notHeld("disown")
	}
	lk.expires, lk.disowned = ls.deadline, true
	ls.cur = nil
	ls.end()
	if lk.cancel != nil {
		at, cause := ls.ends()
		time.AfterFunc(until(at), func() { lk.cancel(cause) })
	}
	// The token stays in live until its lease is over: it is no left-over that a
	// refusal may name.
	if ls.tk != nil {
		ls.tk.slot.ended(ls.tk)
	}
	return lk.giveToken(), nil
}

// Adopt takes a held lock over from another process, or from elsewhere in this
// one, which has passed on what [Lock.Token] or [Lock.Disown] returned. In one
// step it checks that this token still holds the lock, replaces it by one of its
// own and begins a full lease. The Lock that it returns has the same fence.
//
// A token is good for one adoption. Whoever gave it away without Disown is told
// that the lock is lost when it next extends; its Release leaves the lock alone.
//
// The error matches [ErrNotHeld] if the token does not hold the lock, any more or
// ever. The other errors are those of [Locker.TryAcquire], except that there is
// no LockedError; after an ambiguous one the lock is released in the background.
func (l *Locker) Adopt(ctx context.Context, name, token string, opts ...Option) (*Lock, error) {
	s, err := l.settings(name, opts)
	if err != nil {
		return nil, err
	}
	from, fence, ok := splitToken(token)
	if !ok {
		return nil, invalid("token is none that Lock.Token returned")
	}
	return l.try(ctx, name, s, &adoptArgs{from: from, fence: fence, lease: s.ttl})
}

// op is what a try is called in errors.
func (a *adoptArgs) op() string {
	if a == nil {
		return "acquire"
	}
	return "adopt"
}

// call asks Redis, in the terms of an acquire.
func (a *adoptArgs) call(ctx context.Context, n node, k *keys) (acquireReply, error) {
	ok, err := n.adopt(ctx, k, a)
	return acquireReply{granted: ok, fence: a.fence}, err
}
