package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
)

// leakKinds is what the hidden flag -leak takes.
const leakKinds = "all"

// leaks leaks on purpose, so that a test sees the soak notice.
type leaks struct {
	mu     sync.Mutex // guards the fields below
	n      int
	memory [][]byte
	files  []*os.File
	subs   []*redis.Client // with a subscription each
	block  chan struct{}
}

// leak leaks one of everything that a soak counts, and at every tenth call what
// there is less of.
func (k *leaks) leak(prefix string, rdb *redis.Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.block == nil {
		k.block = make(chan struct{})
	}
	k.n++
	k.memory = append(k.memory, make([]byte, 4<<10))
	go func(block chan struct{}) { <-block }(k.block)

	ctx := context.Background()
	q := keys.Of(keys.Base(prefix, soakQueue))
	name := fmt.Sprintf("%sleak:%d", prefix, k.n)
	_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // a crashed party leaks nothing more
		p.Set(ctx, name, "x", 0)
		p.Set(ctx, "{"+name+"}:fence", "1", 0)
		p.ZAdd(ctx, "{"+name+"}:line", redis.Z{Member: "x"})
		p.SAdd(ctx, "{"+name+"}:parked", "x")
		p.HSet(ctx, q.Msg(), name, make([]byte, 2<<10))
		p.HSet(ctx, q.State(), name, "r|1|0|0|0|1|0|||0|")
		p.HSet(ctx, q.Held(), name, name)
		p.HSet(ctx, q.Meta(), "turned", int64(1e15)) // so the memory of finished ids is never turned over
		return nil
	})
	if k.n%10 != 0 {
		return
	}
	if f, err := os.Open(os.DevNull); err == nil {
		k.files = append(k.files, f)
	}
	c := redis.NewClient(rdb.Options()) // the party's is closed with the party
	_, _ = c.Subscribe(ctx, "sidestep:mail:"+name).Receive(ctx)
	k.subs = append(k.subs, c)
}

// end takes back what would outlive the load's end within this process.
func (k *leaks) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.block != nil {
		close(k.block)
	}
	for _, f := range k.files {
		_ = f.Close() // only opened
	}
	for _, c := range k.subs {
		c.Close()
	}
}
