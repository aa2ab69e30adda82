package script

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// State is what the queue keeps about a request, besides its body.
type State struct {
	Place      string // "ready", "delayed", "parked", "leased" or "dead"
	Lock       string // "" for none
	Seq        int64  // its place in the lock's line; 0 without a lock, or before it was ready for the first time
	Deliveries int
	Attempts   int
	Deferrals  int
	Accepted   time.Time
	MaxWait    time.Duration // 0 for no limit
	Stamp      string        // of the last reschedule or revive
	Token      string        // of the last lease, unless that ran out
	Note       string        // last error, or why it is dead
}

var places = ['x' + 1]string{'r': "ready", 'd': "delayed", 'p': "parked", 'l': "leased", 'x': "dead"}

// ParseState reads the packed form that prelude.lua writes.
func ParseState(packed string) (State, error) {
	bad := func(what string) (State, error) {
		return State{}, fmt.Errorf("state %.80q: %s", packed, what)
	}
	if packed == "" {
		return bad("empty")
	}
	var s State
	if int(packed[0]) < len(places) {
		s.Place = places[packed[0]]
	}
	if s.Place == "" {
		return bad("unknown place")
	}
	rest, more := packed[1:], true
	text := func() (field string) {
		field, rest, more = strings.Cut(rest, "|")
		return field
	}
	ok := true
	count := func() int64 {
		field := text()
		if field == "" {
			return 0
		}
		v, err := strconv.ParseUint(field, 10, 53) // Lua's numbers are exact up to there
		ok = ok && err == nil
		return int64(v)
	}
	s.Token, s.Deliveries = text(), int(count())
	if !more || rest == "" || rest[0] == '|' {
		return bad("too few fields")
	}
	s.Accepted = time.UnixMilli(count())
	if more {
		s.Seq, s.Attempts, s.Deferrals = count(), int(count()), int(count())
		wait := count()
		s.Stamp = text()
		n := count()
		switch {
		case !more:
			return bad("too few fields")
		case n > int64(len(rest)):
			return bad("the lock's name is cut off")
		case wait > maxMillis:
			return bad("the longest wait is out of range")
		}
		s.MaxWait = time.Duration(wait) * time.Millisecond
		s.Lock, s.Note = rest[:n], rest[n:]
	}
	if !ok {
		return bad("a field is no count")
	}
	return s, nil
}

// maxMillis is the longest time.Duration in milliseconds.
const maxMillis = int64(^uint64(0)>>1) / int64(time.Millisecond)

// UnreadableError says that what is stored is not what this program can read.
type UnreadableError struct{ Err error }

// Error implements error.
func (e UnreadableError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e UnreadableError) Unwrap() error { return e.Err }

// pipelined sends what fn queues at once, but not as a transaction: of one whose MULTI
// is refused go-redis leaves replies on the connection.
func (q *Queue) pipelined(ctx context.Context, fn func(redis.Pipeliner)) error {
	_, err := Until(ctx, func(ctx context.Context) ([]redis.Cmder, error) {
		return q.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { fn(p); return nil })
	})
	return err
}

// Get returns a request's state and body; ok is false if the queue does not have it. If
// the state cannot be read, the error is an UnreadableError.
func (q *Queue) Get(ctx context.Context, id string) (_ State, body string, ok bool, err error) {
	if h, ok := q.open.of(id); ok {
		if _, err := Until(ctx, func(ctx context.Context) (any, error) { return nil, q.Confirm(ctx, h) }); err != nil {
			return State{}, "", false, err
		}
	}
	for again := true; ; again = false {
		var packed, msg *redis.StringCmd
		err := q.pipelined(ctx, func(p redis.Pipeliner) {
			packed, msg = p.HGet(ctx, q.keys.State(), id), p.HGet(ctx, q.keys.Msg(), id)
		})
		switch {
		case err != nil && !errors.Is(err, redis.Nil):
			return State{}, "", false, err
		case errors.Is(packed.Err(), redis.Nil):
			return State{}, "", false, nil
		case errors.Is(msg.Err(), redis.Nil) && again: // it was finished in between
			continue
		}
		s, err := ParseState(packed.Val())
		if err != nil {
			return s, msg.Val(), false, UnreadableError{err}
		}
		return s, msg.Val(), true, nil
	}
}

