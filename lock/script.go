package lock

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/attempts"
	"github.com/sidestep-go/sidestep/internal/batch"
)

var (
	//go:embed prelude.lua
	preludeLua string
	//go:embed trylock.lua
	tryLockLua string
	//go:embed take.lua
	takeLua string
	//go:embed mark.lua
	markLua string
	//go:embed acquire.lua
	acquireLua string
	//go:embed extend.lua
	extendLua string
	//go:embed unlock.lua
	unlockLua string
	//go:embed release.lua
	releaseLua string
	//go:embed relay.lua
	relayLua string
	//go:embed revoke.lua
	revokeLua string
	//go:embed look.lua
	lookLua string
	//go:embed inspect.lua
	inspectLua string

	//go:embed adopt.lua
	adoptLua string
	//go:embed acquireall.lua
	acquireAllLua string

	//go:embed quorum.lua
	quorumLua string
	//go:embed vote.lua
	voteLua string
	//go:embed lift.lua
	liftLua string
	//go:embed raise.lua
	raiseLua string
	//go:embed discard.lua
	discardLua string
)

var (
	extendScript     = newScript(extendLua)
	lookScript       = newScript(lookLua)
	inspectScript    = newScript(inspectLua)
	adoptScript      = newScript(liftLua, adoptLua)
	raiseScript      = newScript(liftLua, raiseLua)
	discardScript    = newScript(discardLua)
	acquireAllScript = newScript(preludeLua, acquireAllLua)
	relayScript      = newScript(preludeLua, relayLua, unlockLua, releaseLua)
)

// scripts are those that differ between a node of its own and one of a quorum.
type scripts struct{ acquire, release, many, revoke *script }

var (
	aloneScripts = newScripts(
		takeLua,
		newScript(within(tryLockLua, "mark", markLua), preludeLua, acquireLua),
		newScript(unlockLua, preludeLua, releaseLua),
		newScript(preludeLua, revokeLua))
	quorumScripts = newScripts(
		"", // a vote has no shortcut
		newScript(preludeLua, quorumLua, voteLua),
		newScript(unlockLua, preludeLua, quorumLua, releaseLua),
		newScript(preludeLua, quorumLua, revokeLua))
)

func newScripts(take string, acquire, release, revoke *script) scripts {
	return scripts{acquire: acquire, release: release, many: newMany(take, acquire, release), revoke: revoke}
}

// within puts a part where a script names it in a line: a function would cost as much
// as a command.
func within(lua, name, part string) string {
	return strings.Replace(lua, "-- "+name+"\n", part, 1)
}

// script is one Lua script: its text without comments, and its digest.
type script struct {
	src, sha any    // strings, boxed once
	sum      []byte // sha
}

func newScript(parts ...string) *script {
	var b strings.Builder
	for _, part := range parts {
		for line := range strings.Lines(part) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
				b.WriteString(line)
				b.WriteByte('\n')
			}
		}
	}
	sum := sha1.Sum([]byte(b.String()))
	sha := hex.EncodeToString(sum[:])
	return &script{src: b.String(), sha: sha, sum: []byte(sha)}
}

func (s *script) text() string {
	text, _ := s.src.(string)
	return text
}

// node is what holds locks: one Redis, or one Sentinel set or Cluster, or a
// quorum of several.
type node interface {
	acquire(ctx context.Context, k *keys, a *acquireArgs) (acquireReply, error)
	adopt(ctx context.Context, k *keys, a *adoptArgs) (bool, error)
	extend(ctx context.Context, k *keys, a *extendArgs) (held bool, err error)
	extendAll(ctx context.Context, batch []extendItem) // sets held and err of each
	release(ctx context.Context, k *keys, a *releaseArgs) (releaseReply, error)
	revoke(ctx context.Context, k *keys, margin time.Duration, report bool, seen func(value string)) (releaseReply, error)
	look(ctx context.Context, k *keys, queue string, floor time.Duration) (lookReply, error)
	inspect(ctx context.Context, k *keys) (inspectReply, error)
}

// single is a node behind one go-redis client. Arguments are passed as pointers
// where that saves putting them into an interface.
type single struct {
	rdb     redis.UniversalClient
	scripts *scripts
	delay   time.Duration // by which a key outlives the lease
	timeout time.Duration // how long a client of one server waits for an answer; 0: not known, or for ever
	repeats bool          // whether that client sends commands again
	apart   atomic.Bool   // no script takes keys of several locks: there are several servers, or one said so

	room *batch.Room[*redis.Cmd] // where commands for one server meet; nil: several, or a client that sees to it itself
	many many                    // what becomes of those that do
}

