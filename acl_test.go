package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/fence"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// The roles of docs/security.md, each with a flow that does all that it may do.
// Their commands and patterns are read from that document, so that it cannot be
// wrong without a test that fails.
var aclFlows = map[string]func(*aclRun) error{
	"lock": (*aclRun).lock, "producer": (*aclRun).producer, "caller": (*aclRun).caller,
	"worker": (*aclRun).worker, "operator": (*aclRun).operator, "fence": (*aclRun).fence,
}

// aclRole is what docs/security.md grants a role.
type aclRole struct {
	commands []string
	patterns []string // with app: as the prefix
}

var aclRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*) \\| (.*) \\|$")

// aclRoles reads the table of the document.
func aclRoles(t *testing.T) map[string]aclRole {
	t.Helper()
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer("`", "", `\|`, "|")
	words := func(cell string) []string { return strings.Fields(plain.Replace(cell)) }
	roles := make(map[string]aclRole)
	for _, row := range aclRow.FindAllStringSubmatch(string(text), -1) {
		r := aclRole{patterns: words(row[2])}
		for _, c := range words(row[3]) {
			r.commands = append(r.commands, strings.TrimPrefix(c, "+"))
		}
		roles[row[1]] = r
	}
	if len(roles) != len(aclFlows) {
		t.Fatalf("docs/security.md has the roles %v", slices.Sorted(maps.Keys(roles)))
	}
	return roles
}

// rules are the arguments of ACL SETUSER, with another prefix than app:.
func (r aclRole) rules(prefix string) []string {
	rules := []string{"reset", "on", ">secret", "-@all", "resetkeys", "resetchannels"}
	for _, c := range r.commands {
		rules = append(rules, "+"+c)
	}
	for _, p := range r.patterns {
		rules = append(rules, strings.ReplaceAll(p, "app:", prefix))
	}
	return rules
}

// Each role of docs/security.md works with what it is granted there, and needs
// every command and every pattern of it.
func TestACL(t *testing.T) {
	redistest.Real(t) // skips, or fails where it is required
	for name, role := range aclRoles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flow := aclFlows[name]
			srv := redistest.NewServer(t, "--acllog-max-len", "10000")
			admin := srv.Client(t)

			// As somebody who may do anything: what is it that the flow sends?
			free := newACLRun(t, admin, "free", aclRole{commands: []string{"@all"}, patterns: []string{"~*", "&*"}}.rules(""))
			admin.ConfigResetStat(t.Context())
			if err := free.do(flow); err != nil {
				t.Fatalf("with all rights: %v", err)
			}
			if used := free.used(t); !slices.Equal(used, slices.Sorted(slices.Values(role.commands))) {
				t.Errorf("the flow sends, from within scripts too,\n%q, but docs/security.md grants\n%q",
					"+"+strings.Join(used, " +"), "+"+strings.Join(role.commands, " +"))
			}
			granted := newACLRun(t, admin, "granted", role.rules("granted:"))
			if err := granted.do(flow); err != nil {
				t.Errorf("with the rights of the role: %v; refused was %v", err, granted.refused())
			}
			if refused := granted.refused(); len(refused) > 0 {
				t.Errorf("with the rights of the role, refused was %v", refused)
			}

			without := func(what string, r aclRole, object string) {
				prefix := strings.NewReplacer(":", "", "~", "k", "&", "c", "*", "", "{", "b").Replace(what) + ":"
				run := newACLRun(t, admin, "without-"+prefix, r.rules(prefix))
				_ = run.do(flow) // it may well fail
				if refused := run.refused(); !slices.Contains(refused, object) && object != "" || len(refused) == 0 {
					t.Errorf("without %s nothing is refused, so the role does not need it: %v", what, refused)
				}
			}
			drop := func(list []string, s string) []string {
				return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
			}
			if slices.Contains(role.commands, "eval") { // alone: who else may bring a script along
				admin.ScriptFlush(t.Context())
				without("eval", aclRole{drop(role.commands, "eval"), role.patterns}, "eval")
			}
			var all sync.WaitGroup
			some := make(chan struct{}, 6) // at a time
			for _, c := range drop(role.commands, "eval") {
				some <- struct{}{}
				all.Go(func() { without(c, aclRole{drop(role.commands, c), role.patterns}, c); <-some })
			}
			for _, p := range role.patterns {
				some <- struct{}{}
				all.Go(func() { without(p, aclRole{role.commands, drop(role.patterns, p)}, ""); <-some })
			}
			all.Wait()
		})
	}
}

