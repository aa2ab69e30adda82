package lock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// bed is a lock as the scripts see it, with mailboxes that listen or not.
type bed struct {
	t   *testing.T
	rdb *redis.Client
	n   *single
	k   keys
}

func newBed(t *testing.T, rdb *redis.Client, n *single) *bed {
	sub := rdb.Subscribe(context.Background(), "up")
	if _, err := sub.Receive(context.Background()); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range sub.Channel() { // so that nobody waits to write to it
		}
	}()
	t.Cleanup(func() { sub.Close() })
	return &bed{t: t, rdb: rdb, n: n, k: keysOf("", "x")}
}

func (b *bed) acquire(value, entry string, block int64) acquireReply {
	b.t.Helper()
	r, err := b.n.acquire(context.Background(), &b.k, &acquireArgs{
		value: new(value), entry: entry, lease: time.Minute, claim: time.Second, block: block, margin: time.Minute,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bed) release(value, entry string) releaseReply {
	b.t.Helper()
	r, err := b.n.release(context.Background(), &b.k, &releaseArgs{value: new(value), entry: entry, margin: time.Minute, report: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bed) relay(value, next, queue string) relayReply {
	b.t.Helper()
	r, err := b.n.relay(context.Background(), &b.k, &relayArgs{value: value, next: next, queue: queue, lease: time.Minute, margin: time.Minute})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// want compares what the keys hold.
func (b *bed) want(value string, line ...string) {
	b.t.Helper()
	ctx := context.Background()
	if got := b.rdb.Get(ctx, b.k.lock).Val(); got != value {
		b.t.Errorf("lock holds %q, want %q", got, value)
	}
	if got := b.rdb.ZRange(ctx, b.k.line, 0, -1).Val(); !slices.Equal(got, line) {
		b.t.Errorf("line is %q, want %q", got, line)
	}
	for _, k := range b.rdb.Keys(ctx, "*").Val() {
		if b.rdb.PTTL(ctx, k).Val() <= 0 {
			b.t.Errorf("%s has no expiry", k)
		}
	}
}

func entry(channel, value string) string { return entryOf(time.Second, 4, channel, value) }

func TestScripts(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		ctx := context.Background()
		type step struct {
			name  string
			seed  func(b *bed) // with "h me" holding the lock, nobody in line
			do    func(b *bed) string
			reply string
			value string
			line  []string
		}
		say := func(r acquireReply) string {
			if r.granted {
				return "granted"
			}
			return fmt.Sprintf("held by %q", r.holder)
		}
		told := func(r relayReply) string {
			if r.kept {
				return "kept"
			}
			return fmt.Sprint(r.releaseReply)
		}
		free := func(b *bed) { b.release("h me", "") }
		up, down, up2 := entry("up", "a me"), entry("down", "b me"), entry("up", "c me")
		for _, s := range []step{
			{"try a free lock", free, func(b *bed) string { return say(b.acquire("a me", "", 1)) }, "granted", "a me", nil},
			{"try a held lock", nil, func(b *bed) string { return say(b.acquire("a me", "", 1)) }, `held by "h me"`, "h me", nil},
			{"a token that another is a prefix of", nil, func(b *bed) string { return say(b.acquire("h m", "", 1)) }, `held by "h me"`, "h me", nil},
			{"a token that is longer", nil, func(b *bed) string { return say(b.acquire("h mex", "", 1)) }, `held by "h me"`, "h me", nil},
			{"own token again", nil, func(b *bed) string { return say(b.acquire("h me", "", 1)) }, "granted", "h me", nil},
			{"join", nil, func(b *bed) string { return say(b.acquire("a me", up, 4)) }, `held by "h me"`, "h me", []string{up}},
			{"join twice", func(b *bed) { b.acquire("a me", up, 4) }, func(b *bed) string { return say(b.acquire("a me", up, 4)) }, `held by "h me"`, "h me", []string{up}},
			{"join a free lock", free, func(b *bed) string { return say(b.acquire("a me", up, 4)) }, "granted", "a me", nil},
			{
				"join an expired lock behind another", func(b *bed) { b.acquire("a me", up, 4); b.rdb.Del(ctx, "x") },
				func(b *bed) string { return say(b.acquire("c me", up2, 4)) },
				`held by "a me"`, "a me",
				[]string{up2},
			},
			{
				"join an expired lock behind one who does not listen", func(b *bed) { b.acquire("b me", down, 4); b.rdb.Del(ctx, "x") },
				func(b *bed) string { return say(b.acquire("c me", up2, 4)) },
				"granted", "c me", nil,
			},
			{
				"try an expired lock past the line", func(b *bed) { b.acquire("a me", up, 4); b.rdb.Del(ctx, "x") },
				func(b *bed) string { return say(b.acquire("c me", "", 4)) },
				"granted", "c me",
				[]string{up},
			},
			{"release", nil, func(b *bed) string { return fmt.Sprint(b.release("h me", "")) }, "{true false []}", "", nil},
			{"release again", free, func(b *bed) string { return fmt.Sprint(b.release("h me", "")) }, "{false false []}", "", nil},
			{"release of another's", nil, func(b *bed) string { return fmt.Sprint(b.release("a me", "")) }, "{false false []}", "h me", nil},
			{"release with a prefix", nil, func(b *bed) string { return fmt.Sprint(b.release("h m", "")) }, "{false false []}", "h me", nil},
			{
				"leave the line", func(b *bed) { b.acquire("a me", up, 4) },
				func(b *bed) string { return fmt.Sprint(b.release("a me", up)) }, "{false false []}", "h me", nil,
			},
			{
				"release grants", func(b *bed) { b.acquire("b me", down, 4); b.acquire("a me", up, 4); b.acquire("c me", up2, 4) },
				func(b *bed) string { return fmt.Sprint(b.release("h me", "")) }, "{true true []}", "a me",
				[]string{up2},
			},
			{
				"release with parked queues", func(b *bed) { b.n.look(ctx, &b.k, "q", time.Second) },
				func(b *bed) string { return fmt.Sprint(b.release("h me", "")) }, "{true false [q]}", "", nil,
			},
			{"relay", nil, func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "kept", "i me", nil},
			{"relay again", func(b *bed) { b.relay("h me", "i me", "q") }, func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "kept", "i me", nil},
			{
				"relay again, and somebody waits by now", func(b *bed) { b.relay("h me", "i me", "q"); b.acquire("a me", up, 4) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "kept", "i me",
				[]string{up},
			},
			{
				"a late relay of an earlier section", func(b *bed) { b.relay("h me", "i me", "q"); b.relay("i me", "j me", "q"); b.acquire("a me", up, 4) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "{false false []}", "j me",
				[]string{up},
			},
			{"relay of another's", nil, func(b *bed) string { return told(b.relay("a me", "b me", "q")) }, "{false false []}", "h me", nil},
			{"relay of a free lock", free, func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "{false false []}", "", nil},
			{
				"relay with somebody in line", func(b *bed) { b.acquire("a me", up, 4) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "{true true []}", "a me", nil,
			},
			{
				"relay with the dead in line", func(b *bed) { b.acquire("b me", down, 4) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "{true false []}", "", nil,
			},
			{
				"relay with its own queue parked", func(b *bed) { b.n.look(ctx, &b.k, "q", time.Second) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "kept", "i me", nil,
			},
			{
				"relay with another queue parked", func(b *bed) { b.n.look(ctx, &b.k, "p", time.Second) },
				func(b *bed) string { return told(b.relay("h me", "i me", "q")) }, "{true false [p]}", "", nil,
			},
		} {
			t.Run(s.name, func(t *testing.T) {
				rdb.FlushDB(ctx)
				b := newBed(t, rdb, n)
				b.acquire("h me", "", 1)
				if s.seed != nil {
					s.seed(b)
				}
				if got := s.do(b); got != s.reply {
					t.Errorf("reply %s, want %s", got, s.reply)
				}
				b.want(s.value, s.line...)
			})
		}
	})
}

// model is what the scripts do, in Go.
type model struct {
	holder string
	line   []int // clients in line, in order of arrival
}

// Random scripts of a few clients, some of whom do not listen, against the model:
// one holder, fences that grow with each grant, a line without doubles.
func TestScriptsAgainstModel(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		for seed := range uint64(4) {
			rdb.FlushDB(context.Background())
			b := newBed(t, rdb, n)
			rnd := rand.New(rand.NewPCG(seed, 1))
			const clients = 5
			value, ent := make([]string, clients), make([]string, clients)
			for i := range clients {
				value[i] = fmt.Sprintf("token%d me", i)
				ent[i] = entry([]string{"up", "down"}[i%2], value[i])
			}
			var m model
			var fence int64
			serve := func(me int) {
				for len(m.line) > 0 && m.holder == "" {
					c := m.line[0]
					m.line = m.line[1:]
					if c == me || c%2 == 0 {
						m.holder = value[c]
					}
				}
			}
			for range 300 {
				c := rnd.IntN(clients)
				before := m.holder
				switch op := rnd.IntN(6); op {
				case 0, 1: // try, join
					e := ""
					if op == 1 {
						e = ent[c]
					}
					r := b.acquire(value[c], e, 4)
					switch {
					case m.holder == value[c]:
					case e != "" && !slices.Contains(m.line, c):
						m.line = append(m.line, c)
						serve(c)
					case e != "":
						serve(c)
					case m.holder == "":
						m.holder = value[c]
					}
					if r.granted != (m.holder == value[c]) || !r.granted && r.holder != m.holder {
						t.Fatalf("seed %d: acquire by %d = %+v, model %+v", seed, c, r, m)
					}
				case 2:
					r := b.release(value[c], ent[c])
					m.line = slices.DeleteFunc(m.line, func(x int) bool { return x == c })
					was := m.holder == value[c]
					if was {
						m.holder = ""
						serve(-1)
					}
					if r.released != was || r.granted != (was && m.holder != "") {
						t.Fatalf("seed %d: release by %d = %+v, model %+v", seed, c, r, m)
					}
					if was {
						before = ""
					}
				case 3:
					held, err := b.n.extend(context.Background(), &b.k, &extendArgs{value: value[c], lease: time.Minute})
					if err != nil || held != (m.holder == value[c]) {
						t.Fatalf("seed %d: extend by %d = %v, %v", seed, c, held, err)
					}
				case 4: // it goes to a section of another client, as if it were the same one
					d := rnd.IntN(clients)
					r := b.relay(value[c], value[d], "q")
					var want relayReply
					switch m.holder {
					case value[d]:
						want.kept = true
					case value[c]:
						before = ""
						if want.kept = len(m.line) == 0; want.kept {
							m.holder = value[d]
							break
						}
						m.holder = ""
						serve(-1)
						want.released, want.granted = true, m.holder != ""
					}
					if r.kept != want.kept || r.released != want.released || r.granted != want.granted || r.kept && r.fence < fence {
						t.Fatalf("seed %d: relay from %d to %d = %+v, want %+v", seed, c, d, r, want)
					}
				case 5: // it expires
					rdb.Del(context.Background(), b.k.lock)
					m.holder, before = "", ""
				}
				var line []string
				for _, x := range m.line {
					line = append(line, ent[x])
				}
				b.want(m.holder, line...)
				f, _ := strconv.ParseInt(rdb.Get(context.Background(), b.k.fence).Val(), 10, 64)
				if m.holder != "" && before != m.holder && f < fence+1 || f < fence {
					t.Fatalf("seed %d: fence %d after %d", seed, f, fence)
				}
				fence = f
				if t.Failed() {
					return
				}
			}
		}
	})
}

// The fence key outlives its fence by the margin, and not by much more than twice that, though most
// fences are minted without touching its expiry.
func TestFenceIsKept(t *testing.T) {
	const margin = 3 * time.Second
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		b := newBed(t, rdb, n)
		ctx := context.Background()
		rnd := rand.New(rand.NewPCG(1, 1))
		var last int64
		for i := range 500 {
			a := acquireArgs{value: new(fmt.Sprintf("t%d me", i)), lease: time.Minute, block: 1 + rnd.Int64N(3), margin: margin}
			if rnd.IntN(3) == 0 {
				a.entry, a.claim = entry("up", *a.value), time.Second
			}
			if i%10 == 0 { // a fence from some while ago, or ahead of the clock, as after the clock was set back
				last = time.Now().Add(time.Duration(rnd.Int64N(10*int64(margin))) - 9*margin).UnixMicro()
				at := time.UnixMicro(last).Truncate(margin).Add(2 * margin)
				rdb.Set(ctx, b.k.fence, last, 0)
				if !rdb.PExpireAt(ctx, b.k.fence, at).Val() || rdb.Exists(ctx, b.k.fence).Val() == 0 {
					last = 0 // forgotten by now
				}
			}
			r, err := b.n.acquire(ctx, &b.k, &a)
			if err != nil || !r.granted {
				t.Fatalf("acquire = %+v, %v", r, err)
			}
			if r.fence < last+a.block {
				t.Fatalf("fence %d of a block of %d after %d", r.fence, a.block, last)
			}
			last = r.fence
			if got, _ := rdb.Get(ctx, b.k.fence).Int64(); got != last {
				t.Fatalf("kept %d, want %d", got, last)
			}
			left := rdb.PTTL(ctx, b.k.fence).Val()
			beyond := time.Now().Add(left).Sub(time.UnixMicro(last))
			if slack := 100 * time.Millisecond; beyond < margin-slack || beyond > 2*margin+slack {
				t.Fatalf("fence %d is kept for %v beyond itself, want from %v to %v", last, beyond, margin, 2*margin)
			}
			b.release(*a.value, a.entry)
		}
	})
}

// A lock whose fence cannot be minted is not taken; a fence that is no number is none.
func TestFenceOfAnotherType(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		b := newBed(t, rdb, n)
		ctx := context.Background()
		for _, e := range []string{"", entry("up", "a me")} {
			rdb.FlushDB(ctx)
			rdb.LPush(ctx, b.k.fence, "x")
			a := acquireArgs{value: new("a me"), entry: e, lease: time.Minute, claim: time.Second, block: 1, margin: time.Minute}
			if r, err := b.n.acquire(ctx, &b.k, &a); !redis.HasErrorPrefix(err, "WRONGTYPE") {
				t.Errorf("acquire = %+v, %v, want WRONGTYPE", r, err)
			}
			if rdb.Exists(ctx, b.k.lock).Val() != 0 {
				t.Error("the lock was taken")
			}
			rdb.Set(ctx, b.k.fence, "x", time.Minute)
			if r := b.acquire("a me", e, 1); !r.granted || time.Since(time.UnixMicro(r.fence)).Abs() > time.Minute {
				t.Errorf("acquire with a fence that is no number = %+v", r)
			}
			b.want("a me")
		}
	})
}

// A copy of a command that comes when the lease has been extended beyond what it asks
// for leaves that as it is: the holder counts on it.
func TestLateCopiesShortenNoLease(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		ctx := context.Background()
		vote := newSingle(rdb, &quorumScripts, 0)
		for name, again := range map[string]func(b *bed) (granted bool){
			"acquire": func(b *bed) bool { return b.acquire("h me", "", 1).granted },
			"join":    func(b *bed) bool { return b.acquire("h me", entry("up", "h me"), 1).granted },
			"relay":   func(b *bed) bool { return b.relay("g me", "h me", "q").kept },
			"vote":    func(b *bed) bool { b.n = vote; return b.acquire("h me", "", 1).granted },
			"extend": func(b *bed) bool {
				held, _ := b.n.extend(ctx, &b.k, &extendArgs{value: "h me", lease: time.Minute})
				return held
			},
		} {
			rdb.FlushDB(ctx)
			b := newBed(t, rdb, n)
			b.acquire("h me", "", 1)
			if held, err := b.n.extend(ctx, &b.k, &extendArgs{value: "h me", lease: time.Hour}); !held || err != nil {
				t.Fatalf("extend = %v, %v", held, err)
			}
			if !again(b) {
				t.Errorf("%s: not held", name)
			}
			if left := rdb.PTTL(ctx, b.k.lock).Val(); left < 50*time.Minute {
				t.Errorf("%s: the lease is over in %v", name, left)
			}
		}
	})
}

