package listq_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// delay is a client hook that holds up commands on their way to the server, and the
// answers on their way back.
type delay struct {
	before, after func(redis.Cmder) time.Duration
}

func (delay) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h delay) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.before != nil {
			hold(h.before(cmd))
		}
		err := next(ctx, cmd)
		if h.after != nil {
			hold(h.after(cmd))
		}
		return err
	}
}

// hold waits for d, without a timer if that is no time: go.dev/issue/78156.
func hold(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

func (delay) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func isClaim(cmd redis.Cmder) bool { return strings.Contains(fmt.Sprint(cmd.Args()...), "last:") }

// names tells whether a command other than a claim is about the request of that id.
func names(cmd redis.Cmder, id string) bool {
	for _, a := range cmd.Args() {
		if a == id {
			return !isClaim(cmd)
		}
	}
	return false
}