// aclRun is one run of a flow as a user with some rights.
type aclRun struct {
	ctx    context.Context // ends when something was refused, too
	stop   context.CancelFunc
	user   string
	prefix string
	admin  *redis.Client
	rdb    *redis.Client // as the user
}

func newACLRun(t *testing.T, admin *redis.Client, user string, rules []string) *aclRun {
	t.Helper()
	if err := admin.ACLSetUser(t.Context(), user, rules...).Err(); err != nil {
		t.Fatal(err)
	}
	opt := *admin.Options()
	opt.Username, opt.Password, opt.PoolSize, opt.MaxRetries = user, "secret", 20, -1
	opt.DisableIdentity = false // as go-redis has it by default
	r := &aclRun{user: user, prefix: strings.TrimPrefix(user, "without-"), admin: admin, rdb: redis.NewClient(&opt)}
	if !strings.HasSuffix(r.prefix, ":") {
		r.prefix += ":"
	}
	r.ctx, r.stop = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(func() {
		r.stop()
		r.rdb.Close()
	})
	return r
}

// do runs a flow, which ends early if something is refused.
func (r *aclRun) do(flow func(*aclRun) error) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	done := make(chan struct{})
	defer close(done)
	watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if len(r.refused()) > 0 {
					r.stop()
					return
				}
			case <-done:
				return
			}
		}
	})
	return flow(r)
}

// optional are commands that their senders can do without: consumers look whether
// the server may evict keys, to warn of it, and go-redis introduces itself.
var optional = []string{"config|get", "client|setinfo"}

// refused returns what the server has refused the user and is not optional.
func (r *aclRun) refused() []string {
	log, err := r.admin.ACLLog(context.Background(), 10000).Result()
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range log {
		if e.Username == r.user && !slices.Contains(optional, e.Object) {
			out = append(out, e.Object)
		}
	}
	return out
}

// used returns the commands that were sent since the statistics were reset, but
// for those of the test itself and those that need no right.
func (r *aclRun) used(t *testing.T) []string {
	t.Helper()
	info, err := r.admin.InfoMap(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for name := range info["Commandstats"] {
		name = strings.TrimPrefix(name, "cmdstat_")
		switch name {
		case "auth", "hello", "info", "config|resetstat", "acl|log", "acl|setuser", "client|list", "script|flush", "type":
		case optional[0], optional[1]:
		default:
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// until waits for something that only the server shows.
func (r *aclRun) until(what string, ok func(context.Context) bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok(r.ctx) {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(r.ctx))
		}
	}
	return nil
}

func (r *aclRun) exists(key string) error {
	return r.until(key, func(ctx context.Context) bool { return r.admin.Type(ctx, key).Val() != "none" })
}

func (r *aclRun) locker(rdb *redis.Client) *lock.Locker {
	return lock.New(rdb, lock.Config{Prefix: r.prefix + "lock:", TTL: 10 * time.Second})
}

// lock acquires, waits in line, extends, releases.
func (r *aclRun) lock() error {
	a, b := r.locker(r.rdb), r.locker(r.rdb)
	defer a.Close()
	defer b.Close()
	lk, err := a.TryAcquire(r.ctx, "x")
	if err != nil {
		return err
	}
	waited := make(chan error, 1)
	enter := func(context.Context, *lock.Lock) error { return nil }
	go func() { waited <- b.Do(r.ctx, "x", retry.Constant(time.Minute), enter) }()
	if err := r.exists("{" + r.prefix + "lock:x}:line"); err != nil {
		return errors.Join(err, lk.Release(r.ctx), <-waited)
	}
	// A silent subscription is asked after a second whether it lives.
	err = r.until("a ping", func(ctx context.Context) bool {
		list := r.admin.ClientList(ctx).Val()
		return slices.ContainsFunc(strings.Split(list, "\n"), func(c string) bool {
			return strings.Contains(c, " user="+r.user+" ") && strings.Contains(c, " cmd=ping ")
		})
	})
	err = errors.Join(err, lk.Extend(r.ctx), lk.Release(r.ctx), <-waited)

	// A holder that is no client of ours, and just goes.
	foreign := r.prefix + "lock:y"
	r.admin.Eval(r.ctx, `return redis.call('SET', KEYS[1], 'foreign', 'PX', 100)`, []string{foreign})
	err = errors.Join(err, b.Do(r.ctx, "y", retry.Constant(time.Minute), enter))

	// A waiter that gives up, and one in whose place nobody listens any more.
	lk, more := a.TryAcquire(r.ctx, "w")
	if more != nil {
		return errors.Join(err, more)
	}
	line := "{" + r.prefix + "lock:w}:line"
	short, giveUp := context.WithCancel(r.ctx)
	go func() { waited <- b.Do(short, "w", nil, enter) }()
	err = errors.Join(err, r.exists(line))
	giveUp()
	if more = <-waited; !errors.Is(more, context.Canceled) {
		err = errors.Join(err, more)
	}
	err = errors.Join(err, r.until("nobody in line", func(ctx context.Context) bool { return r.admin.Type(ctx, line).Val() == "none" }))
	r.admin.Eval(r.ctx, `return redis.call('ZADD', KEYS[1], 1, ARGV[1])`, []string{line}, "1000 1 18 sidestep:mail:gonenobody")
	err = errors.Join(err, lk.Release(r.ctx))

	all, more := a.TryAcquireAll(r.ctx, "{z}1", "{z}2")
	for _, lk := range all {
		more = errors.Join(more, lk.Release(r.ctx))
	}
	return errors.Join(err, more, r.together(a))
}

// together takes and releases many locks at once, some of them in one script.
func (r *aclRun) together(l *lock.Locker) error {
	errs := make([]error, 64)
	for range 4 {
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				lk, err := l.TryAcquire(r.ctx, fmt.Sprint("many", i))
				errs[i] = errors.Join(errs[i], err, lk.Release(r.ctx))
			})
		}
		all.Wait()
	}
	return errors.Join(errs...)
}

