package batch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// item is what the tests send: a name, and how often it was sent.
type item struct {
	name string
	sent atomic.Int32
}

// desk is a room and what came out of it.
type desk struct {
	*Room[*item]
	hold func(names []string) // is called by each exchange of several

	mu      sync.Mutex // guards the field below
	batches [][]string
}

func newDesk(limit int, leaves bool) *desk {
	d := &desk{}
	d.Room = New(d.serve, func(it *item) int { return len(it.name) }, limit, leaves)
	return d
}

func (d *desk) serve(_ context.Context, items []*item) {
	var names []string
	for _, it := range items {
		it.sent.Add(1)
		names = append(names, it.name)
	}
	d.mu.Lock()
	d.batches = append(d.batches, names)
	d.mu.Unlock()
	if d.hold != nil {
		d.hold(names)
	}
}

// sent returns what was sent at once so far.
func (d *desk) sent() [][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([][]string(nil), d.batches...)
}

// pass sends an item as callers do, and reports whether with others. alone is how
// long that takes otherwise.
func (d *desk) pass(ctx context.Context, it *item, alone time.Duration) (together bool, err error) {
	x, ok := d.Enter()
	if !ok {
		if x, together, err = d.Join(ctx, it); together || err != nil {
			return together, err
		}
	}
	defer d.Leave(x)
	it.sent.Add(1)
	time.Sleep(alone) // of a bubble's time, or none
	return false, nil
}

// fill takes all the room there is. What it returns gives it back.
func (d *desk) fill(t *testing.T) (leave func()) {
	t.Helper()
	var all []Exchange
	for {
		x, ok := d.Enter()
		if !ok {
			break
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		t.Fatal("there is no room at all")
	}
	return func() {
		for _, x := range all {
			d.Leave(x)
		}
	}
}

// hang takes all the room there is, as fill does, and holds up what is sent with others
// until answer is closed.
func (d *desk) hang(t *testing.T) (answer chan struct{}, leave func()) {
	t.Helper()
	answer = make(chan struct{})
	d.hold = func([]string) { <-answer }
	return answer, d.fill(t)
}

// join sends an item that meets a full room, and waits until it stands in line.
func (d *desk) join(t *testing.T, ctx context.Context, name string) (result chan error) {
	t.Helper()
	result = make(chan error, 1)
	it := &item{name: name}
	go func() {
		_, err := d.pass(ctx, it, 0)
		if n := it.sent.Load(); err == nil && n != 1 {
			err = fmt.Errorf("%s was sent %d times", name, n)
		}
		result <- err
	}()
	synctest.Wait()
	return result
}

// joinAll puts a, b and c in line, of which one has the given context.
func (d *desk) joinAll(t *testing.T, ctx context.Context, who int) (results []chan error) {
	t.Helper()
	for i, name := range []string{"a", "b", "c"} {
		if i != who {
			results = append(results, d.join(t, t.Context(), name))
			continue
		}
		results = append(results, d.join(t, ctx, name))
	}
	return results
}

func want(t *testing.T, d *desk, batches ...[]string) {
	t.Helper()
	if got := d.sent(); !reflect.DeepEqual(got, batches) {
		t.Errorf("sent at once: %v, want %v", got, batches)
	}
}

func TestWhoIsAloneSendsByItself(t *testing.T) {
	d := newDesk(100, false)
	for range 100 {
		if together, err := d.pass(t.Context(), &item{name: "a"}, 0); together || err != nil {
			t.Fatalf("sent with others: %v, %v", together, err)
		}
	}
	want(t, d)
	if n := testing.AllocsPerRun(100, func() {
		x, _ := d.Enter()
		d.Leave(x)
	}); n != 0 {
		t.Errorf("Enter and Leave allocate %v times", n)
	}
}

// Who comes while the room is full is sent when an exchange ends, with all others
// that wait, in order.
func TestWhoWaitsIsSentWithTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		leave := d.fill(t)
		var results []chan error
		for _, name := range []string{"a", "b", "c"} {
			results = append(results, d.join(t, t.Context(), name))
		}
		want(t, d)
		leave()
		for _, r := range results {
			if err := <-r; err != nil {
				t.Error(err)
			}
		}
		want(t, d, []string{"a", "b", "c"})
		if d.under != 0 || len(d.line) != 0 {
			t.Errorf("%d under way and %d in line, want none", d.under, len(d.line))
		}
	})
}

// One that waits alone sends by itself when its turn comes.
func TestALoneWaiterSendsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		leave := d.fill(t)
		r := d.join(t, t.Context(), "a")
		leave()
		if err := <-r; err != nil {
			t.Error(err)
		}
		want(t, d)
	})
}

