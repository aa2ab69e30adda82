package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/lock"
)

// step is a command, or one of the words of serverSteps.
type step []any

// eval is a step that runs a script on the keys k and l.
func eval(script string, args ...any) step {
	return append(step{"EVAL", "local call, k, l = redis.call, KEYS[1], KEYS[2] " + script, 2, "k", "l"}, args...)
}

// The cases hold each form of a command that the scripts of lock, fence and
// internal/script use, and what the clients send besides. All but the times is
// compared.
var conformance = map[string][]step{
	"a key that expires": {
		{"SET", "k", "v", "PX", 100000},
		eval("local t = call('PTTL', k) return t > 90000 and t <= 100000"),
		{"PTTL", "l"},
		{"SET", "l", "v"},
		{"PTTL", "l"},
		{"PEXPIRE", "k", 1},
		{"gone", "k"},
		{"GET", "k"},
		{"PTTL", "k"},
		{"EXISTS", "k"},
		{"PEXPIRE", "k", 1000},
		eval("call('SET', k, 'v', 'PX', 1) return 'set'"),
		{"gone", "k"},
		{"SET", "k", "w"},
		{"PTTL", "k"},
	},
	"an expiry by the clock": {
		eval("local t = call('TIME') local ms = t[1] * 1000 + math.floor(t[2] / 1000) call('SET', k, '1', 'PXAT', string.format('%.0f', ms + 50000)) local p = call('PTTL', k) return p > 40000 and p <= 50000"),
		eval("local t = call('TIME') call('SET', k, '1', 'PXAT', string.format('%.0f', t[1] * 1000 - 5000)) return call('EXISTS', k)"),
		{"SET", "k", "2", "PX", 100000},
		{"SET", "k", "3", "KEEPTTL"},
		eval("return call('PTTL', k) > 90000"),
		{"SET", "k", "4"},
		{"PTTL", "k"},
	},
	"time and numbers in scripts": {
		eval("local t = call('TIME') return {#t, #t[1], tonumber(t[2]) < 1000000}"),
		eval("return tonumber(ARGV[1]) + 1", "1764000000123456"),
		eval("return string.format('%.0f', tonumber(ARGV[1]) + 1)", "1764000000123456"),
		eval("return string.char(48 + #ARGV[1]) .. ARGV[1]", "17"), eval("return string.byte(ARGV[1], 2) - 48", "017"),
		eval("return {1.9, -1.9, true, false, 'x', {}, {1, {2}}}"), eval("return {1, nil, 3}"), eval("return nil"), eval("return false"),
		eval("return {string.match(ARGV[1], '^(%d+) (%d+) (%d+) ()')}", "1000 16 12 x"),
		eval("return {string.match(ARGV[1], '^(%a)|(%d+)|([^|]*)|(.*)$')}", "r|12||a|b\x00c"),
		eval("local out = {} for id in string.gmatch(ARGV[1], '\\n([^\\n]+)') do out[#out + 1] = id end return out", "3\na\nb"),
		eval("return string.byte(ARGV[1], 1)", "\x00k"), eval("return {string.sub(ARGV[1], 3), #ARGV[1]}", "a\x00b\xff"),
		eval("return tostring(tonumber('x')) .. tostring(tonumber('') or 0) .. tostring(tonumber('12'))"),
		eval("return redis.pcall('GET', k)"), eval("call('RPUSH', k, 'a') local e = redis.pcall('GET', k) return type(e)"),
		{"GET", "k"},
		{"fails", eval("return call('GET', k)")},
		eval("return redis.error_reply('STALEFENCE x')"), eval("return redis.status_reply('FINE')"),
	},
	"a line by score": {
		{"ZADD", "k", "NX", 5, "a"},
		{"ZADD", "k", "NX", 3, "a"},
		{"ZADD", "k", "NX", 4, "b"},
		{"ZADD", "k", "NX", 4, "aa"},
		{"ZCARD", "k"},
		eval("return call('ZPOPMIN', k)"), eval("return call('ZPOPMIN', k)[1]"),
		{"ZREM", "k", "a"},
		{"ZREM", "k", "a"},
		{"ZPOPMIN", "k"},
		{"EXISTS", "k"},
		{"ZCARD", "k"},
		eval("return call('ZPOPMIN', k)[1] or 'none'"),
		{"ZADD", "k", "1764000000123456", "t"},
		{"ZSCORE", "k", "t"},
		{"ZRANGE", "k", 0, 0, "WITHSCORES"},
	},
	"what is due": {
		{"ZADD", "k", "LT", "CH", 10, "\x00p"},
		{"ZADD", "k", "LT", "CH", 12, "\x00p"},
		{"ZADD", "k", "LT", "CH", 8, "\x00p"},
		{"ZADD", "k", "LT", "CH", 8, "\x00p"},
		{"ZADD", "k", "XX", 5, "other"},
		{"ZADD", "k", "XX", 6, "\x00p"},
		{"ZADD", "k", "XX", "CH", 7, "\x00p"},
		{"ZADD", "k", 1, "a", 2, "b", 30, "c"},
		{"ZRANGEBYSCORE", "k", "-inf", 7, "LIMIT", 0, 2},
		{"ZRANGEBYSCORE", "k", "-inf", 7, "LIMIT", 0, 128},
		{"ZRANGEBYSCORE", "k", "(2", "+inf"},
		{"ZRANGE", "k", 0, 0},
		{"ZRANGE", "k", 0, 0, "WITHSCORES"},
		{"ZREVRANGE", "k", 0, 1, "WITHSCORES"},
		{"ZREM", "k", "\x00p", "a"},
		{"ZRANGE", "k", 0, -1},
		{"ZSCORE", "k", "a"},
		{"ZSCORE", "none", "a"},
		{"ZREM", "k", "c", "d"},
		{"EXISTS", "k"},
		eval("return call('ZSCORE', k, 'x') == false"), eval("return #call('ZRANGE', k, 0, 0, 'WITHSCORES')"),
	},
	"who is parked": {
		{"ZADD", "k", 0, "a\x00212\x00i2", 0, "a\x0019\x00i1", 0, "b\x0019\x00i3", 0, "ab\x0019\x00i4"},
		eval("return call('ZRANGEBYLEX', k, '[a\\0', '(a\\1', 'LIMIT', 0, 1)"), eval("return call('ZRANGEBYLEX', k, '[a\\0', '(a\\1')"),
		eval("return call('ZRANGEBYLEX', k, '[' .. ARGV[1] .. '\\0', '(' .. ARGV[1] .. '\\1', 'LIMIT', 0, 5)", "ab"),
		eval("return #call('ZRANGEBYLEX', k, '[c\\0', '(c\\1', 'LIMIT', 0, 1)"),
		{"ZRANGEBYLEX", "k", "[a\x00", "(a\x01", "LIMIT", 0, 5},
		{"ZREM", "k", "a\x0019\x00i1"},
		eval("return call('ZRANGEBYLEX', k, '[a\\0', '(a\\1', 'LIMIT', 0, 1)[1]"),
	},
	"lists": {
		{"RPUSH", "k", "a", "b", "c"},
		{"LPUSH", "k", "z"},
		{"LLEN", "k"},
		eval("return call('LPOP', k, 2)"), eval("return call('LPOP', k, 128)"),
		eval("return call('LPOP', k, 2) == false"), eval("local ids = call('LPOP', k, 1) return (not ids or #ids == 0)"),
		{"LPOP", "k", 2},
		{"LPOP", "k"},
		{"LLEN", "k"},
		{"EXISTS", "k"},
		{"RPUSH", "k", "a", "b"},
		{"LRANGE", "k", 0, -1},
		{"LPOP", "k", 1},
		{"LPOP", "k"},
		{"LRANGE", "k", 0, -1},
	},
	"hashes and sets": {
		eval("return call('HSET', k, unpack({'a', '1', 'b', '2'}))"),
		{"HSET", "k", "a", "3"},
		{"HGET", "k", "a"},
		{"HGET", "k", "x"},
		eval("return call('HGET', k, 'x') == false"),
		eval("local v = call('HMGET', k, 'a', 'x', 'b') return {v[1], v[2] == false, v[3], #v}"),
		{"HMGET", "k", "a", "x"},
		{"HEXISTS", "k", "a"},
		{"HEXISTS", "k", "x"},
		{"HINCRBY", "k", "seq", 1},
		{"HINCRBY", "k", "seq", 1},
		eval("return call('HINCRBY', k, 'seq', 1) + 1"),
		{"HDEL", "k", "a", "x"},
		{"HDEL", "k", "b", "seq"},
		{"EXISTS", "k"},
		{"HLEN", "k"},
		{"SADD", "l", "q"},
		{"SADD", "l", "q"},
		eval("return call('SMEMBERS', l)"),
		{"DEL", "l"},
		{"SMEMBERS", "l"},
		eval("return #call('SMEMBERS', l)"),
	},
	"a memory that is turned over": {
		eval("return call('SADD', k, unpack({'a', 'b', 'a'}))"),
		eval("return {call('SISMEMBER', k, 'a'), call('SISMEMBER', k, 'x'), call('SISMEMBER', l, 'a')}"),
		eval("return {call('SMISMEMBER', k, unpack({'x', 'a', 'a'})), call('SMISMEMBER', l, 'a', 'b'), call('SMISMEMBER', k, 'b')}"),
		eval("return call('UNLINK', l)"), eval("return call('EXISTS', k) == 1"),
		{"SADD", "l", "old"},
		eval("call('UNLINK', l) return call('RENAME', k, l)"),
		{"EXISTS", "k"},
		eval("return {call('SISMEMBER', l, 'a'), call('SISMEMBER', l, 'old')}"),
		{"SCARD", "l"},
		{"SCARD", "k"},
		eval("return call('UNLINK', l)"),
		{"fails", eval("return call('RENAME', k, l)")},
	},
	"publishing from a script": {
		eval("return call('PUBLISH', 'ch', 'x')"), eval("return call('PUBSUB', 'NUMSUB', 'ch')[2]"),
		{"subscribe", "ch"},
		eval("return call('PUBSUB', 'NUMSUB', 'ch')[2]"), eval("return call('PUBLISH', 'ch', 'hello\\0')"),
		{"receive"},
		eval("call('SET', k, 'v', 'PX', 1000) return call('PUBLISH', 'ch', 'two')"),
		{"receive"},
		{"PUBLISH", "other", "x"},
		{"unsubscribe", "ch"},
		eval("return call('PUBLISH', 'ch', 'x')"),
	},
	"waiting for a token": {
		{"RPUSH", "k", "1", "2"},
		{"BLPOP", "k", 1},
		{"BLPOP", "k", 1},
		{"BLPOP", "k", 1},
		{"EXISTS", "k"},
		{"later", "LPUSH", "k", "3"},
		{"BLPOP", "k", 5},
		{"later", "EVAL", "return redis.call('LPUSH', KEYS[1], '4')", 1, "k"},
		{"BLPOP", "k", 5},
		{"LLEN", "k"},
	},
	"types that do not fit, and unknown scripts": {
		{"RPUSH", "k", "a"},
		{"GET", "k"},
		{"ZADD", "k", 1, "a"},
		{"HGET", "k", "a"},
		{"SADD", "k", "a"},
		{"INCR", "k"},
		{"fails", eval("call('SET', l, 'kept') return call('GET', k)")},
		{"GET", "l"},
		{"EVALSHA", "0123456789012345678901234567890123456789", 0},
		{"EVAL", "return", 0},
		{"SCRIPT", "FLUSH"},
		{"nonsense"},
	},
	"a transaction": {
		{"tx", step{"SET", "k", "v"}, step{"ZADD", "l", 1, "m"}, step{"GET", "k"}, step{"ZCARD", "l"}, step{"GET", "l"}, step{"HGETALL", "none"}},
	},
}

