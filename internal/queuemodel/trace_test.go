package queuemodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/keys"
	"github.com/sidestep-go/sidestep/internal/redistest"
	lua "github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/lock"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// walks are cases to walk through at random: more happens in them than can be
// checked in all states.
var walks = []Case{
	{
		Requests: with(on(1, 1, 2, 0), 2, scheduled), Hands: true, Callers: []Caller{outsider(2), {Lock: 2}}, Exchange: true,
		Faults: Faults{Failures: 2, Leases: 2, Drains: 2, Overdue: 1, Claims: 2},
	},
	{
		Requests: with(with(on(1, 1, 1, 1), 3, deferred), 4, deferred), Callers: []Caller{defers(3), {Lock: 1, Request: 4, Again: 1}}, Exchange: true,
		Faults: Faults{Failures: 1, Leases: 1, TTLs: 1, Resends: 2, Claims: 1, Deaths: 1, Hints: 1, Tokens: 1},
	},
	{
		Requests: with(on(1, 1, 1, 2), 2, poison), Hands: true, Callers: []Caller{outsider(3)},
		Faults: Faults{Cancels: 2, Operations: 3, Overdue: 2, Resends: 2, Leases: 2, Deaths: 1},
	},
	{
		Requests: with(on(0, 0, 0, 0), 4, poison), Offers: true, Exchange: true,
		Faults: Faults{Failures: 1, Leases: 1, Drains: 1, Resends: 1},
	},
	{
		Requests: with(on(1, 1, 1), 3, scheduled), Callers: []Caller{outsider(2)}, Strict: true,
		Faults: Faults{Failures: 3, Leases: 2, TTLs: 1, Cancels: 1, Resends: 2, Drains: 1},
	},
}

// Walks of the model, played on the scripts of internal/script and the locks of
// package lock: they answer what the model says, and after each step the keys
// hold what the model's state says. Of two steps that are possible the one is taken
// that was less often.
func TestTheScriptsDoWhatTheModelDoes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		seen := map[string]int{}
		steps, n := 0, 60
		var pushes [2]int
		switch {
		case *long:
			n = 2000
		case raceEnabled:
			n = 20
		}
		began := time.Now()
		for seed := range uint64(n) {
			p := newPlayer(t, rdb, walks[seed%uint64(len(walks))], seed)
			steps += p.walk(rand.New(rand.NewPCG(seed, 1)), seen)
			p.end()
			pushes[0], pushes[1] = pushes[0]+p.pushes[0], pushes[1]+p.pushes[1]
		}
		t.Logf("%d walks, %d steps in %v: %v", n, steps, time.Since(began).Round(time.Millisecond), seen)
		for _, x := range append(Scripts(), "try", "look", "release", "pop", "lose", "expire", "offer") {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(k string) bool { return strings.HasPrefix(k, x+" ") }) {
				t.Errorf("%s was never played", x)
			}
		}
		if pushes[0] == 0 || pushes[1] == 0 {
			t.Errorf("requests without a lock were pushed by pushone and by push %v times, want both", pushes)
		}
	})
}

// What the model calls a script is one, and it leaves out no others than these.
func TestTheModelHasAllScripts(t *testing.T) {
	left := []string{
		"prelude", // what they share
		"pushone", // push for one request, by the same rules: the walks play both
		"extend",  // a lease has not ended: nothing to tell apart
		"rearm",   // a probe's time; the walks play it
		"yield",   // in the clock's model
	}
	files, err := filepath.Glob("../script/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".lua"))
	}
	want := append(Scripts(), left...)
	slices.Sort(want)
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("internal/script has %q, the model and its exceptions %q", names, want)
	}
	for _, f := range []string{"acquire", "look", "release"} {
		if _, err := os.Stat("../../lock/" + f + ".lua"); err != nil {
			t.Errorf("the model has %s of the lock: %v", f, err)
		}
	}
}

