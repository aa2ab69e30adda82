package lock

import (
	"context"
	"net"
	"sync/atomic"

	rsredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/redis/go-redis/v9"
)

func newRedsyncScript(hash string) *rsredis.Script { return rsredis.NewScript(1, "", hash) }

// failing is a hook that fails all commands while it is on.
type failing struct{ on atomic.Bool }

var errDown = &net.OpError{Op: "dial", Err: net.ErrClosed}

func (f *failing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.on.Load() {
			cmd.SetErr(errDown)
			return errDown
		}
		return next(ctx, cmd)
	}
}

func (f *failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
