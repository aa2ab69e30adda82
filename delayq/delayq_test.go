package delayq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// locks is a Looker over locks that tests set.
type locks struct {
	mu         sync.Mutex // guards the fields below
	held       map[string]time.Time
	registered []string
	looks      int
	err        error
}

func (l *locks) Look(_ context.Context, name, queue string) (time.Duration, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	if l.err != nil {
		return 0, false, l.err
	}
	left := time.Until(l.held[name])
	if left <= 0 {
		return 0, false, nil
	}
	l.registered = append(l.registered, queue)
	return left, true, nil
}

func (l *locks) hold(name string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[string]time.Time)
	}
	l.held[name] = time.Now().Add(d)
}

func (l *locks) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

// runs records when requests were run.
type runs struct {
	mu    sync.Mutex
	began time.Time
	ids   []string
	at    map[string]time.Duration
}

func newRuns() *runs { return &runs{began: time.Now(), at: make(map[string]time.Duration)} }

func (r *runs) handle(_ context.Context, d *listq.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, d.ID)
	r.at[d.ID] = time.Since(r.began)
	return nil
}

func (r *runs) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// restart makes the times count from now.
func (r *runs) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = time.Now()
}

// when returns when the request ran last.
func (r *runs) when(id string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[id]
}

// ranAt fails the test unless the request ran once, at that time or a few
// milliseconds later.
func (r *runs) ranAt(t testing.TB, id string, want time.Duration) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, other := range r.ids {
		if other == id {
			n++
		}
	}
	if got := r.at[id]; n != 1 || got < want || got > want+15*time.Millisecond {
		t.Errorf("%s ran %d times, last after %v, want once, after %v, up to 15ms later", id, n, got, want)
	}
}

func consume(t testing.TB, q *listq.Queue, cfg listq.ConsumeConfig, h listq.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := q.Consume(ctx, cfg, h); err != nil {
			t.Errorf("Consume = %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func claim(t testing.TB, q *listq.Queue) *listq.Delivery {
	t.Helper()
	c, err := q.Claim(context.Background(), 1)
	if err != nil || len(c.Deliveries) != 1 {
		t.Fatalf("Claim(1) = %+v, %v, want one delivery", c, err)
	}
	return c.Deliveries[0]
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestScheduledRequestsRunOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cfg := listq.Config{Poll: time.Hour}
		q := delayq.New(listq.New(rdb, "q", cfg))
		r := newRuns()
		for range 3 {
			consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{}, r.handle)
		}
		time.Sleep(10 * time.Second)
		r.restart()
		want := make(map[string]time.Duration)
		for i, d := range []time.Duration{0, 1, time.Millisecond, 1500 * time.Microsecond, time.Minute, 3 * time.Second, 2 * time.Second, 59 * time.Second, time.Hour} {
			id := fmt.Sprint(i)
			receipt := must(q.ScheduleIn(t.Context(), &listq.Request{ID: id}, d))(t)
			if early := receipt.Due.Sub(r.began); receipt.ID != id || receipt.Duplicate || early < d || early > d+2*time.Millisecond {
				t.Errorf("ScheduleIn(%v) = %+v, %v after now", d, receipt, early)
			}
			want[id] = d
		}
		at := r.began.Add(7*time.Second + 300*time.Microsecond)
		must(q.ScheduleAt(t.Context(), &listq.Request{ID: "at"}, at))(t)
		want["at"] = at.Sub(r.began)
		must(q.ScheduleAt(t.Context(), &listq.Request{ID: "past"}, at.Add(-time.Hour)))(t)
		want["past"] = 0
		must(q.ScheduleIn(t.Context(), &listq.Request{ID: "never"}, 1<<63-1))(t)
		time.Sleep(2 * time.Hour)
		for id, d := range want {
			r.ranAt(t, id, d)
		}
		if slices.Contains(r.list(), "never") {
			t.Error("a request due in 292 years has run")
		}
	})
}