// player plays the calls of a walk on real keys.
type player struct {
	t      *testing.T
	c      Case
	seed   uint64
	rdb    *redis.Client
	q      *lua.Queue
	locker *lock.Locker
	log    []string

	locks  map[uint8]*lock.Lock  // by actor
	values map[uint8]string      // of the lock's key, by actor
	number [workers + 1]int64    // of each worker's last claim for a slot
	leases map[[2]uint8]string   // the real token, by request and the model's token
	late   func() error          // the command that runs once more
	delay  time.Duration         // of what is delayed next: always sooner than all before
	pushes [2]int                // of requests without a lock: by pushone, by push
	offers int                   // made
	handed map[string]lua.Handed // by their tokens
	window time.Duration         // for which finished requests are remembered
	ctx    context.Context
}

func newPlayer(t *testing.T, rdb *redis.Client, c Case, seed uint64) *player {
	ctx := context.Background()
	if err := rdb.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	return &player{
		t: t, c: c, seed: seed, rdb: rdb, q: lua.New(rdb, keys.Of(keys.Base("t:", "q"))),
		locker: lock.New(rdb, lock.Config{Prefix: "l:", TTL: time.Hour}),
		locks:  map[uint8]*lock.Lock{}, values: map[uint8]string{}, leases: map[[2]uint8]string{}, handed: map[string]lua.Handed{},
		delay: 1000 * time.Hour, window: 10_000 * time.Hour, ctx: ctx,
	}
}

func (p *player) end() {
	if err := p.locker.Close(); err != nil {
		p.t.Error(err)
	}
}

func (p *player) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("walk %d: %s\nthe steps:\n%s", p.seed, fmt.Sprintf(format, args...), strings.Join(p.log, "\n"))
}

// sooner is a delay that makes what waits for it the first that is due, so that
// its script says so with a token.
func (p *player) sooner() time.Duration {
	p.delay -= time.Hour
	return p.delay
}

// walk plays steps until nothing is left to do, and returns how many.
func (p *player) walk(rnd *rand.Rand, seen map[string]int) int {
	m := &model{c: &p.c, record: true}
	s := m.first()
	for n := 0; ; n++ {
		m.next(&s)
		var can []step
		for _, st := range m.steps {
			if p.playable(&st) {
				can = append(can, st)
			}
		}
		if len(can) == 0 || n == 150 {
			return n
		}
		st := can[rnd.IntN(len(can))]
		if other := can[rnd.IntN(len(can))]; seen[kind(&other)] < seen[kind(&st)] {
			st = other
		}
		seen[kind(&st)]++
		p.log = append(p.log, st.label)
		if bad := m.violation(&s, &st); bad != "" {
			p.fail("%s", bad)
		}
		for _, c := range st.calls {
			if err := p.play(&c, &s, &st.state); err != nil {
				p.fail("%s: %v", c.Script, err)
			}
		}
		p.compare(m, &st.state)
		s = st.state
	}
}

// kind is what of a step counts as seen before.
func kind(st *step) string {
	if len(st.calls) == 0 {
		return "local"
	}
	c := st.calls[0]
	out := fmt.Sprintf("%s %v", c.Script, c.OK)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{" due", c.Due.id != 0},
		{" probe", c.Due.probe != 0},
		{" lease", c.Due.lease != 0},
		{" overdue", c.Overdue},
		{" hand", c.Hand},
		{" again", c.Again},
		{" offered", c.Token >= offers},
		{" got", c.Got != 0},
		{" ack", c.Script == "claim" && c.ID != 0},
	} {
		if f.set {
			out += f.name
		}
	}
	return out
}

// playable leaves out what needs a longer list than the model has, and a late
// reschedule that applies again: its time is no longer the first.
func (p *player) playable(st *step) bool {
	if strings.HasPrefix(st.wrong, "bound") {
		return false
	}
	for _, c := range st.calls {
		if c.Again && c.Script == "reschedule" && c.OK {
			return false
		}
		if c.Overdue && c.Due.lease != 0 && p.spent(c.Due.lease) < 1 {
			return false
		}
	}
	return true
}

func id(i uint8) string { return strconv.Itoa(int(i)) }

// spent is how many of a request's deliveries ended in neither failure nor
// conflict.
func (p *player) spent(i uint8) int {
	s, _, _, err := p.q.Get(p.ctx, id(i))
	if err != nil {
		p.fail("%v", err)
	}
	return s.Deliveries - s.Attempts - s.Deferrals
}

