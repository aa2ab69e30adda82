package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adjust/rmq/v5"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
)

// queueKit is a queue library as the scenarios use it. What it cannot do returns
// errors.ErrUnsupported.
type queueKit interface {
	enqueue(ctx context.Context, body []byte) error
	enqueueAt(ctx context.Context, body []byte, due time.Time) error
	// consume runs handlers until ctx ends.
	consume(ctx context.Context, workers int, handle func(body []byte)) error
	close()
}

type queuePeer struct {
	name, note string
	limit      bool
	open       func(addr string, w *wire) (queueKit, error)
	// slow says that a small part of the others' requests per second is normal
	// here: such a peer gets fewer requests where only their rate is asked for.
	slow bool
	// rare says that it looks for work once a second.
	rare bool
}

var (
	sidestepQueue = queuePeer{name: "sidestep", note: "packages listq and delayq by themselves", open: openListq}
	sidestepTask  = queuePeer{name: "sidestep, task", note: "the root package: a typed task, the payload a JSON string", open: openTask}
	// asynq looks for work every second and for due tasks every five: that is
	// made for a low idle cost.
	asynqDefault = queuePeer{name: "asynq", note: "defaults: looks every 1 s, for due tasks every 5 s", open: openAsynq(0, 0), slow: true, rare: true}
	// Shorter intervals than these gain nothing more in latency that its cost in
	// commands would not take from throughput.
	asynqEager = queuePeer{name: "asynq, eager", note: "looks every 5 ms, for due tasks every 50 ms", open: openAsynq(5*time.Millisecond, 50*time.Millisecond), slow: true}
	rmqQueue   = queuePeer{name: "rmq", note: "1,000 prefetched, looks every 5 ms", open: openRMQ(5 * time.Millisecond), slow: true}
	// Its latency on an idle queue is its poll, so it can be bought with commands.
	rmqEager = queuePeer{name: "rmq, eager", note: "1,000 prefetched, looks every 1 ms", open: openRMQ(time.Millisecond), slow: true}
	// The recipe of many an article: everything is in one ZSET, who removes a
	// member has it, and who finds none sleeps for a second. At most once: what
	// was taken is gone when its process dies.
	textbook = queuePeer{name: "textbook ZSET", note: "ZRANGEBYSCORE, ZREM, 1 s of sleep; at most once", open: openTextbook(false), slow: true, rare: true}
	// Its better form takes up to 100 at once, in a script.
	textbookLua = queuePeer{name: "textbook ZSET, Lua", note: "the same in a script, 100 at a time; at most once", open: openTextbook(true)}

	rawList  = queuePeer{name: "LIST by hand", note: "RPUSH and BLMOVE, LREM to acknowledge: no lease", limit: true, open: openList}
	rawBatch = queuePeer{name: "batch claim by hand", note: "a script takes 128 of a LIST and notes their leases; they are acknowledged together", limit: true, open: openBatch}
	rawTimer = queuePeer{name: "timer by hand", note: "one process that knows when the next is due, and takes up to 128 in a script: no lease, no wake-up", limit: true, open: openTimer}
)

// listq and delayq

type listqKit struct {
	rdb *redis.Client
	q   *listq.Queue
	d   *delayq.Queue
}

func openListq(addr string, w *wire) (queueKit, error) {
	rdb := newClient(addr, w)
	q := listq.New(rdb, "bench", listq.Config{})
	return &listqKit{rdb, q, delayq.New(q)}, nil
}

func (k *listqKit) enqueue(ctx context.Context, body []byte) error {
	_, err := k.q.Push(ctx, &listq.Request{Payload: body})
	return err
}

func (k *listqKit) enqueueAt(ctx context.Context, body []byte, due time.Time) error {
	_, err := k.d.ScheduleAt(ctx, &listq.Request{Payload: body}, due)
	return err
}

