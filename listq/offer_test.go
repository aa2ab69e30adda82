package listq_test

import (
	"context"
	"encoding"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
	"github.com/sidestep-go/sidestep/listq"
)

// pusher pushes to an idle queue, and offers what it pushes: a hook on its client.
type pusher struct {
	*listq.Queue
	sent  *redistest.Counter
	store atomic.Pointer[func() error] // what to do before an offered request is stored
	offer atomic.Pointer[func(send func() error, cmd redis.Cmder) error]
}

func (p *pusher) DialHook(next redis.DialHook) redis.DialHook { return next }

func (p *pusher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (p *pusher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		var err error
		store, offer := p.store.Load(), p.offer.Load()
		switch {
		case cmd.Name() == "lpush" && offer != nil:
			err = (*offer)(func() error { return next(ctx, cmd) }, cmd)
		case cmd.Name() != "lpush" && store != nil && slices.Contains(p.sent.Names(), "lpush"):
			err = (*store)()
			if err == nil {
				return next(ctx, cmd)
			}
		default:
			return next(ctx, cmd)
		}
		if err != nil {
			cmd.SetErr(err)
		}
		return err
	}
}

// idle starts a consumer and returns a pusher which knows that it is idle.
func idle(t *testing.T, rdb *redis.Client, cfg listq.ConsumeConfig, h listq.Handler) (p *pusher, stop func()) {
	t.Helper()
	return idleAs(t, rdb, listq.Config{}, cfg, h)
}

// idleAs is idle for a pusher of that Config.
func idleAs(t *testing.T, rdb *redis.Client, as listq.Config, cfg listq.ConsumeConfig, h listq.Handler) (p *pusher, stop func()) {
	t.Helper()
	own := redis.NewClient(rdb.Options())
	t.Cleanup(func() { own.Close() })
	p = &pusher{}
	p.sent = redistest.Count(own)
	own.AddHook(p)
	p.Queue = listq.New(own, "q", as)
	soon := func() error {
		time.Sleep(time.Microsecond) // on miniredis a pop takes what is pushed a moment later
		return nil
	}
	p.store.Store(&soon)
	stop = consume(t, listq.New(rdb, "q", listq.Config{}), cfg, h)
	synctest.Wait()
	push(t, p.Queue, &listq.Request{Task: "first"})
	synctest.Wait()
	time.Sleep(5 * time.Millisecond)
	p.sent.Reset()
	return p, stop
}

// names are those of the commands sent, without what a server is sent that does not know the
// script yet.
func (p *pusher) names() []string {
	return slices.DeleteFunc(slices.Clone(p.sent.Names()), func(n string) bool { return n == "eval" })
}

// held keeps offered requests from being stored until release is closed. An error of ctx
// ends that.
func (p *pusher) held(ctx context.Context) (release chan struct{}) {
	release = make(chan struct{})
	fn := func() error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.store.Store(&fn)
	return release
}

// background pushes a request, and returns what came of it.
func (p *pusher) background() (err chan error) {
	err = make(chan error, 1)
	go func() {
		n, e := p.Push(context.Background(), &listq.Request{Task: "second"})
		if e == nil && n != 1 {
			e = errors.New("it was not new")
		}
		err <- e
	}()
	return err
}

// The handler of a request that is pushed to an idle queue begins before the request is
// stored; if it is done by then, the request does not run again.
func TestOfferedRequestRunsBeforeItIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var runs atomic.Int32
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task == "second" {
				runs.Add(1)
				if d.Deliveries != 1 || d.Age() > time.Second || d.LeaseExpires().Before(time.Now()) {
					t.Errorf("delivered for the %dth time, %v old, leased until %v", d.Deliveries, d.Age(), d.LeaseExpires())
				}
			}
			return nil
		})
		release := p.held(t.Context())
		pushed := p.background()
		synctest.Wait()
		if n := rdb.HLen(t.Context(), p.Key()+"state").Val(); runs.Load() != 1 || n != 0 {
			t.Errorf("%d runs, and %d requests are stored, want one run of none", runs.Load(), n)
		}
		close(release)
		if err := <-pushed; err != nil {
			t.Fatal(err)
		}
		if got := p.names(); !slices.Equal(got, []string{"lpush", "evalsha"}) {
			t.Errorf("the push sent %q, want an offer and a script", got)
		}
		time.Sleep(time.Minute)
		if runs.Load() != 1 {
			t.Errorf("it ran %d times", runs.Load())
		}
		empty(t, rdb, p.Queue)
	})
}

