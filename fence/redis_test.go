package fence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

func TestRedisOrdersHolders(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		appendTo := fence.NewScript(`return redis.call('APPEND', KEYS[1], ARGV[1])`)
		base := time.Now().UnixMicro() // as many digits as real ones have
		f, stale := base+1, base

		if _, err := g.Get(ctx, "k", f); !errors.Is(err, redis.Nil) {
			t.Errorf("Get of a key that is not there = %v, want redis.Nil", err)
		}
		if err := g.Set(ctx, "k", f, "v", 0); err != nil {
			t.Errorf("Set = %v", err)
		}
		for range 2 {
			if err := g.Enter(ctx, "k", f); err != nil {
				t.Errorf("Enter = %v", err)
			}
		}
		if n, err := g.Run(ctx, appendTo, "k", f, nil, "w").Int(); n != 2 || err != nil {
			t.Errorf("Run = %d, %v, want 2", n, err)
		}
		if v, err := g.Get(ctx, "k", f); v != "vw" || err != nil {
			t.Errorf("Get = %q, %v, want vw", v, err)
		}

		_, err := g.Get(ctx, "k", stale)
		isStale(t, "Get", err, "k", stale, f)
		isStale(t, "Enter", g.Enter(ctx, "k", stale), "k", stale, f)
		isStale(t, "Set", g.Set(ctx, "k", stale, "x", 0), "k", stale, f)
		isStale(t, "Del", g.Del(ctx, "k", stale), "k", stale, f)
		isStale(t, "Run", g.Run(ctx, appendTo, "k", stale, nil, "x").Err(), "k", stale, f)
		if v := rdb.Get(ctx, "k").Val(); v != "vw" {
			t.Errorf("value = %q after refused writes, want vw", v)
		}
		if v := rdb.Get(ctx, fence.RegisterKey("k")).Val(); v != strconv.FormatInt(f, 10) {
			t.Errorf("register = %q, want %d", v, f)
		}

		if err := g.Del(ctx, "k", f); err != nil {
			t.Errorf("Del = %v", err)
		}
		if n := rdb.Exists(ctx, "k").Val(); n != 0 {
			t.Error("the key is there after Del")
		}
		isStale(t, "Set after Del", g.Set(ctx, "k", stale, "x", 0), "k", stale, f)
		if err := g.Set(ctx, "other", stale, "x", 0); err != nil {
			t.Errorf("Set of another resource = %v", err)
		}
	})
}

// Each verb raises the register, so that a later holder that only reads is seen.
func TestRedisEachVerbEnters(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		for verb, call := range map[string]func(key string) error{
			"Enter": func(key string) error { return g.Enter(ctx, key, 9) },
			"Get":   func(key string) error { _, err := g.Get(ctx, key, 9); return err },
			"Set":   func(key string) error { return g.Set(ctx, key, 9, "v", 0) },
			"Del":   func(key string) error { return g.Del(ctx, key, 9) },
			"Run":   func(key string) error { return g.Run(ctx, fence.NewScript("return 1"), key, 9, nil).Err() },
		} {
			if err := call(verb); err != nil && !errors.Is(err, redis.Nil) {
				t.Errorf("%s = %v", verb, err)
			}
			isStale(t, "Enter after "+verb, g.Enter(ctx, verb, 8), verb, 8, 9)
		}
	})
}