// On a real server, too, requests run when they are due and not at the next poll,
// which comes in an hour; and never early.
func TestScheduledRequestsRunOnTimeOnRedis(t *testing.T) {
	rdb := redistest.Real(t)
	cfg := listq.Config{Poll: time.Hour}
	q := delayq.New(listq.New(rdb, "q", cfg))
	const n = 20
	var all sync.WaitGroup
	all.Add(n)
	var mu sync.Mutex
	due, late := make(map[string]time.Time), []time.Duration{}
	consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{}, func(_ context.Context, d *listq.Delivery) error {
		defer all.Done()
		mu.Lock()
		defer mu.Unlock()
		late = append(late, time.Since(due[d.ID]))
		return nil
	})
	for i := range n {
		mu.Lock()
		r := must(q.ScheduleIn(t.Context(), &listq.Request{}, time.Duration(i*20+50)*time.Millisecond))(t)
		due[r.ID] = r.Due
		mu.Unlock()
	}
	all.Wait()
	slices.Sort(late)
	t.Logf("lateness: least %v, median %v, most %v", late[0], late[n/2], late[n-1])
	if late[0] < 0 {
		t.Errorf("a request ran %v early", -late[0])
	}
}

// The timekeeper dies: the others notice within their poll.
func TestDeadTimekeeperCostsAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		cfg := listq.Config{Poll: 2 * time.Second}
		q := delayq.New(listq.New(rdb, "q", cfg))
		r := newRuns()
		must(q.ScheduleIn(t.Context(), &listq.Request{ID: "a"}, 30*time.Second))(t)
		if c, err := listq.New(rdb, "q", cfg).Claim(t.Context(), 0); err != nil || c.Wait != 30*time.Second {
			t.Fatalf("Claim(0) = %+v, %v, want a wait of 30s", c, err) // has the clock, and dies
		}
		consume(t, listq.New(rdb, "q", cfg), listq.ConsumeConfig{}, r.handle)
		time.Sleep(time.Minute)
		if at := r.when("a"); at < 30*time.Second || at > 32*time.Second {
			t.Errorf("after the timekeeper's death, the request ran after %v, want 30s to 32s", at)
		}
	})
}

func TestRunMovesWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		list := listq.New(rdb, "q", listq.Config{})
		q := delayq.New(list)
		var l locks
		l.hold("k", 20*time.Second)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		must(q.ScheduleIn(ctx, &listq.Request{ID: "due"}, 5*time.Second))(t)
		must(q.Park(ctx, &listq.Request{ID: "parked", Lock: "k"}, time.Second))(t)
		go func() { done <- delayq.New(listq.New(rdb, "q", listq.Config{})).Run(ctx, &l, nil) }()
		ready := func() []string { return rdb.LRange(ctx, list.Key()+"ready", 0, -1).Val() }
		time.Sleep(5*time.Second - time.Millisecond)
		if got := ready(); len(got) != 0 {
			t.Errorf("ready = %v, want none yet", got)
		}
		time.Sleep(6 * time.Millisecond)
		if got := ready(); !slices.Equal(got, []string{"due"}) {
			t.Errorf("ready = %v, want the request that is due", got)
		}
		time.Sleep(14*time.Second + 980*time.Millisecond)
		if got := ready(); !slices.Equal(got, []string{"due"}) {
			t.Errorf("ready = %v, want no promotion while the lock is held", got)
		}
		time.Sleep(40 * time.Millisecond)
		if got := ready(); !slices.Equal(got, []string{"parked", "due"}) {
			t.Errorf("ready = %v, want the parked request at the head when the lock has expired", got)
		}
		if n := l.count(); n != 2 {
			t.Errorf("the probe looked %d times, want twice: when it was due, and when the lock's TTL had passed", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

// Deferred requests of one lock stand in line and leave it in order, one turn
// each, at their release, not when a delay has passed.
func TestParkedRequestsLeaveInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		list := listq.New(rdb, "q", listq.Config{Poll: time.Hour})
		q := delayq.New(list)
		var l locks
		l.hold("k", time.Hour)
		const n = 10
		var want []string
		for i := range n {
			id := fmt.Sprint(i)
			want = append(want, id)
			if r := must(q.Park(t.Context(), &listq.Request{ID: id, Lock: "k"}, time.Minute))(t); r.Duplicate {
				t.Errorf("Park(%s) is a duplicate", id)
			}
			if err := q.Register(t.Context(), &l, "k"); err != nil {
				t.Errorf("Register = %v", err)
			}
		}
		if l.registered[0] != list.Key() {
			t.Errorf("registered %q, want the queue's key %q", l.registered[0], list.Key())
		}
		r := newRuns()
		consume(t, list, listq.ConsumeConfig{Workers: 4, Probe: func(ctx context.Context, lock string) { _ = q.Probe(ctx, &l, lock) }},
			func(ctx context.Context, d *listq.Delivery) error {
				time.Sleep(5 * time.Millisecond)
				if d.Deliveries != 1 || d.Deferrals != 1 {
					t.Errorf("%s: Deliveries=%d Deferrals=%d, want 1 and 1", d.ID, d.Deliveries, d.Deferrals)
				}
				return r.handle(ctx, d)
			})
		time.Sleep(10 * time.Second)
		if got := r.list(); len(got) != 0 {
			t.Fatalf("%v ran while the lock was held", got)
		}
		l.hold("k", 0)
		r.restart()
		if err := delayq.HintKey(t.Context(), rdb, list.Key(), "k"); err != nil {
			t.Errorf("HintKey = %v", err)
		}
		time.Sleep(time.Second)
		if got := r.list(); !slices.Equal(got, want) {
			t.Errorf("order = %v, want %v", got, want)
		}
		if at := r.when(want[n-1]); at > n*8*time.Millisecond {
			t.Errorf("%d turns of 5ms took %v", n, at)
		}
	})
}

// The lock is freed between the refusal and the parking: registering finds it
// free and promotes.
func TestRegisterClosesTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := listq.New(redistest.Mini(t), "q", listq.Config{})
		q := delayq.New(list)
		r := newRuns()
		consume(t, list, listq.ConsumeConfig{}, r.handle)
		must(q.Park(t.Context(), &listq.Request{ID: "a", Lock: "k"}, time.Hour))(t)
		if err := q.Register(t.Context(), new(locks), "k"); err != nil {
			t.Errorf("Register = %v", err)
		}
		time.Sleep(time.Second)
		r.ranAt(t, "a", 0)
		if err := q.Register(t.Context(), &locks{err: errors.New("away")}, "k"); err == nil || !strings.Contains(err.Error(), "away") {
			t.Errorf("Register with a failing look = %v", err)
		}
	})
}

// A holder that nobody hears of: the probe looks, comes back when the TTL has
// passed, at least once a minute, and costs the requests nothing.
func TestProbeLooksBeforeItPromotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := listq.New(redistest.Mini(t), "q", listq.Config{Poll: time.Hour})
		q := delayq.New(list)
		var l locks
		l.hold("k", 10*time.Minute)
		r := newRuns()
		consume(t, list, listq.ConsumeConfig{Probe: func(ctx context.Context, lock string) {
			if err := q.Probe(ctx, &l, lock); err != nil {
				t.Errorf("Probe = %v", err)
			}
		}}, func(ctx context.Context, d *listq.Delivery) error {
			if d.Deliveries != 1 || d.Deferrals != 1 {
				t.Errorf("Deliveries=%d Deferrals=%d, want 1 and 1: a probe costs nothing", d.Deliveries, d.Deferrals)
			}
			return r.handle(ctx, d)
		})
		must(q.Park(t.Context(), &listq.Request{ID: "a", Lock: "k"}, 5*time.Second))(t)
		time.Sleep(4 * time.Second)
		if n := l.count(); n != 0 {
			t.Errorf("the probe looked %d times before it was due", n)
		}
		time.Sleep(3 * time.Minute)
		l.hold("k", 0) // as a foreign client does that announces nothing
		freed := time.Since(r.began)
		time.Sleep(10 * time.Minute)
		if n := l.count(); n > 6 {
			t.Errorf("the probe looked %d times in 4 minutes, want about one a minute", n)
		}
		if at := r.when("a"); at < freed || at > freed+61*time.Second {
			t.Errorf("the request ran after %v, want within a minute of the release at %v", at, freed)
		}
	})
}

