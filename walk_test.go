package sidestep_test

import (
	"io/fs"
	"path/filepath"
	"strings"
)

// goFiles returns the Go files below a folder, those of the tests left out.
func goFiles(root string) (files []string, err error) {
	err = walkGo(root, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
	})
	return files, err
}

func walkGo(root string, fn func(path string)) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root, d.IsDir() && d.Name() == "testdata":
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go"):
			fn(path)
		}
		return nil
	})
}
