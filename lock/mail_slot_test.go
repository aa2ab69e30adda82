package lock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// newCluster returns the nodes of a Cluster of two that have half of the slots each, and
// their addresses.
func newCluster(t *testing.T) (nodes []*redis.Client, addrs []string) {
	ctx := t.Context()
	var ports []string
	for i := range 2 {
		port := redistest.FreePort(t)
		rdb := redistest.NewServer(t, "--port", port, "--cluster-enabled", "yes", "--bind", "127.0.0.1", "--databases", "1").Client(t)
		do(t, rdb, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		do(t, rdb, "CLUSTER", "ADDSLOTSRANGE", i*8192, i*8192+8191)
		nodes, ports, addrs = append(nodes, rdb), append(ports, port), append(addrs, "127.0.0.1:"+port)
	}
	do(t, nodes[1], "CLUSTER", "MEET", "127.0.0.1", ports[0])
	for _, rdb := range nodes {
		waitFor(t, func() bool {
			info := rdb.ClusterInfo(ctx).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:2")
		})
	}
	return nodes, addrs
}

// In a Cluster a waiter subscribes where the lock is, under a name in the lock's slot:
// a release looks for it there, and tells it.
func TestMailIsInTheSlotOfTheLock(t *testing.T) {
	nodes, addrs := newCluster(t)
	locker := func() *lock.Locker {
		rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
		t.Cleanup(func() { rdb.Close() })
		return newLocker(t, rdb, lock.Config{TTL: 24 * time.Hour, ClaimLease: 12 * time.Hour}) // no timer rings
	}
	holder, waiter := locker(), locker()
	at := make(map[int]int) // locks by node
	for i := range 8 {
		name := fmt.Sprint("job ", i)
		if i%2 == 1 {
			name = fmt.Sprintf("job {%d} of a tenant", i)
		}
		slot := nodes[0].ClusterKeySlot(t.Context(), name).Val()
		home := int(slot / 8192)
		at[home]++
		lk := take(t, holder, name)
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() {
			done <- waiter.Do(ctx, name, nil, func(context.Context, *lock.Lock) error { return nil })
		}()
		waitFor(t, func() bool { st, _ := holder.Inspect(ctx, name); return st.Waiters == 1 })
		channels := nodes[home].PubSubChannels(ctx, "*mail*").Val()
		found := false
		for _, c := range channels {
			found = found || nodes[home].ClusterKeySlot(ctx, c).Val() == slot
		}
		if !found {
			t.Errorf("%q is in slot %d, whose node has the channels %q", name, slot, channels)
		}
		release(t, lk)
		if err := <-done; err != nil {
			t.Fatalf("Do(%q), which nobody told = %v", name, err)
		}
	}
	if len(at) != 2 {
		t.Errorf("all locks are at one node: %v", at)
	}
}
