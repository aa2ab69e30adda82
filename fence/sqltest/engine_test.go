package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/sidestep-go/sidestep/fence"
)

func TestMain(m *testing.M) { runAndStop(m) }

// engine is one database that the tests run on.
type engine struct {
	name    string
	dialect fence.Dialect
	driver  string
	dsn     func(t testing.TB) string // of a database that is new and empty
	schema  string                    // of the tables; "": the database's name
	levels  []sql.IsolationLevel
}

var engines = []*engine{
	{
		name: "SQLite", dialect: fence.SQLite, driver: "sqlite", schema: "main",
		levels: []sql.IsolationLevel{sql.LevelDefault},
		dsn: func(t testing.TB) string {
			return "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"
		},
	},
	{
		name: "Postgres", dialect: fence.Postgres, driver: "postgres", schema: "public",
		levels: []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable},
		dsn: func(t testing.TB) string {
			dir := postgres.start(t)
			dsn := "host=" + dir + " user=postgres sslmode=disable dbname="
			return dsn + newDatabase(t, "postgres", dsn+"postgres")
		},
	},
	{
		name: "MariaDB", dialect: fence.MySQL, driver: "mysql",
		levels: []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable},
		dsn: func(t testing.TB) string {
			dsn := "root@unix(" + filepath.Join(mariadb.start(t), "s") + ")/"
			return dsn + newDatabase(t, "mysql", dsn)
		},
	},
}

var databases atomic.Int64

func newDatabase(t testing.TB, driver, dsn string) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	db := open(t, driver, dsn)
	run(t, db, "CREATE DATABASE "+name)
	return name
}

// each runs a test on every engine that is there, in a new database with a table
// of registers and with Ann's account, which has a balance of 100.
func each(t *testing.T, fn func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL)) {
	t.Helper()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			db := open(t, e.driver, e.dsn(t))
			g := fence.NewSQL(e.dialect, fence.SQLConfig{})
			run(t, db, g.Schema())
			run(t, db, g.Schema()) // may be repeated
			run(t, db, "CREATE TABLE accounts (id VARCHAR(20) PRIMARY KEY, balance INTEGER NOT NULL, fence BIGINT NOT NULL)")
			run(t, db, "INSERT INTO accounts VALUES ('ann', 100, 0)")
			fn(t, e, db, g)
		})
	}
}

func open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatalf("open %s: %v", driver, err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// q writes the parameters of a statement as the engine wants them.
func (e *engine) q(query string) string {
	if e.dialect != fence.Postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for _, r := range query {
		if r == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func run(t testing.TB, db execer, query string, args ...any) sql.Result {
	t.Helper()
	res, err := db.ExecContext(context.Background(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return res
}

// begin starts a transaction that is rolled back when the test ends, unless it
// has ended by then.
func begin(t testing.TB, db *sql.DB, level sql.IsolationLevel) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func commit(t testing.TB, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func balance(t testing.TB, db queryer) int {
	t.Helper()
	var n int
	if err := db.QueryRowContext(context.Background(), "SELECT balance FROM accounts WHERE id = 'ann'").Scan(&n); err != nil {
		t.Fatalf("balance: %v", err)
	}
	return n
}

func setBalance(db execer, e *engine, n int) error {
	_, err := db.ExecContext(context.Background(), e.q("UPDATE accounts SET balance = ? WHERE id = 'ann'"), n)
	return err
}
