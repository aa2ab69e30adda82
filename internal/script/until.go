package script

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/redis/go-redis/v9"
)

// ErrUnanswered is in the error of a command that was sent, and whose answer had not
// come when its context ended.
var ErrUnanswered = errors.New("no answer yet, it may have been carried out")

// waits reports whether a command with that context need not be left behind: it does not
// end, or the client sees to it.
func (q *Queue) waits(ctx context.Context) bool { return ctx.Done() == nil || q.heeds }

// until returns what do does, or, if ctx ends before, an error; what do returns later
// is dropped. It is for what callers of the queue wait for: go-redis by default looks
// at no context while it waits for a reply. What consumers send has contexts that
// outlast it.
func until[T any](ctx context.Context, q *Queue, do func(context.Context) (T, error)) (T, error) {
	if q.waits(ctx) {
		return do(ctx)
	}
	var none T
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		roomy()
		v, err := do(ctx)
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-done:
		return a.v, a.err
	default:
		return none, fmt.Errorf("%w (%w)", ctx.Err(), ErrUnanswered)
	}
}

// roomy makes the stack of a goroutine as large as a command of go-redis needs it, while
// it is empty. Else it would be copied for each time that it doubles, which takes as long
// as a third of the command.
//
//go:noinline
func roomy() {
	var room [6 << 10]byte
	runtime.KeepAlive(&room)
}

// ask is run until ctx ends.
func (p *program) ask(ctx context.Context, q *Queue, args ...any) *redis.Cmd {
	return replied(until(ctx, q, func(ctx context.Context) (*redis.Cmd, error) { return p.run(ctx, q, nil, args...), nil }))
}

// acceptUntil is accept until ctx ends.
func (q *Queue) acceptUntil(ctx context.Context, p *program, args ...any) *redis.Cmd {
	return replied(until(ctx, q, func(ctx context.Context) (*redis.Cmd, error) { return q.accept(ctx, p, args...), nil }))
}

// replied makes a command of an error, if there is one.
func replied(cmd *redis.Cmd, err error) *redis.Cmd {
	if err != nil {
		return failed(context.Background(), err)
	}
	return cmd
}
