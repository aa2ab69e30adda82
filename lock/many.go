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
// texts, as functions that all see one time, behind the shortcuts of each group. take
// is that of acquires, if there is one.
func newMany(take string, acquire, release *script) *script {
	const time = "redis.call('TIME')"
	function := func(s *script) string { return strings.ReplaceAll(s.text(), time, "time") }
	return newScript(
		"local time = "+time+"\n",
		"local function acquire(KEYS, ARGV)\n", function(acquire), "end\n",
		"local function release(KEYS, ARGV)\n", function(release), "end\n",
		within(within(manyLua, "take", take), "mark", markLua))
}

// many sends acquires and releases that meet in one script: that costs the server half
// of what a script for each does.
type many struct{ n *single }

// kind is what calls of one group of many.lua have in common.
type kind struct {
	release                     bool
	keys, own                   int
	lease, margin, block, claim int64
}

// group are the calls of a kind, in the order in which they came.
type group struct {
	kind
	calls []*redis.Cmd
}

// run sends the acquires and releases among cmds, and returns what is still to be
// sent: the others, and what failed in the script. Without an answer that is nothing,
// and the error is everybody's.
func (m *many) run(ctx context.Context, cmds []*redis.Cmd) (rest []*redis.Cmd) {
	if m.n.apart.Load() {
		return cmds
	}
	var releases, acquires []group
	taken := 0
	for _, c := range cmds {
		switch k, ok := m.kindOf(c); {
		case !ok:
			rest = append(rest, c)
			continue
		case k.release:
			releases = add(releases, k, c, len(cmds))
		default:
			acquires = add(acquires, k, c, len(cmds))
		}
		taken++
	}
	if taken < 2 {
		return cmds
	}
	groups := append(releases, acquires...) // what is given back can be taken
	replies, err := m.send(ctx, command(groups))
	switch {
	case err == nil && len(replies) == taken:
	case err == nil || m.n.refusedTogether(err):
		return cmds
	default: // there is no answer, and the others would wait as long for theirs, and all for them
		for _, c := range cmds {
			c.SetErr(err)
		}
		return nil
	}
	for _, g := range groups {
		for i, c := range g.calls {
			if _, failed := replies[i].(error); failed || replies[i] == nil {
				rest = append(rest, c)
			} else {
				c.SetVal(replies[i])
				wordOf(c).SetAside()
			}
		}
		replies = replies[len(g.calls):]
	}
	return rest
}

// kindOf tells of what kind a call is; ok is false if it is neither acquire nor release.
func (m *many) kindOf(c *redis.Cmd) (k kind, ok bool) {
	args := c.Args()
	switch sha := wordOf(c); {
	case sha == nil:
		return k, false
	case sha.Is(m.n.scripts.acquire.sum):
	case sha.Is(m.n.scripts.release.sum):
		k.release = true
	default:
		return k, false
	}
	k.keys, args = split(args)
	number := func(i int) int64 {
		if i >= len(args) {
			return 0
		}
		n, _ := args[i].(*int64) // as acquire and release write it
		return *n
	}
	k.own = 1
	if k.release {
		k.margin = number(1)
		k.own = len(args) - 1
		return k, true
	}
	k.lease, k.margin, k.block, k.claim = number(1), number(2), max(number(3), 1), number(5)
	if len(args) > 4 {
		k.own = 2
	}
	return k, true
}

// wordOf returns the word that names a call's script, or nil: it is none of ours.
func wordOf(c *redis.Cmd) *attempts.Word {
	sha, _ := c.Args()[1].(*attempts.Word)
	return sha
}

// split returns how many keys a call has, and its arguments.
func split(all []any) (keys int, args []any) {
	number, _ := all[2].(string) // as acquire and release write it
	keys = int(number[0] - '0')
	return keys, all[3+keys:]
}

// add puts a call, one of at most so many, in the group of its kind.
func add(groups []group, k kind, c *redis.Cmd, most int) []group {
	for i := range groups {
		if groups[i].kind == k {
			groups[i].calls = append(groups[i].calls, c)
			return groups
		}
	}
	return append(groups, group{k, append(make([]*redis.Cmd, 0, most), c)})
}

// command returns the keys and arguments for many.lua, with room for two words in front.
func command(groups []group) []any {
	size := 3
	for _, g := range groups {
		size += 6 + (g.keys+g.own)*len(g.calls)
	}
	args := make([]any, 3, size)
	for _, g := range groups {
		for i := range g.keys {
			for _, c := range g.calls {
				args = append(args, c.Args()[3+i])
			}
		}
	}
	args[2] = len(args) - 3
	for _, g := range groups {
		args = append(args, g.head(), len(g.calls))
		if !g.release {
			args = append(args, g.lease)
		}
		args = append(args, g.margin)
		if !g.release {
			args = append(args, g.block, g.claim)
		}
		for i := range g.own {
			for _, c := range g.calls {
				_, own := split(c.Args())
				args = append(args, own[g.place(i)])
			}
		}
	}
	return args
}

// head is how many.lua knows of what kind a group is.
func (k kind) head() string {
	what := byte('a')
	if k.release {
		what = 'r'
	}
	return string([]byte{what, '0' + byte(k.keys), '0' + byte(k.own)})
}

// place is where a call has its value, 0, or its entry, 1, among its arguments.
func (k kind) place(own int) int {
	switch {
	case own == 0:
		return 0
	case k.release:
		return 2
	default:
		return 4
	}
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