func TestMaxWaitAndDeferrals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dead := make(map[string]string)
		list := listq.New(redistest.Mini(t), "q", listq.Config{Hooks: listq.Hooks{Dead: func(_ context.Context, e listq.DeadEvent) {
			mu.Lock()
			defer mu.Unlock()
			dead[e.ID] = fmt.Sprint(e.Reason, " ", time.Now().Unix())
		}}})
		q := delayq.New(list)
		var l locks
		l.hold("k", time.Hour)
		begun := time.Now()
		must(q.Park(t.Context(), &listq.Request{ID: "waits", Lock: "k", MaxWait: 90 * time.Second}, time.Second))(t)
		must(q.ScheduleIn(t.Context(), &listq.Request{ID: "meets"}, 0))(t)
		consume(t, list, listq.ConsumeConfig{Probe: func(ctx context.Context, lock string) { _ = q.Probe(ctx, &l, lock) }},
			func(ctx context.Context, d *listq.Delivery) error {
				if d.ID == "waits" {
					t.Error("a request ran whose lock is held")
				}
				return q.DelayDelivery(ctx, d, 10*time.Second, 3)
			})
		time.Sleep(5 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for id, want := range map[string]string{
			"waits": fmt.Sprint("max wait ", begun.Unix()+90), "meets": fmt.Sprint("deferrals ", begun.Unix()+30),
		} {
			if dead[id] != want {
				t.Errorf("%s is dead with %q, want %q", id, dead[id], want)
			}
		}
	})
}

// By id: wherever a request is, and whatever it waits for.
func TestByID(t *testing.T) {
	for _, place := range []string{"ready", "delayed", "parked", "leased", "dead", "gone", "unknown"} {
		t.Run(place, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
				list := listq.New(rdb, "q", listq.Config{})
				q := delayq.New(list)
				ctx := t.Context()
				put := func(id string) *listq.Delivery {
					r := &listq.Request{ID: id, Lock: "lock of " + id}
					switch place {
					case "ready", "leased", "dead", "gone":
						must(list.Push(ctx, r))(t)
					case "delayed":
						must(q.ScheduleIn(ctx, r, time.Hour))(t)
					case "parked":
						must(q.Park(ctx, r, time.Hour))(t)
					}
					if place == "ready" || place == "delayed" || place == "parked" || place == "unknown" {
						return nil
					}
					d := claim(t, list)
					switch place {
					case "dead":
						must(0, d.Bury(ctx, "why"))(t)
					case "gone":
						must(0, d.Ack(ctx))(t)
					}
					return d
				}
				waits := place == "ready" || place == "delayed" || place == "parked"
				refusal := delayq.ErrRunning
				if place == "gone" || place == "unknown" {
					refusal = delayq.ErrUnknown
				}

				d := put("cancel")
				if ok, err := q.Cancel(ctx, "cancel"); err != nil || ok != errors.Is(refusal, delayq.ErrRunning) {
					t.Errorf("Cancel = %v, %v", ok, err)
				}
				if place == "leased" {
					if err := d.Extend(ctx); !errors.Is(err, listq.ErrStale) {
						t.Errorf("Extend of a cancelled request = %v, want ErrStale", err)
					}
				}

				put("later")
				r, err := q.Reschedule(ctx, "later", time.Minute)
				if waits && (err != nil || r.ID != "later" || time.Until(r.Due) < 50*time.Second) {
					t.Errorf("Reschedule = %+v, %v, want it due in a minute", r, err)
				}
				if !waits && !errors.Is(err, refusal) {
					t.Errorf("Reschedule = %v, want %v", err, refusal)
				}

				put("now")
				_, err = q.Promote(ctx, "now")
				if waits {
					if got := claim(t, list).ID; err != nil || got != "now" {
						t.Errorf("Promote = %v, and claimed %q", err, got)
					}
				} else if !errors.Is(err, refusal) {
					t.Errorf("Promote = %v, want %v", err, refusal)
				}
				if c, err := list.Claim(ctx, 10); err != nil || len(c.Deliveries) != 0 {
					t.Errorf("Claim = %+v, %v, want nothing else to do", c.Deliveries, err)
				}
			})
		})
	}
}

