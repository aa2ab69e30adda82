package script

import (
	"embed"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed *.lua
var files embed.FS

// compile returns the script in the file name.lua, behind those functions of
// prelude.lua that it uses.
func compile(name string) *redis.Script { return redis.NewScript(source(name)) }

func source(name string) string {
	body := read(name)
	blocks := strings.Split(read("prelude"), "\n\n")
	used := make([]bool, len(blocks))
	seen := body
	for i := len(blocks) - 1; i >= 0; i-- { // a function uses only those above it
		fn := definition.FindStringSubmatch(blocks[i])
		used[i] = fn == nil || regexp.MustCompile(`\b`+fn[1]+`\(`).MatchString(seen)
		if used[i] {
			seen += blocks[i]
		}
	}
	var out []string
	for i, b := range blocks {
		if used[i] {
			out = append(out, b)
		}
	}
	return strings.Join(append(out, body), "\n")
}

var (
	definition = regexp.MustCompile(`(?m)^local function (\w+)`)
	comment    = regexp.MustCompile(`(?m)^[ \t]*--.*\n`)
)

func read(name string) string {
	b, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic("script: " + err.Error()) // a file of this folder
	}
	return strings.TrimSpace(comment.ReplaceAllString(string(b), ""))
}