// maxBatch is how many commands are sent at once.
const maxBatch = 128

func newSingle(rdb redis.UniversalClient, s *scripts, delay time.Duration) *single {
	n := &single{rdb: rdb, scripts: s, delay: delay}
	n.many.n = n
	c, ok := rdb.(*redis.Client)
	n.apart.Store(!ok)
	if ok {
		n.timeout, n.repeats = c.Options().ReadTimeout, c.Options().MaxRetries > 0
		n.room = batch.New(n.together, func(*redis.Cmd) int { return 1 }, maxBatch, c.Options().ContextTimeoutEnabled)
	}
	return n
}

// prompt reports whether one attempt at a command ends within releaseTimeout, once
// there is a connection for it.
func (n *single) prompt() bool { return n.timeout > 0 && n.timeout <= releaseTimeout }

// run runs a script; args are the number of keys, they, and the arguments, with
// room for two in front.
func (n *single) run(ctx context.Context, s *script, args []any) (any, error) {
	return n.send(ctx, s, args, false)
}

// send is run, unless it is to be sent once: then it is not repeated.
func (n *single) send(ctx context.Context, s *script, args []any, once bool) (any, error) {
	sha := s.begin(args)
	cmd := redis.NewCmd(ctx, args...)
	return n.sent(ctx, s, args, cmd, sha.Err(n.deliver(ctx, cmd, once)))
}

// atOnce is run of what never waits to share a round trip.
func (n *single) atOnce(ctx context.Context, s *script, args []any) (any, error) {
	sha := s.begin(args)
	cmd := redis.NewCmd(ctx, args...)
	return n.sent(ctx, s, args, cmd, sha.Err(n.process(ctx, cmd, false)))
}

// begin puts the first two words in front. The second may be there, with any text.
func (s *script) begin(args []any) (sha *attempts.Word) {
	sha, _ = args[1].(*attempts.Word)
	if sha == nil {
		sha = new(attempts.Word)
	}
	sha.Set(s.sum)
	args[0], args[1] = "evalsha", sha
	return sha
}

// sent returns the answer to a command, which it sends with the script's text if the
// server does not know that.
func (n *single) sent(ctx context.Context, s *script, args []any, cmd *redis.Cmd, err error) (any, error) {
	if err == nil {
		return cmd.Result()
	}
	if !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil, err
	}
	cmd, text := n.eval(ctx, s, args)
	_ = n.rdb.Process(ctx, cmd) // cmd has the error
	v, failed := cmd.Result()
	if failed = text.Err(failed); attempts.Repeated(err) {
		failed = attempts.Again(failed)
	}
	return v, failed
}

// deliver sends a command: alone as long as the server has few others of ours to
// answer, and with what comes meanwhile otherwise.
func (n *single) deliver(ctx context.Context, cmd *redis.Cmd, once bool) error {
	if n.room == nil {
		return n.process(ctx, cmd, once)
	}
	x, sent, err := n.room.Join(ctx, cmd)
	switch {
	case err != nil && !errors.Is(err, batch.ErrLost):
		return err // cmd may be under way
	case sent:
		if err == nil {
			err = cmd.Err()
		}
		if !once && n.repeats && repeatable(err) {
			cmd.SetErr(nil)
			first := err
			if err = n.process(ctx, cmd, false); maybeRan(first) {
				err = attempts.Again(err)
			}
		}
		return err
	}
	defer n.room.Leave(x)
	return n.process(ctx, cmd, once)
}

func (n *single) process(ctx context.Context, cmd *redis.Cmd, once bool) error {
	if once {
		return n.rdb.Process(ctx, unrepeated{cmd})
	}
	return n.rdb.Process(ctx, cmd)
}

// together sends what several calls have met with. go-redis would repeat all or
// none of it, by the fate of the first: each call repeats its own.
func (n *single) together(ctx context.Context, cmds []*redis.Cmd) {
	if cmds = n.many.run(ctx, cmds); len(cmds) == 0 {
		return
	}
	p := n.rdb.Pipeline()
	for _, c := range cmds {
		_ = p.Process(ctx, unrepeated{c}) // queues it
	}
	_, _ = p.Exec(ctx) // each command has its error
}