// Few that come while many are under way wait for more, or for the end of an exchange;
// one by itself, and as many as go with what is under way, do not.
func TestFewDoNotGoBesideMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		answer, leave := d.hang(t)
		var results []chan error
		come := func(names ...string) {
			for _, name := range names {
				results = append(results, d.join(t, t.Context(), name))
			}
		}
		many := []string{"a", "b", "c", "d", "e", "f"}
		come(many...)
		leave()
		synctest.Wait()
		come("g", "h", "i", "j", "k")
		want(t, d, many)
		come("l")
		as := []string{"g", "h", "i", "j", "k", "l"}
		want(t, d, many, as)
		come("m", "n")
		close(answer)
		for i, r := range results {
			if err := <-r; err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		want(t, d, many, as, []string{"m", "n"})
		if d.under != 0 || d.items != 0 || d.fresh != 0 {
			t.Errorf("%d exchanges of %d items under way, want none", d.under, d.items)
		}
	})
}

func TestWhatIsSentAtOnceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(4, false)
		leave := d.fill(t)
		var results []chan error
		for _, name := range []string{"aa", "b", "cc", "dddddd", "e", "f"} { // d is over the limit by itself
			results = append(results, d.join(t, t.Context(), name))
		}
		leave()
		for _, r := range results {
			if err := <-r; err != nil {
				t.Error(err)
			}
		}
		for _, names := range d.sent() {
			if n := len(fmt.Sprint(names)) - len(names) - 1; n > 4 {
				t.Errorf("sent at once: %v, of the weight %d, want at most 4", names, n)
			}
		}
		if len(d.sent()) == 0 {
			t.Error("nothing was sent at once")
		}
	})
}

// Exchanges that never end hold up the others for the patience of the first in
// line, each time.
func TestNobodyIsStuckBehindAnExchangeThatHangs(t *testing.T) {
	const wait = 5 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		d.fill(t) // for ever
		for i := range 3 {
			began := time.Now()
			a, b := d.join(t, t.Context(), "a"), d.join(t, t.Context(), "b")
			for _, r := range []chan error{a, b} {
				if err := <-r; err != nil {
					t.Error(err)
				}
			}
			if d := time.Since(began); d != wait {
				t.Errorf("round %d: sent after %v, want %v", i, d, wait)
			}
		}
		hung := make(chan struct{})
		d.hold = func([]string) { <-hung }
		a, b := d.join(t, t.Context(), "a"), d.join(t, t.Context(), "b")
		time.Sleep(wait)
		synctest.Wait() // both hang
		d.hold = nil
		began := time.Now()
		if err := <-d.join(t, t.Context(), "c"); err != nil || time.Since(began) != wait {
			t.Errorf("c: %v after %v, want it sent after %v", err, time.Since(began), wait)
		}
		close(hung)
		<-a
		<-b
	})
}

// The end of a caller's context takes its own item out of line, and touches no
// other, wherever that caller stands.
func TestAContextEndsNothingOfOthers(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		for who := range 3 {
			t.Run(fmt.Sprintf("in line, leaves %v, caller %d", leaves, who), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDesk(100, leaves)
					leave := d.fill(t)
					ctx, cancel := context.WithCancel(t.Context())
					results := d.joinAll(t, ctx, who)
					cancel()
					if err := <-results[who]; !errors.Is(err, context.Canceled) {
						t.Errorf("caller %d: %v, want that its context ended", who, err)
					}
					leave()
					for i, r := range results {
						if i == who {
							continue
						}
						if err := <-r; err != nil {
							t.Errorf("caller %d: %v", i, err)
						}
					}
					names := []string{"a", "b", "c"}
					want(t, d, append(names[:who:who], names[who+1:]...))
				})
			})
			t.Run(fmt.Sprintf("under way, leaves %v, caller %d", leaves, who), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDesk(100, leaves)
					answer := make(chan struct{})
					var under context.Context
					d.Room.send = func(ctx context.Context, items []*item) {
						under = ctx
						d.serve(ctx, items)
						<-answer
					}
					leave := d.fill(t)
					ctx, cancel := context.WithCancel(t.Context())
					results := d.joinAll(t, ctx, who)
					leave()
					synctest.Wait() // sent
					cancel()
					synctest.Wait()
					if err := under.Err(); err != nil {
						t.Errorf("the context of what is under way: %v", err)
					}
					left := false
					select {
					case err := <-results[who]:
						left = true
						if !errors.Is(err, context.Canceled) {
							t.Errorf("caller %d: %v, want that its context ended", who, err)
						}
						results[who] <- nil
					default:
					}
					if want := leaves && who > 0; left != want { // the first sends for all
						t.Errorf("caller %d has left: %v, want %v", who, left, want)
					}
					close(answer)
					for i, r := range results {
						if err := <-r; err != nil {
							t.Errorf("caller %d: %v", i, err)
						}
					}
				})
			})
		}
	}
}

