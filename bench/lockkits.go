package main

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"github.com/sidestep-go/sidestep/lock"
)

// lockKit is a lock library as the scenarios use it.
type lockKit interface {
	// try takes a lock if it is free; the error is errTaken if it is not.
	try(ctx context.Context, name string) (unlocker, error)
	// do waits for a lock and runs fn under it.
	do(ctx context.Context, name string, fn func()) error
	close()
}

type unlocker interface {
	unlock(ctx context.Context) error
}

var errTaken = errors.New("taken")

// ttl is the lease of every lock here, unless the library fixes it otherwise.
const ttl = 30 * time.Second

// flushDelay is the MaxFlushDelay that rueidis names as an example.
const flushDelay = 20 * time.Microsecond

// lockPeer is a lock library with the settings that serve it best here.
type lockPeer struct {
	name, note string
	limit      bool
	open       func(addr string, w *wire) (lockKit, error)
}

var (
	sidestepLock  = lockPeer{name: "sidestep", open: openSidestep(plain, lock.Config{TTL: ttl})}
	sidestepTurn1 = lockPeer{
		name: "sidestep, turns of 1", note: "TurnSections 1: no hand-off within a process",
		open: openSidestep(plain, lock.Config{TTL: ttl, TurnSections: 1}),
	}
	sidestepAuto = lockPeer{
		name: "sidestep, AutoPipeline", note: "on go-redis's automatic pipelining instead of batches of its own",
		open: openSidestep(pipelined, lock.Config{TTL: ttl}),
	}
	// Its own delay between tries is 50 to 250 ms, at random, and 32 tries: made
	// for patience, not for hand-off. 1 ms gives the shortest longest waits (p99).
	// With 3 ms there would be more sections per second, for fewer commands each,
	// and longer waits.
	redsyncLock = lockPeer{name: "redsync", note: "a try every 1 ms, without end", open: openRedsync(plain)}
	redsyncAuto = lockPeer{name: "redsync, AutoPipeline", note: "on go-redis's automatic pipelining", open: openRedsync(pipelined)}
	// The same for its retry strategy; it has none by default.
	redislockLock = lockPeer{name: "redislock", note: "LinearBackoff(1 ms)", open: openRedislock(plain)}
	redislockAuto = lockPeer{name: "redislock, AutoPipeline", note: "on go-redis's automatic pipelining", open: openRedislock(pipelined)}
	// One key instead of three, and no notices of its own changes: the settings
	// its documentation gives for one server of this version.
	rueidisLock = lockPeer{name: "rueidislock", note: "KeyMajority 1, NoLoopTracking", open: openRueidislock(0)}
	// With many calls at once a short pause after each write lets more of them share
	// the next one. A call by itself would only wait.
	rueidisLockFlush = lockPeer{
		name: "rueidislock, flush delay 20 µs", note: "the same, and MaxFlushDelay as its documentation suggests it",
		open: openRueidislock(flushDelay),
	}

	rawGoRedis      = lockPeer{name: "go-redis by hand", note: "SET NX and a compare-and-delete script", limit: true, open: openRawGoRedis(plain)}
	rawGoRedisAuto  = lockPeer{name: "go-redis by hand, AutoPipeline", note: "the same on go-redis's automatic pipelining", limit: true, open: openRawGoRedis(pipelined)}
	rawFence        = lockPeer{name: "go-redis by hand, with a fence", note: "as before, but a script does the SET NX and stores a number made from TIME", limit: true, open: openRawFence}
	rawRueidis      = lockPeer{name: "rueidis by hand", note: "the same on rueidis, which joins the commands of all goroutines on a few connections", limit: true, open: openRawRueidis(0)}
	rawRueidisFlush = lockPeer{
		name: "rueidis by hand, flush delay 20 µs", note: "the same with MaxFlushDelay", limit: true,
		open: openRawRueidis(flushDelay),
	}
	rawToken = lockPeer{name: "FIFO token by hand", note: "a token in a LIST, taken by BLPOP and put back by RPUSH: no lease, no fence, and lost with its holder", limit: true, open: openToken}
)

// clientOf makes a client of go-redis.
type clientOf func(addr string, w *wire) (redis.UniversalClient, error)

func plain(addr string, w *wire) (redis.UniversalClient, error) { return newClient(addr, w), nil }

// pipelined has what many goroutines ask for written on few connections.
func pipelined(addr string, w *wire) (redis.UniversalClient, error) {
	rdb := newClient(addr, w)
	auto, err := rdb.AutoPipeline()
	if err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	return &pipeline{auto, rdb}, nil
}

type pipeline struct {
	*redis.AutoPipeliner
	rdb *redis.Client
}

func (p *pipeline) Close() error { return errors.Join(p.AutoPipeliner.Close(), p.rdb.Close()) }

