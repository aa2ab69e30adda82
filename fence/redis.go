package fence

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/client"
)

//go:embed guard.lua
var guardLua string

// The package's own verbs are scripts like those of its users.
var (
	enterScript = NewScript(`return 1`)
	getScript   = NewScript(`return redis.call('GET', KEYS[1])`)
	delScript   = NewScript(`return redis.call('DEL', KEYS[1])`)
	setScript   = NewScript(`
if ARGV[2] == '0' then return redis.call('SET', KEYS[1], ARGV[1]) end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])`)
)

// stalePrefix begins the error reply of guard.lua.
const stalePrefix = "STALEFENCE"

// RedisConfig configures a [Redis] guard. The zero value means the defaults.
type RedisConfig struct {
	// MaxAhead is how far ahead of the local clock a fence may be. 0 means
	// DefaultMaxAhead, a negative value any distance.
	MaxAhead time.Duration

	// TTL is how long a register is kept after the last call that passed it,
	// rounded down to whole milliseconds. It must be longer than any holder may
	// be paused, requests still under way included: after it, a fence of any age
	// is let in. At least 1s. 0 means for ever, which costs some 100 bytes per
	// resource.
	TTL time.Duration
}

// Redis guards keys in Redis. Next to each resource's key, in its hash slot, is
// a register: the largest fence seen, under [RegisterKey]. One script compares
// and raises the register and does the work, so nothing comes in between. Only
// writes that go through the guard are checked; plain commands on the same keys
// are not.
//
// Get, Set and Del raise the register too, so a holder that reads with Get first
// needs no Enter. The lock's key cannot be the resource's key as well: on one
// server, give locks a prefix.
//
// All methods return a [*StaleError] if a larger fence has been seen, an
// [*AheadError] for one too far ahead of the local clock, and an error that
// matches [ErrInvalid] for one that is not positive and for a key that is empty
// or cannot have a register in its slot: one with a "}" but no hash tag, or one that
// looks like a register: with a hash tag and ":seen" at its end.
// Errors of go-redis are wrapped; the call may then have been applied or not. A
// Redis is safe for concurrent use. Make one with [NewRedis].
type Redis struct {
	rdb      redis.UniversalClient
	maxAhead time.Duration
	ttl      string // in ms
}

// NewRedis returns a guard for the keys that rdb reaches. It panics if a value of
// the configuration is out of range, or if rdb is nil.
func NewRedis(rdb redis.UniversalClient, cfg RedisConfig) *Redis {
	switch {
	case client.IsNil(rdb):
		panic("fence: NewRedis with a nil client")
	case cfg.TTL != 0 && cfg.TTL < time.Second:
		panic(fmt.Sprintf("fence: RedisConfig.TTL %v is neither 0 nor at least 1s", cfg.TTL))
	}
	return &Redis{rdb: rdb, maxAhead: cfg.MaxAhead, ttl: strconv.FormatInt(cfg.TTL.Milliseconds(), 10)}
}

// RegisterKey returns the key of the register that belongs to a resource's key:
// {key}:seen, or key:seen where the key has a hash tag of its own. Operators may
// look at it; removing it lets any fence in. The keys x and {x} share a register:
// guard one of the two.
func RegisterKey(key string) string {
	if hasTag(key) {
		return key + ":seen"
	}
	return "{" + key + "}:seen"
}

// hasTag reports whether Redis Cluster hashes only a part of key.
func hasTag(key string) bool {
	_, rest, ok := strings.Cut(key, "{")
	return ok && strings.IndexByte(rest, '}') > 0
}

// Enter registers a fence with the resource: from its return on, smaller ones
// are refused. Call it before the first read of each section, unless that is a
// Get or a Run on the same key. It may be repeated.
func (r *Redis) Enter(ctx context.Context, key string, fence int64) error {
	return wrap("enter", key, r.Run(ctx, enterScript, key, fence, nil).Err())
}

// Get enters and returns the value of key, in one step. The error is redis.Nil
// if there is none; the fence is registered all the same.
func (r *Redis) Get(ctx context.Context, key string, fence int64) (string, error) {
	value, err := r.Run(ctx, getScript, key, fence, nil).Text()
	return value, wrap("get", key, err)
}

