package lock

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

// The digests by which redsync's scripts are told apart are those that it sends.
func TestRedsyncScripts(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-redsync/redsync/v4").Output()
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "scripts.go"))
	if err != nil {
		t.Fatal(err)
	}
	for name, digest := range map[string]string{"deleteScript": redsyncDelete, "touchScript": redsyncTouch} {
		_, after, ok := strings.Cut(string(src), "var "+name+" = ")
		if def, _, _ := strings.Cut(after, "\n\n"); !ok || !strings.Contains(def, `"`+digest+`"`) {
			t.Errorf("redsync's %s is not %s", name, digest)
		}
	}
	// An unknown script must not pass for one that was run.
	c := &conn{carrier: &carrier{}}
	for _, hash := range []string{redsyncDelete, redsyncTouch, "other"} {
		if _, err := c.Eval(newRedsyncScript(hash)); err == nil {
			t.Errorf("Eval(%s) without a carrier = nil", hash)
		}
	}
	if _, err := pool(0).Get(t.Context()); err == nil {
		t.Error("Get without a carrier = nil")
	}
}

// Holders come and go while a random minority does not answer: the fences of
// those who hold the lock grow in the order of holding. Without the write-back
// they do not.
func TestQuorumFencesGrow(t *testing.T) {
	for _, n := range []int{3, 5} {
		if bad, grants := fenceDisorder(t, n, true); bad > 0 || grants < 100 {
			t.Errorf("%d nodes: %d of %d fences are out of order", n, bad, grants)
		}
		bad, grants := fenceDisorder(t, n, false)
		if bad == 0 {
			t.Errorf("%d nodes: without the write-back all of %d fences are in order: this test sees nothing", n, grants)
		}
		t.Logf("%d nodes: without the write-back %d of %d out of order", n, bad, grants)
	}
}

// fenceDisorder counts the fences that are not larger than the one before, in
// one instant of time: fences grow by one, and clocks help nobody.
func fenceDisorder(t *testing.T, n int, raise bool) (bad, grants int) {
	synctest.Test(t, func(t *testing.T) {
		var clients []redis.UniversalClient
		down := make([]*failing, n)
		for i := range down {
			rdb := redistest.Mini(t)
			down[i] = &failing{}
			rdb.AddHook(down[i])
			clients = append(clients, rdb)
		}
		lockers := make([]*Locker, 3)
		for i := range lockers {
			lockers[i] = NewQuorum(clients, Config{})
			lockers[i].node.(*quorum).noRaise = !raise
			defer lockers[i].Close()
		}
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		var last int64
		for range 120 {
			for i, at := range rnd.Perm(n) {
				down[at].on.Store(i < n/2)
			}
			lk, err := lockers[rnd.IntN(len(lockers))].TryAcquire(t.Context(), "x")
			switch {
			case errors.Is(err, ErrUnavailable) || errors.Is(err, ErrLocked): // a key stayed behind where the release failed
			case err != nil:
				t.Fatal(err)
			default:
				grants++
				if lk.Fence() <= last {
					bad++
				}
				last = max(last, lk.Fence())
			}
			synctest.Wait()
			for _, d := range down {
				d.on.Store(false)
			}
			_ = lk.Release(t.Context())
			synctest.Wait()
		}
		time.Sleep(time.Minute)
	})
	return bad, grants
}

// An acquire that goes without a busy node leaves the lane as it was: the release that
// follows still waits for the acquire that is under way.
func TestLaneOutlivesWhatIsShed(t *testing.T) {
	q := &quorum{lanes: make(map[laneID]chan struct{}), open: make([]int, 1)}
	_, leave, _ := q.enter(0, "token", true) // an acquire, which hangs
	q.open[0] = maxOpen
	if _, _, busy := q.enter(0, "token", true); !busy {
		t.Fatal("an acquire is sent to a node that is too busy")
	}
	wait, _, busy := q.enter(0, "token", false)
	if wait == nil || busy {
		t.Fatal("the release waits for nothing, or is shed itself")
	}
	select {
	case <-wait:
		t.Error("the release does not wait for the acquire")
	default:
	}
	leave()
	<-wait
}