// Whatever else becomes of a request that was offered begins with storing it: it is lost
// with nobody, though its pusher may be dead.
func TestOfferedRequestIsStoredByItsTaker(t *testing.T) {
	for name, tt := range map[string]struct {
		first func(ctx context.Context, d *listq.Delivery) error // of the handler
		want  [2]int                                             // its deliveries and attempts the second time
		stop  bool                                               // its consumer stops meanwhile
	}{
		"fails":    {func(context.Context, *listq.Delivery) error { return errors.New("boom") }, [2]int{2, 1}, false},
		"delayed":  {func(ctx context.Context, d *listq.Delivery) error { return d.Delay(ctx, time.Second, "later") }, [2]int{1, 0}, false},
		"requeued": {func(ctx context.Context, d *listq.Delivery) error { return d.Requeue(ctx) }, [2]int{1, 0}, false},
		"drained":  {func(ctx context.Context, _ *listq.Delivery) error { <-ctx.Done(); return ctx.Err() }, [2]int{1, 0}, true},
		"extended": {func(ctx context.Context, d *listq.Delivery) error {
			if err := d.Extend(ctx); err != nil {
				return err
			}
			return d.Requeue(ctx)
		}, [2]int{1, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := redistest.Mini(t)
				runs := make(chan *listq.Delivery, 2)
				handler := func(ctx context.Context, d *listq.Delivery) error {
					if d.Task == "first" {
						return nil
					}
					if runs <- d; len(runs) == 1 {
						return tt.first(ctx, d)
					}
					return nil
				}
				p, stop := idle(t, rdb, listq.ConsumeConfig{Workers: 2, DrainTimeout: time.Second, Backoff: after(time.Second)}, handler)
				ctx, die := context.WithCancel(t.Context())
				p.held(ctx)
				pushed := p.background()
				synctest.Wait()
				if tt.stop {
					stop()
					consume(t, listq.New(rdb, "q", listq.Config{}), listq.ConsumeConfig{Workers: 2}, handler)
				}
				time.Sleep(10 * time.Second)
				die()
				if err := <-pushed; err == nil {
					t.Error("the push succeeded, though what was to store it failed")
				}
				if len(runs) != 2 {
					t.Fatalf("it ran %d times, want 2", len(runs))
				}
				<-runs
				if d := <-runs; [2]int{d.Deliveries, d.Attempts} != tt.want {
					t.Errorf("then it was delivered for the %dth time, after %d attempts, want %v", d.Deliveries, d.Attempts, tt.want)
				}
				synctest.Wait()
				empty(t, rdb, p.Queue)
			})
		})
	}
}

// A handler that takes long keeps the request that was offered, stored or not.
func TestOfferIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var runs atomic.Int32
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(ctx context.Context, d *listq.Delivery) error {
			if d.Task == "first" {
				return nil
			}
			runs.Add(1)
			select {
			case <-time.After(2 * time.Minute):
			case <-ctx.Done():
				t.Errorf("its context ended: %v", context.Cause(ctx))
			}
			return nil
		})
		release := p.held(t.Context())
		pushed := p.background()
		time.Sleep(30 * time.Second)
		close(release)
		if err := <-pushed; err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if runs.Load() != 1 {
			t.Errorf("it ran %d times", runs.Load())
		}
		empty(t, rdb, p.Queue)
	})
}

