package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestep-go/sidestep/fence"
)

// isStale checks that err is the refusal of a fence.
func isStale(t *testing.T, call string, err error, want fence.StaleError) {
	t.Helper()
	e, ok := errors.AsType[*fence.StaleError](err)
	if !ok || !errors.Is(err, fence.ErrStale) {
		t.Errorf("%s = %v, want a *StaleError", call, err)
	} else if *e != want {
		t.Errorf("%s: %+v, want %+v", call, *e, want)
	}
}

// enter enters in a transaction of its own.
func enter(t *testing.T, db *sql.DB, g *fence.SQL, resource string, f int64) error {
	t.Helper()
	tx := begin(t, db, sql.LevelDefault)
	if err := g.Enter(t.Context(), tx, resource, f); err != nil {
		if err := tx.Rollback(); err != nil {
			t.Errorf("rollback: %v", err)
		}
		return err
	}
	return tx.Commit()
}

func TestEnterOrdersHolders(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, _ *engine, db *sql.DB, g *fence.SQL) {
		base := time.Now().UnixMicro()
		for _, f := range []int64{base, base, base + 2} { // a fence may come again
			if err := enter(t, db, g, "ann", f); err != nil {
				t.Errorf("Enter(ann, %d) = %v", f, err)
			}
		}
		isStale(t, "Enter", enter(t, db, g, "ann", base+1), fence.StaleError{Resource: "ann", Fence: base + 1, Seen: base + 2})
		for _, other := range []string{"Ann", "ann ", "änn", strings.Repeat("x", 255)} {
			if err := enter(t, db, g, other, 1); err != nil {
				t.Errorf("Enter(%q) = %v, but it is another resource", other, err)
			}
		}

		tx := begin(t, db, sql.LevelDefault)
		if err := g.Enter(t.Context(), tx, "ann", base+9); err != nil {
			t.Errorf("Enter = %v", err)
		}
		if err := g.Enter(t.Context(), tx, "ann", base+9); err != nil {
			t.Errorf("Enter again in the same transaction = %v", err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		if err := enter(t, db, g, "ann", base+3); err != nil {
			t.Errorf("Enter after a larger fence was rolled back = %v", err)
		}
	})
}

func TestEnterRefusesBeforeSending(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, _ *engine, db *sql.DB, g *fence.SQL) {
		tx := begin(t, db, sql.LevelDefault)
		if err := tx.Rollback(); err != nil { // whatever is sent fails
			t.Fatal(err)
		}
		for _, c := range []struct {
			resource string
			fence    int64
			want     error
		}{
			{"ann", 0, fence.ErrInvalid},
			{"ann", -1, fence.ErrInvalid},
			{"ann", math.MaxInt64, fence.ErrInvalid},
			{"ann", time.Now().AddDate(1, 0, 0).UnixMicro(), fence.ErrAhead},
			{"", 1, fence.ErrInvalid},
			{"a\x00b", 1, fence.ErrInvalid},
			{strings.Repeat("x", 256), 1, fence.ErrInvalid},
			{"ann", 1, sql.ErrTxDone}, // it would have been sent
		} {
			if err := g.Enter(t.Context(), tx, c.resource, c.fence); !errors.Is(err, c.want) {
				t.Errorf("Enter(%q, %d) = %v, want %v", c.resource, c.fence, err, c.want)
			}
		}
	})
}

func TestQualifiedTable(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, _ *fence.SQL) {
		schema := e.schema
		if schema == "" {
			if err := db.QueryRow("SELECT DATABASE()").Scan(&schema); err != nil {
				t.Fatal(err)
			}
		}
		g := fence.NewSQL(e.dialect, fence.SQLConfig{Table: schema + ".marks", MaxAhead: -1})
		run(t, db, g.Schema())
		far := time.Now().AddDate(1, 0, 0).UnixMicro() // without a bound
		if err := enter(t, db, g, "ann", far); err != nil {
			t.Errorf("Enter = %v", err)
		}
		isStale(t, "Enter", enter(t, db, g, "ann", 1), fence.StaleError{Resource: "ann", Fence: 1, Seen: far})
	})
}