// queue returns a queue and two tasks as the user, or as the administrator.
func (r *aclRun) queue(rdb *redis.Client) (*sidestep.Acquirer, *sidestep.Queue, *sidestep.Task[int], func()) {
	l := r.locker(rdb)
	acq := sidestep.New(l, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{Workers: 4, Storage: listq.Config{ // fewer than requests
		Prefix: r.prefix + "queue:", Lease: 150 * time.Millisecond, Poll: 40 * time.Millisecond, Resend: time.Second, MaxDead: 1,
	}})
	task := sidestep.NewTask(q, "t", func(v int) string { return aclKeys[v] }, func(ctx context.Context, _ *lock.Lock, v int) error {
		switch d := sidestep.RequestFrom(ctx); {
		case v == aclSlow: // so that its lease is extended
			t := time.NewTimer(200 * time.Millisecond)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		case v == aclFailing && d.Deliveries > 0 && d.Attempts == 0, v >= aclDying:
			return errors.New("failed")
		}
		return nil
	}, sidestep.WhenLocked(sidestep.RetryFor(20*time.Millisecond).Then(sidestep.Defer(50*time.Millisecond))),
		sidestep.Backoff(retry.Constant(time.Millisecond)), sidestep.MaxAttempts(2))
	return acq, q, task, func() { l.Close() }
}

// What the payloads stand for, and the lock of each.
const (
	aclPlain = iota
	aclFailing
	aclSlow
	aclHeld    // its lock is held by an Acquirer when it comes
	aclForeign // ... by another program
	aclDying
)

var aclKeys = map[int]string{
	aclFailing: "failing", aclSlow: "slow", aclHeld: "held", aclForeign: "foreign",
	aclDying: "dying", aclDying + 1: "dying", aclDying + 2: "dying",
}

// producer enqueues.
func (r *aclRun) producer() error {
	_, _, task, done := r.queue(r.rdb)
	defer done()
	// A consumer listens: the first is handed over.
	r.admin.HSet(r.ctx, r.prefix+"queue:{q}:meta", "idle", fmt.Sprintf("%d 1000", time.Now().Add(time.Hour).UnixMilli()))
	_, err1 := task.Enqueue(r.ctx, aclHeld)
	_, err2 := task.Enqueue(r.ctx, aclPlain)
	_, err3 := task.EnqueueIn(r.ctx, time.Hour, aclPlain)
	// It takes what is offered, too, and the last time nobody does.
	base := r.prefix + "queue:{q}:"
	r.admin.HSet(r.ctx, base+"meta", "idle", fmt.Sprintf("%d 1000 offers", time.Now().Add(time.Hour).UnixMilli()))
	for _, key := range []string{"ready", "wake", "wake"} {
		r.admin.LPop(r.ctx, base+key)
	}
	_, err4 := task.Enqueue(r.ctx, aclPlain)
	r.admin.LPop(r.ctx, base+"wake")
	<-time.After(5 * time.Millisecond)
	_, err5 := task.Enqueue(r.ctx, aclPlain)
	return errors.Join(err1, err2, err3, err4, err5)
}