// A caller whose context ends leaves a request that was offered to be stored all the same: it
// runs, and may fail.
func TestOfferIsStoredThoughItsCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		end := make(chan struct{})
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task == "second" {
				<-end
			}
			return nil
		})
		release := p.held(t.Context())
		ctx, leave := context.WithCancel(t.Context())
		pushed := make(chan error, 1)
		go func() {
			_, err := p.Push(ctx, &listq.Request{Task: "second"})
			pushed <- err
		}()
		synctest.Wait()
		leave()
		if err := <-pushed; !errors.Is(err, context.Canceled) || !errors.Is(err, script.ErrUnanswered) {
			t.Errorf("Push = %v, want that its context ended, and no answer", err)
		}
		close(release)
		synctest.Wait()
		if n := rdb.HLen(t.Context(), p.Key()+"state").Val(); n != 1 {
			t.Errorf("%d requests are stored, want the one that runs", n)
		}
		close(end)
		synctest.Wait()
		empty(t, rdb, p.Queue)
	})
}

// twice counts how often a handler runs, and at most at once.
type twice struct{ now, most, runs atomic.Int32 }

func (w *twice) run(d time.Duration) {
	w.runs.Add(1)
	w.most.Store(max(w.most.Load(), w.now.Add(1)))
	time.Sleep(d)
	w.now.Add(-1)
}

func (w *twice) check(t *testing.T, what string) {
	t.Helper()
	if w.runs.Load() != 1 {
		t.Errorf("%s: %d runs, %d at once", what, w.runs.Load(), w.most.Load())
	}
}

// Who pushes or schedules a request again, because its context ended before the offer was
// answered, or because it could not be stored, does not make it run beside itself.
func TestAgainWhatWasOffered(t *testing.T) {
	slow := func(send func() error, _ redis.Cmder) error {
		err := send()
		time.Sleep(200 * time.Millisecond)
		return err
	}
	failing := func() error { return redis.ErrPoolTimeout }
	push := func(ctx context.Context, p *pusher, r *listq.Request) error {
		_, err := p.Push(ctx, r)
		return err
	}
	schedule := func(ctx context.Context, p *pusher, r *listq.Request) error {
		e, err := p.Entry(r)
		if err == nil {
			_, _, err = p.Script().Schedule(ctx, e, script.In(0))
		}
		return err
	}
	for name, again := range map[string]func(context.Context, *pusher, *listq.Request) error{"push": push, "schedule": schedule} {
		for _, unanswered := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var runs twice
				p, _ := idle(t, redistest.Mini(t), listq.ConsumeConfig{Workers: 4}, func(_ context.Context, d *listq.Delivery) error {
					if d.Task == "second" {
						runs.run(500 * time.Millisecond)
					}
					return nil
				})
				if unanswered {
					p.offer.Store(&slow)
				} else {
					p.store.Store(&failing)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				r := &listq.Request{Task: "second"}
				if err := push(ctx, p, r); err == nil || r.ID == "" {
					t.Errorf("Push = %v, ID %q", err, r.ID)
				}
				if !unanswered {
					p.store.Store(nil)
				}
				if err := again(t.Context(), p, r); err != nil {
					t.Errorf("again: %v", err)
				}
				time.Sleep(time.Minute)
				runs.check(t, name)
			})
		}
	}
}

// A consumer that remembers no finished requests hears of no offers.
func TestForgetfulConsumerIsOfferedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		own := redis.NewClient(rdb.Options())
		defer own.Close()
		sent := redistest.Count(own)
		consume(t, listq.New(rdb, "q", listq.Config{Resend: -1}), listq.ConsumeConfig{Workers: 2}, nothing)
		q := listq.New(own, "q", listq.Config{})
		synctest.Wait()
		for range 3 {
			push(t, q, &listq.Request{})
			time.Sleep(5 * time.Millisecond)
		}
		if slices.Contains(sent.Names(), "lpush") {
			t.Errorf("%q were sent", sent.Names())
		}
	})
}

// on delays or refuses the scripts of a client.
type on func(cmd redis.Cmder) error

func (on) DialHook(next redis.DialHook) redis.DialHook { return next }

func (on) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook { return next }