// A later holder does not get past Enter while an earlier one's transaction is
// open, and then sees what it wrote.
func TestLaterHolderWaits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		for i, level := range e.levels {
			first := int64(10*i + 1)
			a := begin(t, db, level)
			if err := g.Enter(t.Context(), a, "ann", first); err != nil {
				t.Fatalf("%v: Enter = %v", level, err)
			}
			if err := setBalance(a, e, 110+i); err != nil {
				t.Fatal(err)
			}

			b := begin(t, db, level)
			if e.dialect == fence.SQLite { // where waiting does not look at the context
				run(t, b, "PRAGMA busy_timeout = 300")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if err := g.Enter(ctx, b, "ann", first+1); err == nil || errors.Is(err, fence.ErrStale) {
				t.Errorf("%v: Enter while an earlier holder's transaction is open = %v, want it to wait", level, err)
			}
			cancel()
			_ = b.Rollback()

			commit(t, a)
			b = begin(t, db, level)
			if err := g.Enter(t.Context(), b, "ann", first+1); err != nil {
				t.Errorf("%v: Enter after the commit = %v", level, err)
			}
			if n := balance(t, b); n != 110+i {
				t.Errorf("%v: balance = %d, want the earlier holder's %d", level, n, 110+i)
			}
			commit(t, b)
		}
	})
}

// A stale writer that comes while the later holder's transaction is open cannot
// commit after it.
func TestStaleWriterWaitsAndIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		for i, level := range e.levels {
			first := int64(10*i + 1)
			b := begin(t, db, level)
			if err := g.Enter(t.Context(), b, "ann", first+1); err != nil {
				t.Fatalf("%v: Enter = %v", level, err)
			}
			result := make(chan error)
			go func() {
				a, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level})
				if err == nil {
					err = g.Enter(context.Background(), a, "ann", first)
					_ = a.Rollback()
				}
				result <- err
			}()
			if err := setBalance(b, e, 150+i); err != nil {
				t.Fatal(err)
			}
			commit(t, b)
			err := <-result
			if e.dialect == fence.Postgres && level > sql.LevelReadCommitted && !errors.Is(err, fence.ErrStale) {
				// It waited, and Postgres tells it to start again.
				if err == nil || !strings.Contains(err.Error(), "could not serialize") {
					t.Errorf("%v: a stale holder's Enter = %v", level, err)
				}
				err = enter(t, db, g, "ann", first)
			}
			isStale(t, fmt.Sprint(level, ": a stale holder's Enter"), err, fence.StaleError{Resource: "ann", Fence: first, Seen: first + 1})
			if n := balance(t, db); n != 150+i {
				t.Errorf("%v: balance = %d, want %d", level, n, 150+i)
			}
		}
	})
}

// The lost update of fence's package comment, with a transaction for each step:
// without Enter before the read, the late write is accepted.
func TestLostUpdate(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprintf("enter=%v", first), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
				read := func(f int64) int {
					tx := begin(t, db, sql.LevelDefault)
					if first {
						if err := g.Enter(t.Context(), tx, "ann", f); err != nil {
							t.Fatalf("Enter(%d) = %v", f, err)
						}
					}
					n := balance(t, tx)
					commit(t, tx)
					return n
				}
				write := func(f int64, n int) error {
					tx := begin(t, db, sql.LevelDefault)
					err := g.Enter(t.Context(), tx, "ann", f)
					if err == nil {
						err = setBalance(tx, e, n)
					}
					if err != nil {
						_ = tx.Rollback()
						return err
					}
					return tx.Commit()
				}

				a := read(1) // and is paused
				b := read(2)
				errA := write(1, a+10)
				if err := write(2, b+50); err != nil {
					t.Errorf("the last holder's write = %v", err)
				}
				if first {
					isStale(t, "the stale holder's write", errA, fence.StaleError{Resource: "ann", Fence: 1, Seen: 2})
				} else if errA != nil {
					t.Errorf("the stale holder's write = %v, want it accepted: that is the danger", errA)
				}
				if n := balance(t, db); n != 150 {
					t.Errorf("balance = %d, want 150", n)
				}
			})
		})
	}
}

// What happens if a transaction reads before it enters, while an earlier
// holder's transaction is open: in which isolation levels an update is lost.
func TestReadBeforeEnter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		f := int64(1)
		for _, level := range e.levels {
			for _, readFirst := range []bool{false, true} {
				if readFirst && e.dialect == fence.MySQL && level == sql.LevelSerializable {
					continue // reads lock there: a's write would wait for b
				}
				run(t, db, "UPDATE accounts SET balance = 100 WHERE id = 'ann'")
				what := fmt.Sprintf("%v, read first: %v", level, readFirst)

				a := begin(t, db, level)
				if err := g.Enter(t.Context(), a, "ann", f); err != nil {
					t.Fatalf("%s: a enters: %v", what, err)
				}
				n := balance(t, a)

				b := begin(t, db, level)
				m := 0
				if readFirst {
					m = balance(t, b)
				}
				if err := setBalance(a, e, n+10); err != nil {
					t.Fatalf("%s: a writes: %v", what, err)
				}
				commit(t, a)

				err := g.Enter(t.Context(), b, "ann", f+1)
				if err == nil {
					if !readFirst {
						m = balance(t, b)
					}
					err = setBalance(b, e, m+50)
				}
				if err == nil {
					err = b.Commit()
				} else {
					_ = b.Rollback()
				}
				got := balance(t, db)
				f += 2

				silent := e.dialect == fence.MySQL || level == sql.LevelReadCommitted
				switch {
				case !readFirst:
					if err != nil || got != 160 {
						t.Errorf("%s: balance = %d, %v, want 160", what, got, err)
					}
				case silent: // the reason why Enter comes first
					if err != nil || got != 150 {
						t.Errorf("%s: balance = %d, %v, want 150, one update lost", what, got, err)
					}
				default:
					if err == nil || errors.Is(err, fence.ErrStale) || got != 110 {
						t.Errorf("%s: balance = %d, %v, want 110 and the database's error", what, got, err)
					}
				}
			}
		}
	})
}

