package sidestep_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadme keeps the README's program the one in examples/hello, and what it
// says that program prints.
func TestReadme(t *testing.T) {
	readme := read(t, "README.md")
	_, main, ok := strings.Cut(read(t, "examples/hello/main.go"), "func main() {")
	if !ok || !strings.Contains(readme, "```go\nfunc main() {"+main+"```") {
		t.Error("README.md does not contain func main of examples/hello/main.go as it is")
	}
	out, err := exec.Command("go", "run", "./examples/hello").Output()
	if err != nil {
		t.Fatalf("go run ./examples/hello: %v", err)
	}
	if !strings.Contains(readme, "```\n"+string(out)+"```") {
		t.Errorf("README.md does not contain what examples/hello prints:\n%s", out)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