func (fn on) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" && cmd.Name() != "eval" {
			return next(ctx, cmd)
		}
		if err := fn(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// Many handlers of requests that were offered keep their leases, though Redis is far.
func TestManyOffersAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		far := redis.NewClient(rdb.Options())
		defer far.Close()
		far.AddHook(on(func(redis.Cmder) error {
			time.Sleep(30 * time.Millisecond)
			return nil
		}))
		rdb.AddHook(on(func(redis.Cmder) error {
			time.Sleep(time.Microsecond)
			return nil
		}))
		sent := redistest.Count(rdb)
		var runs, lost atomic.Int32
		consume(t, listq.New(far, "q", listq.Config{}), listq.ConsumeConfig{Workers: 128}, func(ctx context.Context, d *listq.Delivery) error {
			if d.Task != "second" {
				return nil
			}
			runs.Add(1)
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				lost.Add(1)
			}
			return ctx.Err()
		})
		time.Sleep(time.Second)
		q := listq.New(rdb, "q", listq.Config{})
		push(t, q, &listq.Request{})
		time.Sleep(100 * time.Millisecond)
		sent.Reset()
		for range 100 {
			push(t, q, &listq.Request{Task: "second"})
			time.Sleep(4 * time.Millisecond)
		}
		offers := 0
		for _, name := range sent.Names() {
			if name == "lpush" {
				offers++
			}
		}
		time.Sleep(time.Minute)
		if runs.Load() != 100 || lost.Load() != 0 || offers < 50 {
			t.Errorf("%d offers, %d runs, %d contexts ended, want 100 and 0", offers, runs.Load(), lost.Load())
		}
	})
}

// storesOffer tells whether a command stores a request that was offered in a bubble.
func storesOffer(cmd redis.Cmder) bool {
	return slices.ContainsFunc(cmd.Args(), func(a any) bool {
		v, ok := a.(string)
		return ok && strings.HasPrefix(v, "lo9466") // its state, with the year 2000 in it
	})
}

// One request that cannot be stored costs no other its lease.
func TestOfferThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		own := redis.NewClient(rdb.Options())
		defer own.Close()
		var full atomic.Bool
		own.AddHook(on(func(cmd redis.Cmder) error {
			if full.Load() && storesOffer(cmd) {
				return errRefused
			}
			return nil
		}))
		var lost, runs atomic.Int32
		p, _ := idle(t, own, listq.ConsumeConfig{Workers: 4}, func(ctx context.Context, d *listq.Delivery) error {
			switch d.Task {
			case "long":
				runs.Add(1)
				select {
				case <-time.After(2 * time.Minute):
				case <-ctx.Done():
					lost.Add(1)
				}
			case "second":
				time.Sleep(time.Minute) // does not heed its context
			}
			return ctx.Err()
		})
		push(t, listq.New(rdb, "q", listq.Config{}), &listq.Request{Task: "long"})
		time.Sleep(50 * time.Second)
		push(t, p.Queue, &listq.Request{Task: "first"})
		time.Sleep(5 * time.Millisecond)
		full.Store(true)
		refuse := func() error { return errRefused }
		p.store.Store(&refuse)
		if err := <-p.background(); err == nil {
			t.Error("what could not be stored was accepted")
		}
		time.Sleep(3 * time.Minute)
		if lost.Load() != 0 || runs.Load() != 1 {
			t.Errorf("another lost its lease %d times, and ran %d times", lost.Load(), runs.Load())
		}
	})
}

// A handler finds its own request, and cancels it for good, though it may not be stored yet.
func TestOfferedRequestIsKnownToItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var runs twice
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2, Backoff: after(time.Second)}, func(ctx context.Context, d *listq.Delivery) error {
			if d.Task != "second" {
				return nil
			}
			runs.run(0)
			info, err := d.Queue().Get(ctx, d.ID)
			code, _, err2 := d.Queue().Script().Cancel(ctx, time.Minute, d.ID)
			if err != nil || info.Place != "leased" || err2 != nil || code != script.Done {
				t.Errorf("Get = %+v, %v; Cancel = %v, %v", info, err, code, err2)
			}
			return errors.New("never again")
		})
		release := p.held(t.Context())
		pushed := p.background()
		synctest.Wait()
		close(release)
		if err := <-pushed; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		runs.check(t, "cancelled by its handler")
		empty(t, rdb, p.Queue)
	})
}

