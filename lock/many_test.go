package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

// eachWay runs fn on a node whose acquires and releases are sent by themselves, and on
// one where each of them is one of several in a script.
func eachWay(t *testing.T, fn func(t *testing.T, rdb *redis.Client, n *single)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		t.Run("alone", func(t *testing.T) { fn(t, rdb, newSingle(rdb, &aloneScripts, 0)) })
		t.Run("amid others", func(t *testing.T) {
			if err := rdb.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			met := &amid{}
			own := redis.NewClient(rdb.Options())
			t.Cleanup(func() { own.Close() })
			n := newSingle(own, &aloneScripts, 0)
			met.n = n
			own.AddHook(met)
			fn(t, rdb, n)
			if met.calls == 0 {
				t.Error("none of the commands met others")
			}
		})
	})
}

// amid puts each acquire and release amid two of the same kind and two of another, all
// of other locks.
type amid struct {
	n     *single
	calls int
}

func (a *amid) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *amid) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a *amid) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		own, ok := cmd.(*redis.Cmd)
		if !ok || cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		kind, ok := a.n.many.kindOf(own)
		if !ok {
			return next(ctx, cmd)
		}
		a.calls++
		v := fmt.Sprint("v", a.calls)
		before, after := acquireOf(ctx, "before", v, 60_000), releaseOf(ctx, "before", v)
		twins := []*redis.Cmd{twin(own, kind, fmt.Sprint("twin:", a.calls)), twin(own, kind, fmt.Sprint("other twin:", a.calls))}
		rest := a.n.many.run(ctx, []*redis.Cmd{before, twins[0], own, twins[1]})
		if more := a.n.many.run(ctx, []*redis.Cmd{after, releaseOf(ctx, "nobody's", v)}); len(more) > 0 {
			return fmt.Errorf("%d commands were left over", len(more))
		}
		if f, err := before.Int64(); err != nil || f == 0 {
			return fmt.Errorf("before it: %v, %w", f, err)
		}
		if n, err := after.Int64(); err != nil || n != 1 {
			return fmt.Errorf("after it: %v, %w", n, err)
		}
		for _, c := range twins {
			if n, err := c.Int64(); err != nil || (n == 0) != kind.release {
				return fmt.Errorf("its twin: %v, %w", n, err)
			}
		}
		switch {
		case len(rest) == 0:
			return own.Err()
		case len(rest) == 1 && rest[0] == own:
			return next(ctx, cmd)
		default:
			return fmt.Errorf("%d commands were left over", len(rest))
		}
	}
}

// twin is a command of the same kind, of a lock that nobody holds.
func twin(own *redis.Cmd, kind kind, name string) *redis.Cmd {
	args := slices.Clone(own.Args())
	k := keysOf("", name)
	for i, key := range []any{&k.lock, &k.fence, &k.line, &k.parked}[:kind.keys] {
		args[3+i] = key
	}
	value := "value of " + name
	args[3+kind.keys] = &value
	if kind.own == 2 {
		entry := "1000 1 1 c" + value
		args[3+kind.keys+kind.place(1)] = &entry
	}
	return redis.NewCmd(context.Background(), args...)
}

func acquireOf(ctx context.Context, name, value string, lease int64) *redis.Cmd {
	k, margin := keysOf("", name), int64(60_000)
	return redis.NewCmd(ctx, "evalsha", attempts.NewWord(aloneScripts.acquire.sum), "2", &k.lock, &k.fence, &value, &lease, &margin)
}

func releaseOf(ctx context.Context, name, value string) *redis.Cmd {
	k, margin := keysOf("", name), int64(60_000)
	return redis.NewCmd(ctx, "evalsha", attempts.NewWord(aloneScripts.release.sum), "4", &k.lock, &k.fence, &k.line, &k.parked, &value, &margin)
}

// sent is a client's commands, and what to do with them.
type sent struct {
	names []string
	again int // that go-redis would repeat
	do    func(cmd redis.Cmder, next func() error) error
}

func (s *sent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *sent) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		s.names = append(s.names, cmd.Name())
		s.repeats(cmd)
		return s.do(cmd, func() error { return next(ctx, cmd) })
	}
}

