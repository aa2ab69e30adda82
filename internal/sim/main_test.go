package sim

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	lua "github.com/yuin/gopher-lua"

	"github.com/sidestep-go/sidestep/internal/redistest"
)

var (
	oneSeed = flag.Int64("seed", -1, "simulate this seed only, and with -v print what happened")
	first   = flag.Uint64("from", 0, "the first seed")
	count   = flag.Int("seeds", usualSeeds, "how many seeds to simulate")
)

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // go-redis tells of each connection that fails
	// The interpreter is made anew for each run of a script, and that is most of the
	// work: small stacks will do, and few collections.
	lua.RegistrySize, lua.CallStackSize = 1024, 64
	debug.SetGCPercent(1500)
	debug.SetMemoryLimit(400 << 20)
	redistest.Main(m)
}

func TestSim(t *testing.T) {
	if *oneSeed >= 0 {
		runtime.GOMAXPROCS(1)
		r := simulate(t, uint64(*oneSeed), options{})
		if testing.Verbose() {
			fmt.Print(r.log())
		}
		for _, p := range r.problems {
			t.Error(p)
		}
		t.Logf("hash %x: %v", r.hash(), r.tally)
		return
	}
	var mu sync.Mutex
	var all tally
	onAllCores(t, *count, func(t *testing.T, seed uint64) {
		r := simulate(t, seed, options{})
		for _, p := range r.problems {
			t.Errorf("seed %d: %s", seed, p)
		}
		if len(r.problems) > 0 {
			t.Errorf("replay it: go test ./internal/sim -run Sim -seed %d -v", seed)
		}
		mu.Lock()
		all.add(r.tally)
		mu.Unlock()
	})
	fmt.Println(all)
}

// onAllCores tries n seeds, as many at once as there are cores; a core ends at the
// first of its seeds that fails.
func onAllCores(t *testing.T, n int, try func(t *testing.T, seed uint64)) {
	t.Helper()
	var next atomic.Uint64
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					i := next.Add(1) - 1
					if i >= uint64(n) {
						return
					}
					try(t, *first+i)
				}
			})
		}
	})
}

// String is the last line of a run.
func (t tally) String() string {
	var faults []string
	sum := 0
	for _, k := range slices.Sorted(maps.Keys(t.faults)) {
		faults = append(faults, fmt.Sprintf("%d %s", t.faults[k], k))
		sum += t.faults[k]
	}
	return fmt.Sprintf("%d seeds, %.0f virtual hours, %d faults (%s); %d stored requests with %d runs, %d of them again after a success, "+
		"%d dead with a reason; %d sections, %d stale writes refused, %d overlaps excused by lost data or a step of the clock; "+
		"%d calls refused by a lock, %d of unknown outcome",
		t.seeds, t.virtual.Hours(), sum, strings.Join(faults, ", "), t.requests, t.runs, t.duplicates,
		t.deaths, t.sections, t.refusedWrites, t.excused, t.locked, t.ambiguous)
}

// Without faults the promises of promptness and of order hold as well, which
// faults would excuse.
func TestSimFaultless(t *testing.T) {
	onAllCores(t, *count/10, func(t *testing.T, seed uint64) {
		for _, p := range simulate(t, seed, options{faultless: true, crowd: (seed-*first)%4 == 0}).problems {
			t.Errorf("seed %d: %s", seed, p)
		}
	})
}
