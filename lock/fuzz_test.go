package lock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// FuzzGrant: a message of any origin is read as a grant or not at all; what is
// read is what was written.
func FuzzGrant(f *testing.F) {
	f.Add("17 1700000000000000 1000 1 xtoken", "k", "v", int64(1), int64(2), int64(3))
	f.Add("1 2 3 99 short", "", "", int64(0), int64(0), int64(0))
	f.Add("1 2 3 -1 x", " ", "1 2", int64(-1), int64(math.MaxInt64), int64(math.MinInt64))
	f.Add("9223372036854775808 1 1 0 ", "\x00", "\xff", int64(1), int64(1), int64(1<<40))
	f.Add("1 2 9223372036854775807 0 ", "k", "v", int64(1), int64(1), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, said, key, value string, fence, server, lease int64) {
		if g, err := parseGrant(said); err != nil {
			if !errors.Is(err, errGrant) {
				t.Errorf("parseGrant(%q) = %v, want %v", said, err, errGrant)
			}
		} else if len(g.key)+len(g.value) > len(said) || g.lease < -1 {
			t.Errorf("parseGrant(%q) = %+v", said, g)
		}
		g, err := parseGrant(fmt.Sprintf("%d %d %d %d %s%s", fence, server, lease, len(key), key, value))
		if err != nil || g.key != key || g.value != value || g.fence != fence || g.server != server || g.lease != ms(lease) {
			t.Errorf("read %+v, %v, want %q %q %d %d %d", g, err, key, value, fence, server, lease)
		}
	})
}

// FuzzMs: no number of a reply becomes a time that lies in the other direction.
func FuzzMs(f *testing.F) {
	for _, n := range []int64{0, 1, -1, -2, math.MaxInt64, math.MinInt64, math.MaxInt64 / 1_000_000, math.MaxInt64/1_000_000 + 1} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		switch d := ms(n); {
		case n < 0 && d != -1, n >= 0 && d < 0:
			t.Errorf("ms(%d) = %v", n, d)
		case n >= 0 && n <= math.MaxInt64/1_000_000 && d.Milliseconds() != n:
			t.Errorf("ms(%d) = %v", n, d)
		}
	})
}

// FuzzEntry: an entry of any channel and value that stands in line is read by the
// scripts as it was meant, and the grant that they write is read by Go as they
// meant it.
func FuzzEntry(f *testing.F) {
	f.Add("mail", "token owner", int64(1000), int64(16))
	f.Add("", "v", int64(1), int64(1))
	f.Add("1 2 3", " ", int64(99999), int64(65536))
	f.Add("%d\x00", "\xff\n%", int64(10), int64(2))
	rdb := redistest.Mini(f)
	n, k := newSingle(rdb, &aloneScripts, 0), keysOf("", "x")
	f.Fuzz(func(t *testing.T, channel, value string, claim, block int64) {
		claim, block = 60_000+claim&0xfffff, 1+block&0xffff // long enough for a slow machine
		if value == "" || value == "holder" || len(channel) > 1000 || len(value) > 1000 {
			t.Skip()
		}
		ctx := context.Background()
		rdb.FlushDB(ctx)
		heard := rdb.Subscribe(ctx, channel)
		defer heard.Close()
		if _, err := heard.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		entry := entryOf(time.Duration(claim)*time.Millisecond, block, channel, value)
		a := acquireArgs{value: new("holder"), lease: time.Minute, claim: time.Second, block: 1, margin: time.Minute}
		if r, err := n.acquire(ctx, &k, &a); err != nil || !r.granted {
			t.Fatalf("acquire = %+v, %v", r, err)
		}
		a = acquireArgs{value: new(value), entry: entry, lease: time.Minute, claim: time.Second, block: block, margin: time.Minute}
		if r, err := n.acquire(ctx, &k, &a); err != nil || r.granted || r.holder != "holder" {
			t.Fatalf("join = %+v, %v", r, err)
		}
		if r, err := n.release(ctx, &k, &releaseArgs{value: new("holder"), margin: time.Minute}); err != nil || !r.granted {
			t.Fatalf("release with %q in line = %+v, %v", entry, r, err)
		}
		msg, err := heard.ReceiveMessage(ctx)
		if err != nil || msg.Channel != channel {
			t.Fatalf("heard %v, %v, want a message to %q", msg, err, channel)
		}
		g, err := parseGrant(msg.Payload)
		fence, _ := strconv.ParseInt(rdb.Get(ctx, k.fence).Val(), 10, 64)
		if err != nil || g.key != k.lock || g.value != value || g.lease != ms(claim) || g.fence != fence {
			t.Errorf("%q grants %+v, %v, want %q for %dms with fence %d", entry, g, err, value, claim, fence)
		}
		if held := rdb.Get(ctx, k.lock).Val(); held != value {
			t.Errorf("the lock holds %q, want %q", held, value)
		}
	})
}