func (s *sent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if strings.HasPrefix(cmds[0].Name(), "eval") { // not those of a new connection
			s.names = append(s.names, fmt.Sprint("pipeline of ", len(cmds)))
			s.repeats(cmds...)
		}
		return next(ctx, cmds)
	}
}

func (s *sent) repeats(cmds ...redis.Cmder) {
	for _, c := range cmds {
		if !c.NoRetry() {
			s.again++
		}
	}
}

// What several callers want goes to the server in one script, and what that cannot do
// by itself.
func TestTogether(t *testing.T) {
	refuse := func(prefix string) func(redis.Cmder, func() error) error {
		return func(cmd redis.Cmder, next func() error) error {
			if cmd.Args()[2] == 6 { // keys
				err := serverError(prefix + " it does not want to")
				cmd.SetErr(err)
				return err
			}
			return next()
		}
	}
	pass := func(_ redis.Cmder, next func() error) error { return next() }
	lose := func(cmd redis.Cmder, next func() error) error {
		_ = next() // it is done
		cmd.SetErr(io.EOF)
		return io.EOF
	}
	for name, tt := range map[string]struct {
		spoil  func(rdb *redis.Client)
		others int // commands that are neither acquire nor release
		do     func(redis.Cmder, func() error) error
		want   string // of two rounds
		fails  bool
		apart  bool
	}{
		"three":                       {nil, 0, pass, "[evalsha evalsha]", false, false},
		"and others":                  {nil, 2, pass, "[evalsha pipeline of 2 evalsha pipeline of 2]", false, false},
		"the script is not known":     {func(rdb *redis.Client) { rdb.ScriptFlush(context.Background()) }, 0, pass, "[evalsha eval evalsha]", false, false},
		"one fails":                   {func(rdb *redis.Client) { rdb.LPush(context.Background(), "{1}:fence", "x") }, 0, pass, "[evalsha pipeline of 1 evalsha pipeline of 1]", true, false},
		"one raises an error":         {func(rdb *redis.Client) { rdb.LPush(context.Background(), "1", "x") }, 0, pass, "[evalsha pipeline of 1 evalsha pipeline of 1]", true, false},
		"the server takes no two":     {nil, 0, refuse("CROSSSLOT"), "[evalsha pipeline of 3 pipeline of 3]", false, true},
		"the server does not want to": {nil, 0, refuse("BUSY"), "[evalsha pipeline of 3 evalsha pipeline of 3]", false, false},
		"the answer is lost":          {nil, 0, lose, "[evalsha evalsha]", true, false},
		"and with it that of others":  {nil, 2, lose, "[evalsha evalsha]", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				opts := *rdb.Options()
				own := redis.NewClient(&opts)
				defer own.Close()
				n := newSingle(own, &aloneScripts, 0)
				for _, s := range []*script{aloneScripts.acquire, aloneScripts.many, lookScript} {
					if err := rdb.ScriptLoad(t.Context(), s.text()).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if tt.spoil != nil {
					tt.spoil(rdb)
				}
				record := &sent{do: tt.do}
				own.AddHook(record)
				for round := range 2 {
					var cmds []*redis.Cmd
					for i := range 3 + tt.others {
						k := keysOf("", fmt.Sprint(i))
						if i < 3 {
							cmds = append(cmds, acquireOf(t.Context(), fmt.Sprint(i), fmt.Sprint("v", round), 1000))
						} else {
							cmds = append(cmds, redis.NewCmd(t.Context(), "evalsha", lookScript.sha, "2", &k.lock, &k.parked, "q", 1000))
						}
					}
					n.together(t.Context(), cmds)
					failed := 0
					for _, c := range cmds {
						if c.Err() != nil {
							failed++
						} else if c.Val() == nil {
							t.Errorf("round %d: %v has no answer", round, c.Args())
						}
					}
					if (failed > 0) != tt.fails {
						t.Errorf("round %d: %d failed", round, failed)
					}
				}
				if got := fmt.Sprint(record.names); got != tt.want {
					t.Errorf("sent %v, want %v", got, tt.want)
				}
				if record.again > 0 {
					t.Errorf("go-redis would repeat %d of them for all", record.again)
				}
				if n.apart.Load() != tt.apart {
					t.Errorf("from then on apart: %v", n.apart.Load())
				}
			})
		})
	}
}