func (k *listqKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	return k.q.Consume(ctx, listq.ConsumeConfig{Workers: workers}, func(_ context.Context, d *listq.Delivery) error {
		handle(d.Payload)
		return nil
	})
}

func (k *listqKit) close() { k.rdb.Close() }

// the root package

type taskKit struct {
	rdb    *redis.Client
	locker *lock.Locker
	acq    *sidestep.Acquirer
	task   atomic.Pointer[sidestep.Task[string]] // to enqueue; of the queue that consumes, if one does
}

func openTask(addr string, w *wire) (queueKit, error) {
	k := &taskKit{rdb: newClient(addr, w)}
	k.locker = lock.New(k.rdb, lock.Config{})
	k.acq = sidestep.New(k.locker, sidestep.Config{})
	_, task := k.prepare(1, noLock, func([]byte) {})
	k.task.Store(task)
	return k, nil
}

func noLock(string) string { return "" }

// prepare makes the queue for so many workers: they are its configuration. The
// payload is a string: bytes would be a third longer in JSON.
func (k *taskKit) prepare(workers int, lockOf func(body string) string, handle func([]byte)) (*sidestep.Queue, *sidestep.Task[string]) {
	queue := sidestep.NewQueue(k.acq, k.rdb, "bench", sidestep.QueueConfig{Workers: workers})
	return queue, sidestep.NewTask(queue, "work", lockOf,
		func(_ context.Context, _ *lock.Lock, body string) error {
			handle([]byte(body))
			return nil
		})
}

func (k *taskKit) enqueue(ctx context.Context, body []byte) error {
	_, err := k.task.Load().Enqueue(ctx, string(body))
	return err
}

func (k *taskKit) enqueueAt(ctx context.Context, body []byte, due time.Time) error {
	_, err := k.task.Load().EnqueueAt(ctx, due, string(body))
	return err
}

func (k *taskKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	queue, task := k.prepare(workers, noLock, handle)
	k.task.Store(task)
	return queue.Run(ctx)
}

func (k *taskKit) close() {
	_ = k.locker.Close() // always nil
	k.rdb.Close()
}

// asynq

type asynqKit struct {
	rdb              *redis.Client
	c                *asynq.Client
	look, lookForDue time.Duration
}

func openAsynq(look, lookForDue time.Duration) func(string, *wire) (queueKit, error) {
	return func(addr string, w *wire) (queueKit, error) {
		rdb := newClient(addr, w)
		return &asynqKit{rdb, asynq.NewClientFromRedisClient(rdb), look, lookForDue}, nil
	}
}

func (k *asynqKit) enqueue(ctx context.Context, body []byte) error {
	_, err := k.c.EnqueueContext(ctx, asynq.NewTask("work", body))
	return err
}

func (k *asynqKit) enqueueAt(ctx context.Context, body []byte, due time.Time) error {
	_, err := k.c.EnqueueContext(ctx, asynq.NewTask("work", body), asynq.ProcessAt(due))
	return err
}

func (k *asynqKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	srv := asynq.NewServerFromRedisClient(k.rdb, asynq.Config{
		Concurrency: workers, TaskCheckInterval: k.look, DelayedTaskCheckInterval: k.lookForDue,
		LogLevel: asynq.FatalLevel,
	})
	err := srv.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		handle(t.Payload())
		return nil
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	srv.Shutdown()
	return nil
}

func (k *asynqKit) close() { k.rdb.Close() }

// rmq

type rmqKit struct {
	rdb  *redis.Client
	conn rmq.Connection
	q    rmq.Queue
	look time.Duration
}

func openRMQ(look time.Duration) func(string, *wire) (queueKit, error) {
	return func(addr string, w *wire) (queueKit, error) {
		rdb := newClient(addr, w)
		conn, err := rmq.OpenConnectionWithRedisClient("bench", rdb, nil)
		if err != nil {
			rdb.Close()
			return nil, err
		}
		q, err := conn.OpenQueue("bench")
		return &rmqKit{rdb, conn, q, look}, err
	}
}