func TestRedisRefusesBeforeSending(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	ctx := t.Context()
	sent := redistest.Count(rdb)
	g := fence.NewRedis(rdb, fence.RedisConfig{})
	script := fence.NewScript("return 1")
	all := func(key string, f int64) map[string]error {
		_, get := g.Get(ctx, key, f)
		return map[string]error{
			"Enter": g.Enter(ctx, key, f), "Get": get, "Set": g.Set(ctx, key, f, "v", 0),
			"Del": g.Del(ctx, key, f), "Run": g.Run(ctx, script, key, f, nil).Err(),
		}
	}
	for _, r := range refusals {
		for call, err := range all("k", r.fence) {
			if !errors.Is(err, r.want) {
				t.Errorf("%s of %s = %v, want %v", call, r.name, err, r.want)
			}
		}
	}
	for _, key := range []string{"", "a}", "a{}b", "}{"} {
		for call, err := range all(key, 1) {
			if !errors.Is(err, fence.ErrInvalid) {
				t.Errorf("%s of key %q = %v, want ErrInvalid", call, key, err)
			}
		}
	}
	for _, ttl := range []time.Duration{-1, 1, time.Millisecond - 1} {
		if err := g.Set(ctx, "k", 1, "v", ttl); !errors.Is(err, fence.ErrInvalid) {
			t.Errorf("Set with ttl %v = %v, want ErrInvalid", ttl, err)
		}
	}
	if n := sent.Commands(); n != 0 {
		t.Errorf("%d commands were sent: %v", n, sent.Names())
	}
}

// The register's key hashes as the resource's key does: the part between the
// first "{" and the next "}", or all of it.
func TestRegisterKeySharesSlot(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"account:ann":    "{account:ann}:seen",
		"{ann}:balance":  "{ann}:balance:seen",
		"a{ann}b":        "a{ann}b:seen",
		"a{b":            "{a{b}:seen",
		"{orders}{ann}x": "{orders}{ann}x:seen",
	} {
		got := fence.RegisterKey(key)
		if got != want {
			t.Errorf("RegisterKey(%q) = %q, want %q", key, got, want)
		}
		if hashed(got) != hashed(key) {
			t.Errorf("RegisterKey(%q) hashes by %q, the key by %q", key, hashed(got), hashed(key))
		}
	}
}

// hashed is the part of a key that Redis Cluster hashes, by its specification.
func hashed(key string) string {
	i := strings.IndexByte(key, '{')
	if i < 0 {
		return key
	}
	if n := strings.IndexByte(key[i+1:], '}'); n > 0 {
		return key[i+1 : i+1+n]
	}
	return key
}

// The lost update of the package comment, on Redis.
func TestRedisLostUpdate(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"plain read", "enter, plain read", "guarded read"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				ctx := t.Context()
				g := fence.NewRedis(rdb, fence.RedisConfig{})
				if err := rdb.Set(ctx, "ann", 100, 0).Err(); err != nil {
					t.Fatal(err)
				}
				read := func(f int64) int {
					var v string
					var err error
					if how == "guarded read" {
						v, err = g.Get(ctx, "ann", f)
					} else {
						if how == "enter, plain read" {
							if err := g.Enter(ctx, "ann", f); err != nil {
								t.Fatalf("Enter(%d) = %v", f, err)
							}
						}
						v, err = rdb.Get(ctx, "ann").Result()
					}
					n, _ := strconv.Atoi(v)
					if err != nil || n == 0 {
						t.Fatalf("read with fence %d = %q, %v", f, v, err)
					}
					return n
				}

				a := read(1) // and is paused
				b := read(2)
				errA := g.Set(ctx, "ann", 1, a+10, 0)
				if err := g.Set(ctx, "ann", 2, b+50, 0); err != nil {
					t.Errorf("the last holder's write = %v", err)
				}
				if how == "plain read" {
					if errA != nil {
						t.Errorf("the stale holder's write = %v, want it accepted: that is the danger", errA)
					}
				} else {
					isStale(t, "the stale holder's write", errA, "ann", 1, 2)
				}
				if v := rdb.Get(ctx, "ann").Val(); v != "150" {
					t.Errorf("balance = %s, want 150", v)
				}
			})
		})
	}
}