// offer is a request as somebody has offered it who has not stored it yet.
func (r *aclRun) offer(v int) (string, error) {
	e, err := listq.New(r.admin, "q", listq.Config{}).Entry(&listq.Request{Task: "t", Payload: []byte(strconv.Itoa(v))})
	h := script.Handed{
		Item:  script.Item{ID: e.ID, Body: e.Body, Deliveries: 1, Accepted: time.Now()},
		Token: "o1", Lease: time.Second,
	}
	return h.String(), err
}

// caller makes direct calls, under all policies.
func (r *aclRun) caller() error {
	err := r.lock()
	acq, _, task, done := r.queue(r.rdb)
	defer done()
	other := r.locker(r.rdb)
	defer other.Close()
	do := func(v int, p sidestep.Policy, deferred bool) error {
		out, err := task.Do(r.ctx, v, p)
		if err == nil && (out.Deferred != nil) != deferred {
			err = fmt.Errorf("%v: %+v", p, out)
		}
		return err
	}
	err = errors.Join(err, do(aclHeld, sidestep.Fail(), false))
	return errors.Join(err, acq.Do(r.ctx, aclKeys[aclHeld], sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		return errors.Join(
			do(aclHeld, sidestep.Defer(time.Minute).NotBefore(), true),
			do(aclHeld, sidestep.RetryFor(time.Millisecond).Then(sidestep.Defer(time.Minute)), true),
		)
	}), acq.Do(r.ctx, aclKeys[aclForeign], sidestep.Fail(), func(ctx context.Context, _ *lock.Lock) error {
		// Whose turn it is was lost, and is repaired when the release tells the queue.
		r.admin.HSet(ctx, r.prefix+"queue:{q}:held", aclKeys[aclForeign], "ghost")
		return do(aclForeign, sidestep.Defer(time.Minute), true)
	}))
}

// worker runs a queue, whose requests others have sent.
func (r *aclRun) worker() error {
	_, _, task, done := r.queue(r.admin)
	defer done()
	_, q, _, done2 := r.queue(r.rdb)
	defer done2()
	var err error
	for _, v := range []int{aclSlow, aclHeld, aclForeign, aclPlain, aclFailing, aclDying, aclDying + 1, aclDying + 2} {
		_, e := task.Enqueue(r.ctx, v)
		err = errors.Join(err, e)
	}
	base := r.prefix + "queue:{q}:"
	r.admin.SAdd(r.ctx, base+"gone", "finished long ago")
	_, e := task.EnqueueIn(r.ctx, time.Millisecond, aclFailing) // gets its place in line when it is due
	err = errors.Join(err, e)
	r.admin.ConfigResetStat(r.ctx)   // what was sent so far is not the worker's
	err = errors.Join(err, r.lock()) // a task may wait for its lock
	take := func(key string, px int) {
		r.admin.Eval(r.ctx, `return redis.call('SET', KEYS[1], 'another', 'PX', ARGV[1])`, []string{r.prefix + "lock:" + key}, px)
	}
	take(aclKeys[aclForeign], 300)
	take(aclKeys[aclHeld], 60_000)
	running, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(running) }()
	err2 := r.exists("{" + r.prefix + "lock:" + aclKeys[aclHeld] + "}:parked")
	take(aclKeys[aclHeld], 400) // some probes later its holder is gone
	// What is offered, and fails before it is stored, is stored by the worker.
	var stored atomic.Bool
	r.rdb.AddHook(onCommand{before: func(cmd redis.Cmder) error {
		for _, a := range cmd.Args() {
			if a == "lo1|1|"+strings.TrimPrefix(fmt.Sprint(a), "lo1|1|") {
				stored.Store(true)
			}
		}
		return nil
	}})
	err2 = errors.Join(err2, r.until("a request that the worker stores", func(ctx context.Context) bool {
		if !stored.Load() {
			text, e := r.offer(aclFailing)
			r.admin.LPush(ctx, base+"wake", text)
			err2 = errors.Join(err2, e)
		}
		return stored.Load()
	}))
	// All is done, and claims have forgotten all ids and all dead but one.
	err3 := r.until("an empty queue", func(ctx context.Context) bool {
		there := func(key string) bool { return r.admin.Type(ctx, base+key).Val() != "none" }
		return !slices.ContainsFunc([]string{"ready", "delayed", "parked", "leased", "gone", "past"}, there) && there("dead")
	})
	stop()
	return errors.Join(err, err2, err3, <-ran)
}

