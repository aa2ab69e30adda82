package sidesteptest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/sidesteptest"
)

func TestAdvanceExpiresKeysAndMovesTime(t *testing.T) {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	ctx := t.Context()
	before := rdb.Time(ctx).Val()
	rdb.Set(ctx, "k", "v", time.Minute)
	srv.Advance(59 * time.Second)
	if got := rdb.Get(ctx, "k").Val(); got != "v" {
		t.Errorf("Get(k) after 59s = %q, want v", got)
	}
	srv.Advance(2 * time.Second)
	if err := rdb.Get(ctx, "k").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("Get(k) after 61s: %v, want redis.Nil", err)
	}
	if got := rdb.Time(ctx).Val().Sub(before); got < 61*time.Second {
		t.Errorf("TIME moved by %v, want at least 61s", got)
	}
}

func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		defer srv.Close()
		rdb := srv.Client()
		defer rdb.Close()
		rdb.Set(t.Context(), "k", "v", time.Hour)
		time.Sleep(time.Hour + time.Second)
		if n := rdb.Exists(t.Context(), "k").Val(); n != 0 {
			t.Errorf("the key outlived its hour in the bubble")
		}
	})
}

func TestLargePipeline(t *testing.T) {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	value := strings.Repeat("x", 1000)
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 1000 {
			p.Set(t.Context(), fmt.Sprint(i), value, 0)
			p.Get(t.Context(), fmt.Sprint(i))
		}
		return nil
	})
	if n := rdb.DBSize(t.Context()).Val(); err != nil || n != 1000 {
		t.Errorf("a pipeline of 2,000 commands: %v, %d keys", err, n)
	}
}

func TestListen(t *testing.T) {
	srv, err := sidesteptest.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	other := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer other.Close()
	if err := other.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	rdb := srv.Client()
	defer rdb.Close()
	if got := rdb.Get(t.Context(), "k").Val(); got != "v" {
		t.Errorf("Get(k) = %q, want v, as set by another client", got)
	}
}

func TestSetError(t *testing.T) {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	srv.SetError("READONLY You can't write against a read only replica.")
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Errorf("Set = %v, want the error reply", err)
	}
	srv.SetError("")
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Errorf("Set afterwards = %v", err)
	}
}

// A test of one's own code gets its Redis in two lines.
func Example() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()

	ctx := context.Background()
	rdb.Set(ctx, "greeting", "hello", time.Minute)
	fmt.Println(rdb.Get(ctx, "greeting").Val())
	srv.Advance(time.Hour)
	fmt.Println(rdb.Get(ctx, "greeting").Err())
	// Output:
	// hello
	// redis: nil
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	for i := range 100 {
		conn, err := srv.Options().Dialer(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint("k", i)
		if _, err := fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\nv\r\n", len(key), key); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for rdb.Exists(t.Context(), key).Val() == 0 {
			if time.Now().After(deadline) {
				t.Fatalf("SET %s, written before Close, did not arrive", key)
			}
		}
	}
}

// A dial that waits to be tried again would outlive the bubble of a test that has ended.
func TestAClosedServerIsNotDialledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := sidesteptest.New()
		opts := srv.Options()
		opts.MaxRetries = -1
		rdb := redis.NewClient(opts)
		defer rdb.Close()
		srv.Close()
		began := time.Now()
		if err := rdb.Ping(t.Context()).Err(); err == nil {
			t.Error("the server answers though it is closed")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it was tried for %v, want once", took)
		}
	})
}
