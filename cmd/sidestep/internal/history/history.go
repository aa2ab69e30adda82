// Package history checks what holders of locks saw: that their fences grew, that
// no two held one lock at a time, and that the register they wrote, each with its
// fence, behaved like one register.
//
// Two checks complement each other. The orders are checked over whole histories
// of any length, by looking at pairs. Windows of a few holders are given to
// porcupine, which searches for an order of all operations that a model of lock
// and register allows; a window for which there is none is drawn.
package history

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does.
type Kind string

// The kinds.
const (
	Acquire Kind = "acquire" // the lock was granted, with Fence
	End     Kind = "end"     // of the hold: by release, or because its lease ran out
	Read    Kind = "read"    // of the register, with the fence; registers it
	Write   Kind = "write"   // of the register, with the fence
)

// Result is what came of an operation.
type Result string

// The results. Acquire and End have only OK.
const (
	OK      Result = "ok"
	Refused Result = "refused" // by the register: it has seen a larger fence
	Unknown Result = "unknown" // no answer: applied, or not, or later
)

// Forever is when operations return that got no answer.
const Forever = math.MaxInt64

// Op is one operation. Call and Return are times of one clock, in nanoseconds.
//
// The Call of an End is the last time at which its holder was certain to hold the
// lock; its Return is when the answer to the release came, or [Forever].
type Op struct {
	Kind   Kind
	Key    string // of the lock, and of the register beside it
	Client int    // small, for drawing
	Fence  int64
	Value  string // written, or read
	Result Result
	Call   int64
	Return int64
}

// String tells the operation without its times.
func (o Op) String() string {
	switch {
	case o.Kind == Acquire || o.Kind == End:
		return fmt.Sprintf("%s %d", o.Kind, o.Fence)
	case o.Result != OK:
		return fmt.Sprintf("%s(%d) %s", o.Kind, o.Fence, o.Result)
	case o.Kind == Read:
		return fmt.Sprintf("read(%d) = %q", o.Fence, o.Value)
	}
	return fmt.Sprintf("write(%d, %q)", o.Fence, o.Value)
}

// Violation is a rule that a history breaks.
type Violation struct {
	Rule string `json:"rule"`
	Key  string `json:"key"`
	Text string `json:"text"`
	File string `json:"file,omitempty"` // where it is drawn
}

// Options of [Check]. The zero value is good.
type Options struct {
	// Window is how many holders are searched at a time. Defaults to 16.
	Window int
	// Timeout bounds the search of one window. Defaults to 5 s.
	Timeout time.Duration
	// Dir is where windows without an order are drawn. Defaults to the folder for
	// temporary files.
	Dir string
}

// Report is what a check found.
type Report struct {
	Keys       int         `json:"keys"`
	Ops        int         `json:"operations"`
	Acquires   int         `json:"acquires"`
	Windows    int         `json:"windows"`
	Undecided  int         `json:"undecided_windows"` // not searched to the end in time
	Violations []Violation `json:"violations"`
}

// Check checks a history, whatever the order of ops.
func Check(ops []Op, opt Options) Report {
	opt.Window = cmp.Or(opt.Window, 16)
	opt.Timeout = cmp.Or(opt.Timeout, 5*time.Second)
	opt.Dir = cmp.Or(opt.Dir, os.TempDir())
	r := Report{Ops: len(ops), Violations: []Violation{}} // [] in JSON, not null
	byKey := make(map[string][]Op)
	for _, o := range ops {
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	r.Keys = len(byKey)
	for key, of := range byKey {
		r.orders(key, of)
		r.search(key, of, opt)
	}
	slices.SortFunc(r.Violations, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text)) })
	return r
}

func (r *Report) violated(rule, key, format string, args ...any) {
	r.Violations = append(r.Violations, Violation{Rule: rule, Key: key, Text: fmt.Sprintf(format, args...)})
}

// orders looks at all pairs of holders of a key.
func (r *Report) orders(key string, ops []Op) {
	var got []Op // acquires, by their call
	ends := make(map[int64]int64)
	for _, o := range ops {
		switch o.Kind {
		case Acquire:
			got = append(got, o)
		case End:
			ends[o.Fence] = o.Call
		}
	}
	r.Acquires += len(got)
	returned := slices.Clone(got)
	slices.SortFunc(got, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(returned, func(a, b Op) int { return cmp.Compare(a.Return, b.Return) })

	seen := make(map[int64]bool, len(got))
	before := 0 // of returned: those that had returned when b was called
	var last Op // of these, the one with the largest fence
	for _, b := range got {
		if seen[b.Fence] {
			r.violated("fences are unique", key, "fence %d was granted twice", b.Fence)
		}
		seen[b.Fence] = true
		for ; before < len(returned) && returned[before].Return < b.Call; before++ {
			if returned[before].Fence > last.Fence {
				last = returned[before]
			}
		}
		if last.Fence > b.Fence {
			r.violated("fences grow", key, "fence %d was asked for %v after fence %d had been granted",
				b.Fence, time.Duration(b.Call-last.Return), last.Fence)
		}
	}
	holder, until := int64(0), int64(math.MinInt64) // who held it longest so far
	for _, b := range returned {
		if b.Return < until {
			r.violated("one holder", key, "fence %d was granted %v before the hold with fence %d ended",
				b.Fence, time.Duration(until-b.Return), holder)
		}
		if end, ok := ends[b.Fence]; ok && end > until {
			holder, until = b.Fence, end
		}
	}
}

// search gives the holders of a key to porcupine, a window at a time. Leaving
// holders out keeps a history legal, if what is known of the register at its
// ends is left out, too.
func (r *Report) search(key string, ops []Op, opt Options) {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Or(cmp.Compare(a.Fence, b.Fence), cmp.Compare(a.Call, b.Call)) })
	for from := 0; from < len(ops); {
		to, holders := from, 0
		for to < len(ops) && holders < opt.Window {
			fence := ops[to].Fence
			for to < len(ops) && ops[to].Fence == fence {
				to++
			}
			holders++
		}
		r.window(key, ops[from:to], opt, from > 0, to < len(ops))
		from = to
	}
}

func (r *Report) window(key string, ops []Op, opt Options, earlier, later bool) {
	r.Windows++
	m := modelOf(earlier, later)
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		history[i] = porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Call, Return: o.Return}
	}
	switch porcupine.CheckOperationsTimeout(m, history, opt.Timeout) {
	case porcupine.Unknown:
		r.Undecided++
	case porcupine.Illegal:
		name := fmt.Sprintf("history-%s-%d.html", strings.Map(plain, key), r.Windows)
		v := Violation{
			Rule: "lock and register", Key: key, File: filepath.Join(opt.Dir, name),
			Text: fmt.Sprintf("no order of the %d operations with fences %d to %d is legal", len(ops), ops[0].Fence, ops[len(ops)-1].Fence),
		}
		_, info := porcupine.CheckOperationsVerbose(m, history, opt.Timeout) // slower: it keeps what it tried
		if err := porcupine.VisualizePath(m, info, v.File); err != nil {
			v.File, v.Text = "", v.Text+"; it could not be drawn: "+err.Error()
		}
		r.Violations = append(r.Violations, v)
	}
}

func plain(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
		return r
	}
	return '_'
}