// operator looks at everything and changes what is stuck.
func (r *aclRun) operator() error {
	_, run, task, done := r.queue(r.admin)
	defer done()
	_, q, _, done2 := r.queue(r.rdb)
	defer done2()
	l, theirs := r.locker(r.rdb), r.locker(r.admin)
	defer l.Close()
	defer theirs.Close()
	waiting, err := task.EnqueueIn(r.ctx, time.Hour, aclHeld)
	dying, err2 := task.Enqueue(r.ctx, aclDying)
	running, stop := context.WithCancel(r.ctx)
	ran := make(chan error, 1)
	go func() { ran <- run.Run(running) }()
	err3 := r.exists(r.prefix + "queue:{q}:dead")
	stop()
	_, err4 := theirs.TryAcquire(r.ctx, "x")
	held, err5 := theirs.TryAcquire(r.ctx, aclKeys[aclHeld])
	first, err6 := task.Do(r.ctx, aclHeld, sidestep.Defer(time.Hour))
	second, err7 := task.Do(r.ctx, aclHeld, sidestep.Defer(time.Hour))
	err4 = errors.Join(err4, err5, err6, err7, held.Release(r.ctx))
	if first.Deferred == nil || second.Deferred == nil {
		return fmt.Errorf("not deferred: %w", err4)
	}
	err = errors.Join(err, err2, err3, err4, <-ran)
	r.admin.Del(r.ctx, r.prefix+"queue:{q}:wake")
	mail := r.admin.Subscribe(r.ctx, "sidestep:mail:"+r.prefix) // of somebody who stands in line for x
	defer mail.Close()
	_, err8 := mail.Receive(r.ctx)
	entry := fmt.Sprintf("10000 1 %d sidestep:mail:%sw next", len("sidestep:mail:"+r.prefix), r.prefix)
	err = errors.Join(err, err8, r.admin.ZAdd(r.ctx, "{"+r.prefix+"lock:x}:line", redis.Z{Score: 1, Member: entry}).Err())
	text, err9 := r.offer(aclPlain)
	err = errors.Join(err, err9, r.admin.LPush(r.ctx, r.prefix+"queue:{q}:wake", text).Err())
	r.admin.ConfigResetStat(r.ctx) // what was sent so far is not the operator's
	check := func(what string, ok bool, e error) {
		if e != nil || !ok {
			err = errors.Join(err, fmt.Errorf("%s: %t, %w", what, ok, e))
		}
	}
	stats, e := q.Stats(r.ctx)
	check("Stats", stats.Delayed == 1 && stats.Dead == 1, e)
	info, e := q.Get(r.ctx, waiting.ID)
	check("Get", info.Place == "delayed", e)
	dead, e := q.Dead(r.ctx, 1)
	check("Dead", len(dead) == 1, e)
	_, e = q.Line(r.ctx, aclKeys[aclHeld], 10)
	check("Line", true, e)
	_, e = q.Reschedule(r.ctx, waiting.ID, time.Minute)
	check("Reschedule", true, e)
	for _, out := range []sidestep.Outcome{second, first} {
		_, e = q.Promote(r.ctx, out.Deferred.ID)
		check("Promote", true, e)
	}
	ok, e := q.Revive(r.ctx, dying.ID)
	check("Revive", ok, e)
	ok, e = q.Cancel(r.ctx, waiting.ID)
	check("Cancel", ok, e)
	st, e := l.Inspect(r.ctx, "x")
	check("Inspect", st.Held, e)
	ok, e = l.Revoke(r.ctx, "x")
	check("Revoke", ok, e)
	st, e = l.Inspect(r.ctx, "x")
	check("Revoke hands on", st.Held, e)
	return err
}

// fence guards keys.
func (r *aclRun) fence() error {
	g := fence.NewRedis(r.rdb, fence.RedisConfig{})
	now := time.Now().UnixMicro()
	err := errors.Join(g.Enter(r.ctx, r.prefix+"data", now), g.Set(r.ctx, r.prefix+"data", now, "v", 0))
	_, err2 := g.Get(r.ctx, r.prefix+"data", now)
	return errors.Join(err, err2, g.Del(r.ctx, r.prefix+"data", now))
}