// Sizes is how many requests are where. Ids that a cancel or a reschedule left
// behind in the ready list count as Ready until a claim meets them, and Delayed
// is too low by as many. The places are counted one after the other: what moves
// meanwhile may be counted twice, or not at all.
type Sizes struct {
	Ready, Delayed, Parked, Leased, Dead int

	Requests int       // all of them
	Next     time.Time // when the first delayed request or probe is due; zero if there is none
}

// Sizes counts the requests.
func (q *Queue) Sizes(ctx context.Context) (Sizes, error) {
	var ready, delayed, parked, leased, dead, requests *redis.IntCmd
	var head *redis.ZSliceCmd
	var meta *redis.MapStringStringCmd
	err := q.pipelined(ctx, func(p redis.Pipeliner) {
		ready, delayed = p.LLen(ctx, q.keys.Ready()), p.ZCard(ctx, q.keys.Delayed())
		parked, leased = p.ZCard(ctx, q.keys.Parked()), p.ZCard(ctx, q.keys.Leased())
		dead, requests = p.ZCard(ctx, q.keys.Dead()), p.HLen(ctx, q.keys.State())
		head, meta = p.ZRangeWithScores(ctx, q.keys.Delayed(), 0, 0), p.HGetAll(ctx, q.keys.Meta())
	})
	if err != nil {
		return Sizes{}, err
	}
	s := Sizes{
		Ready: int(ready.Val()), Parked: int(parked.Val()), Leased: int(leased.Val()), Dead: int(dead.Val()),
		Requests: int(requests.Val()),
	}
	for field, n := range meta.Val() {
		if strings.HasPrefix(field, "lot:") {
			left, _ := strconv.Atoi(n)
			s.Leased += left - 1 // of the requests of a lot only that stands there
		}
	}
	// The ZSET holds probes as well, which cannot be counted without reading it
	// all; but every request is in exactly one place.
	s.Delayed = min(max(s.Requests-s.Ready-s.Parked-s.Leased-s.Dead, 0), int(delayed.Val()))
	if z := head.Val(); len(z) > 0 {
		s.Next = time.UnixMilli(int64(z[0].Score))
	}
	return s, nil
}

// Parked returns the first n requests in line for a lock, the oldest first.
func (q *Queue) Parked(ctx context.Context, lock string, n int) ([]string, error) {
	if n <= 0 {
		return nil, nil
	}
	members, err := Until(ctx, func(ctx context.Context) ([]string, error) {
		return q.rdb.ZRangeByLex(ctx, q.keys.Parked(), &redis.ZRangeBy{
			Min: "[" + lock + "\x00", Max: "(" + lock + "\x01", Count: int64(n),
		}).Result()
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(members))
	for _, m := range members {
		if _, id, ok := strings.Cut(m[len(lock)+1:], "\x00"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Death is a dead request and when it died.
type Death struct {
	ID   string
	Time time.Time
}

// Dead returns the n requests that died last, the latest first.
func (q *Queue) Dead(ctx context.Context, n int) ([]Death, error) {
	if n <= 0 {
		return nil, nil
	}
	zs, err := Until(ctx, func(ctx context.Context) ([]redis.Z, error) {
		return q.rdb.ZRevRangeWithScores(ctx, q.keys.Dead(), 0, int64(n)-1).Result()
	})
	if err != nil {
		return nil, err
	}
	out := make([]Death, 0, len(zs))
	for _, z := range zs {
		id, _ := z.Member.(string)
		out = append(out, Death{ID: id, Time: time.UnixMilli(int64(z.Score))})
	}
	return out, nil
}
