package sidestep_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
)

// An idle consumer with default settings sends at most a command a second.
func TestIdleInVirtualTime(t *testing.T) {
	bubble(t, func(t *testing.T, rdb *redis.Client) {
		mine := another(t, rdb)
		d := newDeferring(t, mine, "q")
		start(t, d.queue)
		enqueue(t, d.task, 1)
		d.ran.wait(t, 1)
		time.Sleep(time.Minute)
		count := redistest.Count(mine)
		const minutes = 30
		time.Sleep(minutes * time.Minute)
		if n := count.Commands(); n > 60*minutes {
			t.Errorf("%d commands in %d idle minutes, want at most one a second", n, minutes)
		} else {
			t.Logf("%d commands in %d idle minutes", n, minutes)
		}

		// Nor does one that waits for a lock which another holds.
		s := enter(t, newAcquirer(t, rdb, sidestep.Config{}), "k")
		deferred(t, d.task, 2, sidestep.Defer(time.Second))
		count.Reset()
		time.Sleep(minutes * time.Minute)
		if n := count.Commands(); n > 60*minutes {
			t.Errorf("%d commands in %d minutes of waiting for a held lock, want at most one a second", n, minutes)
		} else {
			t.Logf("%d commands in %d minutes of waiting for a held lock", n, minutes)
		}
		s.leave(t)
		d.ran.wait(t, 2)
	})
}

// The same by the count of the server itself, blocking pops included.
func TestIdleOnARealServer(t *testing.T) {
	t.Parallel()
	srv := redistest.NewServer(t)
	d := newDeferring(t, srv.Client(t), "q")
	start(t, d.queue)
	enqueue(t, d.task, 1)
	d.ran.wait(t, 1)
	operator := srv.Client(t)
	const seconds = 6
	<-time.After(time.Second) // what the request has left to do
	if err := operator.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	<-time.After(seconds * time.Second)
	stats, err := operator.InfoMap(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	inside := map[string]bool{} // what scripts call
	for _, c := range strings.Fields("time get set hdel del exists llen lindex lpush rpush lpop zrange zrangebyscore hget hset zadd zrem zcard pttl") {
		inside["cmdstat_"+c] = true
	}
	for name, line := range stats["Commandstats"] {
		if inside[name] || strings.HasPrefix(name, "cmdstat_config") || strings.HasPrefix(name, "cmdstat_info") {
			continue
		}
		sent += calls(t, line)
	}
	if sent > seconds {
		t.Errorf("%d commands in %d idle seconds, want at most one a second: %v", sent, seconds, stats)
	} else {
		t.Logf("%d commands in %d idle seconds", sent, seconds)
	}
}

// calls reads "calls=3,usec=7,...".
func calls(t *testing.T, line string) int {
	t.Helper()
	n := 0
	for _, r := range strings.TrimPrefix(line, "calls=") {
		if r < '0' || r > '9' {
			break
		}
		n = 10*n + int(r-'0')
	}
	return n
}
