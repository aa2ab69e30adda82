package script_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/script"
)

var (
	numbered = regexp.MustCompile(`\b(?:KEYS|ARGV)\[\d+\]`)
	indexed  = regexp.MustCompile(`ARGV\[[^\]\d]|\bfinish\(\d`) // finish reads the rest of ARGV
	command  = regexp.MustCompile(`\bcall\(([^,)]*),?\s*([^,)]*)`)
)

func luaFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.lua")
	if err != nil || len(names) == 0 {
		t.Fatalf("Glob(*.lua) = %v, %v", names, err)
	}
	out := map[string]string{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(n, ".lua")] = string(b)
	}
	return out
}

func set(ss []string) []string { return slices.Compact(slices.Sorted(slices.Values(ss))) }

// Each script's header names the keys and arguments that its body uses, and what
// it returns.
func TestScriptHeaders(t *testing.T) {
	for name, text := range luaFiles(t) {
		if name == "prelude" {
			continue
		}
		at := strings.Index(text, "\n") + 1
		for strings.HasPrefix(text[at:], "--") {
			at += strings.Index(text[at:], "\n") + 1
		}
		header, body := text[:at], text[at:]
		if !strings.HasPrefix(header, "-- "+name+": ") {
			t.Errorf("%s.lua begins %.30q, want its name", name, header)
		}
		if !strings.Contains(header, "\n-- returns ") {
			t.Errorf("%s.lua does not say what it returns", name)
		}
		got, want := set(numbered.FindAllString(header, -1)), set(numbered.FindAllString(body, -1))
		if !slices.Equal(got, want) {
			t.Errorf("%s.lua: the header names %v, the body uses %v", name, got, want)
		}
		if got, want := strings.Contains(header, "per request: "), indexed.MatchString(body); got != want {
			t.Errorf("%s.lua: arguments per request in the header: %v, in the body: %v", name, got, want)
		}
	}
}

// A script binds and declares the keys that it uses, under their names.
func TestScriptsBindTheirKeys(t *testing.T) {
	for name, text := range luaFiles(t) {
		if name == "prelude" {
			continue
		}
		source, used := script.Link(name)
		m := regexp.MustCompile(`(?m)^local ([\w, ]+) = (KEYS\[1\].*)$`).FindStringSubmatch(source)
		if m == nil {
			t.Errorf("%s binds no keys", name)
			continue
		}
		bound, values := strings.Split(m[1], ", "), strings.Split(m[2], ", ")
		for i, k := range used {
			if keys.Names()[k] != bound[i] || values[i] != "KEYS["+strconv.Itoa(i+1)+"]" {
				t.Errorf("%s: key %d is %s, the script binds %s to %s", name, i+1, keys.Names()[k], bound[i], values[i])
			}
		}
		if len(bound) != len(used) || len(values) != len(used) {
			t.Errorf("%s binds %v, and is sent %d keys", name, bound, len(used))
		}
		// What is sent after those is read by its number.
		if more := regexp.MustCompile(`KEYS\[(\d+)\]`).FindStringSubmatch(text); more != nil && more[1] != strconv.Itoa(len(used)+1) {
			t.Errorf("%s reads KEYS[%s], which comes after %d keys", name, more[1], len(used))
		}
	}
	q := keys.Of(keys.Base("t:", "q"))
	for i, k := range q.All() {
		if want := q.Base() + keys.Names()[i]; k != want {
			t.Errorf("key %d is %s, want %s", i, k, want)
		}
	}
}

// A script touches declared keys only: the first argument of each command is one
// of the prelude's names, or one that its caller adds.
func TestScriptsTouchDeclaredKeysOnly(t *testing.T) {
	declared := keys.Names()
	added := map[string]string{"claim": "last", "yield": "stop"}
	for name := range luaFiles(t) {
		if name == "prelude" {
			continue
		}
		source := script.Source(name)
		calls := command.FindAllStringSubmatch(source, -1)
		if len(calls) < strings.Count(source, "call(") {
			t.Errorf("%s: %d of %d calls read", name, len(calls), strings.Count(source, "call("))
		}
		for _, m := range calls {
			key := m[2]
			ok := slices.Contains(declared, key) || m[1] == "'TIME'" || added[name] == key
			if !ok {
				t.Errorf("%s: %s touches %q", name, m[1], key)
			}
		}
		if strings.Contains(source, "--") && regexp.MustCompile(`(?m)^\s*--`).MatchString(source) {
			t.Errorf("%s: a comment is sent to the server", name)
		}
		// A second variable of that name would hide the key.
		body := regexp.MustCompile(`(?m)^local .* = KEYS.*$`).ReplaceAllString(source, "")
		for _, k := range declared {
			hiding := regexp.MustCompile(`(?m)^\s*` + k + `(,[^=\n]*)?\s*=[^=]|local [\w, ]*\b` + k + `\b[\w, ]*=|function \w*\([^)\n]*\b` + k + `\b`)
			if line := hiding.FindString(body); line != "" {
				t.Errorf("%s hides the key %s: %q", name, k, line)
			}
		}
	}
}

// A compiled script defines the functions that it uses.
func TestSourcesDefineWhatTheyUse(t *testing.T) {
	prelude := luaFiles(t)["prelude"]
	defined := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^local function (\w+)`).FindAllStringSubmatch(prelude, -1) {
		defined[m[1]] = true
	}
	used := map[string]bool{}
	for name := range luaFiles(t) {
		if name == "prelude" {
			continue
		}
		source := script.Source(name)
		for fn := range defined {
			at := strings.Index(source, "local function "+fn+"(")
			if use := regexp.MustCompile(`(?:^|[^\w.])` + fn + `\(`).FindStringIndex(strings.ReplaceAll(source, "function "+fn+"(", "")); use != nil {
				used[fn] = true
				if at < 0 {
					t.Errorf("%s uses %s and does not define it", name, fn)
				}
			}
		}
	}
	if got, want := set(slices.Collect(maps.Keys(used))), set(slices.Collect(maps.Keys(defined))); !slices.Equal(got, want) {
		t.Errorf("functions used: %v, defined: %v", got, want)
	}
}