// repeatable reports whether go-redis would send a command again that failed so.
func repeatable(err error) bool {
	if err == nil {
		return false
	}
	if e := redis.Error(nil); !errors.As(err, &e) {
		return true // it got no answer
	}
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) || redis.IsMasterDownError(err) || redis.IsClusterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsNoReplicasError(err) || redis.IsMaxClientsError(err)
}

// unrepeated is a command that go-redis does not send again by itself.
type unrepeated struct{ *redis.Cmd }

// NoRetry tells it so.
func (unrepeated) NoRetry() bool { return true }

// eval is the command that brings the script's text along.
func (n *single) eval(ctx context.Context, s *script, args []any) (*redis.Cmd, *attempts.Word) {
	text := attempts.NewWord([]byte(s.text()))
	args = append([]any(nil), args...) // a hook may have kept the first ones
	args[0], args[1] = "eval", text
	return redis.NewCmd(ctx, args...), text
}

type acquireArgs struct {
	value  *string       // outlives them
	entry  string        // "" for a try
	lease  time.Duration // whole milliseconds, as all durations here
	claim  time.Duration
	block  int64
	margin time.Duration

	leaseMS, claimMS, marginMS int64
	argv                       [12]any
	sha                        attempts.Word
}

var spareAcquireArgs = sync.Pool{New: func() any { return new(acquireArgs) }}

// newAcquireArgs returns arguments to be filled in, sent, and freed.
func newAcquireArgs() *acquireArgs { return spareAcquireArgs.Get().(*acquireArgs) }

// free lets another call have the arguments, unless a hook of the client may have kept them.
func (a *acquireArgs) free() {
	if a.sha.Aside() {
		*a = acquireArgs{}
		spareAcquireArgs.Put(a)
	}
}

type acquireReply struct {
	granted bool
	fence   int64         // granted: the last of the block
	server  int64         // refused, not of a try: the server's time, in microseconds; 0 of a quorum, which has none
	left    time.Duration // refused: of the holder's lease; -1 if it has no end
	holder  string        // refused: the value of the lock key; "" if not known
	split   bool          // refused: by several, none of whom has a majority
	spared  []int         // granted by a quorum: the nodes that were not asked, as they had too much to do
}

func (n *single) acquire(ctx context.Context, k *keys, a *acquireArgs) (acquireReply, error) {
	a.leaseMS, a.claimMS, a.marginMS = (a.lease + n.delay).Milliseconds(), a.claim.Milliseconds(), a.margin.Milliseconds()
	a.argv[1] = &a.sha
	args := append(a.argv[:2], "2", &k.lock, &k.fence)
	if a.entry != "" {
		args[2] = "3"
		args = append(args, &k.line)
	}
	args = append(args, a.value, &a.leaseMS, &a.marginMS)
	if a.block > 1 || a.entry != "" {
		args = append(args, &a.block)
	}
	if a.entry != "" {
		args = append(args, &a.entry, &a.claimMS)
	}
	v, err := n.run(ctx, n.scripts.acquire, args)
	if err != nil {
		return acquireReply{}, err
	}
	switch v := v.(type) {
	case int64:
		return acquireReply{granted: true, fence: v}, nil
	case []any:
		if len(v) < 2 {
			break
		}
		left, ok0 := v[0].(int64)
		holder, ok1 := v[1].(string)
		r := acquireReply{left: ms(left), holder: holder}
		if len(v) > 2 {
			r.server, _ = v[2].(int64)
		}
		if ok0 && ok1 {
			return r, nil
		}
	}
	return acquireReply{}, errReply("acquire", v)
}

type extendArgs struct {
	value   string
	lease   time.Duration
	leaseMS int64
	argv    [6]any
}

func (n *single) extend(ctx context.Context, k *keys, a *extendArgs) (bool, error) {
	a.fill(k, n.delay)
	held, err := ints("extend", 1)(n.run(ctx, extendScript, a.argv[:]))
	return err == nil && held[0] == 1, err
}

// ints checks that a reply is so many integers.
func ints(op string, want int) func(any, error) ([]int64, error) {
	return func(v any, err error) ([]int64, error) {
		if err != nil {
			return nil, err
		}
		list, _ := v.([]any)
		if len(list) != want {
			return nil, errReply(op, v)
		}
		out := make([]int64, want)
		for i, x := range list {
			var ok bool
			if out[i], ok = x.(int64); !ok {
				return nil, errReply(op, v)
			}
		}
		return out, nil
	}
}