// An offer that the server refuses is pushed at once, also where go-redis would send it
// again.
func TestReadOnlyServerRefusesAnOffer(t *testing.T) {
	srv := redistest.NewServer(t)
	rdb, own := srv.Client(t), redis.NewClient(srv.Client(t).Options())
	t.Cleanup(func() { own.Close() })
	p := &pusher{sent: redistest.Count(own)}
	own.AddHook(p)
	p.Queue = listq.New(own, "q", listq.Config{})
	ran := make(chan string, 3)
	consume(t, listq.New(rdb, "q", listq.Config{Poll: 10 * time.Second, Lease: 10 * time.Second}), listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
		ran <- d.Task
		return nil
	})
	listening(t, rdb, p.Queue)
	push(t, p.Queue, &listq.Request{Task: "first"})
	<-ran
	<-time.After(20 * time.Millisecond)
	p.sent.Reset()
	offer := func(send func() error, _ redis.Cmder) error {
		rdb.Do(t.Context(), "replicaof", "127.0.0.1", "1")
		defer rdb.Do(t.Context(), "replicaof", "no", "one")
		return send()
	}
	p.offer.Store(&offer)
	began := time.Now()
	push(t, p.Queue, &listq.Request{Task: "second"})
	if got := <-ran; got != "second" || time.Since(began) > 8*time.Second {
		t.Errorf("%q ran after %v, and not at once: %q", got, time.Since(began), p.names())
	}
}

// A pusher that is stopped for longer than finished requests are remembered does not store
// what it has offered: it may be done, and forgotten.
func TestOfferIsTooOldToBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		var runs twice
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task == "second" {
				runs.run(0)
			}
			return nil
		})
		stopped := func(send func() error, _ redis.Cmder) error {
			err := send()
			time.Sleep(10 * time.Minute)
			return err
		}
		p.offer.Store(&stopped)
		if err := <-p.background(); err == nil {
			t.Error("it was stored")
		}
		time.Sleep(time.Minute)
		runs.check(t, "stored late")
		empty(t, rdb, p.Queue)
	})
}

// Nor does who took it, and was stopped for as long.
func TestTakerThatWasStoppedStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		taker := redis.NewClient(rdb.Options())
		defer taker.Close()
		var stopped atomic.Bool
		taker.AddHook(on(func(redis.Cmder) error {
			if stopped.Load() {
				return redis.ErrPoolTimeout
			}
			return nil
		}))
		var runs atomic.Int32
		p, _ := idle(t, taker, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			if d.Task != "second" || runs.Add(1) > 1 {
				return nil
			}
			stopped.Store(true)
			time.Sleep(10 * time.Minute)
			stopped.Store(false)
			return errors.New("late")
		})
		if err := <-p.background(); err != nil || !stopped.Load() {
			t.Fatalf("Push = %v; its taker is at work: %v", err, stopped.Load())
		}
		consume(t, listq.New(rdb, "q", listq.Config{}), listq.ConsumeConfig{Workers: 2}, func(context.Context, *listq.Delivery) error {
			runs.Add(1)
			return nil
		})
		time.Sleep(20 * time.Minute)
		if runs.Load() != 2 {
			t.Errorf("it ran %d times, want twice: its first taker was stopped", runs.Load())
		}
		empty(t, rdb, p.Queue)
	})
}

