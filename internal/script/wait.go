package script

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Wait says how many replicas must have an accepted request before the call that
// stores it succeeds. The zero value waits for none.
type Wait struct {
	Replicas int
	Timeout  time.Duration // whole milliseconds; not 0, which is for ever
}

// ErrNotReplicated says that the master stored a request, and too few replicas
// said in time that they have it.
var ErrNotReplicated = errors.New("stored, but not confirmed by enough replicas")

// Replicate makes push, schedule and parknew wait for replicas. It must be
// called before them.
func (q *Queue) Replicate(w Wait) { q.wait = w }

// accept runs a script that accepts requests, and waits for the replicas.
func (q *Queue) accept(ctx context.Context, p *program, args ...any) *redis.Cmd {
	if q.wait.Replicas == 0 {
		return p.run(ctx, q, nil, args...)
	}
	return p.known(p.command(q, nil, args), func(all []any) *redis.Cmd { return q.replicated(ctx, all) })
}

// replicated sends the script, a write, and WAIT, over one connection and in one
// round trip. WAIT is about what its own connection wrote: if the script was sent
// before on another, whose reply was lost, or by an earlier call, it changes
// nothing now; the write behind it then stands later in the replication stream
// than what is to be waited for.
func (q *Queue) replicated(ctx context.Context, args []any) *redis.Cmd {
	const tries = 3 // a Cluster's slot may have moved
	for try := 1; ; try++ {
		node, err := q.node(ctx)
		if err != nil {
			return failed(ctx, err)
		}
		p := node.Pipeline()
		cmd := scriptCmd(ctx, args)
		_ = p.Process(ctx, cmd) // queues it
		p.HIncrBy(ctx, q.keys.Meta(), "waits", 1)
		acked := redis.NewIntCmd(ctx, "wait", q.wait.Replicas, q.wait.Timeout.Milliseconds())
		_ = p.Process(ctx, acked) // queues it
		_, _ = p.Exec(ctx)        // each command has its error
		cluster, ok := q.rdb.(*redis.ClusterClient)
		if moved := redis.HasErrorPrefix(cmd.Err(), "MOVED") || redis.HasErrorPrefix(cmd.Err(), "ASK"); ok && moved && try < tries {
			cluster.ReloadState(ctx)
			continue
		}
		switch {
		case cmd.Err() != nil:
		case acked.Err() != nil:
			cmd.SetErr(fmt.Errorf("wait: %w", acked.Err()))
		case acked.Val() < int64(q.wait.Replicas):
			cmd.SetErr(fmt.Errorf("%w: %d of %d within %v", ErrNotReplicated, acked.Val(), q.wait.Replicas, q.wait.Timeout))
		}
		return cmd
	}
}

// node returns a client of the server that holds the queue: WAIT names no key,
// so that a client of several servers would send it to any.
func (q *Queue) node(ctx context.Context) (redis.UniversalClient, error) {
	switch c := q.rdb.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, q.keys.Meta())
	case *redis.Ring:
		return c.GetShardClientForKey(q.keys.Meta())
	}
	return q.rdb, nil
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}