func (a *extendArgs) fill(k *keys, delay time.Duration) {
	a.leaseMS = (a.lease + delay).Milliseconds()
	a.argv = [6]any{2: "1", 3: &k.lock, 4: &a.value, 5: &a.leaseMS}
}

// extendItem is one lease of a batch.
type extendItem struct {
	ls   *lease
	keys keys
	args extendArgs
	held bool
	err  error
}

// extendAll extends many leases: in one script call; or in one pipeline, where no
// script takes them all, or where one fails it, such as a key of another type.
func (n *single) extendAll(ctx context.Context, batch []extendItem) {
	if n.apart.Load() {
		n.extendEach(ctx, batch)
		return
	}
	args := make([]any, 3, 3+3*len(batch))
	args[2] = len(batch)
	for i := range batch {
		args = append(args, &batch[i].keys.lock)
	}
	for i := range batch {
		a := &batch[i].args
		a.leaseMS = (a.lease + n.delay).Milliseconds()
		args = append(args, &a.value, &a.leaseMS)
	}
	held, err := ints("extend", len(batch))(n.run(ctx, extendScript, args))
	if len(batch) > 1 && n.refusedTogether(err) {
		n.extendEach(ctx, batch)
		return
	}
	for i := range batch {
		if batch[i].err = err; err == nil {
			batch[i].held = held[i] == 1
		}
	}
}

// refusedTogether reports whether err is an answer to a script of several locks: each
// by itself may be answered otherwise. It learns from one that no such script is taken.
func (n *single) refusedTogether(err error) bool {
	if redis.HasErrorPrefix(err, "CROSSSLOT") {
		n.apart.Store(true)
	}
	return errors.As(err, new(redis.Error))
}

func (n *single) extendEach(ctx context.Context, batch []extendItem) {
	cmds := make([]redis.Cmder, len(batch))
	for i := range batch {
		it := &batch[i]
		it.args.fill(&it.keys, n.delay)
		a := it.args.argv[:]
		a[0], a[1] = "evalsha", extendScript.sha
		cmds[i] = redis.NewCmd(ctx, a...)
	}
	n.pipe(ctx, cmds)
	var again []redis.Cmder
	for i, c := range cmds {
		if redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			cmds[i], _ = n.eval(ctx, extendScript, batch[i].args.argv[:])
			again = append(again, cmds[i])
		}
	}
	if len(again) > 0 {
		n.pipe(ctx, again)
	}
	for i, c := range cmds {
		held, err := ints("extend", 1)(c.(*redis.Cmd).Result())
		batch[i].held, batch[i].err = err == nil && held[0] == 1, err
	}
}

func (n *single) pipe(ctx context.Context, cmds []redis.Cmder) {
	_, _ = n.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, c := range cmds {
			_ = p.Process(ctx, c) // queues it
		}
		return nil
	}) // each command has its error
}

type releaseArgs struct {
	value  *string // outlives them
	entry  string  // "" if it never stood in line
	margin time.Duration
	report bool  // take the parked queues out and report them
	once   bool  // no second attempt
	spared []int // nodes of a quorum, as in acquireReply

	marginMS int64
	argv     [9]any // of one who never stood in line, as most
	sha      attempts.Word
}

var spareReleaseArgs = sync.Pool{New: func() any { return new(releaseArgs) }}

// newReleaseArgs is newAcquireArgs for a release.
func newReleaseArgs() *releaseArgs { return spareReleaseArgs.Get().(*releaseArgs) }

// free lets another call have the arguments, unless a hook of the client may have kept them.
func (a *releaseArgs) free() {
	if a.sha.Aside() && a.entry == "" {
		*a = releaseArgs{}
		spareReleaseArgs.Put(a)
	}
}

type releaseReply struct {
	released bool     // false: the lock was not ours; of a revoke, nobody had it
	granted  bool     // it went to someone in line
	queues   []string // reported
}

func (n *single) release(ctx context.Context, k *keys, a *releaseArgs) (releaseReply, error) {
	a.marginMS = a.margin.Milliseconds()
	a.argv[1] = &a.sha
	args := append(a.argv[:2], "3", &k.lock, &k.fence, &k.line)
	if a.report {
		args[2] = "4"
		args = append(args, &k.parked)
	}
	args = append(args, a.value, &a.marginMS)
	if a.entry != "" {
		args = append(args, &a.entry)
	}
	v, err := n.send(ctx, n.scripts.release, args, a.once)
	if err != nil {
		return releaseReply{}, err
	}
	return released("release", v)
}

