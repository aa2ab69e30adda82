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

// Until returns what do does, or, if ctx ends before, an error; what do returns later
// is dropped. It is for what callers of the queue wait for: go-redis by default looks
// at no context while it waits for a reply, and never at a cancellation. What consumers
// send has contexts that outlast it.
func Until[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	if ctx.Done() == nil {
		return do(ctx)
	}
	var none T
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	done := make(chan outcome[T], 1)
	go func() {
		var o outcome[T]
		defer func() {
			if !o.returned {
				o.panicked = recover()
			}
			done <- o
		}()
		roomy()
		o.v, o.err = do(ctx)
		o.returned = true
	}()
	select {
	case o := <-done:
		return o.get(ctx)
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return o.get(ctx)
	default:
		return none, fmt.Errorf("%w (%w)", ctx.Err(), ErrUnanswered)
	}
}

// outcome is how a function ended.
type outcome[T any] struct {
	v        T
	err      error
	returned bool
	panicked any // not returned: with that; nil: by ending its goroutine
}

// get ends in the same way. The end of ctx as an error is the client's, which has
// sent the command.
func (o *outcome[T]) get(ctx context.Context) (T, error) {
	switch {
	case o.returned && ctx.Err() != nil && errors.Is(o.err, ctx.Err()):
		return o.v, fmt.Errorf("%w (%w)", o.err, ErrUnanswered)
	case o.returned:
		return o.v, o.err
	case o.panicked == nil:
		runtime.Goexit()
	}
	panic(o.panicked)
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
	return answered(ctx, func(ctx context.Context) *redis.Cmd { return p.run(ctx, q, nil, args...) })
}

// askOf is ask for a request whose offer may be open.
func (p *program) askOf(ctx context.Context, q *Queue, id string, args ...any) *redis.Cmd {
	return answered(ctx, q.closing(id, func(ctx context.Context) *redis.Cmd { return p.run(ctx, q, nil, args...) }))
}

// acceptUntil is accept, of a request whose offer may be open, until ctx ends.
func (q *Queue) acceptUntil(ctx context.Context, p *program, id string, args ...any) *redis.Cmd {
	return answered(ctx, q.closing(id, func(ctx context.Context) *redis.Cmd {
		return q.accept(ctx, p, append([]any{id}, args...)...)
	}))
}

// answered is Until for a command, which has the error.
func answered(ctx context.Context, do func(context.Context) *redis.Cmd) *redis.Cmd {
	cmd, err := Until(ctx, func(ctx context.Context) (*redis.Cmd, error) {
		cmd := do(ctx)
		return cmd, cmd.Err()
	})
	if err != nil {
		return failed(context.Background(), err)
	}
	return cmd
}
