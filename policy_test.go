package sidestep_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// What the compiler accepts.
var (
	_ sidestep.InlinePolicy = sidestep.Fail()
	_ sidestep.InlinePolicy = sidestep.Retry(retry.Default())
	_ sidestep.InlinePolicy = sidestep.RetryFor(time.Second)
	_ sidestep.Policy       = sidestep.Defer(time.Second)
	_ sidestep.Policy       = sidestep.Defer(time.Second).NotBefore()
	_ sidestep.Policy       = sidestep.RetryFor(time.Second).Then(sidestep.Defer(time.Second))
	_ sidestep.ThenPolicy   = sidestep.Retry(retry.Default()).Then(sidestep.Defer(0).NotBefore())
)

// What it does not.
func TestPolicyTypes(t *testing.T) {
	t.Parallel()
	inline, policy := reflect.TypeFor[sidestep.InlinePolicy](), reflect.TypeFor[sidestep.Policy]()
	for _, typ := range []reflect.Type{reflect.TypeFor[sidestep.DeferPolicy](), reflect.TypeFor[sidestep.ThenPolicy]()} {
		if typ.Implements(inline) {
			t.Errorf("%v serves Acquirer.Do, which has nothing to store", typ)
		}
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[sidestep.FailPolicy](), reflect.TypeFor[sidestep.DeferPolicy](), reflect.TypeFor[sidestep.ThenPolicy](),
	} {
		if _, ok := typ.MethodByName("Then"); ok {
			t.Errorf("%v has a method Then; only what retries has one", typ)
		}
	}
	for _, typ := range []reflect.Type{inline, policy} {
		sealed := false
		for m := range typ.Methods() {
			sealed = sealed || m.PkgPath != ""
		}
		if !sealed {
			t.Errorf("%v is not sealed: others can implement it", typ)
		}
	}
}

func TestPoliciesPrintThemselves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy sidestep.Policy
		want   string
	}{
		{sidestep.Fail(), "fail"},
		{sidestep.RetryFor(200 * time.Millisecond), "retry(200ms)"},
		{sidestep.RetryFor(0), "retry(0s)"},
		{sidestep.Defer(5 * time.Second), "defer(5s)"},
		{sidestep.Defer(5 * time.Second).NotBefore(), "defer(5s, not before)"},
		{sidestep.RetryFor(200 * time.Millisecond).Then(sidestep.Defer(5 * time.Second)), "retry(200ms), then defer(5s)"},
		{sidestep.Retry(retry.Constant(time.Second)), "retry(" + reflect.ValueOf(retry.Constant(time.Second)).MethodByName("String").Call(nil)[0].String() + ")"},
	} {
		if got := tt.policy.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}

func TestInvalidPoliciesSendNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
	ran := newRuns()
	task := sidestep.NewTask(q, "t", one("k"), ran.handler())
	count := redistest.Count(rdb)
	bad := []sidestep.Policy{
		nil,
		sidestep.Retry(nil),
		sidestep.Retry(retry.BackoffFunc(nil)),
		sidestep.Retry(retry.BackoffFunc(nil)).Then(sidestep.Defer(0)),
		sidestep.RetryFor(-1),
		sidestep.Retry(nil).Then(sidestep.Defer(0)),
		sidestep.RetryFor(-1).Then(sidestep.Defer(0)),
		sidestep.Defer(-1),
		sidestep.Defer(-1).NotBefore(),
		sidestep.RetryFor(0).Then(sidestep.Defer(-1)),
	}
	for _, p := range bad {
		if out, err := task.Do(t.Context(), 1, p); !errors.Is(err, sidestep.ErrInvalid) || errors.Is(err, sidestep.ErrLocked) || out.Deferred != nil {
			t.Errorf("Task.Do(%v) = %+v, %v, want ErrInvalid", p, out, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("WhenLocked(%v) did not panic", p)
				}
			}()
			sidestep.WhenLocked(p)
		}()
		if p, ok := p.(sidestep.InlinePolicy); ok || p == nil {
			err := acq.Do(t.Context(), "k", p, func(context.Context, *lock.Lock) error { return errors.New("ran") })
			if !errors.Is(err, sidestep.ErrInvalid) {
				t.Errorf("Acquirer.Do(%v) = %v, want ErrInvalid", p, err)
			}
		}
	}
	if n := count.Commands(); n != 0 || len(ran.list()) != 0 {
		t.Errorf("%d commands were sent (%v) and %d handlers ran, want none", n, count.Names(), len(ran.list()))
	}
}

func TestRetryForZeroTriesOnce(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		hold(t, rdb, "k")
		acq := newAcquirer(t, rdb, sidestep.Config{})
		began := time.Now()
		err := acq.Do(t.Context(), "k", sidestep.RetryFor(0), func(context.Context, *lock.Lock) error { return nil })
		if took := time.Since(began); !errors.Is(err, sidestep.ErrLocked) || took != 0 {
			t.Errorf("Do = %v after %v, want ErrLocked at once", err, took)
		}
		if err := acq.Do(t.Context(), "free", sidestep.RetryFor(0), func(context.Context, *lock.Lock) error { return nil }); err != nil {
			t.Errorf("Do on a free lock = %v, want nil", err)
		}
	})
}
