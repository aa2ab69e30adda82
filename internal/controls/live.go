package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Half of the controls break a script. For those the tests are compiled once: against
// packages that read their scripts when they start instead of embedding them, from a
// folder that holds the broken one, or else from where they are.

// scriptsVar names that folder to the tests.
const scriptsVar = "SIDESTEP_CONTROLS_SCRIPTS"

// live compiles tests that read their scripts.
type live struct {
	root, tmp string

	once    sync.Once
	overlay string // the file that makes them do so
	err     error  // of that

	mu    sync.Mutex // guards the field below
	tests map[string]*liveTests
}

// liveTests are those of one folder.
type liveTests struct {
	once   sync.Once
	binary string
	err    error
}

func newLive(root, tmp string) *live {
	return &live{root: root, tmp: tmp, tests: map[string]*liveTests{}}
}

var (
	embedsFile = regexp.MustCompile(`//go:embed (\S+\.lua)\n(\s*(?:var )?\w+) string\n`)
	embedsAll  = regexp.MustCompile(`//go:embed \*\.lua\nvar (\w+) embed\.FS\n`)
)

// read is the text of a file that is put beside one that embeds.
const read = `package %s

import (
	"os"
	"path/filepath"
)

type liveScripts struct{}

func (liveScripts) ReadFile(name string) ([]byte, error) {
	if b, err := os.ReadFile(filepath.Join(os.Getenv(%q), %q, name)); err == nil {
		return b, nil
	}
	return os.ReadFile(filepath.Join(%q, name))
}

func liveScript(name string) string {
	b, err := liveScripts{}.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(b)
}
`

// prepare writes the overlay under which no package embeds a script.
func (l *live) prepare() error {
	l.once.Do(func() {
		replace := map[string]string{}
		l.err = filepath.WalkDir(l.root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(src, []byte("//go:embed ")) {
				return err
			}
			out := embedsFile.ReplaceAll(src, []byte("$2 = liveScript(\"$1\")\n"))
			if out = embedsAll.ReplaceAll(out, []byte("var $1 liveScripts\n")); bytes.Equal(out, src) {
				return nil
			}
			out = bytes.Replace(out, []byte("\n\t\"embed\"\n"), []byte("\n"), 1)
			return l.put(replace, path, out)
		})
		if l.err == nil {
			l.overlay, l.err = writeOverlay(l.tmp, replace)
		}
	})
	return l.err
}

// put adds a file, and what it needs beside it.
func (l *live) put(replace map[string]string, path string, src []byte) error {
	at := filepath.Join(l.tmp, fmt.Sprintf("live%d.go", len(replace)))
	replace[path] = at
	if err := os.WriteFile(at, src, 0o600); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	beside := filepath.Join(dir, "live_scripts.go")
	if replace[beside] != "" {
		return nil
	}
	rel, err := filepath.Rel(l.root, dir)
	if err != nil {
		return err
	}
	at = filepath.Join(l.tmp, fmt.Sprintf("live%d.go", len(replace)))
	replace[beside] = at
	name := regexp.MustCompile(`(?m)^package (\w+)`).FindSubmatch(src)[1]
	return os.WriteFile(at, fmt.Appendf(nil, read, name, scriptsVar, rel, dir), 0o600)
}

// writeOverlay writes what go build -overlay reads.
func writeOverlay(dir string, replace map[string]string) (file string, err error) {
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// compiled returns the tests of a folder, compiled at the first call.
func (l *live) compiled(folder string) (string, error) {
	if err := l.prepare(); err != nil {
		return "", err
	}
	l.mu.Lock()
	t := l.tests[folder]
	if t == nil {
		t = &liveTests{binary: filepath.Join(l.tmp, fmt.Sprintf("live%d.test", len(l.tests)))}
		l.tests[folder] = t
	}
	l.mu.Unlock()
	t.once.Do(func() {
		cmd := exec.Command("go", "test", "-c", "-vet=off", quickly, "-overlay="+l.overlay, "-o", t.binary, "./"+folder)
		cmd.Dir = l.root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.err = fmt.Errorf("%s does not compile: %w: %s", folder, err, out)
		}
	})
	return t.binary, t.err
}

var (
	begun = regexp.MustCompile(`(?m)^=== RUN   ([^/\s]+)$`)
	over  = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): ([^/\s]+) `)
)

// run returns which tests of a folder failed with the scripts in another one.
func (l *live) run(scripts, folder string, tests []string) (failed []string, err error) {
	binary, err := l.compiled(folder)
	if err != nil {
		return nil, err
	}
	return runBinary(binary, l.root, folder, tests, scriptsVar+"="+scripts)
}

// runBinary returns which tests of a folder failed, of those that were compiled.
func runBinary(binary, root, folder string, tests []string, env ...string) (failed []string, err error) {
	cmd := exec.Command(binary, "-test.v", "-test.count=1", "-test.timeout=30s", "-test.run=^("+strings.Join(tests, "|")+")$")
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), env...)
	out, runErr := cmd.CombinedOutput()
	ran, ended := map[string]bool{}, map[string]bool{}
	for _, m := range begun.FindAllSubmatch(out, -1) {
		ran[string(m[1])] = true
	}
	for _, m := range over.FindAllSubmatch(out, -1) {
		ended[string(m[2])] = true
		if name := folder + ":" + string(m[2]); string(m[1]) == "FAIL" && !slices.Contains(failed, name) {
			failed = append(failed, name)
		}
	}
	return verdict(folder, tests, failed, ran, ended, runErr != nil)
}