// Leases are extended in one script, and each by itself where the server, or one of
// them, does not let that be.
func TestExtendedTogether(t *testing.T) {
	for name, tt := range map[string]struct {
		refuse error  // what a script of several is answered
		broken bool   // the first lock's key is of another type
		want   string // of two rounds
	}{
		"all":                     {nil, false, "[evalsha evalsha]"},
		"the server takes no two": {serverError("CROSSSLOT it does not want to"), false, "[evalsha pipeline of 3 pipeline of 3]"},
		"one fails":               {nil, true, "[evalsha pipeline of 3 evalsha pipeline of 3]"},
		"no answer":               {io.EOF, false, "[evalsha evalsha]"},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				ctx := t.Context()
				opts := *rdb.Options()
				opts.MaxRetries = -1
				own := redis.NewClient(&opts)
				defer own.Close()
				n := newSingle(own, &aloneScripts, 0)
				if err := rdb.ScriptLoad(ctx, extendScript.text()).Err(); err != nil {
					t.Fatal(err)
				}
				record := &sent{do: func(cmd redis.Cmder, next func() error) error {
					if tt.refuse != nil {
						cmd.SetErr(tt.refuse)
						return tt.refuse
					}
					return next()
				}}
				own.AddHook(record)
				for round := range 2 {
					all := extendable(3)
					for _, it := range all {
						rdb.Set(ctx, it.keys.lock, it.args.value, time.Second)
					}
					if tt.broken {
						rdb.Del(ctx, all[0].keys.lock)
						rdb.LPush(ctx, all[0].keys.lock, "x")
					}
					n.extendAll(ctx, all)
					for i, it := range all {
						switch bad := errors.Is(tt.refuse, io.EOF) || tt.broken && i == 0; {
						case it.held == bad, (it.err != nil) != bad:
							t.Errorf("round %d, lock %d: %v, %v", round, i, it.held, it.err)
						case !bad && rdb.PTTL(ctx, it.keys.lock).Val() < 30*time.Second:
							t.Errorf("round %d: lock %d is not extended", round, i)
						}
					}
				}
				if got := fmt.Sprint(record.names); got != tt.want {
					t.Errorf("sent %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// extendable returns so many leases of a minute, with names of different slots.
func extendable(n int) []extendItem {
	all := make([]extendItem, n)
	for i := range all {
		all[i] = extendItem{keys: keysOf("", fmt.Sprint(i)), args: extendArgs{value: "h me", lease: time.Minute}}
	}
	return all
}

// A client of one node of a Cluster may name keys of several slots, but in no one script.
func TestExtendedTogetherAtAClusterNode(t *testing.T) {
	ctx := t.Context()
	rdb := redistest.NewServer(t, "--port", redistest.FreePort(t), "--cluster-enabled", "yes", "--bind", "127.0.0.1", "--databases", "1").Client(t)
	if err := rdb.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(rdb.ClusterInfo(ctx).Val(), "cluster_state:ok") {
		if ctx.Err() != nil {
			t.Fatal("the Cluster does not come up")
		}
	}
	n, all := newSingle(rdb, &aloneScripts, 0), extendable(3)
	for _, it := range all {
		if err := rdb.Set(ctx, it.keys.lock, it.args.value, time.Second*10).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		n.extendAll(ctx, all)
		for i, it := range all {
			if !it.held || it.err != nil {
				t.Errorf("lock %d: %v, %v", i, it.held, it.err)
			}
		}
	}
}

type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError makes it an error of the server.
func (serverError) RedisError() {}

// A fence that no clock ever gave, which stands where another program wrote it, takes
// no other's answer away, and who fails with it has not taken the lock.
func TestAFenceOfNonsenseFailsNoOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		n := newSingle(rdb, &aloneScripts, 0)
		for _, s := range []*script{aloneScripts.acquire, aloneScripts.release, aloneScripts.many} {
			if err := rdb.ScriptLoad(ctx, s.text()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, fence := range []string{"1e30", "inf", "nan", "-1e30"} {
			good, bad := keysOf("", "good"), keysOf("", "bad")
			rdb.Del(ctx, bad.lock)
			rdb.Set(ctx, good.lock, "v", time.Minute)
			rdb.SAdd(ctx, good.parked, "queue")
			rdb.Set(ctx, bad.fence, fence, time.Minute)
			rel, acq, other := releaseOf(ctx, "good", "v"), acquireOf(ctx, "bad", "w", 1000), acquireOf(ctx, "other"+fence, "w", 1000)
			n.together(ctx, []*redis.Cmd{acq, rel, other})
			if got := fmt.Sprint(rel.Val(), rel.Err()); got != "[queue] <nil>" {
				t.Errorf("fence %s: release: %s, want [queue]", fence, got)
			}
			if other.Err() != nil {
				t.Errorf("fence %s: another lock: %v", fence, other.Err())
			}
			alone := keysOf("", "alone"+fence)
			rdb.Set(ctx, alone.fence, fence, time.Minute)
			r, err := n.acquire(ctx, &alone, &acquireArgs{value: new("w"), lease: time.Minute, block: 1, margin: time.Minute})
			if held := rdb.Exists(ctx, alone.lock).Val() == 1; held != (err == nil && r.granted) {
				t.Errorf("fence %s: acquire by itself: %+v, %v, and held: %v", fence, r, err, held)
			}
		}
	})
}

// A lock that may be read but not freed takes no other's answer away, nor does one whose key
// is of another type. Who gives a lock back twice hears twice that it did.
func TestReleasesTogether(t *testing.T) {
	rdb, ctx := redistest.NewServer(t).Client(t), t.Context()
	if err := rdb.Do(ctx, "ACL", "SETUSER", "u", "on", ">p", "+@all", "~{*", "~1", "~2", "~4", "~5", "%R~3").Err(); err != nil {
		t.Fatal(err)
	}
	opts := *rdb.Options()
	opts.Username, opts.Password = "u", "p"
	own := redis.NewClient(&opts)
	defer own.Close()
	n := newSingle(own, &aloneScripts, 0)
	for name, tt := range map[string]struct {
		locks string // to release
		spoil string // that is a LIST
		want  string
	}{
		"all":                {"12", "", "1 1"},
		"one is not ours":    {"15", "", "1 0"},
		"one twice":          {"121", "", "1 1 1"},
		"one is a LIST":      {"124", "2", "1 WRONGTYPE 1"},
		"one may be read":    {"132", "", "1 NOPERM 1"},
		"none may be freed":  {"33", "", "NOPERM NOPERM"},
		"one may not at all": {"162", "", "1 NOPERM 1"},
	} {
		rdb.FlushDB(ctx)
		for _, s := range []*script{aloneScripts.release, aloneScripts.many} {
			if err := rdb.ScriptLoad(ctx, s.text()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		rdb.MSet(ctx, "1", "v", "2", "v", "3", "v", "4", "v", "6", "v")
		if tt.spoil != "" {
			rdb.Del(ctx, tt.spoil)
			rdb.LPush(ctx, tt.spoil, "x")
		}
		var cmds []*redis.Cmd
		for _, c := range tt.locks {
			cmds = append(cmds, releaseOf(ctx, string(c), "v"))
		}
		n.together(ctx, cmds)
		var got []string
		for _, c := range cmds {
			switch v, err := c.Int64(); {
			case err != nil:
				word, _, _ := strings.Cut(err.Error(), " ")
				got = append(got, word)
			default:
				got = append(got, fmt.Sprint(v))
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// redsync once sent a digest of another kind than Redis makes: every call was answered
// NOSCRIPT, and came again with the text.
func TestDigestsAreThoseOfRedis(t *testing.T) {
	rdb := redistest.Real(t)
	for name, s := range map[string]*script{
		"acquire": aloneScripts.acquire, "release": aloneScripts.release, "many": aloneScripts.many, "revoke": aloneScripts.revoke,
		"vote": quorumScripts.acquire, "release of a quorum": quorumScripts.release, "many of a quorum": quorumScripts.many, "revoke of a quorum": quorumScripts.revoke,
		"extend": extendScript, "look": lookScript, "inspect": inspectScript, "adopt": adoptScript, "raise": raiseScript,
		"discard": discardScript, "acquire all": acquireAllScript, "relay": relayScript,
	} {
		if sha, err := rdb.ScriptLoad(t.Context(), s.text()).Result(); err != nil || sha != s.sha || sha != string(s.sum) {
			t.Errorf("%s: Redis says %v, %v, ours is %v", name, sha, err, s.sha)
		}
	}
}
