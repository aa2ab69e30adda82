package chaos

import (
	"reflect"
	"testing"
)

// What the sentry saw of each node makes the times of a replacement.
func TestReplacements(t *testing.T) {
	t.Parallel()
	type look struct {
		node   int
		master bool
		at     int64
		full   bool // its replica has all that it wrote by then
	}
	for name, tt := range map[string]struct {
		looks []look
		want  []Replacement
	}{
		"none": {[]look{{0, true, 1, true}, {1, false, 2, false}, {0, true, 3, false}}, nil},
		"of a dead master": {
			[]look{{0, true, 1, true}, {0, true, 5, false}, {1, true, 30, false}, {0, false, 50, false}, {0, false, 60, false}},
			[]Replacement{{Old: "a", New: "b", From: 1, At: 30, To: 30}},
		},
		"of a living master": {
			[]look{{0, true, 1, true}, {1, true, 30, false}, {0, true, 40, false}, {1, true, 45, true}, {0, false, 50, false}, {0, false, 60, false}},
			[]Replacement{{Old: "a", New: "b", From: 1, At: 30, To: 50, Both: true}},
		},
		"there and back": {
			[]look{{0, true, 1, true}, {1, true, 30, false}, {0, false, 40, false}, {1, true, 45, true}, {0, true, 70, false}, {1, false, 80, false}},
			[]Replacement{{Old: "a", New: "b", From: 1, At: 30, To: 30}, {Old: "b", New: "a", From: 45, At: 70, To: 70}},
		},
		"of a master that serves until the end": {
			[]look{{1, true, 30, false}, {0, true, 90, false}},
			[]Replacement{{Old: "a", New: "b", From: 0, At: 30, To: 90, Both: true}},
		},
	} {
		nodes := []*server{{name: "a"}, {name: "b"}}
		w := &sentry{seen: map[*server]*sighting{nodes[0]: {master: true, open: -1}, nodes[1]: {open: -1}}}
		for _, l := range tt.looks {
			w.saw(nodes[l.node], nodes[1-l.node], l.master, l.at)
			if l.full {
				w.seen[nodes[l.node]].full = l.at
			}
		}
		if !reflect.DeepEqual(w.replaced, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, w.replaced, tt.want)
		}
	}
}

// Only what a replaced master accepted without its replica counts as lost with it,
// and only what overlaps while both served as an overlap of two masters.
func TestAccountOfReplacements(t *testing.T) {
	t.Parallel()
	r := &Result{Replaced: []Replacement{
		{From: 100, At: 200, To: 200},
		{From: 1e12, At: 1e12 + 100, To: 1e12 + 200, Both: true},
	}}
	for _, tt := range []struct {
		offered, answered int64
		want              bool
	}{{10, 99, false}, {10, 100, true}, {150, 160, true}, {200, 300, true}, {201, 300, false}} {
		if got := r.replaced(&entry{offered: tt.offered, answered: tt.answered}); got != tt.want {
			t.Errorf("offered at %d and answered at %d: lost with its master %t, want %t", tt.offered, tt.answered, got, tt.want)
		}
	}
	after := int64(1e12+200) + int64(lockTTL)
	for at, want := range map[int64]bool{150: false, 1e12 - 1: false, 1e12: true, after: true, after + 1: false} {
		if got := r.split(at); got != want {
			t.Errorf("an overlap at %d: of two masters %t, want %t", at, got, want)
		}
	}
}
