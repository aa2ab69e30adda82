package fence_test

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/fence"
)

// What is nil is an error, and registers no fence.
func TestNil(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // nothing is sent
	defer rdb.Close()
	m := new(fence.Memory)
	for name, err := range map[string]error{
		"Memory.Do": m.Do("r", 2, nil),
		"Redis.Run": fence.NewRedis(rdb, fence.RedisConfig{}).Run(t.Context(), nil, "k", 1, nil).Err(),
		"SQL.Enter": fence.NewSQL(fence.SQLite, fence.SQLConfig{}).Enter(t.Context(), nil, "r", 1),
		"Applied":   fence.Applied(nil),
	} {
		if !errors.Is(err, fence.ErrInvalid) {
			t.Errorf("%s = %v, want ErrInvalid", name, err)
		}
	}
	if err := m.Enter("r", 1); err != nil {
		t.Errorf("Enter = %v, want nil: nothing has entered", err)
	}
}