// FuzzLine: whatever another program has put in line, a release gives the lock up,
// and the next can have it.
func FuzzLine(f *testing.F) {
	f.Add("junk")
	f.Add("1 2 3 ")
	f.Add("1 2 99999999 short")
	f.Add("99999999999999999999 1 1 cv")
	f.Add("0 1 1 cv")
	f.Add("1000 0 1 cv")
	f.Add("1000 1 0 ")
	f.Add("1000 1 999999999999999999999999999999 cv")
	rdb := redistest.Mini(f)
	n, k := newSingle(rdb, &aloneScripts, 0), keysOf("", "x")
	f.Fuzz(func(t *testing.T, member string) {
		ctx := context.Background()
		rdb.FlushDB(ctx)
		a := acquireArgs{value: new("holder"), lease: time.Minute, claim: time.Second, block: 1, margin: time.Minute}
		if r, err := n.acquire(ctx, &k, &a); err != nil || !r.granted {
			t.Fatalf("acquire = %+v, %v", r, err)
		}
		rdb.ZAdd(ctx, k.line, redis.Z{Member: member})
		for range 2 { // a failure in between is an error, and go on
			if _, err := n.release(ctx, &k, &releaseArgs{value: new("holder"), margin: time.Minute}); err == nil {
				break
			}
		}
		a.value = new("next")
		if r, err := n.acquire(ctx, &k, &a); err != nil || !r.granted {
			t.Fatalf("after %q in line: acquire = %+v, %v", member, r, err)
		}
	})
}

// FuzzValue: what a lock key holds is split into what a Locker put in, and what
// others put in has no token.
func FuzzValue(f *testing.F) {
	f.Add("worker-3", "value of redsync")
	f.Add(" a b ", "ABCDEFGHIJKLM.00000001.0123456789abcdef0123456789abcdef owner")
	f.Add("\xff\x00", strings.Repeat(" ", tokenLen+1))
	f.Add("", strings.Repeat("x", tokenLen)+" ")
	l := New(redistest.Mini(f), Config{})
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, owner, foreign string) {
		l.mu.Lock()
		value := l.newValue(owner)
		l.mu.Unlock()
		token, label := splitValue(value)
		if label != owner || len(token) != tokenLen || token+" "+owner != value {
			t.Errorf("splitValue(%q) = %q, %q, want the owner %q", value, token, label, owner)
		}
		if token, label := splitValue(foreign); token != "" && (len(token) != tokenLen || token+" "+label != foreign) || token == "" && label != "" {
			t.Errorf("splitValue(%q) = %q, %q", foreign, token, label)
		}
		for _, s := range []string{token + ".7", foreign, foreign + ".7", token + "." + foreign} {
			got, fence, ok := splitToken(s)
			if !ok {
				continue
			}
			if fence <= 0 || !strings.HasPrefix(s, got+".") || strings.Contains(got, " ") {
				t.Errorf("splitToken(%q) = %q, %d", s, got, fence)
			}
		}
		if got, fence, ok := splitToken(token + ".7"); !ok || got != token || fence != 7 {
			t.Errorf("splitToken of a token = %q, %d, %t", got, fence, ok)
		}
	})
}

// FuzzKeys: the keys of a lock share a slot, and two names never share a key.
func FuzzKeys(f *testing.F) {
	f.Add("", "x", "y", false)
	f.Add("", "x", "{x}", false)
	f.Add("", "}x", "{}x}:fence", false)
	f.Add("", "x}y", "{x}y}", false)
	f.Add("", "x", "x:fence", true)
	f.Add("{", "x}", "x}:line", true)
	f.Add("p:", "{a}b", "{a}b:parked", true)
	f.Add("{t}", "a", "b", true)
	f.Add("", "{}", "{}:fence", false)
	f.Add("", "a{", "a{}", false)
	rdb := redistest.Mini(f)
	f.Fuzz(func(t *testing.T, prefix, name, other string, sharded bool) {
		if len(prefix) > maxName || strings.Contains(prefix, "\x00") {
			t.Skip("refused by New")
		}
		l := New(rdb, Config{Prefix: prefix, Owner: "o"})
		defer l.Close()
		l.sharded = sharded
		if l.checkName(name) != nil {
			return
		}
		k := keysOf(prefix, name)
		all := []string{k.lock, k.fence, k.line, k.parked}
		if k.lock != prefix+name {
			t.Errorf("%q and %q make the key %q", prefix, name, k.lock)
		}
		if sharded {
			for _, key := range append(all, k.mail("process")) {
				if hashed(key) != hashed(k.lock) {
					t.Errorf("%q is in another slot than %q", key, k.lock)
				}
			}
		}
		if name == other || l.checkName(other) != nil {
			other = ""
		}
		seen := make(map[string]string)
		for _, key := range all {
			if seen[key] != "" {
				t.Errorf("%q has %q twice", name, key)
			}
			seen[key] = name
		}
		if other == "" {
			return
		}
		k = keysOf(prefix, other)
		for _, key := range []string{k.lock, k.fence, k.line, k.parked} {
			if seen[key] != "" {
				t.Errorf("%q and %q share %q", name, other, key)
			}
		}
	})
}

// hashed is what Redis Cluster hashes of a key, in the words of its specification:
// what stands between the first { and the first } after it, unless that is nothing.
func hashed(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}