// Set enters and sets key to value, in one step. value is what go-redis takes: a
// string, []byte, number, bool, time, or an encoding.BinaryMarshaler. ttl is how
// long the value lasts, rounded down to whole milliseconds; 0 means until it is
// replaced. A ttl that is negative or below 1ms gives an error that matches
// [ErrInvalid].
func (r *Redis) Set(ctx context.Context, key string, fence int64, value any, ttl time.Duration) error {
	if ttl != 0 && ttl < time.Millisecond {
		return invalid(fmt.Sprintf("ttl %v is neither 0 nor at least 1ms", ttl))
	}
	return wrap("set", key, r.Run(ctx, setScript, key, fence, nil, value, ttl.Milliseconds()).Err())
}

// Del enters and removes key, in one step. The register stays. A key that does
// not exist is no error.
func (r *Redis) Del(ctx context.Context, key string, fence int64) error {
	return wrap("del", key, r.Run(ctx, delScript, key, fence, nil).Err())
}

// Script is a Lua script behind the check of a fence. Make one with [NewScript]
// and keep it; it is safe for concurrent use.
type Script struct {
	script *redis.Script
}

// NewScript puts the check in front of a Lua script. The script itself needs no
// change: KEYS[1] is the resource's key, KEYS[2] and so on are the further keys
// of [Redis.Run], ARGV its arguments, and error messages count the lines as they
// are in src. It runs only if the fence was not refused. If it fails halfway,
// the fence stays registered and what it wrote stays written, as always in
// Redis.
//
// It panics if src begins with a shebang line, which nothing can precede.
func NewScript(src string) *Script {
	if strings.HasPrefix(src, "#!") {
		panic("fence: NewScript with a shebang line")
	}
	return &Script{script: redis.NewScript(guard + src)}
}

// guard is guard.lua on one line, so that the lines of what follows it keep
// their numbers.
var guard = func() string {
	var b strings.Builder
	for line := range strings.Lines(guardLua) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			b.WriteString(line)
			b.WriteByte(' ')
		}
	}
	return b.String()
}()

// Run enters the resource at key and runs the script on it, in one step. keys are
// further keys of the script; on a Cluster they must be in the slot of key. Of
// what the script returns, an error reply that begins with "STALEFENCE" is read
// as the guard's own; all else is the result, as [redis.Script] gives it.
func (r *Redis) Run(ctx context.Context, s *Script, key string, fence int64, keys []string, args ...any) *redis.Cmd {
	err := r.valid(key, fence)
	if s == nil {
		err = invalid("script is nil")
	}
	if err != nil {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	allKeys := append([]string{RegisterKey(key), key}, keys...)
	allArgs := append([]any{fence, r.ttl}, args...)
	cmd := s.script.Run(ctx, r.rdb, allKeys, allArgs...)
	if err := cmd.Err(); redis.HasErrorPrefix(err, stalePrefix) {
		cmd.SetErr(stale(key, fence, err))
	}
	return cmd
}

func (r *Redis) valid(key string, fence int64) error {
	switch {
	case key == "":
		return invalid("key is empty")
	case strings.IndexByte(key, '}') >= 0 && !hasTag(key):
		return invalid(`key has a "}" but no hash tag, so a register cannot share its slot`)
	case hasTag(key) && strings.HasSuffix(key, ":seen"):
		return invalid(`key has a hash tag and ends in ":seen", like the register of another`)
	}
	return valid(key, fence, r.maxAhead)
}

// stale decodes the refusal of guard.lua.
func stale(key string, fence int64, reply error) error {
	e := &StaleError{Resource: key, Fence: fence}
	_, seen, _ := strings.Cut(reply.Error(), stalePrefix+" ")
	e.Seen, _ = strconv.ParseInt(seen, 10, 64) // 0 if a server wrote more around it
	return e
}

// wrap adds to an error of go-redis what was being done.
func wrap(op, key string, err error) error {
	if err == nil || errors.Is(err, redis.Nil) ||
		errors.Is(err, ErrStale) || errors.Is(err, ErrAhead) || errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("fence: %s %q: %w", op, key, err)
}