// Who pushes a request again, because it could not be stored, does not make it run beside
// itself. What comes next is not offered.
func TestPushAgainOfWhatWasOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, more := range map[string][]*listq.Request{"by itself": nil, "with others": {{Task: "first"}}} {
			rdb := redistest.Mini(t)
			var runs atomic.Int32
			p, stop := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
				if d.Task == "second" {
					runs.Add(1)
					time.Sleep(time.Minute)
				}
				return nil
			})
			fail := func() error { return redis.ErrPoolTimeout }
			p.store.Store(&fail)
			r := &listq.Request{Task: "second"}
			if n, err := p.Push(t.Context(), r); err == nil || r.ID == "" {
				t.Errorf("%s: Push = %d, %v, with the ID %q; want an error", name, n, err, r.ID)
			}
			p.store.Store(nil)
			time.Sleep(5 * time.Millisecond)
			p.sent.Reset()
			push(t, p.Queue, &listq.Request{Task: "first"})
			if slices.Contains(p.sent.Names(), "lpush") {
				t.Errorf("%s: then %q were sent", name, p.sent.Names())
			}
			if n, err := p.Push(t.Context(), append(more, r)...); err != nil {
				t.Errorf("%s: again: %d, %v", name, n, err)
			}
			if n := rdb.LLen(t.Context(), p.Key()+"ready").Val(); n != 0 {
				t.Errorf("%s: %d requests are ready, while it runs", name, n)
			}
			time.Sleep(2 * time.Minute)
			if runs.Load() != 1 {
				t.Errorf("%s: it ran %d times", name, runs.Load())
			}
			empty(t, rdb, p.Queue)
			stop()
		}
	})
}

// What nobody takes is in ready when the push returns, and runs as soon as a worker is free.
func TestOfferThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		busy := make(chan struct{})
		ran := make(chan time.Time, 2)
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
			switch d.Task {
			case "busy":
				<-busy
			case "second":
				ran <- time.Now()
			}
			return nil
		})
		push(t, listq.New(rdb, "q", listq.Config{}), &listq.Request{Task: "busy"}, &listq.Request{Task: "busy"})
		synctest.Wait()
		rdb.RPush(t.Context(), p.Key()+"wake", "1") // ends the pop that was under way
		synctest.Wait()
		for n, offered := range []bool{true, false} {
			p.sent.Reset()
			if err := <-p.background(); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(p.sent.Names(), "lpush"); got != offered {
				t.Errorf("the %d. push sent %q, want an offer: %v", n+1, p.sent.Names(), offered)
			}
			if got := rdb.LLen(t.Context(), p.Key()+"ready").Val(); got != int64(n+1) {
				t.Errorf("%d requests are ready, want %d", got, n+1)
			}
			time.Sleep(5 * time.Millisecond)
		}
		freed := time.Now()
		close(busy)
		for range 2 {
			if late := (<-ran).Sub(freed); late > 10*time.Millisecond {
				t.Errorf("one ran %v after a worker was free", late)
			}
		}
		synctest.Wait()
		empty(t, rdb, p.Queue)
	})
}

// A worker by itself runs requests in the order in which they were pushed, so nothing is
// offered to it; nor by who must not run a request twice and remembers none, who named the
// request, or who pushed just before.
func TestNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			workers int
			as      listq.Config
			req     listq.Request
			after   time.Duration
			offers  bool
		}{
			"offered":     {2, listq.Config{}, listq.Request{}, 5 * time.Millisecond, true},
			"forgetful":   {2, listq.Config{Resend: -1}, listq.Request{}, 5 * time.Millisecond, false},
			"one worker":  {1, listq.Config{}, listq.Request{}, 5 * time.Millisecond, false},
			"named":       {2, listq.Config{}, listq.Request{ID: "a"}, 5 * time.Millisecond, false},
			"a lock":      {2, listq.Config{}, listq.Request{Lock: "k"}, 5 * time.Millisecond, false},
			"a max wait":  {2, listq.Config{}, listq.Request{MaxWait: time.Hour}, 5 * time.Millisecond, false},
			"no rest":     {2, listq.Config{}, listq.Request{}, time.Millisecond, false},
			"a long rest": {2, listq.Config{}, listq.Request{}, time.Minute, false}, // the answer says until when
		} {
			rdb := redistest.Mini(t)
			p, stop := idleAs(t, rdb, tt.as, listq.ConsumeConfig{Workers: tt.workers}, nothing)
			push(t, p.Queue, &listq.Request{Task: "first"})
			time.Sleep(tt.after)
			p.sent.Reset()
			push(t, p.Queue, &tt.req)
			if got := slices.Contains(p.sent.Names(), "lpush"); got != tt.offers {
				t.Errorf("%s: %q were sent, want an offer: %v", name, p.sent.Names(), tt.offers)
			}
			synctest.Wait()
			empty(t, rdb, p.Queue)
			stop()
		}
	})
}

