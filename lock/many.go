package lock

import (
	"context"
	_ "embed"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
)

//go:embed many.lua
var manyLua string

// newMany returns the script that runs several acquires and releases: their own
// texts, as functions that all see one time.
func newMany(acquire, release *script) *script {
	const time = "redis.call('TIME')"
	function := func(s *script) string { return strings.ReplaceAll(s.text(), time, "time") }
	return newScript(
		"local time = "+time+"\n",
		"local function acquire(KEYS, ARGV)\n", function(acquire), "end\n",
		"local function release(KEYS, ARGV)\n", function(release), "end\n",
		manyLua)
}

// heads are those of many.lua, by script, number of keys, number of arguments.
var heads = func() (all [2][5][7]any) {
	for what, letter := range "ar" {
		for keys := range all[what] {
			for args := range all[what][keys] {
				all[what][keys][args] = string([]byte{byte(letter), '0' + byte(keys), '0' + byte(args)})
			}
		}
	}
	return all
}()

// many sends acquires and releases that meet in one script: that costs the server a
// third less than a script for each.
type many struct{ n *single }

// run sends the acquires and releases among cmds, and returns what is still to be
// sent: the others, and what failed in the script. Without an answer that is nothing,
// and the error is everybody's.
func (m *many) run(ctx context.Context, cmds []*redis.Cmd) (rest []*redis.Cmd) {
	if m.n.apart.Load() {
		return cmds
	}
	var taken []*redis.Cmd
	keys, args := make([]any, 3, 3+8*len(cmds)), make([]any, 0, 8*len(cmds))
	for _, c := range cmds {
		if k, a, head := m.parts(c); head != nil {
			taken = append(taken, c)
			keys = append(keys, k...)
			args = append(append(args, head), a...)
		} else {
			rest = append(rest, c)
		}
	}
	if len(taken) < 2 {
		return cmds
	}
	keys[2] = len(keys) - 3
	replies, err := m.send(ctx, append(keys, args...))
	switch {
	case err == nil && len(replies) == len(taken):
	case err == nil || m.n.refusedTogether(err):
		return cmds
	default: // there is no answer, and the others would wait as long for theirs, and all for them
		for _, c := range cmds {
			c.SetErr(err)
		}
		return nil
	}
	for i, c := range taken {
		if _, failed := replies[i].(error); failed || replies[i] == nil {
			rest = append(rest, c)
		} else {
			c.SetVal(replies[i])
		}
	}
	return rest
}

// parts takes an acquire or a release apart; head is nil if it is neither.
func (m *many) parts(c *redis.Cmd) (keys, args []any, head any) {
	all, what := c.Args(), 0
	switch sha, _ := all[1].(*attempts.Word); {
	case sha == nil:
		return nil, nil, nil
	case sha.Is(m.n.scripts.acquire.sum):
	case sha.Is(m.n.scripts.release.sum):
		what = 1
	default:
		return nil, nil, nil
	}
	number, _ := all[2].(string) // as acquire and release write it
	n := int(number[0] - '0')
	keys, args = all[3:3+n], all[3+n:]
	return keys, args, heads[what][n][len(args)]
}

func (m *many) send(ctx context.Context, args []any) ([]any, error) {
	args[0], args[1] = "evalsha", m.n.scripts.many.sha
	cmd := redis.NewCmd(ctx, args...)
	if err := m.n.process(ctx, cmd, true); redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmd, _ = m.n.eval(ctx, m.n.scripts.many, args)
		_ = m.n.process(ctx, cmd, true) // cmd has the error
	}
	return cmd.Slice()
}