// A caller whose context ends in the moment in which it is to send for the others
// does that.
func TestWhoIsToSendForOthersDoes(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(100, true)
			leave := d.fill(t)
			ctx, cancel := context.WithCancel(t.Context())
			a, b, c := d.join(t, ctx, "a"), d.join(t, t.Context(), "b"), d.join(t, t.Context(), "c")
			cancel() // which it has not seen yet
			leave()
			if err := <-a; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a: %v", err)
			}
			for _, r := range []chan error{b, c} {
				if err := <-r; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A hook of the client that panics while it sends for several ends its own
// caller: the others get an error, and the room goes on.
func TestAPanicLosesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		d.hold = func([]string) { panic("hook") }
		leave := d.fill(t)
		panicked := make(chan any)
		go func() {
			defer func() { panicked <- recover() }()
			_, _ = d.pass(t.Context(), &item{name: "a"}, 0)
		}()
		synctest.Wait()
		b, c := d.join(t, t.Context(), "b"), d.join(t, t.Context(), "c")
		leave()
		if v := <-panicked; v != "hook" {
			t.Errorf("who sent recovered %v, want its panic", v)
		}
		for _, r := range []chan error{b, c} {
			if err := <-r; !errors.Is(err, ErrLost) {
				t.Errorf("of the others: %v, want %v", err, ErrLost)
			}
		}
		if d.under != 0 {
			t.Errorf("%d under way after the panic, want none", d.under)
		}
		d.hold = nil
		if _, err := d.pass(t.Context(), &item{name: "d"}, 0); err != nil {
			t.Error(err)
		}
	})
}

// Where an exchange takes long because the way is, waiting for one to end would
// cost more than it saves: as many go at once as make the wait one step.
func TestAFarServerHasMoreRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		for _, c := range []struct {
			after, way time.Duration // since the last, and of an exchange
			room       int
		}{
			{0, step / 2, least},
			{3 * window, time.Millisecond, least}, // the window before counts as well
			{3 * window, time.Millisecond, least + int(time.Millisecond/step)},
			{0, 10 * time.Millisecond, least + int(time.Millisecond/step)}, // a slow answer says nothing
			{0, 100 * time.Microsecond, least + int(100*time.Microsecond/step)},
			{3 * window, 10 * time.Millisecond, least + int(100*time.Microsecond/step)},
			{3 * window, 10 * time.Millisecond, least + int(10*time.Millisecond/step)}, // it has moved away
		} {
			time.Sleep(c.after)
			if _, err := d.pass(t.Context(), &item{name: "a"}, c.way); err != nil {
				t.Fatal(err)
			}
			if d.room != c.room {
				t.Errorf("after an exchange of %v there is room for %d, want %d", c.way, d.room, c.room)
			}
		}
	})
}

// Many callers, some of which give up: each item is sent once, or not at all if
// its caller was told so, and the room is empty in the end.
func TestManyCallers(t *testing.T) {
	d := newDesk(16, true)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 300 {
				it := &item{name: "x"}
				ctx, cancel := context.WithCancel(t.Context())
				if rand.N(4) == 0 {
					time.AfterFunc(rand.N(50*time.Microsecond), cancel)
				}
				_, err := d.pass(ctx, it, 0)
				if n := it.sent.Load(); n > 1 || err == nil && n != 1 {
					t.Errorf("sent %d times: %v", n, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if d.under != 0 || len(d.line) != 0 {
		t.Errorf("%d under way and %d in line, want none", d.under, len(d.line))
	}
}

// A server that is far by now, after a failover perhaps, is found out though no item goes
// by itself any more.
func TestANearServerThatIsFarNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(func(context.Context, []int) {}, func(int) int { return 1 }, 128, false)
		exchange := func(items int, way time.Duration) {
			r.mu.Lock()
			x := r.enter(items)
			r.mu.Unlock()
			time.Sleep(way)
			r.Leave(x)
		}
		for _, tt := range []struct {
			items int
			way   time.Duration
			room  int
		}{{1, 30 * time.Microsecond, 2}, {4, 2 * time.Millisecond, 41}, {4, 30 * time.Microsecond, 2}} {
			for end := time.Now().Add(3 * window); time.Now().Before(end); {
				exchange(tt.items, tt.way)
			}
			if r.room != tt.room {
				t.Errorf("room for %d exchanges at a server %v away, want %d", r.room, tt.way, tt.room)
			}
		}
	})
}

// A large exchange that hangs costs the first of the others its patience, and not each.
func TestOneThatHangsCostsNotEachItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100, false)
		answer, leave := d.hang(t)
		var results []chan error
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			results = append(results, d.join(t, t.Context(), name))
		}
		leave()
		synctest.Wait() // all hang
		d.hold = nil
		began := time.Now()
		for range 100 {
			if _, err := d.pass(t.Context(), &item{name: "g"}, 40*time.Microsecond); err != nil {
				t.Error(err)
			}
		}
		if took, want := time.Since(began), patience+100*40*time.Microsecond; took != want {
			t.Errorf("100 by themselves beside six that hang took %v, want %v", took, want)
		}
		close(answer)
		for i, r := range results {
			if err := <-r; err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if d.under != 0 || d.fresh != 0 || d.items != 0 {
			t.Errorf("%d under way, %d of them fresh, with %d items; want none", d.under, d.fresh, d.items)
		}
	})
}