// TestConformance compares the server that the simulation stands on with Redis.
func TestConformance(t *testing.T) {
	for name, steps := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real := redistest.Real(t) // skips where there is none
			want := replies(t, real, steps)
			for i, got := range replies(t, redistest.Mini(t), steps) {
				if got != want[i] {
					t.Errorf("step %d, %q: miniredis says %s, Redis %s", i, steps[i], got, want[i])
				}
			}
		})
	}
}

// replies runs the steps and writes down what they return.
func replies(t *testing.T, rdb *redis.Client, steps []step) []string {
	t.Helper()
	ctx := t.Context()
	var sub *redis.PubSub
	defer func() {
		if sub != nil {
			sub.Close()
		}
	}()
	// Channels are those of the whole server, which other tests share.
	channel := fmt.Sprint(t.Name(), rdb.Options().DB, ":")
	var out []string
	say := func(v any, err error) { out = append(out, text(v, err)) }
	for _, s := range steps {
		args := append([]any(nil), s...)
		if script, ok := args[min(1, len(args)-1)].(string); ok {
			args[min(1, len(args)-1)] = strings.ReplaceAll(script, "'ch'", "'"+channel+"'")
		}
		switch args[0] {
		case "gone":
			for deadline := time.Now().Add(10 * time.Second); rdb.Exists(ctx, args[1].(string)).Val() != 0; {
				if time.Now().After(deadline) {
					t.Fatalf("%q does not expire", args[1])
				}
			}
			say("gone", nil)
		case "subscribe":
			sub = rdb.Subscribe(ctx, channel)
			msg, err := sub.Receive(ctx)
			say(msg.(*redis.Subscription).Count, err)
		case "receive":
			msg, err := sub.ReceiveMessage(ctx)
			say(msg.Payload, err)
		case "unsubscribe":
			sub.Close()
			for rdb.PubSubNumSub(ctx, channel).Val()[channel] != 0 {
				if ctx.Err() != nil {
					t.Fatal("still subscribed")
				}
			}
			say("closed", nil)
		case "fails": // miniredis gives such errors a text of its own
			err := rdb.Do(ctx, args[1].(step)...).Err()
			say(err != nil && !errors.Is(err, redis.Nil), nil)
		case "later":
			time.AfterFunc(20*time.Millisecond, func() { rdb.Do(context.Background(), args[1:]...) })
			say("soon", nil)
		case "tx":
			cmds, err := rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
				for _, c := range args[1:] {
					p.Do(ctx, c.(step)...)
				}
				return nil
			})
			say("tx", err)
			for _, c := range cmds {
				out[len(out)-1] += "; " + text(c.(*redis.Cmd).Result())
			}
		default:
			say(rdb.Do(ctx, args...).Result())
		}
	}
	return out
}