// After requests of which some may be ready still, the next is not offered, and so comes
// behind them.
func TestNotOfferedAfterOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, nothing)
		push(t, p.Queue, &listq.Request{}, &listq.Request{})
		synctest.Wait()
		time.Sleep(5 * time.Millisecond)
		push(t, p.Queue, &listq.Request{})
		if slices.Contains(p.sent.Names(), "lpush") {
			t.Errorf("%q were sent", p.sent.Names())
		}
		synctest.Wait()
		empty(t, rdb, p.Queue)
	})
}

// An offer whose answer is lost is not sent again, and the request runs once: at once if the
// offer came, else when its lease has ended. If it is known that it did not come, it is pushed
// as any other.
func TestOfferIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			offer func(send func() error, cmd redis.Cmder) error
			late  time.Duration
			names []string // sent
		}{
			"its answer": {func(send func() error, _ redis.Cmder) error { return errors.Join(send(), io.EOF) }, 0, []string{"lpush", "evalsha"}},
			"refused by one node, and not sent to another": {func(_ func() error, cmd redis.Cmder) error {
				_, err := cmd.Args()[2].(encoding.BinaryMarshaler).MarshalBinary()
				cmd.SetErr(errRefused)
				return errors.Join(err, io.EOF)
			}, 0, []string{"lpush", "evalsha"}},
			"itself": {func(_ func() error, cmd redis.Cmder) error {
				_, err := cmd.Args()[2].(encoding.BinaryMarshaler).MarshalBinary()
				return errors.Join(err, io.EOF)
			}, 2 * time.Second, []string{"lpush", "evalsha"}},
			"refused":         {func(func() error, redis.Cmder) error { return errRefused }, 0, []string{"lpush", "evalsha"}},
			"written, and no": {func(send func() error, _ redis.Cmder) error { return errors.Join(send(), nil) }, 0, []string{"lpush", "evalsha"}},
		} {
			rdb := redistest.Mini(t)
			var runs atomic.Int32
			ran := make(chan time.Time, 5)
			p, stop := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, func(_ context.Context, d *listq.Delivery) error {
				if d.Task == "second" {
					runs.Add(1)
					ran <- time.Now()
				}
				return nil
			})
			p.offer.Store(&tt.offer)
			began := time.Now()
			if err := <-p.background(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if late := (<-ran).Sub(began); late < tt.late-10*time.Millisecond || late > tt.late+2500*time.Millisecond || tt.late == 0 && late > 10*time.Millisecond {
				t.Errorf("%s: it ran after %v, want %v", name, late, tt.late)
			}
			if got := p.names(); !slices.Equal(got, tt.names) {
				t.Errorf("%s: %q were sent, want %q", name, got, tt.names)
			}
			time.Sleep(time.Minute)
			if runs.Load() != 1 {
				t.Errorf("%s: it ran %d times", name, runs.Load())
			}
			empty(t, rdb, p.Queue)
			stop()
		}
	})
}

// A request that was offered and cannot be read is dead, like any other.
func TestOfferedPoisonIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redistest.Mini(t)
		p, _ := idle(t, rdb, listq.ConsumeConfig{Workers: 2}, nothing)
		h := script.Handed{
			Item:  script.Item{ID: "a", Body: "\x02", Deliveries: 1, Accepted: time.Now()},
			Token: "o1", Lease: time.Second,
		}
		if err := rdb.LPush(t.Context(), p.Key()+"wake", h.String()).Err(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := p.Script().Confirm(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if n := rdb.ZCard(t.Context(), p.Key()+"dead").Val(); n != 1 {
			t.Errorf("%d are dead, want one", n)
		}
	})
}
