package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/lock"
)

// The topologies.
const (
	Standalone    = "standalone"     // one server, which writes all to disk before it answers
	Sentinel      = "sentinel"       // a master, a replica, three sentinels; accepting waits for the replica
	SentinelAsync = "sentinel-async" // the same, and accepting does not wait
	Quorum        = "quorum"         // locks on a majority of three servers; the queue is on the first
	Cluster       = "cluster"        // three masters
)

// Topologies are all of them.
var Topologies = []string{Standalone, Sentinel, SentinelAsync, Quorum, Cluster}

// The times of a run. A Sentinel counts a master as down from its last answer,
// which may be a second old when it dies. As downAfter is longer than any lease and
// that second, no lease granted by a dead master lasts until the next one serves.
// It is longer than a restart and two such seconds as well, the second being the
// time between two tries to connect, so that a restarted master is rarely replaced.
const (
	lockTTL      = 800 * time.Millisecond
	queueLease   = time.Second
	queuePoll    = 100 * time.Millisecond
	downAfter    = 3 * time.Second
	replicaWait  = 300 * time.Millisecond
	masterName   = "chaos"
	queueName    = "chaos"
	partitions   = 3 // of the queue in a Cluster
	clusterSlots = 16384
)

// servers are those of one run. They are started by startServers.
type servers struct {
	kind      string
	nodes     []*server // that hold locks and queue
	sentinels []*server
	register  *server // left alone
}

// all returns every server.
func (s *servers) all() []*server {
	all := append(append([]*server{}, s.nodes...), s.sentinels...)
	if s.register != nil {
		all = append(all, s.register)
	}
	return all
}

func (s *servers) kill() {
	for _, one := range s.all() {
		one.kill()
	}
}

// startServers starts the servers of a topology. After an error too the caller
// kills what there is.
func startServers(ctx context.Context, kind, dir string) (*servers, error) {
	s := &servers{kind: kind}
	add := func(to *[]*server, name string, args ...string) error {
		one, err := newServer(dir, name, args...)
		if one != nil {
			*to = append(*to, one)
		}
		return err
	}
	var registers []*server
	err := add(&registers, "register")
	if len(registers) > 0 {
		s.register = registers[0]
	}
	if err != nil {
		return s, err
	}
	switch kind {
	case Standalone:
		err = add(&s.nodes, "redis", durable...)
	case Sentinel, SentinelAsync:
		err = s.startSentinel(ctx, add)
	case Quorum:
		for i := 0; i < 3 && err == nil; i++ {
			err = add(&s.nodes, fmt.Sprint("node-", i+1), durable...)
		}
	case Cluster:
		for i := 0; i < 3 && err == nil; i++ {
			err = add(&s.nodes, fmt.Sprint("node-", i+1), append([]string{
				"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
				"--cluster-announce-ip", "127.0.0.1",
			}, durable...)...)
		}
		if err == nil {
			err = s.formCluster(ctx)
		}
	default:
		err = fmt.Errorf("topology %q is none of %s", kind, strings.Join(Topologies, ", "))
	}
	return s, err
}