// Many holders that overlap as they like: what was accepted is in the order of
// the fences, and no accepted update is lost.
func TestRedisConcurrent(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		write := fence.NewScript(`
redis.call('SET', KEYS[1], ARGV[1])
return redis.call('RPUSH', KEYS[2], ARGV[2])`)
		base := time.Now().UnixMicro()
		var accepted, refused atomic.Int64
		var wg sync.WaitGroup
		turn := make(chan struct{}) // of a holder's first section
		close(turn)
		for i := range int64(100) {
			mine, next := turn, make(chan struct{})
			turn = next
			wg.Go(func() {
				<-mine
				pass := sync.OnceFunc(func() { close(next) })
				defer pass()
				for range 3 { // sections of one holder, one after the other
					v, err := g.Get(ctx, "{r}", base+i)
					n, _ := strconv.Atoi(v)
					if err == nil || errors.Is(err, redis.Nil) {
						if rand.IntN(2) == 0 {
							_ = rdb.Ping(ctx).Err() // a pause
						}
						err = g.Run(ctx, write, "{r}", base+i, []string{"{r}:log"}, n+1, base+i).Err()
					}
					switch {
					case err == nil:
						accepted.Add(1)
					case errors.Is(err, fence.ErrStale):
						refused.Add(1)
					default:
						t.Errorf("holder %d: %v", i, err)
					}
					pass() // the next holder comes while this one goes on
				}
			})
		}
		wg.Wait()
		t.Logf("%d accepted, %d refused", accepted.Load(), refused.Load())
		if n, _ := rdb.Get(ctx, "{r}").Int64(); n != accepted.Load() {
			t.Errorf("counter = %d after %d accepted updates (%d refused)", n, accepted.Load(), refused.Load())
		}
		var log []int64
		for _, s := range rdb.LRange(ctx, "{r}:log", 0, -1).Val() {
			f, _ := strconv.ParseInt(s, 10, 64)
			log = append(log, f)
		}
		inOrder(t, log)
	})
}

// A script sees its own keys and arguments, keeps its line numbers, and its
// errors are its own.
func TestRedisRun(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		show := fence.NewScript(`return {#KEYS, #ARGV, KEYS[1], KEYS[2], ARGV[1], ARGV[2]}`)
		got, err := g.Run(ctx, show, "{k}", 1, []string{"{k}:2"}, "a", 7).Slice()
		if want := "[2 2 {k} {k}:2 a 7]"; err != nil || fmt.Sprint(got) != want {
			t.Errorf("Run = %v, %v, want %s", got, err, want)
		}
		if err := g.Run(ctx, fence.NewScript(`return false`), "{k}", 1, nil).Err(); !errors.Is(err, redis.Nil) {
			t.Errorf("Run of a script that returns false = %v, want redis.Nil", err)
		}
		own := fence.NewScript(`return redis.error_reply('MINE no')`)
		if err := g.Run(ctx, own, "{k}", 1, nil).Err(); !redis.HasErrorPrefix(err, "MINE") {
			t.Errorf("Run of a script that returns an error = %v, want it as it is", err)
		}
		wrong := fence.NewScript("local a = 1\n-- a comment\nreturn a + nil")
		err = g.Run(ctx, wrong, "{k}", 2, nil).Err()
		if err == nil || errors.Is(err, fence.ErrStale) || !strings.Contains(err.Error(), ":3:") {
			t.Errorf("Run of a script with an error in line 3 = %v", err)
		}
		isStale(t, "Enter after a script that failed", g.Enter(ctx, "{k}", 1), "{k}", 1, 2)

		many := make([]any, 20000) // more than Lua's unpack takes
		for i := range many {
			many[i] = i
		}
		if n, err := g.Run(ctx, fence.NewScript(`return #ARGV`), "{k}", 2, nil, many...).Int(); n != len(many) || err != nil {
			t.Errorf("Run with %d arguments: %d, %v", len(many), n, err)
		}
	})
}

// What is in the register's place and is no number lets nobody in.
func TestRedisBrokenRegister(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		rdb.Set(ctx, fence.RegisterKey("text"), "text", 0)
		rdb.LPush(ctx, fence.RegisterKey("list"), "1")
		for _, key := range []string{"text", "list"} {
			err := g.Set(ctx, key, 1, "v", 0)
			if err == nil || errors.Is(err, fence.ErrStale) {
				t.Errorf("Set with a %s as register = %v, want another error", key, err)
			}
			if n := rdb.Exists(ctx, key).Val(); n != 0 {
				t.Errorf("Set with a %s as register wrote", key)
			}
		}
	})
}

