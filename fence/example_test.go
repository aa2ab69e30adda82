package fence_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// A plotter is driven by one process and lent to whoever holds its lock. A
// client that was paused for longer than its lease finds it closed.
func ExampleMemory() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	ctx := context.Background()

	var guard fence.Memory
	var paper []string
	draw := func(f int64, line string) error {
		return guard.Do("plotter", f, func() error {
			paper = append(paper, line)
			return nil
		})
	}

	paused, err := locker.TryAcquire(ctx, "plotter")
	if err != nil {
		panic(err)
	}
	fmt.Println("first holder:", draw(paused.Fence(), "a circle"))
	srv.Advance(time.Minute) // it stands still for longer than its lease

	next, err := locker.TryAcquire(ctx, "plotter")
	if err != nil {
		panic(err)
	}
	fmt.Println("next holder:", guard.Enter("plotter", next.Fence())) // before it looks at the paper
	fmt.Println("first holder is stale:", errors.Is(draw(paused.Fence(), "a square"), fence.ErrStale))
	fmt.Println("next holder:", draw(next.Fence(), "a line"))
	fmt.Println(paper)
	// Output:
	// first holder: <nil>
	// next holder: <nil>
	// first holder is stale: true
	// next holder: <nil>
	// [a circle a line]
}

// Two holders add to a balance in Redis. Get shows the fence before it reads, so
// the first one's late write is refused instead of being lost without a word.
func ExampleRedis() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{Prefix: "lock:"}) // so that account:ann is free for the balance
	defer locker.Close()
	guard := fence.NewRedis(rdb, fence.RedisConfig{})
	ctx := context.Background()
	rdb.Set(ctx, "account:ann", 100, 0)

	balance := func(f int64) int {
		value, err := guard.Get(ctx, "account:ann", f)
		if err != nil {
			panic(err)
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			panic(err)
		}
		return n
	}

	paused, err := locker.TryAcquire(ctx, "account:ann")
	if err != nil {
		panic(err)
	}
	old := balance(paused.Fence())
	srv.Advance(time.Minute) // it stands still for longer than its lease

	next, err := locker.TryAcquire(ctx, "account:ann")
	if err != nil {
		panic(err)
	}
	n := balance(next.Fence())

	err = guard.Set(ctx, "account:ann", paused.Fence(), old+10, 0)
	stale, ok := errors.AsType[*fence.StaleError](err)
	fmt.Println("the paused one is refused:", ok && stale.Seen == next.Fence())
	fmt.Println("the next one writes:", guard.Set(ctx, "account:ann", next.Fence(), n+50, 0))
	fmt.Println("balance:", balance(next.Fence()))
	// Output:
	// the paused one is refused: true
	// the next one writes: <nil>
	// balance: 150
}

// The check stands in front of any script; the script itself knows nothing of
// it. Keys of one resource share a hash tag.
func ExampleRedis_Run() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{})
	defer locker.Close()
	guard := fence.NewRedis(rdb, fence.RedisConfig{})
	ctx := context.Background()

	book := fence.NewScript(`
redis.call('RPUSH', KEYS[2], ARGV[1])
return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	entries := []string{"{ann}:entries"} // more keys of the resource {ann}:balance

	paused, err := locker.TryAcquire(ctx, "ann")
	if err != nil {
		panic(err)
	}
	srv.Advance(time.Minute) // it stands still for longer than its lease
	next, err := locker.TryAcquire(ctx, "ann")
	if err != nil {
		panic(err)
	}

	fmt.Println(guard.Run(ctx, book, "{ann}:balance", next.Fence(), entries, 50).Int())
	_, err = guard.Run(ctx, book, "{ann}:balance", paused.Fence(), entries, 10).Int()
	fmt.Println("stale:", errors.Is(err, fence.ErrStale))
	fmt.Println(rdb.LRange(ctx, "{ann}:entries", 0, -1).Val())
	// Output:
	// 50 <nil>
	// stale: true
	// [50]
}

// What Enter sends to Postgres, for drivers without database/sql. The row it
// returns has the register's fence; a larger one than that sent is a later
// holder's.
func ExampleSQL_Statements() {
	guard := fence.NewSQL(fence.Postgres, fence.SQLConfig{Table: "app.fences"})
	fmt.Println(guard.Schema())
	for _, s := range guard.Statements() {
		fmt.Println(s)
	}
	// Output:
	// CREATE TABLE IF NOT EXISTS app.fences (resource TEXT PRIMARY KEY, fence BIGINT NOT NULL)
	// INSERT INTO app.fences AS f (resource, fence) VALUES ($1, $2) ON CONFLICT (resource) DO UPDATE SET fence = GREATEST(f.fence, excluded.fence) RETURNING fence
}

// What Enter sends to MySQL, whose upsert has neither a condition nor a result.
func ExampleSQL_Statements_mySQL() {
	guard := fence.NewSQL(fence.MySQL, fence.SQLConfig{})
	fmt.Println(guard.Schema())
	for _, s := range guard.Statements() {
		fmt.Println(s)
	}
	// Output:
	// CREATE TABLE IF NOT EXISTS fences (resource VARBINARY(255) PRIMARY KEY, fence BIGINT NOT NULL) ENGINE=InnoDB
	// INSERT INTO fences (resource, fence) VALUES (?, ?) ON DUPLICATE KEY UPDATE fence = GREATEST(fence, ?)
	// SELECT fence FROM fences WHERE resource = ? FOR UPDATE
}
