package sidestep_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What docs/guarantees.md and docs/security.md name as proof exists: each name of
// a test, an example or a fuzz target in them is one of this checkout.
func TestDocsNameRealTests(t *testing.T) {
	defined := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`)
	if err := walkGo(".", func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			defined[m[1]] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz|Example|Benchmark)[A-Z_]\w*`)
	for doc, least := range map[string]int{"docs/guarantees.md": 60, "docs/security.md": 10} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		names := named.FindAllString(string(text), -1)
		if len(names) < least {
			t.Errorf("%s names %d tests, want %d or more", doc, len(names), least)
		}
		for _, name := range names {
			if !defined[name] {
				t.Errorf("%s names %s, which is no test", doc, name)
			}
		}
	}
}
