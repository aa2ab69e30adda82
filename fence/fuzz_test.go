package fence

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// FuzzRegisterKey: a resource and its register share a slot, and two resources
// never share a key, but for the register of x and {x}.
func FuzzRegisterKey(f *testing.F) {
	f.Add("x", "{x}")
	f.Add("x", "{x}:seen")
	f.Add("x}y", "{x}y}")
	f.Add("a{b}", "a{b}:seen")
	f.Add("{}", "{}:seen")
	r := NewRedis(redistest.Mini(f), RedisConfig{MaxAhead: -1})
	f.Fuzz(func(t *testing.T, key, other string) {
		if r.valid(key, 1) != nil {
			return
		}
		register := RegisterKey(key)
		if hashed(key) != hashed(register) || key == register {
			t.Errorf("%q has its register at %q", key, register)
		}
		if key != other && other != "{"+key+"}" && key != "{"+other+"}" && r.valid(other, 1) == nil && (RegisterKey(other) == register || other == register || RegisterKey(other) == key) {
			t.Errorf("%q and %q share a key", key, other)
		}
	})
}

// hashed is what Redis Cluster hashes of a key, in the words of its specification.
func hashed(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// FuzzGuards: the guard in Redis and the one in memory agree on every fence, and
// let in what is not smaller than all before.
func FuzzGuards(f *testing.F) {
	f.Add(int64(1), int64(2), int64(1))
	f.Add(int64(0), int64(-1), int64(1<<53))
	f.Add(int64(1<<53), int64(1<<53+1), int64(1<<53-1))
	f.Add(int64(1<<63-1), int64(-1<<63), int64(1700000000000000))
	rdb := redistest.Mini(f)
	f.Fuzz(func(t *testing.T, a, b, c int64) {
		ctx := context.Background()
		rdb.FlushDB(ctx)
		r, m := NewRedis(rdb, RedisConfig{MaxAhead: -1}), &Memory{MaxAhead: -1}
		seen := int64(0)
		for _, fence := range []int64{a, b, c, a} {
			inRedis, inMemory := r.Enter(ctx, "x", fence), m.Enter("x", fence)
			ok := fence > 0 && fence <= maxFence && fence >= seen
			if (inRedis == nil) != ok || (inMemory == nil) != ok {
				t.Fatalf("fence %d after %d: %v in Redis, %v in memory, want let in %t", fence, seen, inRedis, inMemory, ok)
			}
			if ok {
				seen = fence
				continue
			}
			stale := fence > 0 && fence <= maxFence
			for _, err := range []error{inRedis, inMemory} {
				if errors.Is(err, ErrStale) != stale || errors.Is(err, ErrInvalid) == stale {
					t.Errorf("fence %d after %d: %v", fence, seen, err)
				}
				if e, ok := errors.AsType[*StaleError](err); ok && (e.Seen != seen || e.Fence != fence) {
					t.Errorf("fence %d after %d: %+v", fence, seen, *e)
				}
			}
		}
	})
}

// FuzzRegister: whatever another program has put where a register is, the guard
// lets in nothing that it cannot compare, and says why.
func FuzzRegister(f *testing.F) {
	f.Add("17", int64(18))
	f.Add("", int64(1))
	f.Add("nan", int64(1))
	f.Add("-inf", int64(1))
	f.Add("0x10", int64(5))
	f.Add("1e300", int64(1<<53))
	f.Add("STALEFENCE 1", int64(1))
	rdb := redistest.Mini(f)
	f.Fuzz(func(t *testing.T, register string, fence int64) {
		if fence <= 0 || fence > maxFence {
			t.Skip()
		}
		ctx := context.Background()
		r := NewRedis(rdb, RedisConfig{MaxAhead: -1})
		rdb.FlushDB(ctx)
		rdb.Set(ctx, RegisterKey("x"), register, 0)
		err := r.Set(ctx, "x", fence, "v", 0)
		value := rdb.Get(ctx, "x").Val()
		if (err == nil) != (value == "v") {
			t.Errorf("register %q: Set with %d = %v, and the value is %q", register, fence, err, value)
		}
		if err == nil {
			if err := r.Enter(ctx, "x", fence-1); fence > 1 && rdb.Get(ctx, RegisterKey("x")).Val() == strconv.FormatInt(fence, 10) && !errors.Is(err, ErrStale) {
				t.Errorf("register %q: %d enters after %d: %v", register, fence-1, fence, err)
			}
		}
	})
}

// FuzzStale: a refusal of any text is a StaleError.
func FuzzStale(f *testing.F) {
	f.Add("STALEFENCE 17")
	f.Add("STALEFENCE")
	f.Add("ERR STALEFENCE 9223372036854775808 script: x")
	f.Add("STALEFENCE -1")
	f.Fuzz(func(t *testing.T, text string) {
		err := stale("x", 7, errors.New(text))
		if e, ok := errors.AsType[*StaleError](err); !ok || !errors.Is(err, ErrStale) || e.Resource != "x" || e.Fence != 7 {
			t.Errorf("stale of %q = %#v", text, err)
		}
	})
}