// Many holders that overlap as they like: what was committed is in the order of
// the fences, and no committed update is lost.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		db.SetMaxOpenConns(8)
		run(t, db, "CREATE TABLE log (seq INTEGER PRIMARY KEY, fence BIGINT NOT NULL)")
		for i, level := range e.levels {
			run(t, db, "DELETE FROM log")
			run(t, db, "UPDATE accounts SET balance = 0 WHERE id = 'ann'")
			var committed, refused, again atomic.Int64
			section := func(f int64) error {
				ctx := context.Background()
				tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
				if err != nil {
					return err
				}
				defer tx.Rollback()
				if err := g.Enter(ctx, tx, "ann", f); err != nil {
					return err
				}
				var n int
				if err := tx.QueryRowContext(ctx, "SELECT balance FROM accounts WHERE id = 'ann'").Scan(&n); err != nil {
					return err
				}
				if err := setBalance(tx, e, n+1); err != nil {
					return err
				}
				if _, err := tx.ExecContext(ctx, e.q("INSERT INTO log VALUES (?, ?)"), n+1, f); err != nil {
					return err
				}
				return tx.Commit()
			}
			var wg sync.WaitGroup
			turn := make(chan struct{}) // of the first section of a holder
			close(turn)
			for k := range int64(24) {
				mine, next := turn, make(chan struct{})
				turn = next
				wg.Go(func() {
					<-mine
					pass := sync.OnceFunc(func() { close(next) })
					defer pass()
					for done := 0; done < 3; {
						err := section(int64(1000*i) + k + 1)
						switch {
						case err == nil:
							committed.Add(1)
							done++
							pass() // the next holder comes while this one goes on
						case errors.Is(err, fence.ErrStale):
							refused.Add(1)
							return
						case again.Add(1) > 5000:
							t.Errorf("%v: %v", level, err)
							return
						}
					}
				})
			}
			wg.Wait()
			t.Logf("%v: %d committed, %d refused, %d tried again", level, committed.Load(), refused.Load(), again.Load())
			if n := balance(t, db); int64(n) != committed.Load() {
				t.Errorf("%v: counter = %d after %d commits", level, n, committed.Load())
			}
			rows, err := db.Query("SELECT fence FROM log ORDER BY seq")
			if err != nil {
				t.Fatal(err)
			}
			var last int64
			for rows.Next() {
				var f int64
				if err := rows.Scan(&f); err != nil {
					t.Fatal(err)
				}
				if f < last {
					t.Errorf("%v: fence %d committed after %d", level, f, last)
				}
				last = f
			}
			if err := errors.Join(rows.Err(), rows.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}

// A stale holder whose transaction read before the later holder came is refused
// in every isolation level: Enter does not trust what the transaction has seen.
func TestStaleHolderThatReadFirst(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e *engine, db *sql.DB, g *fence.SQL) {
		for i, level := range e.levels {
			if e.dialect == fence.MySQL && level == sql.LevelSerializable {
				continue // reads lock there: the later holder would wait for a
			}
			f := int64(10*i + 1)
			if err := enter(t, db, g, "ann", f); err != nil {
				t.Fatal(err)
			}
			a := begin(t, db, level)
			var n int64
			if err := a.QueryRow("SELECT MAX(fence) FROM fences").Scan(&n); err != nil || n != f {
				t.Fatalf("%v: register = %d, %v, want %d", level, n, err, f)
			}
			if err := enter(t, db, g, "ann", f+1); err != nil {
				t.Fatalf("%v: the later holder's Enter = %v", level, err)
			}
			err := g.Enter(t.Context(), a, "ann", f)
			if e.dialect == fence.MySQL || level == sql.LevelReadCommitted {
				isStale(t, fmt.Sprint(level, ": Enter"), err, fence.StaleError{Resource: "ann", Fence: f, Seen: f + 1})
			} else if err == nil {
				t.Errorf("%v: a stale holder's Enter = nil", level)
			}
			_ = a.Rollback()
		}
	})
}
