package sqltest

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// server is a private database server: one process, a folder of its own, a unix
// socket in it, no port. It is started by the first test that needs it and ended
// after the last.
type server struct {
	needs   []string // programs
	user    string   // who runs it instead of root; "" for root
	install func(dir string) []string
	serve   func(dir string) []string
	driver  string
	dsn     func(dir string) string

	once  sync.Once
	dir   string
	ended chan struct{}
	cmd   *exec.Cmd
	out   bytes.Buffer // to be read when it has ended
	skip  string       // why there is none
	err   error
}

var postgres = &server{
	needs: []string{"initdb", "postgres"},
	user:  "postgres", // it refuses to run as root
	install: func(dir string) []string {
		return []string{"initdb", "-D", dir + "/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"}
	},
	serve: func(dir string) []string {
		return []string{"postgres", "-D", dir + "/data", "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off"}
	},
	driver: "postgres",
	dsn:    func(dir string) string { return "host=" + dir + " user=postgres dbname=postgres sslmode=disable" },
}

var mariadb = &server{
	needs: []string{"mariadb-install-db", "mariadbd", "my_print_defaults"},
	install: func(dir string) []string {
		return asRoot([]string{
			"mariadb-install-db", "--no-defaults", "--datadir=" + dir + "/data",
			"--auth-root-authentication-method=normal", "--skip-test-db",
		})
	},
	serve: func(dir string) []string {
		return asRoot([]string{
			"mariadbd", "--no-defaults", "--datadir=" + dir + "/data", "--socket=" + dir + "/s",
			"--pid-file=" + dir + "/pid", "--skip-networking", "--innodb-flush-log-at-trx-commit=0",
		})
	},
	driver: "mysql",
	dsn:    func(dir string) string { return "root@unix(" + dir + "/s)/" },
}

func asRoot(args []string) []string {
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	return args
}

// start returns the folder of the running server. It skips the test where the
// server is not installed.
func (s *server) start(t testing.TB) string {
	t.Helper()
	s.once.Do(func() { s.skip, s.err = s.run() })
	switch {
	case s.skip != "":
		t.Skip(s.skip)
	case s.err != nil:
		t.Fatal(s.err)
	}
	return s.dir
}

func (s *server) run() (skip string, err error) {
	for _, program := range s.needs {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed", nil
		}
	}
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Not t.TempDir: the path of a socket must be short, and others enter it.
	if s.dir, err = os.MkdirTemp("", "sqltest"); err != nil {
		return "", err
	}
	if s.user != "" && os.Getuid() == 0 {
		u, err := user.Lookup(s.user)
		if err != nil {
			return fmt.Sprintf("%s does not run as root, and there is no user %s", s.needs[1], s.user), nil
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return "", err
		}
	}
	command := func(args []string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.SysProcAttr = s.dir, attr
		return cmd
	}

	if out, err := command(s.install(s.dir)).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", s.needs[0], err, out)
	}
	s.cmd = command(s.serve(s.dir))
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal of a parent's death comes when this thread ends.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.ended)
		}
	}()
	if err := <-started; err != nil {
		s.cmd = nil
		return "", err
	}
	db, err := sql.Open(s.driver, s.dsn(s.dir))
	if err != nil {
		return "", err
	}
	defer db.Close()
	deadline := time.After(time.Minute)
	for {
		if err = db.Ping(); err == nil {
			return "", nil
		}
		select {
		case <-s.ended:
			return "", fmt.Errorf("%s ended:\n%s", s.needs[1], s.out.String())
		case <-deadline:
			return "", errors.Join(errors.New(s.needs[1]+" does not answer"), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // Postgres: at once, with its children
		if s.driver != "postgres" {
			_ = s.cmd.Process.Kill()
		}
		<-s.ended
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

func runAndStop(m *testing.M) {
	code := m.Run()
	postgres.stop()
	mariadb.stop()
	os.Exit(code)
}