type relayArgs struct {
	value  string // of the section that ends
	next   string // of the next one
	queue  string
	lease  time.Duration
	margin time.Duration
}

type relayReply struct {
	releaseReply
	kept  bool
	fence int64 // kept: of the next section
}

// relay gives the lock to the next section, which waits for that, unless others wait
// for the lock: then it is a release.
func (n *single) relay(ctx context.Context, k *keys, a *relayArgs) (relayReply, error) {
	v, err := n.atOnce(ctx, relayScript, []any{
		2: "4", 3: &k.lock, 4: &k.fence, 5: &k.line, 6: &k.parked,
		7: &a.value, 8: a.margin.Milliseconds(), 9: "", 10: &a.next, 11: (a.lease + n.delay).Milliseconds(), 12: &a.queue,
	})
	if err != nil {
		return relayReply{}, err
	}
	if f, ok := v.([]any); ok && len(f) == 1 {
		if fence, ok := f[0].(int64); ok {
			return relayReply{kept: true, fence: fence}, nil
		}
	}
	r, err := released("relay", v)
	return relayReply{releaseReply: r}, err
}

// revoke looks first who holds the lock: the command that takes it from that one may be
// sent again, or come late, when the next holder has it.
func (n *single) revoke(ctx context.Context, k *keys, margin time.Duration, report bool, seen func(value string)) (releaseReply, error) {
	was, err := n.inspect(ctx, k)
	if err != nil || !was.held {
		return releaseReply{}, err
	}
	seen(was.value)
	args := []any{2: "3", 3: k.lock, 4: k.fence, 5: k.line}
	if report {
		args[2] = "4"
		args = append(args, k.parked)
	}
	v, err := n.run(ctx, n.scripts.revoke, append(args, margin.Milliseconds(), was.value))
	if err != nil {
		return releaseReply{}, err
	}
	return released("revoke", v)
}

func released(op string, v any) (releaseReply, error) {
	switch v := v.(type) {
	case int64:
		return releaseReply{released: v > 0, granted: v == 2}, nil
	case []any:
		return releaseReply{released: true, queues: texts(v)}, nil
	}
	return releaseReply{}, errReply(op, v)
}

type lookReply struct {
	held  bool
	left  time.Duration // -1 if it has no end
	value string        // of the lock key; "" if that is no string
}

func (n *single) look(ctx context.Context, k *keys, queue string, floor time.Duration) (lookReply, error) {
	v, err := n.run(ctx, lookScript, []any{2: "2", 3: k.lock, 4: k.parked, 5: queue, 6: floor.Milliseconds()})
	if err != nil {
		return lookReply{}, err
	}
	f, _ := v.([]any)
	if len(f) == 0 {
		return lookReply{}, errReply("look", v)
	}
	left, ok := f[0].(int64)
	if !ok {
		return lookReply{}, errReply("look", v)
	}
	r := lookReply{held: left != -2, left: ms(left)}
	if len(f) > 1 {
		r.value, _ = f[1].(string)
	}
	return r, nil
}

type adoptArgs struct {
	from  string // the token to take over from
	fence int64  // its fence
	value string
	lease time.Duration

	margin time.Duration // of a quorum, whose nodes may lag behind the fence; 0: none does
}

func (n *single) adopt(ctx context.Context, k *keys, a *adoptArgs) (bool, error) {
	v, err := n.run(ctx, adoptScript, []any{
		2: "2", 3: k.lock, 4: k.fence, 5: a.from, 6: a.fence, 7: a.value, 8: (a.lease + n.delay).Milliseconds(), 9: a.margin.Milliseconds(),
	})
	return v == int64(1), err
}

type acquireAllArgs struct {
	keys   []*keys
	values []string
	lease  time.Duration
	margin time.Duration
}

type acquireAllReply struct {
	fences  []int64 // granted; nil: refused
	refused int     // which one
	left    time.Duration
	holder  string
}