// A register without TTL stays; one with a TTL is kept for that long after the
// last call, and each call that passes counts.
func TestRedisRegisterTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		ctx := t.Context()
		keep := fence.NewRedis(rdb, fence.RedisConfig{})
		brief := fence.NewRedis(rdb, fence.RedisConfig{TTL: time.Minute})
		if err := errors.Join(keep.Enter(ctx, "keep", 5), brief.Enter(ctx, "brief", 5)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if _, err := brief.Get(ctx, "brief", 5); !errors.Is(err, redis.Nil) {
			t.Errorf("Get = %v", err)
		}
		time.Sleep(50 * time.Second)
		isStale(t, "Enter within the TTL", brief.Enter(ctx, "brief", 4), "brief", 4, 5)
		time.Sleep(11 * time.Second) // a refused call does not count
		if err := brief.Enter(ctx, "brief", 4); err != nil {
			t.Errorf("Enter after the TTL = %v", err)
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		isStale(t, "Enter years later", keep.Enter(ctx, "keep", 4), "keep", 4, 5)
	})
}

// The value's TTL is the value's: the register stays.
func TestRedisValueTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		ctx := t.Context()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		if err := g.Set(ctx, "k", 5, "v", time.Second); err != nil {
			t.Fatal(err)
		}
		if ttl := rdb.PTTL(ctx, "k").Val(); ttl != time.Second {
			t.Errorf("TTL of the value = %v, want 1s", ttl)
		}
		time.Sleep(2 * time.Second)
		if _, err := g.Get(ctx, "k", 5); !errors.Is(err, redis.Nil) {
			t.Errorf("Get after the TTL = %v, want redis.Nil", err)
		}
		isStale(t, "Set", g.Set(ctx, "k", 4, "v", 0), "k", 4, 5)
	})
}

func TestRedisServerError(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	g := fence.NewRedis(rdb, fence.RedisConfig{})
	rdb.Close()
	err := g.Set(context.Background(), "k", 1, "v", 0)
	if !errors.Is(err, redis.ErrClosed) || errors.Is(err, fence.ErrStale) || !strings.Contains(err.Error(), `set "k"`) {
		t.Errorf("Set on a closed client = %v, want go-redis's error and what was done", err)
	}
}

func TestNewRedisPanics(t *testing.T) {
	t.Parallel()
	rdb := redistest.Mini(t)
	for name, f := range map[string]func(){
		"nil client":   func() { fence.NewRedis(nil, fence.RedisConfig{}) },
		"typed nil":    func() { fence.NewRedis((*redis.Client)(nil), fence.RedisConfig{}) },
		"negative TTL": func() { fence.NewRedis(rdb, fence.RedisConfig{TTL: -1}) },
		"tiny TTL":     func() { fence.NewRedis(rdb, fence.RedisConfig{TTL: time.Millisecond}) },
		"shebang":      func() { fence.NewScript("#!lua\nreturn 1") },
		"dialect":      func() { fence.NewSQL(0, fence.SQLConfig{}) },
		"table":        func() { fence.NewSQL(fence.Postgres, fence.SQLConfig{Table: "a b"}) },
		"more table":   func() { fence.NewSQL(fence.Postgres, fence.SQLConfig{Table: "a.b.c"}) },
	} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "fence: ") {
					t.Errorf("%s: panic %q, want one with the package's name", name, msg)
				}
			}()
			f()
		}()
	}
}

func BenchmarkRedisSet(b *testing.B) {
	ctx := context.Background()
	rdb := redistest.Real(b)
	b.Run("guarded", func(b *testing.B) {
		b.ReportAllocs()
		g := fence.NewRedis(rdb, fence.RedisConfig{})
		f := time.Now().UnixMicro()
		for b.Loop() {
			if err := g.Set(ctx, "account:ann", f, "100", 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) { // what the check costs is the difference
		b.ReportAllocs()
		for b.Loop() {
			if err := rdb.Set(ctx, "account:ann", "100", 0).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