// play makes one call and compares its answer. before and after are the model's
// states.
func (p *player) play(c *Call, before, after *state) error {
	want := func(ok bool, err error) error {
		if err == nil && ok != c.OK && c.Script != "promote" && c.Script != "offered" && !c.Again {
			err = fmt.Errorf("applied: %v, the model says %v", ok, c.OK)
		}
		return err
	}
	switch c.Script {
	case "pop", "lose":
		v, err := p.rdb.LPop(p.ctx, p.q.Keys().Wake()).Result()
		if err == nil && (v != "1") != c.Hand {
			err = fmt.Errorf("%q came out of wake, in the model a request: %v", v, c.Hand)
		}
		return err
	case "expire":
		return p.rdb.Del(p.ctx, "l:"+name(c.Lock)).Err()
	case "try":
		lk, err := p.locker.TryAcquire(p.ctx, name(c.Lock))
		if errors.Is(err, lock.ErrLocked) {
			return want(false, nil)
		}
		if p.locks[c.Actor] = lk; err == nil {
			p.values[c.Actor] = p.rdb.Get(p.ctx, "l:"+name(c.Lock)).Val()
		}
		return want(true, err)
	case "release":
		lk := p.locks[c.Actor]
		err := lk.Release(p.ctx)
		return want(slices.Contains(lk.Reported(), p.q.Keys().Base()), err)
	case "look":
		_, held, err := p.locker.Look(p.ctx, name(c.Lock), p.q.Keys().Base())
		if err == nil && held {
			err = p.q.Rearm(p.ctx, name(c.Lock), 2000*time.Hour)
		}
		return want(held, err)
	}
	if c.Overdue {
		if err := p.age(before, after); err != nil {
			return err
		}
	}
	if c.Again {
		return p.late()
	}
	if c.Script == "offer" {
		return p.offer(c)
	}
	run := p.command(c)
	if c.Keep {
		p.late = func() error {
			_, err := run()
			return err
		}
	}
	ok, err := run()
	if over := after.over[0]; c.Script == "push" && over.id == c.ID && before.over[0].id != c.ID && err == nil {
		s, _, _, err := p.q.Get(p.ctx, id(over.id))
		if err != nil {
			return err
		}
		p.leases[[2]uint8{over.id, over.token}] = s.Token
	}
	if c.Script == "claim" && c.Got != 0 {
		p.leases[[2]uint8{c.Got, after.token[c.Got]}] = p.feed(c).Token(p.number[c.Actor])
	}
	return want(ok, err)
}

// offer offers a request; with Keep, later.
func (p *player) offer(c *Call) error {
	if c.Again {
		return p.late()
	}
	p.offers++
	h := lua.Handed{
		Item:  lua.Item{ID: id(c.ID), Body: "body " + id(c.ID), Deliveries: 1, Accepted: time.Now()},
		Token: "o" + strconv.Itoa(p.offers), Lease: p.sooner(),
	}
	p.leases[[2]uint8{c.ID, c.Token}] = h.Token
	p.handed[h.Token] = h
	run := func() error { return p.rdb.LPush(p.ctx, p.q.Keys().Wake(), h.String()).Err() }
	if c.Keep {
		p.late = run
		return nil
	}
	return run()
}

// age makes whoever dies in a step too old.
func (p *player) age(before, after *state) error {
	for i := uint8(1); i <= maxIDs; i++ {
		if before.place[i] != parked || after.place[i] != dead {
			continue
		}
		key := p.q.Keys().State()
		packed := p.rdb.HGet(p.ctx, key, id(i)).Val()
		s, err := lua.ParseState(packed)
		if err != nil {
			return err
		}
		old := strings.Replace(packed, "|"+ms(s.Accepted)+"|", "|"+ms(s.Accepted.Add(-2*s.MaxWait))+"|", 1)
		if old == packed {
			return fmt.Errorf("%q does not hold %s: the form of a state has changed", packed, ms(s.Accepted))
		}
		return p.rdb.HSet(p.ctx, key, id(i), old).Err()
	}
	return nil
}

