package sidestep_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sidestep-go/sidestep"

// allowedModules are the modules of others whose code a program that uses
// sidestep links in. Think twice before adding one.
var allowedModules = []string{
	"github.com/go-redsync/redsync/v4",
	"github.com/google/uuid",
	"github.com/redis/go-redis/v9",

	// What these need.
	"github.com/cespare/xxhash/v2", // go-redis
	"go.uber.org/atomic",           // go-redis
	"golang.org/x/sys",             // go-redis
}

// forTests are the packages that only tests and demonstrations import, as
// folders of the module.
var forTests = []string{"sidesteptest", "internal/redistest", "examples"}

// pkg is what go list says about a package. Imports leaves out those of its
// tests.
type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// folder returns the package's folder in the module, "" for the root, and
// whether it is in the module.
func folder(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func isForTests(importPath string) bool {
	dir, ok := folder(importPath)
	return ok && slices.ContainsFunc(forTests, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

func goList(t *testing.T, args ...string) []pkg {
	t.Helper()
	args = append([]string{"list", "-json=ImportPath,Imports,Standard,Module"}, args...)
	cmd := exec.Command("go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// ownPackages returns the packages of the module that have files besides tests.
func ownPackages(t *testing.T) []pkg {
	t.Helper()
	return slices.DeleteFunc(goList(t, "./..."), func(p pkg) bool { return p.Module == nil || p.Module.Path != module })
}

// TestDependencies pins the modules that users of the module get with it.
func TestDependencies(t *testing.T) {
	t.Parallel()
	args := []string{"-deps"}
	for _, p := range ownPackages(t) {
		if !isForTests(p.ImportPath) {
			args = append(args, p.ImportPath)
		}
	}
	if len(args) == 1 {
		t.Fatal("go list ./... found no packages")
	}
	for _, p := range goList(t, args...) {
		switch {
		case p.Standard:
		case p.Module == nil:
			t.Errorf("package %s is in no module", p.ImportPath)
		case p.Module.Path != module && !slices.Contains(allowedModules, p.Module.Path):
			t.Errorf("package %s of module %s is linked in, which is not one of the modules allowed", p.ImportPath, p.Module.Path)
		}
	}
}

// TestImports keeps the rooms of the module apart.
func TestImports(t *testing.T) {
	t.Parallel()
	// What each of these packages may import of the module, besides internal
	// packages. Others may import anything but the root.
	may := map[string][]string{
		"retry":  nil,
		"fence":  nil,
		"lock":   nil,
		"listq":  {"retry"},
		"delayq": {"listq", "retry"},
	}
	for _, p := range ownPackages(t) {
		dir, _ := folder(p.ImportPath)
		allowed, limited := may[dir]
		for _, imp := range p.Imports {
			to, own := folder(imp)
			switch {
			case strings.HasPrefix(imp, "github.com/alicebob/miniredis"):
				if !isForTests(p.ImportPath) {
					t.Errorf("%s imports %s, which is for tests", p.ImportPath, imp)
				}
			case !own:
			case isForTests(imp) && !isForTests(p.ImportPath):
				t.Errorf("%s imports %s, which is for tests", p.ImportPath, imp)
			case to == "" && !strings.HasPrefix(dir, "examples"):
				t.Errorf("%s imports the root package, which is above all others", p.ImportPath)
			case limited && !strings.HasPrefix(to, "internal/") && !slices.Contains(allowed, to):
				t.Errorf("%s imports %s, want only %q and internal packages", p.ImportPath, imp, allowed)
			}
		}
	}
}
