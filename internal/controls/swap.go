package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// A control breaks one package, and without inlining nothing of it is compiled into
// others. So only that package is compiled anew, and linked with the tests as they
// are: less than half the work of go test, which compiles all that imports it, the
// tests among them. The linker refuses if the others would see a difference: then
// go test it is.

// swap compiles tests in which one package is another.
type swap struct {
	root string

	mu  sync.Mutex // guards the field below
	all map[string]*linked
}

// linked is what the tests of a folder are linked from.
type linked struct {
	once sync.Once
	pkgs map[string]*listed // by import path, with " [x.test]" if compiled for these tests
	main *listed
	err  error
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export, DefaultGODEBUG string
	GoFiles, EmbedFiles, Imports, Deps      []string
	ImportMap                               map[string]string
	Module                                  *struct{ GoVersion string }
}

// path is how others import it.
func (p *listed) path() string {
	path, _, _ := strings.Cut(p.ImportPath, " ")
	return path
}

func newSwap(root string) *swap { return &swap{root: root, all: map[string]*linked{}} }

// of returns what the tests of a folder are linked from, compiled at the first call.
func (s *swap) of(folder string) *linked {
	s.mu.Lock()
	l := s.all[folder]
	if l == nil {
		l = &linked{pkgs: map[string]*listed{}}
		s.all[folder] = l
	}
	s.mu.Unlock()
	l.once.Do(func() { l.err = l.list(s.root, folder) })
	return l
}

func (l *linked) list(root, folder string) error {
	cmd := exec.Command("go", "list", "-export", "-deps", "-test", quickly,
		"-json=ImportPath,Dir,Export,DefaultGODEBUG,GoFiles,EmbedFiles,Imports,Deps,ImportMap,Module", "./"+folder)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		l.pkgs[p.ImportPath] = p
		if strings.HasSuffix(p.ImportPath, ".test") {
			l.main = p
		}
	}
	if l.main == nil {
		return fmt.Errorf("%s has no tests", folder)
	}
	return nil
}

// compile compiles the tests of a folder with another text of a file, and returns
// their path.
func (s *swap) compile(tmp, file, text, folder string) (binary string, err error) {
	l := s.of(folder)
	if l.err != nil {
		return "", l.err
	}
	p := l.with(filepath.Join(s.root, file))
	if p == nil {
		return "", fmt.Errorf("no package of the tests in %s has %s", folder, file)
	}
	archive := filepath.Join(tmp, "swapped.a")
	if err := l.compile(p, tmp, filepath.Join(s.root, file), text, archive); err != nil {
		return "", err
	}
	binary = filepath.Join(tmp, "swapped.test")
	return binary, l.link(p, tmp, archive, binary)
}

// with returns the package of a file, as these tests have it.
func (l *linked) with(file string) *listed {
	for _, id := range l.main.Deps {
		if p := l.pkgs[id]; p != nil && p.Dir == filepath.Dir(file) && slices.Contains(p.GoFiles, filepath.Base(file)) {
			return p
		}
	}
	return nil
}

func (l *linked) compile(p *listed, tmp, file, text, archive string) error {
	var imports strings.Builder
	for _, path := range p.Imports {
		id := path
		if to := p.ImportMap[path]; to != "" {
			id = to
		}
		if q := l.pkgs[id]; q != nil && q.Export != "" {
			fmt.Fprintf(&imports, "packagefile %s=%s\n", path, q.Export)
		}
	}
	patterns, files := map[string][]string{}, map[string]string{}
	for _, f := range p.EmbedFiles {
		patterns[f], files[f] = []string{f}, filepath.Join(p.Dir, f)
		all := "*" + filepath.Ext(f)
		patterns[all] = append(patterns[all], f)
	}
	embedded, err := json.Marshal(map[string]any{"Patterns": patterns, "Files": files})
	if err != nil {
		return err
	}
	importcfg, embedcfg := filepath.Join(tmp, "importcfg"), filepath.Join(tmp, "embedcfg")
	if err := errors.Join(os.WriteFile(importcfg, []byte(imports.String()), 0o600), os.WriteFile(embedcfg, embedded, 0o600)); err != nil {
		return err
	}
	args := []string{
		"tool", "compile", "-o", archive, "-p", p.path(), "-lang=" + version.Lang("go"+p.Module.GoVersion), "-complete", "-pack", "-l", "-dwarf=false",
		"-importcfg", importcfg, "-trimpath", text + "=>" + file,
	}
	if len(files) > 0 {
		args = append(args, "-embedcfg", embedcfg)
	}
	for _, f := range p.GoFiles {
		if f = filepath.Join(p.Dir, f); f == file {
			f = text
		}
		args = append(args, f)
	}
	return tool(args)
}

func (l *linked) link(p *listed, tmp, archive, binary string) error {
	var files strings.Builder
	for _, id := range l.main.Deps {
		q := l.pkgs[id]
		export := archive
		if q == nil || q.Export == "" {
			continue
		} else if q != p {
			export = q.Export
		}
		fmt.Fprintf(&files, "packagefile %s=%s\n", q.path(), export)
	}
	importcfg := filepath.Join(tmp, "importcfg.link")
	if err := os.WriteFile(importcfg, []byte(files.String()), 0o600); err != nil {
		return err
	}
	return tool([]string{
		"tool", "link", "-o", binary, "-importcfg", importcfg, "-s", "-w",
		"-X", "testing.testBinary=1", "-X", "runtime.godebugDefault=" + l.main.DefaultGODEBUG, l.main.Export,
	})
}

func tool(args []string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), spare)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go tool %s: %w: %s", args[1], err, out)
	}
	return nil
}