// text writes a reply down. Of an error it keeps the first word, which is what
// programs look at.
func text(v any, err error) string {
	switch {
	case errors.Is(err, redis.Nil):
		return "nil"
	case err != nil:
		word, _, _ := strings.Cut(err.Error(), " ")
		return "error " + word
	}
	return fmt.Sprintf("%#v", flat(v))
}

// flat takes the pairs of member and score apart, which Redis sends as pairs by
// RESP3, and miniredis does not; go-redis reads both.
func flat(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	var out []any
	for _, x := range list {
		if pair, ok := x.([]any); ok && len(pair) == 2 {
			if _, scored := pair[1].(float64); scored {
				out = append(out, pair...)
				continue
			}
		}
		out = append(out, flat(x))
	}
	return out
}

// A sequence of the library's own scripts leaves the same on both servers.
func TestConformanceOfScripts(t *testing.T) {
	run := func(t *testing.T, rdb *redis.Client) []string {
		ctx := t.Context()
		q := script.New(rdb, keys.Of(keys.Base("c:", "q")))
		feed := &script.Feed{Feeder: "f", Lease: time.Minute, MaxDeliveries: 2, Slack: time.Second, ProbeAgain: time.Second}
		var out []string
		say := func(what string, args ...any) { out = append(out, what+" "+fmt.Sprint(args...)) }
		codes, err := q.Push(ctx, []script.Entry{{ID: "1", Body: "b1", Lock: "k"}, {ID: "2", Body: "b2", Lock: "k"}, {ID: "3", Body: "b3"}})
		say("push", codes, err)
		codes, err = q.Push(ctx, []script.Entry{{ID: "1", Body: "b1", Lock: "k"}})
		say("again", codes, err)
		code, _, err := q.Schedule(ctx, script.Entry{ID: "4", Body: "b4", Lock: "k"}, script.In(time.Hour))
		say("schedule", code, err)
		code, _, err = q.ParkNew(ctx, script.Entry{ID: "5", Body: "b5", Lock: "j"}, script.In(time.Hour))
		say("parknew", code, err)
		for n := int64(1); n <= 2; n++ {
			c, err := q.Claim(ctx, feed, n, 8)
			for _, it := range c.Items {
				say("item", it.ID, it.Body, it.Deliveries)
			}
			say("claim", c.Probes, c.More, c.Buried, err)
		}
		token := feed.Token(1)
		code, _, err = q.Nack(ctx, script.Lease{ID: "3", Token: token}, 0, script.Attempt, 5, false, "why")
		say("nack", code, err)
		code, _, err = q.Park(ctx, script.Lease{ID: "1", Token: token}, time.Hour, 0)
		say("park", code, err)
		code, _, err = q.Promote(ctx, "k")
		say("promote", code, err)
		code, _, err = q.Cancel(ctx, time.Minute, "2")
		say("cancel", code, err)
		code, _, _, err = q.Reschedule(ctx, "5", script.In(0), "s")
		say("reschedule", code, err)
		c, err := q.Claim(ctx, feed, 3, 8)
		for _, it := range c.Items {
			say("item", it.ID, it.Deliveries, it.Attempts, it.Deferrals)
		}
		say("claim", c.More, err)
		acked, more, _, err := q.Ack(ctx, time.Minute, []script.Lease{{ID: "1", Token: feed.Token(3)}, {ID: "5", Token: feed.Token(3)}, {ID: "5", Token: "x"}})
		say("ack", acked, more, err)
		code, _, err = q.Bury(ctx, script.Lease{ID: "3", Token: feed.Token(3)}, "reason")
		say("bury", code, err)
		code, err = q.Revive(ctx, "3", "r")
		say("revive", code, err)
		v, bad := look(ctx, rdb, q.Keys())
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			st, ok := v.all[id]
			say("state", id, ok, st.Place, st.Lock, st.Seq, st.Deliveries, st.Attempts, st.Deferrals, st.Note)
		}
		say("contradictions", bad)

		l := lock.New(rdb, lock.Config{Owner: "one"})
		defer l.Close()
		other := lock.New(rdb, lock.Config{Owner: "two"})
		defer other.Close()
		a, err := l.TryAcquire(ctx, "k")
		say("try", err)
		_, err = other.TryAcquire(ctx, "k")
		held, _ := errors.AsType[*lock.LockedError](err)
		say("refused", held.Owner, held.RetryAfter > 29*time.Second)
		_, isHeld, err := other.Look(ctx, "k", "queue")
		say("look", isHeld, err)
		got := make(chan *lock.Lock)
		go func() {
			b, err := other.Acquire(ctx, "k", nil)
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		for waiters := 0; waiters == 0 && ctx.Err() == nil; {
			st, err := l.Inspect(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			waiters = st.Waiters
		}
		say("extend", a.Extend(ctx))
		say("release", a.Release(ctx), a.Reported())
		b := <-got
		say("fences grow", b.Fence() > a.Fence())
		say("release", b.Release(ctx), b.Reported())
		ttl := rdb.PTTL(ctx, "{k}:fence").Val()
		say("left", rdb.Exists(ctx, "k", "{k}:line", "{k}:parked").Val(), ttl > 0 && ttl < 2*time.Minute)
		return out
	}
	want := run(t, redistest.Real(t))
	got := run(t, redistest.Mini(t))
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("step %d: miniredis leaves %q, Redis %q", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d answers from miniredis, %d from Redis", len(got), len(want))
	}
	if testing.Verbose() {
		t.Log(strings.Join(want, "\n"))
	}
}
