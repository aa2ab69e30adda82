package lock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// Three independent servers, of which one is down.
func ExampleNewQuorum() {
	ctx := context.Background()
	var servers []*sidesteptest.Server
	var clients []redis.UniversalClient
	for range 3 {
		srv := sidesteptest.New()
		defer srv.Close()
		rdb := srv.Client()
		defer rdb.Close()
		servers, clients = append(servers, srv), append(clients, rdb)
	}
	l := lock.NewQuorum(clients, lock.Config{})
	defer l.Close()

	servers[2].SetError("LOADING")
	err := l.Do(ctx, "invoice:7", nil, func(context.Context, *lock.Lock) error {
		fmt.Println("one is down: held")
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}

	servers[1].SetError("LOADING")
	_, err = l.TryAcquire(ctx, "invoice:8")
	if u, ok := errors.AsType[*lock.UnavailableError](err); ok {
		fmt.Println("two are down: unavailable, not taken:", !errors.Is(err, lock.ErrLocked))
		for _, n := range u.Nodes {
			fmt.Println("node", n.Node, "said", n.Err)
		}
	}
	// Output:
	// one is down: held
	// two are down: unavailable, not taken: true
	// node 1 said LOADING
	// node 2 said LOADING
}

// A request handler takes the lock, and a worker elsewhere ends the work.
func ExampleLocker_Adopt() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	handler := lock.New(rdb, lock.Config{Owner: "handler"})
	defer handler.Close()
	worker := lock.New(rdb, lock.Config{Owner: "worker"}) // in another process
	defer worker.Close()

	lk, err := handler.TryAcquire(ctx, "upload:7")
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := lk.Disown() // goes along with the request
	if err != nil {
		fmt.Println(err)
		return
	}

	mine, err := worker.Adopt(ctx, "upload:7", token)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the same fence:", mine.Fence() == lk.Fence())
	err = mine.Hold(ctx, func(context.Context) error {
		_, err := handler.TryAcquire(ctx, "upload:7")
		fmt.Println(err)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// the same fence: true
	// lock: "upload:7" is held by worker
}

func ExampleLocker_TryAcquireAll() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := context.Background()

	l := lock.New(rdb, lock.Config{Owner: "till 3"})
	defer l.Close()

	locks, err := l.TryAcquireAll(ctx, "account:ann", "account:bob")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = l.TryAcquireAll(ctx, "account:cid", "account:bob") // takes neither
	fmt.Println(err)
	for _, lk := range locks {
		if err := lk.Release(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output: lock: "account:bob" is held by till 3
}
