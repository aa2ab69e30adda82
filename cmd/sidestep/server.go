package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// address says where a server is: a URL, or the host:port of one in memory.
type address struct {
	URL      string `json:"url,omitempty"`
	Embedded string `json:"embedded,omitempty"`
}

// client returns a client with room for n goroutines.
func (a address) client(n int) (*redis.Client, error) {
	if a.URL == "" {
		return redis.NewClient(&redis.Options{
			Addr:                     a.Embedded,
			PoolSize:                 n + 8,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}), nil
	}
	opt, err := redis.ParseURL(a.URL)
	if err != nil {
		return nil, badURL(a.URL, err)
	}
	if opt.PoolSize == 0 {
		opt.PoolSize = n + 8
	}
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opt), nil
}

const urlHelp = "-redis: the URL cannot be read; it is not shown, for it holds a password, whose /, ?, #, @ and % must be percent-encoded; wanted is redis://, rediss:// or unix://"

// badURL is the error of a URL that cannot be read. The reason quotes parts of it,
// and in a URL that is not understood any part may be of the password.
func badURL(url string, reason error) error {
	if strings.Contains(url, "@") {
		return errors.New(urlHelp)
	}
	return fmt.Errorf("-redis: %q is no URL of a Redis: %q", url, reason.Error())
}

// server is the Redis of a run: one in memory, or the user's.
type server struct {
	address
	name     string // for people; without a password
	embedded *sidesteptest.Server
}

// openServer finds out that the server answers, or starts one in memory, which
// other processes can reach if shared.
func openServer(ctx context.Context, url string, shared bool) (*server, error) {
	if url == "" {
		if !shared {
			return &server{name: "in memory", embedded: sidesteptest.New()}, nil
		}
		mem, err := sidesteptest.Listen("127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("server in memory: %w", err)
		}
		return &server{name: "in memory, " + mem.Addr(), embedded: mem, address: address{Embedded: mem.Addr()}}, nil
	}
	s := &server{address: address{URL: url}}
	rdb, err := s.client(1)
	if err != nil {
		return nil, err
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := rdb.InfoMap(ctx, "server").Result()
	if err != nil {
		return nil, fmt.Errorf("redis at %s: %w", rdb.Options().Addr, err)
	}
	s.name = "Redis"
	about := info["Server"]
	if v := about["valkey_version"]; v != "" {
		s.name = "Valkey " + v
	} else if v := about["redis_version"]; v != "" {
		s.name += " " + v
	}
	s.name += " at " + rdb.Options().Addr
	return s, nil
}

// client returns a client with room for n goroutines of this process.
func (s *server) client(n int) (*redis.Client, error) {
	if s.embedded != nil && s.Embedded == "" {
		opt := s.embedded.Options()
		opt.PoolSize = n + 8
		return redis.NewClient(opt), nil
	}
	return s.address.client(n)
}

// close ends a server in memory.
func (s *server) close() {
	if s.embedded != nil {
		s.embedded.Close()
	}
}

// newPrefix returns a prefix for the keys of one run, unlike that of any other.
func newPrefix(verb string) string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "sidestep-" + verb + ":" + hex.EncodeToString(b[:]) + ":"
}

// stored returns the ids of the requests that a run's queue still has.
func stored(ctx context.Context, rdb *redis.Client, prefix, queue string) (map[string]bool, error) {
	all, err := rdb.HKeys(ctx, keys.Of(keys.Base(prefix, queue)).Msg()).Result()
	ids := make(map[string]bool, len(all))
	for _, id := range all {
		ids[id] = true
	}
	return ids, err
}

// clean removes the keys of a run and returns how many there were.
func clean(ctx context.Context, rdb *redis.Client, prefix string) (int, error) {
	n := 0
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		removed, err := rdb.Unlink(ctx, batch...).Result()
		n += int(removed)
		batch = batch[:0]
		return err
	}
	it := rdb.Scan(ctx, 0, "*"+globQuote(prefix)+"*", 1000).Iterator()
	for it.Next(ctx) {
		if batch = append(batch, it.Val()); len(batch) == 500 {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	if err := it.Err(); err != nil {
		return n, err
	}
	return n, flush()
}

// globQuote makes a pattern of Redis match s itself.
func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