// What is due later than a time.Duration reaches is due all the same.
func TestDueInCenturies(t *testing.T) {
	for _, year := range []int{2400, 5000, 9999} {
		redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
			list := listq.New(rdb, "q", listq.Config{})
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			must(delayq.New(list).ScheduleAt(t.Context(), &listq.Request{}, at))(t)
			if c, err := list.Claim(t.Context(), 0); err != nil || c.Wait < 290*365*24*time.Hour {
				t.Errorf("%d: Wait = %v, %v, want three centuries", year, c.Wait, err)
			}
		})
	}
}

func TestDuplicates(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		list := listq.New(rdb, "q", listq.Config{})
		q := delayq.New(list)
		ctx := t.Context()
		first := must(q.ScheduleIn(ctx, &listq.Request{ID: "a", Lock: "k"}, time.Hour))(t)
		if first.Duplicate {
			t.Error("the first ScheduleIn is a duplicate")
		}
		for name, fn := range map[string]func() (delayq.Receipt, error){
			"ScheduleIn": func() (delayq.Receipt, error) { return q.ScheduleIn(ctx, &listq.Request{ID: "a"}, 0) },
			"ScheduleAt": func() (delayq.Receipt, error) { return q.ScheduleAt(ctx, &listq.Request{ID: "a"}, time.Now()) },
			"Park":       func() (delayq.Receipt, error) { return q.Park(ctx, &listq.Request{ID: "a", Lock: "k"}, 0) },
		} {
			if r, err := fn(); err != nil || !r.Duplicate || r.ID != "a" {
				t.Errorf("%s of a known id = %+v, %v, want a duplicate", name, r, err)
			}
		}
		if c, err := list.Claim(ctx, 10); err != nil || len(c.Deliveries) != 0 {
			t.Errorf("Claim = %+v, %v, want nothing: it is due in an hour", c.Deliveries, err)
		}
	})
}

func TestRoundTrips(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		list := listq.New(rdb, "q", listq.Config{})
		q := delayq.New(list)
		ctx := t.Context()
		var l locks
		l.hold("k", time.Hour)
		count := redistest.Count(rdb)
		checking := false // the first round loads the scripts
		for round := range 2 {
			checking = round == 1
			id := func(s string) string { return fmt.Sprint(s, round) }
			for _, step := range []struct {
				name string
				want int
				do   func() error
			}{
				{"ScheduleIn", 1, func() error { _, err := q.ScheduleIn(ctx, &listq.Request{ID: id("a")}, time.Hour); return err }},
				{"Reschedule", 1, func() error { _, err := q.Reschedule(ctx, id("a"), time.Minute); return err }},
				{"Cancel", 1, func() error { _, err := q.Cancel(ctx, id("a")); return err }},
				{"Park", 1, func() error { _, err := q.Park(ctx, &listq.Request{ID: id("b"), Lock: "k"}, time.Hour); return err }},
				{"Register with a held lock, besides the look", 0, func() error { return q.Register(ctx, &l, "k") }},
				{"Probe of a held lock, besides the look", 1, func() error { return q.Probe(ctx, &l, "k") }},
				{"Hint", 1, func() error { return q.Hint(ctx, "k") }},
				{"Claim", 1, func() error { _, err := list.Claim(ctx, 0); return err }},
			} {
				count.Reset()
				if err := step.do(); err != nil {
					t.Fatalf("%s = %v", step.name, err)
				}
				if got := count.RoundTrips(); checking && got != step.want {
					t.Errorf("%s took %d round trips, want %d: %v", step.name, got, step.want, count.Names())
				}
			}
			rdb.FlushDB(ctx)
		}
	})
}

