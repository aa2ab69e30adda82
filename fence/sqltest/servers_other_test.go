//go:build !linux

package sqltest

import (
	"os"
	"testing"
)

// server is a database server that is not started here.
type server struct{}

var postgres, mariadb server

func (*server) start(t testing.TB) string {
	t.Helper()
	t.Skip("servers are started on Linux only")
	return ""
}

func runAndStop(m *testing.M) { os.Exit(m.Run()) }
