package lock_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

func do(t *testing.T, rdb *redis.Client, args ...any) {
	t.Helper()
	if err := rdb.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(args, err)
	}
}

// In a Cluster a message reaches the subscribers of all nodes, and PUBLISH counts
// those of its own: not a waiter who subscribed where the slot was before.
func TestNoGrantPastASlotThatMoved(t *testing.T) {
	ctx := t.Context()
	var nodes []*redis.Client
	var ports, ids []string
	for i := range 2 {
		port := redistest.FreePort(t)
		rdb := redistest.NewServer(t, "--port", port, "--cluster-enabled", "yes", "--bind", "127.0.0.1", "--databases", "1").Client(t)
		do(t, rdb, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		nodes, ports, ids = append(nodes, rdb), append(ports, port), append(ids, rdb.Do(ctx, "CLUSTER", "MYID").Val().(string))
	}
	do(t, nodes[0], "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
	do(t, nodes[1], "CLUSTER", "MEET", "127.0.0.1", ports[0])
	for _, rdb := range nodes {
		waitFor(t, func() bool {
			info := rdb.ClusterInfo(ctx).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:2")
		})
	}
	wantNoSecondHolder(t, func() redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:" + ports[0]}})
	}, func() {
		slot := nodes[0].ClusterKeySlot(ctx, "x").Val()
		do(t, nodes[1], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
		do(t, nodes[0], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
		do(t, nodes[0], "MIGRATE", "127.0.0.1", ports[1], "", 0, 5000, "KEYS", "x", "{x}:fence", "{x}:line")
		do(t, nodes[1], "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
		do(t, nodes[0], "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
	})
}

// A message goes to the replicas too, and PUBLISH does not count who listens there:
// a waiter who subscribed when that was the master.
func TestNoGrantPastAnOrderlyFailover(t *testing.T) {
	ctx := t.Context()
	ports := []string{redistest.FreePort(t), redistest.FreePort(t)}
	var servers []*redistest.Server
	var nodes []*redis.Client
	for _, port := range ports {
		srv := redistest.NewServer(t, "--port", port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
		servers, nodes = append(servers, srv), append(nodes, srv.Client(t))
	}
	follow := func(replica, master int) {
		do(t, nodes[replica], "REPLICAOF", "127.0.0.1", ports[master])
		waitFor(t, func() bool {
			return strings.Contains(nodes[replica].Info(ctx, "replication").Val(), "master_link_status:up")
		})
	}
	follow(1, 0)
	var master atomic.Pointer[redistest.Server] // what its name leads to
	master.Store(servers[0])
	wantNoSecondHolder(t, func() redis.UniversalClient {
		return redis.NewClient(&redis.Options{
			Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", master.Load().Socket)
			},
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
	}, func() {
		do(t, nodes[0], "WAIT", 1, 5000)
		do(t, nodes[1], "REPLICAOF", "NO", "ONE")
		master.Store(servers[1])
		follow(0, 1)
	})
}

// wantNoSecondHolder releases a lock that somebody waits for, after its keys have
// moved away from where the waiter is subscribed, and takes it for a third.
func wantNoSecondHolder(t *testing.T, client func() redis.UniversalClient, move func()) {
	ctx := t.Context()
	locker := func(owner string, answered func()) *lock.Locker {
		rdb := client()
		t.Cleanup(func() { rdb.Close() })
		rdb.AddHook(hook{process: func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			if err == nil && strings.HasPrefix(cmd.Name(), "eval") {
				answered()
			}
			return err
		}})
		return newLocker(t, rdb, lock.Config{Owner: owner})
	}
	var asked atomic.Int64
	holder, third := locker("holder", func() {}), locker("third", func() {})
	waiter := locker("waiter", func() { asked.Add(1) })
	release(t, take(t, third, "x")) // the scripts are known
	lk := take(t, holder, "x")
	var entered atomic.Bool
	leave, left := make(chan struct{}), make(chan error, 1)
	go func() {
		left <- waiter.Do(ctx, "x", nil, func(ctx context.Context, _ *lock.Lock) error {
			entered.Store(true)
			<-leave
			return ctx.Err()
		})
	}()
	waitFor(t, func() bool { st, _ := holder.Inspect(ctx, "x"); return st.Waiters == 1 })
	move()
	release(t, lk)
	switch lk, err := third.TryAcquire(ctx, "x"); {
	case err == nil:
		before := asked.Load()
		waitFor(t, func() bool { return entered.Load() || asked.Load() >= before+2 }) // one may have been under way
		if entered.Load() {
			t.Errorf("the waiter has entered beside %v", lk)
		}
		release(t, lk)
	case !errors.Is(err, lock.ErrLocked): // by the waiter, who may have asked first
		t.Error(err)
	}
	close(leave)
	if err := <-left; err != nil {
		t.Errorf("the waiter's section: %v", err)
	}
}
