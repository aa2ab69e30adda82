package sidestep

import (
	"fmt"
	"time"

	"github.com/sidestep-go/sidestep/retry"
)

// Policy says what a call does when its lock is held. It is made by [Fail],
// [Retry], [RetryFor] or [Defer], and prints itself. Policies differ only in what
// they do then: while the lock is free they are all the same.
type Policy interface {
	fmt.Stringer
	plan() plan
}

// InlinePolicy is a [Policy] that needs nothing to be stored, so it serves
// [Acquirer.Do] as well, which has no payload: [Fail], [Retry] and [RetryFor].
type InlinePolicy interface {
	Policy
	inline()
}

// plan is what a policy comes down to.
type plan struct {
	backoff retry.Backoff // nil: one try
	parks   bool          // then park, or
	delays  bool          // then delay
	delay   time.Duration
	err     error // the policy cannot be followed
}

// FailPolicy is made by [Fail].
type FailPolicy struct{}

// Fail gives up at once, with a [*LockedError] that says who holds the lock and
// when it makes sense to try again. For callers who can be told.
func Fail() FailPolicy { return FailPolicy{} }

// String returns "fail".
func (FailPolicy) String() string { return "fail" }

func (FailPolicy) plan() plan { return plan{} }
func (FailPolicy) inline()    {}

// RetryPolicy is made by [Retry] and [RetryFor].
type RetryPolicy struct {
	backoff retry.Backoff
	text    string
	err     error
}

// Retry waits in line for the lock, and gives up with a [*LockedError] when b
// does. The lock is handed over as soon as it is released; b only says when to
// look again at the latest, which matters if its holder is no client of this
// library or died. For short sections. nil, or a nil
// [retry.BackoffFunc], is an invalid policy.
func Retry(b retry.Backoff) RetryPolicy {
	p := RetryPolicy{backoff: b, text: fmt.Sprintf("retry(%v)", b)}
	if noBackoff(b) {
		p.err = fmt.Errorf("%w: Retry with a nil backoff", ErrInvalid)
	}
	return p
}

// noBackoff tells whether b is nil, or a nil function in place of one.
func noBackoff(b retry.Backoff) bool {
	f, ok := b.(retry.BackoffFunc)
	return b == nil || ok && f == nil
}

// RetryFor waits in line for the lock for up to d, as [Retry] does with a
// backoff that looks every second. Zero tries once. A Redis that does not answer is waited
// for until the client's own timeouts, or ctx, end that. A negative d is an invalid policy.
func RetryFor(d time.Duration) RetryPolicy {
	p := RetryPolicy{text: fmt.Sprintf("retry(%v)", d)}
	if d < 0 {
		p.err = fmt.Errorf("%w: RetryFor a negative duration (%v)", ErrInvalid, d)
		return p
	}
	p.backoff = retry.Within(retry.Constant(time.Second), d)
	return p
}

// Then follows the retries by a deferral: the request is stored once they gave
// up.
func (p RetryPolicy) Then(d DeferPolicy) ThenPolicy { return ThenPolicy{first: p, then: d} }

// String returns the policy as it was made.
func (p RetryPolicy) String() string { return p.text }

func (p RetryPolicy) plan() plan {
	if p.backoff == nil && p.err == nil {
		p.err = fmt.Errorf("%w: zero RetryPolicy", ErrInvalid)
	}
	return plan{backoff: p.backoff, err: p.err}
}

func (p RetryPolicy) inline() {}

// DeferPolicy is made by [Defer].
type DeferPolicy struct {
	delay     time.Duration
	notBefore bool
}

// Defer stores the request and returns at once, with a [Receipt]. The request
// stands in line for its lock, behind those deferred before it, and runs as soon
// as it is its turn: when the lock is released, or, if nobody says so, d later if
// the lock is then free. Once an earlier request of the same line was due and the lock
// was still held, it is looked at again when its TTL has passed, or after a minute. For
// callers who must never block. A negative d is an invalid policy.
func Defer(d time.Duration) DeferPolicy { return DeferPolicy{delay: d} }

// NotBefore makes the request wait out its whole delay, even if the lock is free
// earlier. It then stands in no line meanwhile.
func (p DeferPolicy) NotBefore() DeferPolicy {
	p.notBefore = true
	return p
}

// String returns the policy as it was made.
func (p DeferPolicy) String() string {
	if p.notBefore {
		return fmt.Sprintf("defer(%v, not before)", p.delay)
	}
	return fmt.Sprintf("defer(%v)", p.delay)
}

func (p DeferPolicy) plan() plan {
	pl := plan{parks: !p.notBefore, delays: p.notBefore, delay: p.delay}
	if p.delay < 0 {
		pl.err = fmt.Errorf("%w: Defer by a negative duration (%v)", ErrInvalid, p.delay)
	}
	return pl
}

// ThenPolicy is made by [RetryPolicy.Then].
type ThenPolicy struct {
	first RetryPolicy
	then  DeferPolicy
}

// String returns the policy as it was made.
func (p ThenPolicy) String() string { return p.first.String() + ", then " + p.then.String() }

func (p ThenPolicy) plan() plan {
	pl := p.then.plan()
	first := p.first.plan()
	pl.backoff = first.backoff
	if first.err != nil {
		pl.err = first.err
	}
	return pl
}

var (
	_ InlinePolicy = FailPolicy{}
	_ InlinePolicy = RetryPolicy{}
	_ Policy       = DeferPolicy{}
	_ Policy       = ThenPolicy{}
)

// planOf returns the plan of a policy, or why it cannot be followed.
func planOf(p Policy) (plan, error) {
	if p == nil {
		return plan{}, fmt.Errorf("%w: nil policy", ErrInvalid)
	}
	pl := p.plan()
	return pl, pl.err
}