func (k *rmqKit) enqueue(_ context.Context, body []byte) error { return k.q.PublishBytes(body) }

func (k *rmqKit) enqueueAt(context.Context, []byte, time.Time) error { return errors.ErrUnsupported }

func (k *rmqKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	if err := k.q.StartConsuming(1000, k.look); err != nil {
		return err
	}
	for i := range workers {
		_, err := k.q.AddConsumerFunc(strconv.Itoa(i), func(d rmq.Delivery) {
			handle([]byte(d.Payload()))
			_ = d.Ack() // it repeats by itself until it is stopped
		})
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	<-k.q.StopConsuming()
	return nil
}

func (k *rmqKit) close() {
	<-k.conn.StopAllConsuming()
	k.rdb.Close()
}

// textbook

type textbookKit struct {
	rdb *redis.Client
	lua bool
}

func openTextbook(lua bool) func(string, *wire) (queueKit, error) {
	return func(addr string, w *wire) (queueKit, error) { return &textbookKit{newClient(addr, w), lua}, nil }
}

const textbookKey = "bench"

func (k *textbookKit) enqueue(ctx context.Context, body []byte) error {
	return k.enqueueAt(ctx, body, time.Now())
}

func (k *textbookKit) enqueueAt(ctx context.Context, body []byte, due time.Time) error {
	return k.rdb.ZAdd(ctx, textbookKey, redis.Z{Score: float64(due.UnixMilli()), Member: body}).Err()
}

var takeScript = redis.NewScript(`
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #due > 0 then redis.call('ZREM', KEYS[1], unpack(due)) end
return due`)

// take returns what is due and now this worker's.
func (k *textbookKit) take(ctx context.Context) ([]string, error) {
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	if k.lua {
		return takeScript.Run(ctx, k.rdb, []string{textbookKey}, now, 100).StringSlice()
	}
	due, err := k.rdb.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: textbookKey, ByScore: true, Start: "-inf", Stop: now, Count: 100,
	}).Result()
	if err != nil {
		return nil, err
	}
	var mine []string
	for _, body := range due {
		n, err := k.rdb.ZRem(ctx, textbookKey, body).Result()
		if err != nil {
			return nil, err
		}
		if n == 1 {
			mine = append(mine, body)
		}
	}
	return mine, nil
}

func (k *textbookKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	return inWorkers(workers, func(int) error {
		for ctx.Err() == nil {
			bodies, err := k.take(ctx)
			if err != nil {
				return ended(ctx, err)
			}
			for _, body := range bodies {
				handle([]byte(body))
			}
			if len(bodies) == 0 {
				pause(ctx, time.Second)
			}
		}
		return nil
	})
}

func (k *textbookKit) close() { k.rdb.Close() }

// by hand

type listKit struct{ rdb *redis.Client }

func openList(addr string, w *wire) (queueKit, error) { return &listKit{newClient(addr, w)}, nil }

func (k *listKit) enqueue(ctx context.Context, body []byte) error {
	return k.rdb.RPush(ctx, "ready", body).Err()
}

func (k *listKit) enqueueAt(ctx context.Context, body []byte, due time.Time) error {
	return k.rdb.ZAdd(ctx, "delayed", redis.Z{Score: float64(due.UnixMilli()), Member: body}).Err()
}

func (k *listKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	return inWorkers(workers, func(worker int) error {
		taken := "taken:" + strconv.Itoa(worker)
		for ctx.Err() == nil {
			body, err := k.rdb.BLMove(ctx, "ready", taken, "LEFT", "RIGHT", time.Second).Result()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				return ended(ctx, err)
			}
			handle([]byte(body))
			if err := k.rdb.LRem(ctx, taken, 1, body).Err(); err != nil {
				return ended(ctx, err)
			}
		}
		return nil
	})
}

func (k *listKit) close() { k.rdb.Close() }

type batchKit struct{ listKit }

