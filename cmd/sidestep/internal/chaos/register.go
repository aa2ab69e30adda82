package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/fence"
)

// register is what sections write, a value per key: behind a guard that checks
// fences, and beside it without one, for contrast. Its server keeps a list per
// key of all that passed, in the order in which it did.
type register struct {
	rdb   *redis.Client
	guard *fence.Redis
	open  bool // the guard is left out
}

func newRegister(addr string, open bool) *register {
	rdb := redis.NewClient(&redis.Options{Addr: addr, PoolSize: clientPool, DisableIdentity: true})
	return &register{rdb: rdb, guard: fence.NewRedis(rdb, fence.RedisConfig{}), open: open}
}

const (
	enterLua = `redis.call('RPUSH', KEYS[2], ARGV[1]) return 1`
	readLua  = `redis.call('RPUSH', KEYS[2], ARGV[1]) return redis.call('GET', KEYS[1]) or ''`
	writeLua = `redis.call('RPUSH', KEYS[2], ARGV[1]) redis.call('SET', KEYS[1], ARGV[2]) return 1`
)

// scripts come with and without the guard's check in front.
type bothScripts struct {
	guarded *fence.Script
	plain   *redis.Script
}

func both(lua string) bothScripts {
	return bothScripts{fence.NewScript(lua), redis.NewScript(lua)}
}

var enterScript, readScript, writeScript = both(enterLua), both(readLua), both(writeLua)

func valueKey(key string) string    { return "value:" + key }
func passedKey(key string) string   { return "passed:" + key }
func unfencedKey(key string) string { return "unfenced:" + key }

func (r *register) run(s bothScripts, key string, fence int64, args ...any) *redis.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if r.open {
		return s.plain.Run(ctx, r.rdb, []string{valueKey(key), passedKey(key)}, args...)
	}
	return r.guard.Run(ctx, s.guarded, valueKey(key), fence, []string{passedKey(key)}, args...)
}

// enter makes the fence known, as a holder does before it reads.
func (r *register) enter(key string, fence int64) error {
	r.beside(key, fmt.Sprint("enter ", fence))
	return r.run(enterScript, key, fence, fmt.Sprint("enter ", fence)).Err()
}

// read enters and reads.
func (r *register) read(key string, fence int64) (string, error) {
	r.beside(key, fmt.Sprint("enter ", fence))
	return r.run(readScript, key, fence, fmt.Sprint("enter ", fence)).Text()
}

func (r *register) write(key string, fence int64, value string) error {
	r.beside(key, fmt.Sprint("write ", fence))
	return r.run(writeScript, key, fence, fmt.Sprint("write ", fence), value).Err()
}

// beside notes what passes where no guard is, for contrast.
func (r *register) beside(key, line string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r.rdb.RPush(ctx, unfencedKey(key), line)
}

// stale counts the writes with a smaller fence than one that had passed before.
func (r *register) stale(ctx context.Context, key string) (int, error) {
	all, err := r.rdb.LRange(ctx, key, 0, -1).Result()
	if err != nil {
		return 0, err
	}
	n := 0
	var most int64
	for _, line := range all {
		var verb string
		var fence int64
		if _, err := fmt.Sscan(line, &verb, &fence); err != nil {
			return n, errors.New("the register's list has a line " + line)
		}
		if verb == "write" && fence < most {
			n++
		}
		most = max(most, fence)
	}
	return n, nil
}
