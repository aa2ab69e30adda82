package script

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/keys"
)

//go:embed *.lua
var files embed.FS

// program is a script as it is sent.
type program struct {
	source string
	sha    []byte
	keys   []int // those that it declares, by their positions in keys.Queue
}

// compile returns the script in the file name.lua, behind those parts of
// prelude.lua that it uses.
func compile(name string) *program {
	source, used := link(name)
	sum := sha1.Sum([]byte(source))
	return &program{source: source, sha: []byte(hex.EncodeToString(sum[:])), keys: used}
}

// run runs the script on the queue's keys, and on more of them if there are.
func (p *program) run(ctx context.Context, q *Queue, more []string, args ...any) *redis.Cmd {
	return p.known(p.command(q, more, args), func(all []any) *redis.Cmd {
		cmd := scriptCmd(ctx, all)
		_ = q.rdb.Process(ctx, cmd) // cmd has the error
		return cmd
	})
}

// known sends a command, and again with the script's text if the server does not know that.
func (p *program) known(all []any, send func([]any) *redis.Cmd) *redis.Cmd {
	cmd := attempted(send(all))
	first := cmd.Err()
	if first == nil || !redis.HasErrorPrefix(first, "NOSCRIPT") {
		return cmd
	}
	cmd = attempted(send(p.withText(all)))
	if err := cmd.Err(); err != nil && attempts.Repeated(first) {
		cmd.SetErr(attempts.Again(err))
	}
	return cmd
}

// attempted gives a command that was sent an error that tells of attempts before.
func attempted(cmd *redis.Cmd) *redis.Cmd {
	if err, all := cmd.Err(), cmd.Args(); err != nil && len(all) > 1 {
		if w, ok := all[1].(*attempts.Word); ok {
			cmd.SetErr(w.Err(err))
		}
	}
	return cmd
}

// command returns the words of the command that runs the script by its digest.
func (p *program) command(q *Queue, more []string, args []any) []any {
	all := make([]any, 3, 3+len(p.keys)+len(more)+len(args))
	all[0], all[1], all[2] = "evalsha", attempts.NewWord(p.sha), len(p.keys)+len(more)
	for _, k := range p.keys {
		all = append(all, q.args[k])
	}
	for _, k := range more {
		all = append(all, k)
	}
	return append(all, args...)
}

// withText returns the command that brings the script's text along.
func (p *program) withText(command []any) []any {
	all := slices.Clone(command)
	all[0], all[1] = "eval", attempts.NewWord([]byte(p.source))
	return all
}

func scriptCmd(ctx context.Context, words []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, words...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// link returns the text of a script, and the keys that it uses in the order in
// which it declares them.
func link(name string) (source string, used []int) {
	body := read(name)
	blocks := strings.Split(read("prelude"), "\n\n")
	var out []string
	seen := body
	for _, b := range slices.Backward(blocks) { // a block uses only those above it
		if !mentions(seen, definition.FindAllStringSubmatch(b, -1)) {
			continue
		}
		seen += "\n" + b
		out = append(out, b)
	}
	var names, values []string
	for i, k := range keys.Names() {
		if regexp.MustCompile(`\b` + k + `\b`).MatchString(seen) {
			used = append(used, i)
			names = append(names, k)
			values = append(values, fmt.Sprintf("KEYS[%d]", len(used)))
		}
	}
	out = append(out, "local "+strings.Join(names, ", ")+" = "+strings.Join(values, ", "))
	slices.Reverse(out)
	return strings.Join(append(out, body), "\n"), used
}

// mentions tells whether a text has one of the names.
func mentions(text string, names [][]string) bool {
	return slices.ContainsFunc(names, func(m []string) bool {
		return regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(text)
	})
}

var (
	definition = regexp.MustCompile(`(?m)^local (?:function )?(\w+)`)
	comment    = regexp.MustCompile(`(?m)^[ \t]*--.*\n`)
)

func read(name string) string {
	b, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic("script: " + err.Error()) // a file of this folder
	}
	return strings.TrimSpace(comment.ReplaceAllString(string(b), ""))
}