func (s *servers) startSentinel(ctx context.Context, add func(*[]*server, string, ...string) error) error {
	if err := add(&s.nodes, "redis-1", durable...); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(s.nodes[0].addr)
	if err := add(&s.nodes, "redis-2", append([]string{"--replicaof", host + " " + port}, durable...)...); err != nil {
		return err
	}
	s.nodes[1].args = durable // who is master from now on is not for its arguments to say
	if err := s.inSync(ctx, s.nodes[1]); err != nil {
		return err
	}
	for i := range 3 {
		err := add(&s.sentinels, fmt.Sprint("sentinel-", i+1),
			"sentinel monitor "+masterName+" "+host+" "+port+" 2",
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", masterName, downAfter.Milliseconds()),
			"sentinel failover-timeout "+masterName+" 1500",
			"sentinel parallel-syncs "+masterName+" 1",
		)
		if err != nil {
			return err
		}
	}
	for _, one := range s.sentinels {
		err := await(ctx, 20*time.Second, "the sentinels find each other", func() bool {
			about, err := sentinelInfo(ctx, one)
			return err == nil && about["num-slaves"] == "1" && about["num-other-sentinels"] == "2"
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// following returns the arguments with which a server starts as what it is now:
// a replica, or none.
func following(ctx context.Context, srv *server) ([]string, error) {
	v, err := srv.do(ctx, "ROLE")
	role, _ := v.([]any)
	if err != nil || len(role) < 3 || role[0] != "slave" {
		return nil, err
	}
	return []string{"--replicaof", fmt.Sprint(role[1], " ", role[2])}, nil
}

// inSync waits until a replica follows its master.
func (s *servers) inSync(ctx context.Context, replica *server) error {
	return await(ctx, 20*time.Second, replica.name+" follows its master", func() bool {
		v, err := replica.do(ctx, "INFO", "replication")
		text, _ := v.(string)
		return err == nil && strings.Contains(text, "role:slave") && strings.Contains(text, "master_link_status:up")
	})
}

// whole waits until all nodes of a Sentinel set are as they should be: the replica
// has all that its master has written so far, and both would still after a restart.
// Elsewhere servers have no replica to wait for.
func (s *servers) whole(ctx context.Context) error {
	if len(s.sentinels) == 0 {
		return nil
	}
	return await(ctx, 20*time.Second, "a master whose replica has all", func() bool {
		for _, n := range s.nodes { // whoever rewrites its append-only file starts with the old one
			v, err := n.do(ctx, "INFO", "persistence")
			text, _ := v.(string)
			if err != nil || !strings.Contains(text, "aof_rewrite_in_progress:0") || !strings.Contains(text, "aof_rewrite_scheduled:0") {
				return false
			}
		}
		master, err := s.master(ctx)
		if err != nil {
			return false
		}
		rdb := master.client()
		defer rdb.Close()
		return hasAll(ctx, rdb, time.Second)
	})
}

// hasAll tells whether a replica of a master gets all that it has written so far,
// within a limit.
func hasAll(ctx context.Context, master *redis.Client, limit time.Duration) bool {
	conn := master.Conn() // WAIT is about what its own connection wrote
	defer conn.Close()    //nolint:errcheck // it only asked
	if err := conn.Set(ctx, "chaos:has-all", 1, time.Second).Err(); err != nil {
		return false
	}
	n, err := conn.Wait(ctx, 1, limit).Result()
	return err == nil && n > 0
}

// sentinelInfo asks a sentinel about the master.
func sentinelInfo(ctx context.Context, one *server) (map[string]string, error) {
	rdb := redis.NewSentinelClient(one.client().Options())
	defer rdb.Close() //nolint:errcheck // asked and answered
	return rdb.Master(ctx, masterName).Result()
}

// master returns the node that the sentinels call master.
func (s *servers) master(ctx context.Context) (*server, error) {
	votes := make(map[string]int)
	for _, one := range s.sentinels {
		rdb := redis.NewSentinelClient(one.client().Options())
		at, err := rdb.GetMasterAddrByName(ctx, masterName).Result()
		_ = rdb.Close() // asked and answered
		if err == nil && len(at) == 2 {
			votes[net.JoinHostPort(at[0], at[1])]++
		}
	}
	for _, n := range s.nodes {
		if votes[n.addr] > len(s.sentinels)/2 {
			return n, nil
		}
	}
	return nil, errors.New("the sentinels name no master")
}

// formCluster gives each node a third of the slots and introduces them.
func (s *servers) formCluster(ctx context.Context) error {
	for i, n := range s.nodes {
		from, to := clusterSlots*i/len(s.nodes), clusterSlots*(i+1)/len(s.nodes)-1
		if _, err := n.do(ctx, "CLUSTER", "ADDSLOTSRANGE", from, to); err != nil { // Redis 7
			args := []any{"CLUSTER", "ADDSLOTS"}
			for slot := from; slot <= to; slot++ {
				args = append(args, slot)
			}
			if _, err := n.do(ctx, args...); err != nil {
				return err
			}
		}
		if _, err := n.do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(n.addr)
			if _, err := s.nodes[0].do(ctx, "CLUSTER", "MEET", host, port); err != nil {
				return err
			}
		}
	}
	for _, n := range s.nodes {
		err := await(ctx, 20*time.Second, "the Cluster forms", func() bool {
			v, err := n.do(ctx, "CLUSTER", "INFO")
			text, _ := v.(string)
			return err == nil && strings.Contains(text, "cluster_state:ok") &&
				strings.Contains(text, "cluster_known_nodes:"+strconv.Itoa(len(s.nodes))) &&
				strings.Contains(text, "cluster_slots_ok:"+strconv.Itoa(clusterSlots))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// way is how a member reaches the servers.
type way struct {
	Kind      string            `json:"kind"`
	Nodes     []string          `json:"nodes"`
	Sentinels []string          `json:"sentinels,omitempty"`
	Register  string            `json:"register"`
	Through   map[string]string `json:"through,omitempty"` // sockets of the proxies in front of servers
}

func (s *servers) way(through map[string]string) way {
	w := way{Kind: s.kind, Register: s.register.addr, Through: through}
	for _, n := range s.nodes {
		w.Nodes = append(w.Nodes, n.addr)
	}
	for _, n := range s.sentinels {
		w.Sentinels = append(w.Sentinels, n.addr)
	}
	return w
}

// dial makes a connection, through the proxy if there is one.
func (w way) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if socket := w.Through[addr]; socket != "" {
		network, addr = "unix", socket
	}
	d := net.Dialer{Timeout: clientTimeout}
	return d.DialContext(ctx, network, addr)
}

const (
	clientTimeout = time.Second // to dial, to read, to write
	clientPool    = 24
)

// clients returns the client of the queue, and those of the locks.
func (w way) clients() (queue redis.UniversalClient, locks []redis.UniversalClient) {
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	one := func(addr string) redis.UniversalClient {
		return redis.NewClient(&redis.Options{
			Addr: addr, Dialer: w.dial, DialTimeout: clientTimeout, ReadTimeout: clientTimeout, WriteTimeout: clientTimeout,
			PoolSize: clientPool, DisableIdentity: true, MaintNotificationsConfig: quiet,
		})
	}
	switch w.Kind {
	case Sentinel, SentinelAsync:
		queue = redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: masterName, SentinelAddrs: w.Sentinels, Dialer: w.dial,
			DialTimeout: clientTimeout, ReadTimeout: clientTimeout, WriteTimeout: clientTimeout,
			PoolSize: clientPool, DisableIdentity: true,
		})
	case Cluster:
		queue = redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: w.Nodes, Dialer: w.dial, DialTimeout: clientTimeout, ReadTimeout: clientTimeout, WriteTimeout: clientTimeout,
			PoolSize: clientPool, DisableIdentity: true, MaintNotificationsConfig: quiet,
		})
	case Quorum:
		for _, addr := range w.Nodes {
			locks = append(locks, one(addr))
		}
		return one(w.Nodes[0]), locks
	default:
		queue = one(w.Nodes[0])
	}
	return queue, []redis.UniversalClient{queue}
}

// locker returns a Locker on the clients of the locks.
func (w way) locker(locks []redis.UniversalClient, cfg lock.Config) *lock.Locker {
	if w.Kind == Quorum {
		return lock.NewQuorum(locks, cfg)
	}
	return lock.New(locks[0], cfg)
}