func TestInvalidArguments(t *testing.T) {
	rdb := redistest.Mini(t)
	list := listq.New(rdb, "q", listq.Config{})
	q := delayq.New(list)
	ctx := t.Context()
	must(list.Push(ctx, &listq.Request{ID: "a"}, &listq.Request{ID: "b", Lock: "k"}))(t)
	free, locked := claim(t, list), claim(t, list)
	count := redistest.Count(rdb)
	r := &listq.Request{ID: "x", Lock: "k"}
	for want, fn := range map[string]func() error{
		"delay is negative (-1ns)":        func() error { _, err := q.ScheduleIn(ctx, r, -1); return err },
		"delay is negative (-2ns)":        func() error { _, err := q.Park(ctx, r, -2); return err },
		"delay is negative (-3ns)":        func() error { _, err := q.Reschedule(ctx, "x", -3); return err },
		"delay is negative (-4ns)":        func() error { return q.ParkDelivery(ctx, locked, -4, 0) },
		"delay is negative (-5ns)":        func() error { return q.DelayDelivery(ctx, free, -5, 0) },
		"delay is negative (-6ns)":        func() error { _, err := q.Delay(ctx, r, -6); return err },
		"the year 9999":                   func() error { _, err := q.ScheduleAt(ctx, r, time.Unix(1<<61, 0)); return err },
		"nil request":                     func() error { _, err := q.ScheduleIn(ctx, nil, 0); return err },
		"park in \"q\": invalid":          func() error { _, err := q.Park(ctx, nil, 0); return err },
		"names no lock":                   func() error { _, err := q.Park(ctx, &listq.Request{}, 0); return err },
		"the request names no lock":       func() error { return q.ParkDelivery(ctx, free, 0, 0) },
		"cancel: invalid argument: empty": func() error { _, err := q.Cancel(ctx, ""); return err },
		"\"m\" for \"q\": invalid":        func() error { return q.Register(ctx, nil, "m") },
		"\"n\" for \"q\": invalid":        func() error { return q.Probe(ctx, nil, "n") },
		"\"o\" in x: invalid":             func() error { return delayq.HintKey(ctx, nil, "x", "o") },
		"id \"\\n\"":                      func() error { _, err := q.Promote(ctx, "\n"); return err },
	} {
		if err := fn(); !errors.Is(err, listq.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want ErrInvalid with %q", err, want)
		}
	}
	if count.Commands() != 0 {
		t.Errorf("invalid arguments were sent to Redis: %v", count.Names())
	}
	defer func() {
		if recover() == nil {
			t.Error("New(nil) did not panic")
		}
	}()
	delayq.New(nil)
}

// While Redis is out of memory, what is there can still be rescheduled.
func TestRescheduleWithoutMemory(t *testing.T) {
	t.Parallel()
	rdb := redistest.NewServer(t).Client(t)
	q := listq.New(rdb, "q", listq.Config{})
	if _, err := q.Push(t.Context(), &listq.Request{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := delayq.New(q).Reschedule(t.Context(), "a", time.Hour); err != nil {
		t.Errorf("Reschedule of a ready request = %v", err)
	}
}