// sidestep

type sidestepKit struct {
	rdb redis.UniversalClient
	l   *lock.Locker
}

func openSidestep(client clientOf, cfg lock.Config) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		rdb, err := client(addr, w)
		return &sidestepKit{rdb, lock.New(rdb, cfg)}, err
	}
}

func (k *sidestepKit) try(ctx context.Context, name string) (unlocker, error) {
	lk, err := k.l.TryAcquire(ctx, name)
	if err == nil {
		return sidestepHeld{lk}, nil
	}
	if errors.Is(err, lock.ErrLocked) {
		return nil, errTaken
	}
	return nil, err
}

type sidestepHeld struct{ lk *lock.Lock }

func (h sidestepHeld) unlock(ctx context.Context) error { return h.lk.Release(ctx) }

func (k *sidestepKit) do(ctx context.Context, name string, fn func()) error {
	return k.l.Do(ctx, name, nil, func(context.Context, *lock.Lock) error {
		fn()
		return nil
	})
}

func (k *sidestepKit) close() {
	_ = k.l.Close() // always nil
	k.rdb.Close()
}

// redsync

type redsyncKit struct {
	rdb   redis.UniversalClient
	rs    *redsync.Redsync
	every time.Duration // between tries
}

func openRedsync(client clientOf) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		rdb, err := client(addr, w)
		return &redsyncKit{rdb, redsync.New(goredis.NewPool(rdb)), time.Millisecond}, err
	}
}

func (k *redsyncKit) try(ctx context.Context, name string) (unlocker, error) {
	m := k.rs.NewMutex(name, redsync.WithExpiry(ttl))
	if err := m.TryLockContext(ctx); err != nil {
		if errors.As(err, new(*redsync.ErrTaken)) {
			return nil, errTaken
		}
		return nil, err
	}
	return redsyncHeld{m}, nil
}

type redsyncHeld struct{ m *redsync.Mutex }

func (h redsyncHeld) unlock(ctx context.Context) error {
	_, err := h.m.UnlockContext(ctx)
	return err
}

func (k *redsyncKit) do(ctx context.Context, name string, fn func()) error {
	m := k.rs.NewMutex(name, redsync.WithExpiry(ttl), redsync.WithTries(1<<30), redsync.WithRetryDelay(k.every))
	if err := m.LockContext(ctx); err != nil {
		return err
	}
	fn()
	return redsyncHeld{m}.unlock(context.WithoutCancel(ctx))
}

func (k *redsyncKit) close() { k.rdb.Close() }

// redislock

type redislockKit struct {
	rdb   redis.UniversalClient
	c     *redislock.Client
	every time.Duration // between tries
}

func openRedislock(client clientOf) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		rdb, err := client(addr, w)
		return &redislockKit{rdb, redislock.New(rdb), time.Millisecond}, err
	}
}

func (k *redislockKit) try(ctx context.Context, name string) (unlocker, error) {
	return k.obtain(ctx, name, nil)
}

func (k *redislockKit) obtain(ctx context.Context, name string, opt *redislock.Options) (unlocker, error) {
	lk, err := k.c.Obtain(ctx, name, ttl, opt)
	if errors.Is(err, redislock.ErrNotObtained) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	return redislockHeld{lk}, nil
}

type redislockHeld struct{ lk *redislock.Lock }

func (h redislockHeld) unlock(ctx context.Context) error { return h.lk.Release(ctx) }

func (k *redislockKit) do(ctx context.Context, name string, fn func()) error {
	if _, ok := ctx.Deadline(); !ok { // else it gives up when the TTL is over
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Hour)
		defer cancel()
	}
	h, err := k.obtain(ctx, name, &redislock.Options{RetryStrategy: redislock.LinearBackoff(k.every)})
	if err != nil {
		return err
	}
	fn()
	return h.unlock(context.WithoutCancel(ctx))
}

func (k *redislockKit) close() { k.rdb.Close() }

// rueidislock

type rueidislockKit struct{ l rueidislock.Locker }

func openRueidislock(flush time.Duration) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		opt := rueidisOption(addr, w)
		opt.DisableCache = false // it learns of releases through client-side caching
		opt.MaxFlushDelay = flush
		l, err := rueidislock.NewLocker(rueidislock.LockerOption{
			ClientOption: opt, KeyMajority: 1, NoLoopTracking: true, KeyValidity: ttl,
			TryNextAfter: time.Second, // there is no next key, so a slow answer should not be given up after 20 ms
		})
		return &rueidislockKit{l}, err
	}
}

func (k *rueidislockKit) try(ctx context.Context, name string) (unlocker, error) {
	_, cancel, err := k.l.TryWithContext(ctx, name)
	if errors.Is(err, rueidislock.ErrNotLocked) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	return rueidislockHeld(cancel), nil
}

