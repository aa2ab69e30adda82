package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// Every patch applies exactly once, to one file of the code, and changes it; every
// test that it names exists.
func TestControlsFollowTheCode(t *testing.T) {
	names := map[string]bool{}
	funcs := map[string]string{} // the text of the tests of each folder
	for _, c := range controls {
		if names[c.Name] || c.Name == "" || c.Rule == "" || strings.Contains(c.Rule+c.Name, "|") {
			t.Errorf("%q: its name is not unique, or it lacks a rule", c.Name)
		}
		names[c.Name] = true
		if strings.HasSuffix(c.File, "_test.go") {
			t.Errorf("%s breaks a test", c.Name)
		}
		if src, err := c.patched(root); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		} else if old, _ := os.ReadFile(filepath.Join(root, c.File)); string(old) == string(src) {
			t.Errorf("%s changes nothing", c.Name)
		}
		if len(c.Tests) == 0 {
			t.Errorf("%s names no test", c.Name)
		}
		for _, test := range c.Tests {
			folder, name, _ := strings.Cut(test, ":")
			if _, ok := funcs[folder]; !ok {
				files, _ := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
				for _, f := range files {
					b, err := os.ReadFile(f)
					if err != nil {
						t.Fatal(err)
					}
					funcs[folder] += string(b)
				}
			}
			if !strings.Contains(funcs[folder], "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no test %s", c.Name, test)
			}
		}
	}
}

// The table in docs/controls.md has a row for each control, and no others, and
// says that each was caught.
func TestTheTableIsWritten(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/controls.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, written, _ := strings.Cut(string(text), begin)
	written, _, ok := strings.Cut(written, end)
	rows := regexp.MustCompile(`(?m)^\| ([a-z0-9-]+) \|`).FindAllStringSubmatch(written, -1)
	const head = 2
	if !ok || len(rows) != head+len(controls) {
		t.Fatalf("the table has %d rows for %d controls: go run ./internal/controls -all -write docs/controls.md", len(rows)-head, len(controls))
	}
	for i, c := range controls {
		if rows[head+i][1] != c.Name {
			t.Errorf("row %d is of %s, want %s", i+1, rows[i][1], c.Name)
		}
	}
	if strings.Contains(written, "**nothing**") || strings.Contains(written, "**error**") {
		t.Error("a control was not caught")
	}
}

// A test of a broken script fails, and passes with the scripts as they are.
func TestScriptsAreRead(t *testing.T) {
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	l := newLive(abs, t.TempDir())
	whole, broken := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(broken, "fence"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "fence", "guard.lua"), []byte("return nothing.there"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]int{whole: 0, broken: 1} {
		failed, err := l.run(dir, "fence", []string{"TestRedisOrdersHolders"})
		if err != nil || len(failed) != want {
			t.Errorf("failed: %q, %v, want %d", failed, err, want)
		}
	}
	if _, err := l.run(whole, "fence", []string{"TestNotThere"}); err == nil {
		t.Error("a test that is not there was run")
	}
}

// Tests are linked with a package that is broken, and with one that is not; not with
// one that they would have to be compiled for anew.
func TestAPackageIsSwapped(t *testing.T) {
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	const file = "retry/constant.go"
	src, err := os.ReadFile(filepath.Join(abs, file))
	if err != nil {
		t.Fatal(err)
	}
	s := newSwap(abs)
	for old, tt := range map[string]struct {
		with   string
		failed int
	}{
		"return c.d, true": {"return c.d, true", 0},
		"return c.d, tru":  {"return c.d + 1, tru", 1},
	} {
		dir := t.TempDir()
		text := filepath.Join(dir, "constant.go")
		if err := os.WriteFile(text, []byte(strings.Replace(string(src), old, tt.with, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		binary, err := s.compile(dir, file, text, "retry")
		if err != nil {
			t.Fatal(err)
		}
		failed, err := runBinary(binary, abs, "retry", []string{"TestDelays"})
		if err != nil || len(failed) != tt.failed {
			t.Errorf("%s: failed: %q, %v, want %d", tt.with, failed, err, tt.failed)
		}
	}
	dir := t.TempDir()
	text := filepath.Join(dir, "constant.go")
	if err := os.WriteFile(text, append(src, "\nfunc (constant) More() {}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.compile(dir, file, text, "retry"); err == nil || !strings.Contains(err.Error(), "fingerprint mismatch") {
		t.Errorf("tests were linked with a package that they were not compiled for: %v", err)
	}
}