func openBatch(addr string, w *wire) (queueKit, error) {
	return &batchKit{listKit{newClient(addr, w)}}, nil
}

// claimScript takes what it can get and notes until when; a real queue would
// look there for what a dead worker left.
var claimScript = redis.NewScript(`
local got = redis.call('LPOP', KEYS[1], 128)
if not got then return {} end
local now = redis.call('TIME')
local args = {}
for i = 1, #got do args[2 * i - 1], args[2 * i] = now[1] + 30, got[i] end
redis.call('ZADD', KEYS[2], unpack(args))
return got`)

func (k *batchKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	return inWorkers(workers, func(int) error {
		for ctx.Err() == nil {
			bodies, err := claimScript.Run(ctx, k.rdb, []string{"ready", "leased"}).StringSlice()
			if err != nil {
				return ended(ctx, err)
			}
			if len(bodies) == 0 {
				pause(ctx, time.Millisecond)
				continue
			}
			done := make([]any, len(bodies))
			for i, body := range bodies {
				handle([]byte(body))
				done[i] = body
			}
			if err := k.rdb.ZRem(ctx, "leased", done...).Err(); err != nil {
				return ended(ctx, err)
			}
		}
		return nil
	})
}

type timerKit struct{ listKit }

func openTimer(addr string, w *wire) (queueKit, error) {
	return &timerKit{listKit{newClient(addr, w)}}, nil
}

// dueScript takes what is due by the server's clock, and says in how many
// microseconds the next is.
var dueScript = redis.NewScript(`
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', math.floor(us / 1000), 'LIMIT', 0, 128)
if #due > 0 then redis.call('ZREM', KEYS[1], unpack(due)) end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {due, head and math.max(head * 1000 - us, 0) or -1}`)

func (k *timerKit) consume(ctx context.Context, workers int, handle func([]byte)) error {
	bodies := make(chan string, 128)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(bodies)
	for range workers {
		wg.Go(func() {
			for body := range bodies {
				handle([]byte(body))
			}
		})
	}
	for ctx.Err() == nil {
		reply, err := dueScript.Run(ctx, k.rdb, []string{"delayed"}).Slice()
		if err != nil {
			return ended(ctx, err)
		}
		due, _ := reply[0].([]any)
		wait, _ := reply[1].(int64)
		for _, body := range due {
			text, _ := body.(string)
			bodies <- text
		}
		if wait < 0 {
			wait = 100_000
		}
		pause(ctx, time.Duration(wait)*time.Microsecond)
	}
	return nil
}

// inWorkers runs fn in so many goroutines and returns what went wrong.
func inWorkers(n int, fn func(worker int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ended drops an error that comes of ctx's end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// bodySize is the size of a request.
const bodySize = 256

// bodyOf returns a request that carries two numbers, as text: it is as long as a
// JSON string, quotes aside.
func bodyOf(a, b int64) []byte {
	var numbers [16]byte
	binary.BigEndian.PutUint64(numbers[:], uint64(a))
	binary.BigEndian.PutUint64(numbers[8:], uint64(b))
	body := make([]byte, bodySize)
	for i := hex.Encode(body, numbers[:]); i < bodySize; i++ {
		body[i] = byte('a' + i%26)
	}
	return body
}

func numbersOf(body []byte) (a, b int64) {
	var numbers [16]byte
	if len(body) < 32 {
		return math.MinInt64, 0
	}
	if _, err := hex.Decode(numbers[:], body[:32]); err != nil {
		return math.MinInt64, 0
	}
	return int64(binary.BigEndian.Uint64(numbers[:])), int64(binary.BigEndian.Uint64(numbers[8:]))
}

// produce calls fn for 0 to n-1 in so many goroutines.
func produce(n, producers int, fn func(i int) error) error {
	return inWorkers(producers, func(w int) error {
		for i := w; i < n; i += producers {
			if err := fn(i); err != nil {
				return fmt.Errorf("request %d: %w", i, err)
			}
		}
		return nil
	})
}
