package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// must is for the examples' brevity.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A balance in a database, read and written in transactions that begin with
// Enter. The first holder decides on what it has read, stands still, and is
// refused when it comes to write.
func Example_enter() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	ctx := context.Background()

	dir, err := os.MkdirTemp("", "example")
	must(err)
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", filepath.Join(dir, "db"))
	must(err)
	defer db.Close()
	guard := fence.NewSQL(fence.SQLite, fence.SQLConfig{})
	for _, s := range []string{
		guard.Schema(),
		"CREATE TABLE accounts (id TEXT PRIMARY KEY, balance INTEGER NOT NULL)",
		"INSERT INTO accounts VALUES ('ann', 100)",
	} {
		_, err := db.Exec(s)
		must(err)
	}

	// section runs fn in a transaction that has entered.
	section := func(f int64, fn func(tx *sql.Tx) error) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Enter(ctx, tx, "account:ann", f); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	}
	read := func(f int64) (n int) {
		must(section(f, func(tx *sql.Tx) error {
			return tx.QueryRow("SELECT balance FROM accounts WHERE id = 'ann'").Scan(&n)
		}))
		return n
	}
	write := func(f int64, n int) error {
		return section(f, func(tx *sql.Tx) error {
			_, err := tx.Exec("UPDATE accounts SET balance = ? WHERE id = 'ann'", n)
			return err
		})
	}

	paused, err := locker.TryAcquire(ctx, "account:ann")
	must(err)
	old := read(paused.Fence())
	srv.Advance(time.Minute) // it stands still for longer than its lease
	next, err := locker.TryAcquire(ctx, "account:ann")
	must(err)
	n := read(next.Fence())

	fmt.Println("the paused one is refused:", errors.Is(write(paused.Fence(), old+10), fence.ErrStale))
	fmt.Println("the next one writes:", write(next.Fence(), n+50))
	fmt.Println("balance:", read(next.Fence()))
	// Output:
	// the paused one is refused: true
	// the next one writes: <nil>
	// balance: 150
}

// A table with a fence column of its own needs no other: each statement carries
// the predicate, and Applied says whether it held.
func Example_applied() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	ctx := context.Background()

	dir, err := os.MkdirTemp("", "example")
	must(err)
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", filepath.Join(dir, "db"))
	must(err)
	defer db.Close()
	for _, s := range []string{
		"CREATE TABLE accounts (id TEXT PRIMARY KEY, balance INTEGER NOT NULL, fence INTEGER NOT NULL)",
		"INSERT INTO accounts VALUES ('ann', 100, 0)",
	} {
		_, err := db.Exec(s)
		must(err)
	}

	// read enters and reads, in one statement.
	read := func(f int64) (n int, err error) {
		if err := fence.Valid(f, 0); err != nil {
			return 0, err
		}
		err = db.QueryRow("UPDATE accounts SET fence = ?1 WHERE id = 'ann' AND fence <= ?1 RETURNING balance", f).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, fence.ErrStale
		}
		return n, err
	}
	write := func(f int64, n int) error {
		if err := fence.Valid(f, 0); err != nil {
			return err
		}
		res, err := db.Exec("UPDATE accounts SET balance = ?1, fence = ?2 WHERE id = 'ann' AND fence <= ?2", n, f)
		if err != nil {
			return err
		}
		return fence.Applied(res)
	}

	paused, err := locker.TryAcquire(ctx, "account:ann")
	must(err)
	old, err := read(paused.Fence())
	must(err)
	srv.Advance(time.Minute) // it stands still for longer than its lease
	next, err := locker.TryAcquire(ctx, "account:ann")
	must(err)
	n, err := read(next.Fence())
	must(err)

	fmt.Println("the paused one is refused:", errors.Is(write(paused.Fence(), old+10), fence.ErrStale))
	fmt.Println("the next one writes:", write(next.Fence(), n+50))
	_, err = read(paused.Fence())
	fmt.Println("the paused one may not read either:", errors.Is(err, fence.ErrStale))
	// Output:
	// the paused one is refused: true
	// the next one writes: <nil>
	// the paused one may not read either: true
}
