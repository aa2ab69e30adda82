package fence

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// maxResource bounds a resource's name in SQL, in bytes.
const maxResource = 255

// Dialect is the SQL of one family of databases.
type Dialect int

// The dialects. The zero value is none of them.
const (
	Postgres Dialect = iota + 1 // PostgreSQL 9.5 or later
	MySQL                       // MySQL 5.7 or later with InnoDB, and MariaDB
	SQLite                      // SQLite 3.35 or later
)

// String returns the dialect's name.
func (d Dialect) String() string {
	switch d {
	case Postgres:
		return "Postgres"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// SQLConfig configures an [SQL] guard. The zero value means the defaults.
type SQLConfig struct {
	// MaxAhead is how far ahead of the local clock a fence may be. 0 means
	// DefaultMaxAhead, a negative value any distance.
	MaxAhead time.Duration

	// Table is the name of the table of registers, such as "fences" or
	// "app.fences": ASCII letters, digits and underscores, not quoted. Defaults
	// to "fences".
	Table string
}

var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$`)

// SQL guards what a transaction reads and writes. A table has one row per
// resource, its register; [SQL.Enter], as the first statement of a transaction,
// compares and raises it and keeps the row locked until the transaction ends.
//
// Tables with a fence column of their own need no register; see [Applied].
//
// An SQL is safe for concurrent use. Make one with [NewSQL].
type SQL struct {
	schema   string
	raise    string // the statement that inserts or raises the register
	look     string // the one that then returns it; "" if raise does
	dialect  Dialect
	maxAhead time.Duration
}

// NewSQL returns a guard that speaks the given dialect. It sends nothing. It
// panics on an unknown dialect and on a table name that is not plain.
func NewSQL(d Dialect, cfg SQLConfig) *SQL {
	table := cmp.Or(cfg.Table, "fences")
	if !tableName.MatchString(table) {
		panic(fmt.Sprintf("fence: SQLConfig.Table %q is not a plain name", table))
	}
	s := &SQL{dialect: d, maxAhead: cfg.MaxAhead}
	switch d {
	case Postgres:
		s.schema = "CREATE TABLE IF NOT EXISTS " + table + " (resource TEXT PRIMARY KEY, fence BIGINT NOT NULL)"
		s.raise = "INSERT INTO " + table + " AS f (resource, fence) VALUES ($1, $2)" +
			" ON CONFLICT (resource) DO UPDATE SET fence = GREATEST(f.fence, excluded.fence) RETURNING fence"
	case SQLite:
		s.schema = "CREATE TABLE IF NOT EXISTS " + table + " (resource TEXT PRIMARY KEY NOT NULL, fence INTEGER NOT NULL)"
		s.raise = "INSERT INTO " + table + " AS f (resource, fence) VALUES (?1, ?2)" +
			" ON CONFLICT (resource) DO UPDATE SET fence = max(f.fence, excluded.fence) RETURNING fence"
	case MySQL:
		// Bytes, because MySQL's letters are equal in either case by default.
		s.schema = "CREATE TABLE IF NOT EXISTS " + table + " (resource VARBINARY(255) PRIMARY KEY, fence BIGINT NOT NULL) ENGINE=InnoDB"
		// An upsert takes no WHERE here and returns nothing, and the count of rows
		// depends on the connection's settings. A locking read sees the latest row
		// in any isolation level.
		s.raise = "INSERT INTO " + table + " (resource, fence) VALUES (?, ?) ON DUPLICATE KEY UPDATE fence = GREATEST(fence, ?)"
		s.look = "SELECT fence FROM " + table + " WHERE resource = ? FOR UPDATE"
	default:
		panic(fmt.Sprintf("fence: NewSQL with unknown %v", d))
	}
	return s
}

// Schema returns the statement that creates the table of registers if it does
// not exist. Rows are never removed by the guard: whoever removes one lets any
// fence in, so no holder older than the last may still be running.
func (s *SQL) Schema() string { return s.schema }

// Statements returns what Enter sends, for those whose transactions are not
// [sql.Tx]: in Postgres and SQLite one statement with the parameters resource
// and fence; in MySQL one with resource, fence and fence again, and one with
// resource. The last of them returns a row with the register's fence: if that is
// larger than one's own, one's own is stale. Check the fence with [Valid] first.
func (s *SQL) Statements() []string {
	if s.look == "" {
		return []string{s.raise}
	}
	return []string{s.raise, s.look}
}

// Enter registers a fence with the resource, as part of the transaction: the
// first statement of each one that reads or writes the resource, and a
// transaction that is not committed has not entered. On an error, roll back.
//
// It waits while a transaction of another holder that has entered is open. So
// either that one commits first, and what follows Enter sees all of its work; or
// it comes later, and is refused. A database reports a wait that lasts too long,
// or a deadlock, as it always does. SQLite waits for its busy_timeout only, which many
// drivers set to 0. In REPEATABLE READ and SERIALIZABLE, Postgres fails an Enter that
// had to wait for one that committed, also that of the later holder ("could not
// serialize access", SQLSTATE 40001): begin the transaction again.
//
// That Enter is the first statement matters. In READ COMMITTED, a read before it
// may be older than what Enter waited for. In REPEATABLE READ, all reads of a
// transaction see the database as it was at the first one; if that was before
// Enter, Postgres refuses to go on, and so does SQLite, but MySQL, whose default
// this level is, loses an update.
//
// The error is a [*StaleError] if a larger fence has been seen, an [*AheadError]
// if this one is too far ahead of the local clock, and matches [ErrInvalid] if it
// is not positive or if the resource's name is empty, longer than 255 bytes or
// contains a NUL byte. Errors of the database are wrapped.
func (s *SQL) Enter(ctx context.Context, tx *sql.Tx, resource string, fence int64) error {
	switch {
	case tx == nil:
		return invalid("tx is nil")
	case resource == "":
		return invalid("resource is empty")
	case len(resource) > maxResource:
		return invalid(fmt.Sprintf("resource of %d bytes is longer than %d", len(resource), maxResource))
	case strings.IndexByte(resource, 0) >= 0:
		return invalid("resource contains a NUL byte")
	}
	if err := valid(resource, fence, s.maxAhead); err != nil {
		return err
	}
	var seen int64
	var err error
	if s.look == "" {
		err = tx.QueryRowContext(ctx, s.raise, resource, fence).Scan(&seen)
	} else if _, err = tx.ExecContext(ctx, s.raise, resource, fence, fence); err == nil {
		err = tx.QueryRowContext(ctx, s.look, resource).Scan(&seen)
	}
	switch {
	case err != nil:
		return fmt.Errorf("fence: enter %q: %w", resource, err)
	case seen > fence:
		return &StaleError{Resource: resource, Fence: fence, Seen: seen}
	}
	return nil
}

// Applied returns a [*StaleError] if a statement changed no row. It completes
// the other way to guard rows: a fence column of their own, and a predicate. In
// the words of Postgres, a holder enters, before it reads, with
//
//	UPDATE accounts SET fence = $1 WHERE id = $2 AND fence <= $1 RETURNING balance
//
// and then writes with
//
//	UPDATE accounts SET balance = $1, fence = $2 WHERE id = $3 AND fence <= $2
//
// as often as it likes. With RETURNING there is no [sql.Result] to give to Applied: no
// row ([sql.ErrNoRows]) is the stale case. Each statement is atomic, so no transaction is needed,
// and an UPDATE that has waited for another looks at the predicate again, in
// READ COMMITTED too; in a stricter level Postgres fails it instead. Check the
// fence with [Valid] first.
//
// A row that does not exist looks just like a later holder: insert rows before
// they are locked, with fence 0. MySQL counts rows that were found only if the
// connection asks for it (clientFoundRows=true with go-sql-driver); otherwise
// it counts those that changed, and an update to the same values looks stale.
func Applied(res sql.Result) error {
	if res == nil {
		return invalid("result is nil")
	}
	n, err := res.RowsAffected()
	switch {
	case err != nil:
		return fmt.Errorf("fence: rows affected: %w", err)
	case n == 0:
		return &StaleError{}
	}
	return nil
}