func ms(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func (p *player) feed(c *Call) *lua.Feed {
	return &lua.Feed{Feeder: "w" + id(c.Actor), Lease: p.sooner(), ProbeAgain: p.sooner()}
}

// command is the call as it is sent, the second time too.
func (p *player) command(c *Call) func() (applied bool, err error) {
	l := lua.Lease{ID: id(c.ID), Token: p.leases[[2]uint8{c.ID, c.Token}]}
	e := lua.Entry{ID: id(c.ID), Body: "body " + id(c.ID), MaxWait: 5000 * time.Hour}
	if c.ID != 0 && c.ID <= uint8(len(p.c.Requests)) {
		if k := p.c.Requests[c.ID-1].Lock; k != 0 {
			e.Lock = name(k)
		}
	}
	if e.Lock == "" { // pushone takes it if it is alone
		e.MaxWait = 0
	}
	entries := []lua.Entry{e}
	if e.Lock == "" && p.seed/uint64(len(walks))%2 == 1 {
		entries = append(entries, e) // which changes nothing
	}
	delay := p.sooner()
	done := func(code lua.Code, err error) (bool, error) { return code == lua.Done, err }
	switch c.Script {
	case "push":
		lease := p.sooner()
		return func() (bool, error) {
			idle := "0 0"
			if c.Hand {
				idle = fmt.Sprintf("%d %d", time.Now().Add(1000*time.Hour).UnixMilli(), lease.Milliseconds())
			}
			if err := p.rdb.HSet(p.ctx, p.q.Keys().Meta(), "idle", idle).Err(); err != nil {
				return false, err
			}
			if e.Lock == "" {
				p.pushes[len(entries)-1]++
			}
			codes, err := p.q.Push(p.ctx, entries)
			return err == nil && codes[0] == lua.Done, err
		}
	case "offered":
		h := p.handed[l.Token]
		return func() (bool, error) { return c.OK, p.q.Confirm(p.ctx, h) }
	case "schedule":
		return func() (bool, error) {
			code, _, err := p.q.Schedule(p.ctx, e, lua.In(delay))
			return done(code, err)
		}
	case "parknew":
		return func() (bool, error) {
			code, _, err := p.q.ParkNew(p.ctx, e, lua.In(delay))
			return done(code, err)
		}
	case "ack":
		return func() (bool, error) {
			codes, _, _, err := p.q.Ack(p.ctx, p.window, []lua.Lease{l})
			return err == nil && codes[0] == lua.Done, err
		}
	case "nack":
		return func() (bool, error) {
			code, _, err := p.q.Nack(p.ctx, l, delay, lua.Attempt, 0, p.c.Strict, "it failed")
			return done(code, err)
		}
	case "park":
		return func() (bool, error) {
			code, _, err := p.q.Park(p.ctx, l, delay, 0)
			return done(code, err)
		}
	case "bury":
		return func() (bool, error) {
			code, _, err := p.q.Bury(p.ctx, l, "poison")
			return done(code, err)
		}
	case "requeue":
		return func() (bool, error) {
			codes, err := p.q.Requeue(p.ctx, []lua.Lease{l})
			return err == nil && codes[0] == lua.Done, err
		}
	case "promote":
		return func() (bool, error) {
			code, _, err := p.q.Promote(p.ctx, name(c.Lock))
			return done(code, err)
		}
	case "cancel":
		return func() (bool, error) {
			code, _, err := p.q.Cancel(p.ctx, p.window, e.ID)
			return done(code, err)
		}
	case "reschedule":
		return func() (bool, error) {
			code, _, _, err := p.q.Reschedule(p.ctx, e.ID, lua.In(delay), "rescheduled")
			return done(code, err)
		}
	case "revive":
		return func() (bool, error) {
			code, err := p.q.Revive(p.ctx, e.ID, "revived")
			return done(code, err)
		}
	}
	return p.claim(c, l)
}

// claim makes due what is to be due, and claims.
func (p *player) claim(c *Call, l lua.Lease) func() (applied bool, err error) {
	f := p.feed(c)
	if c.N > 0 {
		p.number[c.Actor]++
	}
	number := p.number[c.Actor]
	k, due := p.q.Keys(), redis.Z{Score: 1}
	key := k.Delayed()
	switch {
	case c.Due.id != 0:
		due.Member = id(c.Due.id)
	case c.Due.probe != 0:
		due.Member = "\x00" + name(c.Due.probe)
	case c.Due.lease != 0:
		if key, due.Member = k.Leased(), id(c.Due.lease); c.Overdue {
			f.MaxDeliveries = p.spent(c.Due.lease)
		}
	}
	if due.Member != nil {
		if n, err := p.rdb.ZAddArgs(p.ctx, key, redis.ZAddArgs{XX: true, Ch: true, Members: []redis.Z{due}}).Result(); err != nil || n != 1 {
			p.fail("%q is not there to be due (%v)", due.Member, err)
		}
	}
	var acks []lua.Lease
	if c.ID != 0 {
		acks = append(acks, l)
	}
	first := true
	return func() (bool, error) {
		got, err := p.q.Exchange(p.ctx, f, number, c.N, p.window, acks, false)
		if err != nil || !first {
			return c.OK, err
		}
		first = false
		var ids, looks []string
		for _, it := range got.Items {
			ids = append(ids, it.ID)
		}
		if c.Got != 0 {
			ids, looks = slices.DeleteFunc(ids, func(s string) bool { return s == id(c.Got) }), nil
			if len(got.Items) != 1 {
				return false, fmt.Errorf("claimed %+v, the model %d", got.Items, c.Got)
			}
		}
		if c.Look != 0 {
			looks = []string{name(c.Look)}
		}
		if len(ids) > 0 || !slices.Equal(got.Probes, looks) {
			return false, fmt.Errorf("claimed %+v, the model %d; to look at %q, the model %q", got.Items, c.Got, got.Probes, looks)
		}
		return len(got.Acked) == 1 && got.Acked[0] == lua.Done, nil
	}
}

// compare reads all keys.
func (p *player) compare(m *model, s *state) {
	p.t.Helper()
	k := p.q.Keys()
	pipe := p.rdb.Pipeline()
	list, held, states := pipe.LRange(p.ctx, k.Ready(), 0, -1), pipe.HGetAll(p.ctx, k.Held()), pipe.HGetAll(p.ctx, k.State())
	bodies, wake := pipe.HKeys(p.ctx, k.Msg()), pipe.LRange(p.ctx, k.Wake(), 0, -1)
	sets := map[string]*redis.StringSliceCmd{}
	for key, n := range map[string]string{k.Delayed(): "delayed", k.Parked(): "parked", k.Leased(): "leased", k.Dead(): "dead"} {
		sets[n] = pipe.ZRange(p.ctx, key, 0, -1)
	}
	finished := pipe.SUnion(p.ctx, k.Gone(), k.Past())
	var values [maxLocks + 1]*redis.StringCmd
	for i := range values {
		values[i] = pipe.Get(p.ctx, "l:"+name(uint8(i)))
	}
	if _, err := pipe.Exec(p.ctx); err != nil && !errors.Is(err, redis.Nil) {
		p.fail("read the keys: %v", err)
	}
	same := func(what string, got, want []string) {
		p.t.Helper()
		if slices.Sort(got); !slices.Equal(got, want) {
			p.fail("%s is %q, in the model %q", what, got, want)
		}
	}
	members := func(z set) (out []string) {
		for i := uint8(1); i <= maxIDs; i++ {
			if z.has(i) {
				out = append(out, id(i))
			}
		}
		return out
	}
	var ready []string
	for _, i := range s.list {
		if i != 0 {
			ready = append(ready, id(i))
		}
	}
	if !slices.Equal(list.Val(), ready) {
		p.fail("ready is %q, in the model %q", list.Val(), ready)
	}
	due := members(s.inDelayed)
	for i := uint8(1); i <= maxLocks; i++ {
		if s.probe.has(i) {
			due = append(due, "\x00"+name(i))
		}
	}
	slices.Sort(due)
	same("delayed", sets["delayed"].Val(), due)
	var line []string // by lock and place in line
	for i := range uint8(maxLocks + 1) {
		var ids []uint8
		for j := uint8(1); j <= m.ids(); j++ {
			if s.inParked.has(j) && m.lock(j) == i {
				ids = append(ids, j)
			}
		}
		slices.SortFunc(ids, func(a, b uint8) int { return int(s.seq[a]) - int(s.seq[b]) })
		for _, j := range ids {
			line = append(line, id(j))
		}
	}
	var stands []string
	for _, member := range sets["parked"].Val() {
		stands = append(stands, member[strings.LastIndexByte(member, 0)+1:])
	}
	if !slices.Equal(stands, line) {
		p.fail("parked is %q, in the model %q", stands, line)
	}
	same("leased", sets["leased"].Val(), members(s.inLeased))
	same("dead", sets["dead"].Val(), members(s.inDead))
	same("gone and past", finished.Val(), members(s.gone))
	same("msg", bodies.Val(), members(s.msg))
	p.compareWake(s, wake.Val())
	turns := map[string]string{}
	for i := uint8(1); i <= maxLocks; i++ {
		if s.held[i] != 0 {
			turns[name(i)] = id(s.held[i])
		}
	}
	if !maps.Equal(held.Val(), turns) {
		p.fail("held is %q, in the model %q", held.Val(), turns)
	}
	p.compareStates(m, s, states.Val())
	for i := uint8(1); i <= maxLocks; i++ {
		p.compareLock(s, i, values[i].Val())
	}
}

// compareWake compares what stands in wake: a request that is handed over, then the
// token.
func (p *player) compareWake(s *state, wake []string) {
	p.t.Helper()
	var want []string
	for _, h := range s.over {
		if h.id != 0 {
			want = append(want, id(h.id)+" "+p.leases[[2]uint8{h.id, h.token}])
		}
	}
	if s.wake != 0 {
		want = append(want, "token")
	}
	var got []string
	for _, v := range wake {
		h, ok, err := lua.ParseHanded(v)
		switch {
		case err != nil:
			p.fail("%v", err)
		case ok:
			got = append(got, h.ID+" "+h.Token)
		default:
			got = append(got, "token")
		}
	}
	if !slices.Equal(got, want) {
		p.fail("wake is %q, in the model %q", got, want)
	}
}

func (p *player) compareStates(m *model, s *state, packed map[string]string) {
	p.t.Helper()
	var real [maxIDs + 1]lua.State
	for i := uint8(1); i <= maxIDs; i++ {
		v, ok := packed[id(i)]
		if ok != (s.place[i] != nowhere) {
			p.fail("there is a state of %d: %v, in the model it is %v", i, ok, s.place[i])
		}
		if !ok {
			continue
		}
		var err error
		if real[i], err = lua.ParseState(v); err != nil {
			p.fail("%v", err)
		}
		if real[i].Place != s.place[i].String() {
			p.fail("%d is %s, in the model %v", i, real[i].Place, s.place[i])
		}
		if want := p.leases[[2]uint8{i, s.token[i]}]; s.place[i] == leased && real[i].Token != want {
			p.fail("%d is leased to %s, in the model to %s", i, real[i].Token, want)
		}
	}
	for i := range real {
		for j := range real {
			if s.seq[i] != 0 && s.seq[j] != 0 && (real[i].Seq < real[j].Seq) != (s.seq[i] < s.seq[j]) {
				p.fail("the places of %d and %d in line are %d and %d, in the model %d and %d", i, j, real[i].Seq, real[j].Seq, s.seq[i], s.seq[j])
			}
		}
		if (real[i].Seq == 0) != (s.seq[i] == 0) {
			p.fail("the place of %d in line is %d, in the model %d", i, real[i].Seq, s.seq[i])
		}
	}
}

func (p *player) compareLock(s *state, k uint8, value string) {
	p.t.Helper()
	h := s.holder[k]
	if (value == "") != (h == 0) || h != 0 && h != ghost && value != p.values[h] {
		p.fail("lock %s is %q, in the model %s holds it", name(k), value, who(h))
	}
	st, err := p.locker.Inspect(p.ctx, name(k))
	if err != nil {
		p.fail("%v", err)
	}
	if told := slices.Contains(st.Queues, p.q.Keys().Base()); told != s.registered.has(k) {
		p.fail("the queue is registered on %s: %v, in the model %v", name(k), told, s.registered.has(k))
	}
}
