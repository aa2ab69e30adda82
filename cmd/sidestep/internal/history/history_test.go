package history

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// holders plays n holders of a lock, of which some lapse: the next one enters,
// and the late write is refused. Times are in steps of ten.
func holders(seed uint64, n int) []Op {
	rng := rand.New(rand.NewPCG(seed, 0))
	var ops []Op
	t, fence, value := int64(0), int64(1000), ""
	tick := func() int64 { t += 10; return t }
	for i := range n {
		client := i % 4
		fence += 1 + rng.Int64N(3)
		call := tick() - rng.Int64N(40) // they queue
		if len(ops) == 0 {
			call = t
		}
		add := func(o Op) {
			o.Key, o.Client, o.Fence = "k", client, fence
			ops = append(ops, o)
		}
		add(Op{Kind: Acquire, Result: OK, Call: call, Return: tick()})
		add(Op{Kind: Read, Result: OK, Value: value, Call: tick(), Return: tick()})
		last := fmt.Sprint("v", i)
		switch rng.IntN(6) {
		case 0: // lapses; its write comes after the next holder has read, and is refused
			add(Op{Kind: End, Result: OK, Call: tick(), Return: Forever})
			if i+1 < n {
				add(Op{Kind: Write, Result: Refused, Value: last, Call: t + 10, Return: t + 200})
			}
		case 1: // is killed in its write, which arrived
			add(Op{Kind: Write, Result: Unknown, Value: last, Call: tick(), Return: Forever})
			add(Op{Kind: End, Result: OK, Call: tick(), Return: Forever})
			value = last
		case 2: // is killed in its write, which did not arrive
			add(Op{Kind: Write, Result: Unknown, Value: last, Call: tick(), Return: Forever})
			add(Op{Kind: End, Result: OK, Call: tick(), Return: Forever})
		default:
			add(Op{Kind: Write, Result: OK, Value: last, Call: tick(), Return: tick()})
			value = last
			add(Op{Kind: End, Result: OK, Call: tick(), Return: tick()})
		}
	}
	return ops
}

func TestGoodHistories(t *testing.T) {
	for seed := range uint64(50) {
		ops := holders(seed, 60)
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		for _, window := range []int{1, 7, 16, 100} {
			r := Check(ops, Options{Window: window, Dir: t.TempDir()})
			if len(r.Violations) != 0 || r.Undecided != 0 {
				t.Fatalf("seed %d, windows of %d: %+v", seed, window, r)
			}
			if r.Acquires != 60 || r.Keys != 1 || r.Windows != (60+window-1)/window {
				t.Fatalf("seed %d, windows of %d: %+v", seed, window, r)
			}
		}
	}
}

// find returns the index of the n-th operation that fits.
func find(t *testing.T, ops []Op, n int, fits func(Op) bool) int {
	t.Helper()
	for i, o := range ops {
		if fits(o) {
			if n--; n < 0 {
				return i
			}
		}
	}
	t.Fatal("no such operation")
	return 0
}

// Each way to break a history is found, by the rule that is meant for it, and
// what porcupine finds is drawn.
func TestDoctoredHistories(t *testing.T) {
	kind := func(k Kind, r Result) func(Op) bool { return func(o Op) bool { return o.Kind == k && o.Result == r } }
	refence := func(ops []Op, from, to int64) {
		for i := range ops {
			if ops[i].Fence == from {
				ops[i].Fence = to
			}
		}
	}
	acquire := kind(Acquire, OK)
	for _, tt := range []struct {
		name, rule string
		drawn      bool
		doctor     func(t *testing.T, ops []Op) []Op
	}{
		{"stale token", "fences grow", true, func(t *testing.T, ops []Op) []Op {
			a := ops[find(t, ops, 9, acquire)]
			refence(ops, ops[find(t, ops, 10, acquire)].Fence, a.Fence-1_000_000)
			return ops
		}},
		{"duplicate token", "fences are unique", true, func(t *testing.T, ops []Op) []Op {
			a := ops[find(t, ops, 9, acquire)]
			refence(ops, ops[find(t, ops, 10, acquire)].Fence, a.Fence)
			return ops
		}},
		{"overlapping holders", "one holder", true, func(t *testing.T, ops []Op) []Op {
			next := ops[find(t, ops, 10, acquire)]
			end := find(t, ops, 9, func(o Op) bool { return o.Kind == End })
			ops[end].Call, ops[end].Return = next.Return+1, Forever
			return ops
		}},
		{"lost write", "lock and register", true, func(t *testing.T, ops []Op) []Op {
			w := find(t, ops, 5, kind(Write, OK)) // whose value somebody reads
			reads := slices.DeleteFunc(slices.Clone(ops), func(o Op) bool { return o.Kind != Read || o.Value != ops[w].Value })
			if len(reads) == 0 {
				t.Fatal("nobody reads it")
			}
			for i := range ops {
				if ops[i].Kind == Read && ops[i].Value == ops[w].Value {
					ops[i].Value = "v-1"
				}
			}
			return ops
		}},
		{"stale write let through", "lock and register", true, func(t *testing.T, ops []Op) []Op {
			ops[find(t, ops, 1, kind(Write, Refused))].Result = OK
			return ops
		}},
		{"refused for nothing", "lock and register", true, func(t *testing.T, ops []Op) []Op {
			last := ops[len(ops)-1].Fence
			for i := range ops {
				if ops[i].Kind == Write && ops[i].Fence == last {
					ops[i].Result = Refused
				}
			}
			return ops
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			r := Check(tt.doctor(t, holders(3, 40)), Options{Dir: dir})
			found, drawn := false, false
			for _, v := range r.Violations {
				found = found || v.Rule == tt.rule
				if v.File != "" {
					page, err := os.ReadFile(v.File)
					drawn = err == nil && strings.Contains(string(page), "<html")
				}
			}
			if !found || drawn != tt.drawn {
				t.Errorf("%+v, want %q, drawn: %v", r.Violations, tt.rule, tt.drawn)
			}
		})
	}
}

// Keys are independent of each other.
func TestKeysApart(t *testing.T) {
	a, b := holders(1, 20), holders(2, 20)
	for i := range b {
		b[i].Key = "other"
	}
	if r := Check(append(a, b...), Options{}); len(r.Violations) != 0 || r.Keys != 2 || r.Acquires != 40 {
		t.Errorf("%+v", r)
	}
}
