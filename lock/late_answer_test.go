package lock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// behindProxy is a server and a Locker that reaches it through a proxy, by a client
// that sends nothing twice and waits for an answer for so long. The scripts are known.
func behindProxy(t *testing.T, timeout time.Duration, cfg lock.Config, fn func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker)) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		p := redistest.Through(t, rdb)
		client := p.Client(t, func(o *redis.Options) { o.MaxRetries, o.ReadTimeout = -1, timeout })
		l, direct := newLocker(t, client, cfg), newLocker(t, rdb, lock.Config{})
		for _, l := range []*lock.Locker{direct, l} {
			lk := take(t, l, "warm", lock.WithTTL(time.Minute))
			if err := lk.Extend(context.Background()); err != nil {
				t.Fatal(err)
			}
			release(t, lk)
		}
		t.Cleanup(func() { // before the Lockers are closed, which wait for their answers
			p.Delay(0, 0)
			p.Cut()
		})
		fn(t, p, l, direct)
	})
}

// An extension whose answer comes when the lease is over is none.
func TestExtendAnsweredAfterTheLease(t *testing.T) {
	t.Parallel()
	behindProxy(t, time.Minute, lock.Config{TTL: 200 * time.Millisecond}, func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker) {
		lk := take(t, l, "x")
		p.Delay(0, 400*time.Millisecond)
		err := lk.Extend(context.Background())
		if !errors.Is(err, lock.ErrNotHeld) || errors.Is(err, lock.ErrUnavailable) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("Extend = %v, want ErrNotHeld alone", err)
		}
		if until := time.Until(lk.Expires()); until > 0 {
			t.Errorf("the lock lasts for another %v", until)
		}
		p.Delay(0, 0)
		next, err := direct.Acquire(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		release(t, next)
	})
}

// An extension without an answer says that it may have been made, and one whose caller
// does not wait for it that its context has ended; the lock is held for as long as it was.
func TestExtendWithoutAnAnswerLeavesTheLockHeld(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"context": time.Minute, "client": time.Second} {
		t.Run(name, func(t *testing.T) {
			behindProxy(t, timeout, lock.Config{TTL: time.Hour}, func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker) {
				lk := take(t, l, "x")
				before := lk.Expires()
				p.Delay(0, 10*time.Minute)
				ctx := t.Context()
				if name == "context" {
					limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
					ctx = limited
				}
				err := lk.Extend(ctx)
				byContext := name == "context"
				if errors.Is(err, context.DeadlineExceeded) != byContext || errors.Is(err, lock.ErrAmbiguous) == byContext || errors.Is(err, lock.ErrNotHeld) {
					t.Errorf("Extend = %v", err)
				}
				if got := lk.Expires(); !got.Equal(before) {
					t.Errorf("Expires = %v, want %v as before", got, before)
				}
				wantHeld(t, direct, "x", true)
				p.Delay(0, 0)
				p.Cut() // what is under way never comes
				release(t, lk)
				wantHeld(t, direct, "x", false)
			})
		})
	}
}

// Extensions are made, and the answers come too late: the section ends by what it knows,
// and is over when another's begins.
func TestSectionWithoutAnswersEndsInTime(t *testing.T) {
	t.Parallel()
	behindProxy(t, time.Second, lock.Config{TTL: 600 * time.Millisecond}, func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker) {
		err := l.TryDo(t.Context(), "x", func(ctx context.Context, lk *lock.Lock) error {
			p.Delay(0, 10*time.Minute)
			next, err := direct.Acquire(t.Context(), "x", nil)
			if err != nil {
				return err
			}
			if ctx.Err() == nil || !errors.Is(context.Cause(ctx), lock.ErrNotHeld) {
				t.Errorf("the context beside another's section: %v, cause %v", ctx.Err(), context.Cause(ctx))
			}
			if next.Fence() <= lk.Fence() {
				t.Errorf("fence %d after %d", next.Fence(), lk.Fence())
			}
			release(t, next)
			return nil
		})
		if !errors.Is(err, lock.ErrNotHeld) || errors.Is(err, lock.ErrLocked) {
			t.Errorf("TryDo = %v, want ErrNotHeld", err)
		}
	})
}

// A release that is answered late has released; without an answer it says that it may
// have, and when it is repeated it takes the lock from nobody else.
func TestReleaseAnsweredLate(t *testing.T) {
	t.Parallel()
	behindProxy(t, time.Second, lock.Config{TTL: time.Hour}, func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker) {
		lk := take(t, l, "x")
		p.Delay(0, 10*time.Minute)
		if err := lk.Release(t.Context()); !errors.Is(err, lock.ErrUnavailable) || !errors.Is(err, lock.ErrAmbiguous) || errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Release = %v, want ErrUnavailable and ErrAmbiguous, and not ErrNotHeld", err)
		}
		if err := lk.Extend(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("Extend after Release = %v", err)
		}
		theirs := take(t, direct, "x") // it was released
		p.Delay(0, 0)
		p.Cut()
		release(t, lk) // the section ended with the first call
		if st := wantHeld(t, direct, "x", true); st.Fence != theirs.Fence() {
			t.Errorf("fence %d, want that of the new holder, %d", st.Fence, theirs.Fence())
		}
		if err := theirs.Extend(t.Context()); err != nil {
			t.Errorf("Extend by the new holder: %v", err)
		}
		release(t, theirs)
	})
	t.Run("in time", func(t *testing.T) {
		behindProxy(t, time.Minute, lock.Config{}, func(t *testing.T, p *redistest.Proxy, l, direct *lock.Locker) {
			lk := take(t, l, "x")
			p.Delay(0, 50*time.Millisecond)
			release(t, lk)
			wantHeld(t, direct, "x", false)
		})
	})
}
