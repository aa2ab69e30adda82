package listq_test

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

type redisHook = redis.Hook

// loseReply loses the answers to commands whose context has the key.
type loseReply struct{ key any }

var errLost = errors.New("connection lost")

func (loseReply) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h loseReply) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if ctx.Value(h.key) != nil && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			err = errLost
			cmd.SetErr(err)
		}
		return err
	}
}

func (loseReply) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
