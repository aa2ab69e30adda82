package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/sidestep-go/sidestep/fence"
)

// The statements of Applied's comment.
const (
	touch = "UPDATE accounts SET fence = ? WHERE id = ? AND fence <= ?"
	write = "UPDATE accounts SET balance = ?, fence = ? WHERE id = ? AND fence <= ?"
)

// update runs a guarded update.
func update(db execer, e *engine, query string, args ...any) error {
	res, err := db.ExecContext(context.Background(), e.q(query), args...)
	if err != nil {
		return err
	}
	return fence.Applied(res)
}

func TestApplied(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, _ *fence.SQL) {
		if err := update(db, e, touch, 2, "ann", 2); err != nil {
			t.Errorf("the first touch = %v", err)
		}
		isStale(t, "a stale touch", update(db, e, touch, 1, "ann", 1), fence.StaleError{})
		isStale(t, "a stale write", update(db, e, write, 110, 1, "ann", 1), fence.StaleError{})
		for _, n := range []int{150, 160} { // as often as it likes
			if err := update(db, e, write, n, 2, "ann", 2); err != nil {
				t.Errorf("the holder's write = %v", err)
			}
		}
		if n := balance(t, db); n != 160 {
			t.Errorf("balance = %d, want 160", n)
		}
		isStale(t, "a write to no row", update(db, e, write, 1, 3, "bob", 3), fence.StaleError{})
	})
}

// The statements as Applied's comment has them, with parameters that come twice.
func TestAppliedInPostgres(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, _ *fence.SQL) {
		if e.dialect != fence.Postgres {
			t.Skip("the statements are Postgres's")
		}
		var n int
		row := db.QueryRow("UPDATE accounts SET fence = $1 WHERE id = $2 AND fence <= $1 RETURNING balance", 2, "ann")
		if err := row.Scan(&n); err != nil || n != 100 {
			t.Errorf("touch = %d, %v, want 100", n, err)
		}
		const write = "UPDATE accounts SET balance = $1, fence = $2 WHERE id = $3 AND fence <= $2"
		if err := fence.Applied(run(t, db, write, 150, 2, "ann")); err != nil {
			t.Errorf("write = %v", err)
		}
		isStale(t, "a stale write", fence.Applied(run(t, db, write, 110, 1, "ann")), fence.StaleError{})
	})
}

// A stale update that waits for a later holder's transaction looks at the
// predicate again when it goes on.
func TestAppliedAfterAWait(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, _ *fence.SQL) {
		for i, level := range e.levels {
			f := int64(10*i + 2)
			b := begin(t, db, level)
			if err := update(b, e, touch, f, "ann", f); err != nil {
				t.Fatalf("%v: touch = %v", level, err)
			}
			result := make(chan error)
			go func() {
				a, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level})
				if err == nil {
					err = update(a, e, write, 110, f-1, "ann", f-1)
					_ = a.Rollback()
				}
				result <- err
			}()
			if err := update(b, e, write, 150+i, f, "ann", f); err != nil {
				t.Errorf("%v: write = %v", level, err)
			}
			commit(t, b)
			err := <-result
			if e.dialect == fence.Postgres && level > sql.LevelReadCommitted && !errors.Is(err, fence.ErrStale) {
				if err == nil || !strings.Contains(err.Error(), "could not serialize") {
					t.Errorf("%v: the stale write = %v", level, err)
				}
			} else if !errors.Is(err, fence.ErrStale) {
				t.Errorf("%v: the stale write = %v, want ErrStale", level, err)
			}
		}
	})
}

// MySQL counts rows that changed unless the connection asks for those found.
func TestAppliedCountsInMySQL(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		if e.dialect != fence.MySQL {
			t.Skip("others count the rows found")
		}
		found := open(t, e.driver, e.dsn(t)+"?clientFoundRows=true")
		run(t, found, g.Schema())
		run(t, found, "CREATE TABLE accounts (id VARCHAR(20) PRIMARY KEY, balance INTEGER NOT NULL, fence BIGINT NOT NULL)")
		run(t, found, "INSERT INTO accounts VALUES ('ann', 100, 0)")
		for _, c := range []struct {
			db *sql.DB
			ok bool
		}{{db, false}, {found, true}} {
			if err := update(c.db, e, touch, 2, "ann", 2); err != nil {
				t.Errorf("touch = %v", err)
			}
			if err := update(c.db, e, touch, 2, "ann", 2); (err == nil) != c.ok {
				t.Errorf("the same again, found rows counted %v: %v", c.ok, err)
			}
			for range 2 { // Enter does not count rows
				if err := enter(t, c.db, g, "ann", 2); err != nil {
					t.Errorf("Enter, found rows counted %v: %v", c.ok, err)
				}
			}
			isStale(t, "Enter", enter(t, c.db, g, "ann", 1), fence.StaleError{Resource: "ann", Fence: 1, Seen: 2})
		}
	})
}