// What a header says of KEYS and ARGV is what the script uses.
func TestScriptHeaders(t *testing.T) {
	for name, src := range map[string]string{
		"acquire": acquireLua, "release": releaseLua, "trylock": acquireLua + tryLockLua, "unlock": releaseLua + unlockLua, "revoke": revokeLua, "look": lookLua, "inspect": inspectLua,
		"vote": voteLua, "raise": raiseLua, "discard": discardLua, "adopt": adoptLua, "many": manyLua, "relay": relayLua,
	} {
		var head, body strings.Builder
		for line := range strings.Lines(src) {
			if strings.HasPrefix(line, "--") {
				head.WriteString(line)
			} else {
				body.WriteString(line)
			}
		}
		use := regexp.MustCompile(`(KEYS|ARGV)\[\d\]`)
		said := use.FindAllString(head.String(), -1)
		for _, u := range use.FindAllString(body.String(), -1) {
			if !slices.Contains(said, u) {
				t.Errorf("%s.lua uses %s, which its header does not name", name, u)
			}
		}
		if !strings.Contains(head.String(), "returns") {
			t.Errorf("%s.lua does not say what it returns", name)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct{ prefix, name, fence string }{
		{"", "a", "{a}:fence"},
		{"p:", "a", "{p:a}:fence"},
		{"p:", "{a}b", "p:{a}b:fence"},
		{"{p}:", "a", "{p}:a:fence"},
	} {
		k := keysOf(c.prefix, c.name)
		if k.lock != c.prefix+c.name || k.fence != c.fence || !strings.HasSuffix(k.line, ":line") || !strings.HasSuffix(k.parked, ":parked") {
			t.Errorf("keysOf(%q, %q) = %+v", c.prefix, c.name, k)
		}
		if want := strings.TrimSuffix(c.fence, "fence") + "mail:p"; k.mail("p") != want {
			t.Errorf("mail = %q, want %q", k.mail("p"), want)
		}
	}
	l := &Locker{sharded: true}
	for name, ok := range map[string]bool{"a": true, "{a}b": true, "a}b": false, "{}a": false, "{a}:fence": false, "a:fence": true} {
		if err := l.checkName(name); (err == nil) != ok {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
}

// The earlier of the two clocks counts: the monotonic one stands still while the
// machine sleeps.
func TestEarlierClockCounts(t *testing.T) {
	now := time.Now()
	if past(now.Add(time.Hour)) || !past(now.Add(-1)) {
		t.Error("past")
	}
	if !past(now.Round(0).Add(-time.Second)) {
		t.Error("wall clock alone is not looked at")
	}
	if d := until(now.Add(time.Hour)); d > time.Hour || d < time.Hour-time.Minute {
		t.Errorf("until = %v", d)
	}
}