type rueidislockHeld context.CancelFunc

func (h rueidislockHeld) unlock(context.Context) error {
	h() // returns when the key is deleted
	return nil
}

func (k *rueidislockKit) do(ctx context.Context, name string, fn func()) error {
	_, cancel, err := k.l.WithContext(ctx, name)
	if err != nil {
		return err
	}
	fn()
	cancel()
	return nil
}

func (k *rueidislockKit) close() { k.l.Close() }

// by hand

const compareAndDelete = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

var deleteScript = redis.NewScript(compareAndDelete)

// leastFence is the least that a script can do for a fence: it does not even look
// at the one before.
var leastFence = redis.NewScript(`if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
	local t = redis.call('TIME')
	local n = t[1] * 1000000 + t[2]
	redis.call('SET', KEYS[2], string.format('%.0f', n), 'PX', 60000)
	return n
end
return 0`)

type rawKit struct{ rdb redis.UniversalClient }

func openRawGoRedis(client clientOf) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		rdb, err := client(addr, w)
		return &rawKit{rdb}, err
	}
}

func (k *rawKit) try(ctx context.Context, name string) (unlocker, error) {
	token := rand.Text()
	ok, err := k.rdb.SetNX(ctx, name, token, ttl).Result()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errTaken
	}
	return &rawHeld{k.rdb, name, token}, nil
}

type rawHeld struct {
	rdb         redis.UniversalClient
	name, token string
}

func (h *rawHeld) unlock(ctx context.Context) error {
	return deleteScript.Run(ctx, h.rdb, []string{h.name}, h.token).Err()
}

type rawFenceKit struct{ rawKit }

func openRawFence(addr string, w *wire) (lockKit, error) {
	return &rawFenceKit{rawKit{newClient(addr, w)}}, nil
}

func (k *rawFenceKit) try(ctx context.Context, name string) (unlocker, error) {
	token := rand.Text()
	n, err := leastFence.Run(ctx, k.rdb, []string{name, "{" + name + "}:fence"}, token, ttl.Milliseconds()).Int64()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errTaken
	}
	return &rawHeld{k.rdb, name, token}, nil
}

func (k *rawKit) do(context.Context, string, func()) error { return errors.ErrUnsupported }
func (k *rawKit) close()                                   { k.rdb.Close() }

type rawRueidisKit struct {
	c      rueidis.Client
	delete *rueidis.Lua
}

func openRawRueidis(flush time.Duration) func(string, *wire) (lockKit, error) {
	return func(addr string, w *wire) (lockKit, error) {
		opt := rueidisOption(addr, w)
		opt.MaxFlushDelay = flush
		c, err := rueidis.NewClient(opt)
		return &rawRueidisKit{c, rueidis.NewLuaScript(compareAndDelete)}, err
	}
}

func (k *rawRueidisKit) try(ctx context.Context, name string) (unlocker, error) {
	token := rand.Text()
	err := k.c.Do(ctx, k.c.B().Set().Key(name).Value(token).Nx().PxMilliseconds(ttl.Milliseconds()).Build()).Error()
	if rueidis.IsRedisNil(err) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	return &rawRueidisHeld{k, name, token}, nil
}

type rawRueidisHeld struct {
	k           *rawRueidisKit
	name, token string
}

func (h *rawRueidisHeld) unlock(ctx context.Context) error {
	return h.k.delete.Exec(ctx, h.k.c, []string{h.name}, []string{h.token}).Error()
}

func (k *rawRueidisKit) do(context.Context, string, func()) error { return errors.ErrUnsupported }
func (k *rawRueidisKit) close()                                   { k.c.Close() }

// tokenKit passes a token from hand to hand. The first to come puts it there.
type tokenKit struct{ rdb *redis.Client }

func openToken(addr string, w *wire) (lockKit, error) { return &tokenKit{newClient(addr, w)}, nil }

// seed puts a lock's token where its first holder finds it.
func (k *tokenKit) seed(ctx context.Context, name string) error {
	return k.rdb.RPush(ctx, name, "token").Err()
}

func (k *tokenKit) try(context.Context, string) (unlocker, error) { return nil, errors.ErrUnsupported }

func (k *tokenKit) do(ctx context.Context, name string, fn func()) error {
	// It cannot be called back, so it comes back by itself now and then.
	for {
		err := k.rdb.BLPop(ctx, time.Second, name).Err()
		if err == nil {
			break
		}
		if !errors.Is(err, redis.Nil) || ctx.Err() != nil {
			return err
		}
	}
	fn()
	return k.rdb.RPush(context.WithoutCancel(ctx), name, "token").Err()
}

func (k *tokenKit) close() { k.rdb.Close() }