func (n *single) acquireAll(ctx context.Context, a *acquireAllArgs) (acquireAllReply, error) {
	args := make([]any, 3, 5+3*len(a.keys))
	args[2] = 2 * len(a.keys)
	for _, k := range a.keys {
		args = append(args, k.lock, k.fence)
	}
	args = append(args, (a.lease + n.delay).Milliseconds(), a.margin.Milliseconds())
	for _, v := range a.values {
		args = append(args, v)
	}
	v, err := n.run(ctx, acquireAllScript, args)
	if err != nil {
		return acquireAllReply{}, err
	}
	if f, ok := v.([]any); ok && len(f) == 4 && f[0] == int64(0) {
		i, _ := f[1].(int64)
		left, _ := f[2].(int64)
		holder, _ := f[3].(string)
		if i < 1 || int(i) > len(a.keys) {
			return acquireAllReply{}, errReply("acquireall", v)
		}
		return acquireAllReply{refused: int(i) - 1, left: ms(left), holder: holder}, nil
	}
	fences, err := ints("acquireall", 1+len(a.keys))(v, nil)
	if err != nil {
		return acquireAllReply{}, err
	}
	return acquireAllReply{fences: fences[1:]}, nil
}

// raise lifts the fence, and reports whether the lock is still ours.
func (n *single) raise(ctx context.Context, k *keys, value string, fence int64, margin time.Duration) (bool, error) {
	v, err := n.run(ctx, raiseScript, []any{2: "2", 3: k.lock, 4: k.fence, 5: value, 6: fence, 7: margin.Milliseconds()})
	return v == int64(1), err
}

// discard takes back the vote for an acquire that failed.
func (n *single) discard(ctx context.Context, k *keys, value string) error {
	_, err := n.run(ctx, discardScript, []any{2: "1", 3: k.lock, 4: value})
	return err
}

type inspectReply struct {
	held    bool
	value   string // of the lock key; another program's may be ""
	left    time.Duration
	fence   int64
	waiters int
	queues  []string
}

func (n *single) inspect(ctx context.Context, k *keys) (inspectReply, error) {
	v, err := n.run(ctx, inspectScript, []any{2: "4", 3: k.lock, 4: k.fence, 5: k.line, 6: k.parked})
	if err != nil {
		return inspectReply{}, err
	}
	f, _ := v.([]any)
	if len(f) != 5 {
		return inspectReply{}, errReply("inspect", v)
	}
	var r inspectReply
	r.value, _ = f[0].(string)
	left, _ := f[1].(int64)
	r.held, r.left = left != -2, ms(left)
	fence, _ := f[2].(string)
	r.fence, _ = strconv.ParseInt(fence, 10, 64) // no fence, or not ours: 0
	waiters, _ := f[3].(int64)
	r.waiters = int(waiters)
	queues, _ := f[4].([]any)
	r.queues = texts(queues)
	return r, nil
}

// ms turns milliseconds of a reply into a duration; negative ones, which PTTL
// uses for "no expiry" and "no key", into -1. Another program's key may expire
// later than a duration reaches.
func ms(n int64) time.Duration {
	if n < 0 {
		return -1
	}
	return time.Duration(min(n, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

func texts(v []any) []string {
	if len(v) == 0 {
		return nil
	}
	out := make([]string, 0, len(v))
	for _, x := range v {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// replyError is an answer that none of the scripts gives: something else than
// Redis answered, or a script was changed.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError makes it a definite answer.
func (replyError) RedisError() {}

func errReply(op string, v any) error {
	return replyError(fmt.Sprintf("unexpected reply to %s: %T", op, v))
}

var _ redis.Error = replyError("")

// grant is what a release tells the waiter it gave the lock to.
type grant struct {
	key, value string
	fence      int64 // the last of the block
	server     int64 // the server's time then, in microseconds
	lease      time.Duration
	received   time.Time
}

var errGrant = errors.New("not a grant")

// parseGrant reads "fence server lease n keyvalue", n being the key's length.
func parseGrant(s string) (grant, error) {
	var num [4]int64
	for i := range num {
		field, rest, ok := strings.Cut(s, " ")
		n, err := strconv.ParseInt(field, 10, 64)
		if !ok || err != nil {
			return grant{}, errGrant
		}
		num[i], s = n, rest
	}
	if num[3] < 0 || num[3] > int64(len(s)) {
		return grant{}, errGrant
	}
	return grant{
		fence: num[0], server: num[1], lease: ms(num[2]),
		key: s[:num[3]], value: s[num[3]:],
	}, nil
}

// entryOf is the entry to stand in line with; prelude.lua reads it.
func entryOf(claim time.Duration, block int64, channel, value string) string {
	return fmt.Sprintf("%d %d %d %s%s", claim.Milliseconds(), block, len(channel), channel, value)
}
