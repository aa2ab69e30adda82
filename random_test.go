package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/retry"
)

// witness watches sections: none of a key overlap, and fences grow.
type witness struct {
	mu       sync.Mutex
	inside   map[string]string
	fences   map[string]int64
	sections int
	problems []string
}

func newWitness() *witness {
	return &witness{inside: make(map[string]string), fences: make(map[string]int64)}
}

func (w *witness) enter(lk *lock.Lock, who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sections++
	key := lk.Name()
	if other := w.inside[key]; other != "" {
		w.problems = append(w.problems, fmt.Sprintf("%s: %s entered while %s was inside", key, who, other))
	}
	if lk.Fence() <= w.fences[key] {
		w.problems = append(w.problems, fmt.Sprintf("%s: %s has fence %d after %d", key, who, lk.Fence(), w.fences[key]))
	}
	w.inside[key], w.fences[key] = who, lk.Fence()
}

func (w *witness) leave(lk *lock.Lock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside[lk.Name()] = ""
}

// Several processes' worth of Acquirers, each with goroutines that make direct
// calls by all policies and with workers, contend for a few locks.
func TestRandomCallsExcludeEachOther(t *testing.T) {
	both(t, func(t *testing.T, rdb *redis.Client) {
		const processes, goroutines, calls, locks = 4, 4, 60, 3
		w := newWitness()
		var mu sync.Mutex
		ranBy := make(map[string]int) // request id → runs
		accepted := make(map[string]bool)
		var direct, refused, hooked int
		work := func(lk *lock.Lock, who string) {
			w.enter(lk, who)
			<-time.After(rand.N(3 * time.Millisecond))
			w.leave(lk)
		}
		type process struct {
			acq  *sidestep.Acquirer
			task *sidestep.Task[int]
		}
		var procs []process
		for p := range processes {
			c := another(t, rdb)
			acq := newAcquirer(t, c, sidestep.Config{Hooks: sidestep.Hooks{Deferred: func(context.Context, sidestep.DeferredEvent) {
				mu.Lock()
				defer mu.Unlock()
				hooked++
			}}})
			q := sidestep.NewQueue(acq, c, "q", sidestep.QueueConfig{Workers: 3})
			task := sidestep.NewTask(q, "t", func(v int) string { return fmt.Sprint("k", v%locks) },
				func(ctx context.Context, lk *lock.Lock, v int) error {
					id := sidestep.RequestFrom(ctx).ID
					work(lk, id)
					mu.Lock()
					defer mu.Unlock()
					ranBy[id]++
					return nil
				}, sidestep.WhenLocked(sidestep.Defer(time.Duration(p+1)*100*time.Millisecond)))
			start(t, q)
			procs = append(procs, process{acq, task})
		}
		var wg sync.WaitGroup
		for p, proc := range procs {
			for g := range goroutines {
				wg.Go(func() {
					for i := range calls {
						v := rand.N(100)
						id := fmt.Sprintf("%d-%d-%d", p, g, i)
						policies := []sidestep.Policy{
							sidestep.Fail(),
							sidestep.RetryFor(rand.N(50 * time.Millisecond)),
							sidestep.Retry(retry.Limit(retry.FullJitter(time.Millisecond, 10*time.Millisecond), 5)),
							sidestep.Defer(rand.N(time.Second)),
							sidestep.Defer(rand.N(time.Second)).NotBefore(),
							sidestep.RetryFor(rand.N(5 * time.Millisecond)).Then(sidestep.Defer(rand.N(time.Second))),
						}
						switch k := rand.N(len(policies) + 2); k {
						case len(policies):
							if _, err := proc.task.Enqueue(t.Context(), v, sidestep.WithID(id)); err != nil {
								t.Errorf("Enqueue = %v", err)
							}
							mu.Lock()
							accepted[id] = true
							mu.Unlock()
						case len(policies) + 1:
							err := proc.acq.Do(t.Context(), fmt.Sprint("k", v%locks), sidestep.RetryFor(time.Minute), func(_ context.Context, lk *lock.Lock) error {
								work(lk, id)
								return nil
							})
							if err != nil {
								t.Errorf("Do = %v", err)
							}
							mu.Lock()
							direct++
							mu.Unlock()
						default:
							out, err := proc.task.Do(t.Context(), v, policies[k], sidestep.WithID(id))
							mu.Lock()
							switch {
							case errors.Is(err, sidestep.ErrLocked) && k < 3:
								refused++
							case err != nil:
								t.Errorf("Do(%v) = %v", policies[k], err)
							default:
								accepted[id] = true
								if out.Deferred != nil && out.Fence != 0 || out.Deferred == nil && ranBy[id] != 1 {
									t.Errorf("Do(%v) = %+v after %d runs", policies[k], out, ranBy[id])
								}
							}
							mu.Unlock()
						}
					}
				})
			}
		}
		wg.Wait()
		eventually(t, "all that was accepted has run", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(ranBy) == len(accepted)
		})
		eventually(t, "the queue is empty", func() bool {
			s, err := scripts(rdb, "q").Sizes(context.Background())
			return err == nil && s.Requests == 0
		})
		for id := range accepted {
			if ranBy[id] != 1 {
				t.Errorf("%s ran %d times, want once", id, ranBy[id])
			}
		}
		for _, p := range w.problems {
			t.Error(p)
		}
		var sum sidestep.Stats
		for _, p := range procs {
			s := p.acq.Stats()
			sum.Ran += s.Ran
			sum.Failed += s.Failed
			sum.Conflicts += s.Conflicts
			sum.Deferred += s.Deferred
			sum.Lost += s.Lost
		}
		want := sidestep.Stats{Ran: int64(len(accepted) + direct), Conflicts: int64(refused + hooked), Deferred: int64(hooked)}
		if sum != want || w.sections != int(want.Ran) {
			t.Errorf("Stats add up to %+v with %d sections, want %+v", sum, w.sections, want)
		}
		t.Logf("%d sections, %d refused, %d deferred", w.sections, refused, hooked)
	})
}
