package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// state is that of a lock and its register.
type state struct {
	holder int64  // the fence of who has the lock; 0: nobody
	minted int64  // the largest fence granted
	seen   int64  // the largest fence that the register has seen
	value  string // of the register
	known  bool   // whether value is
}

// modelOf returns the model of a window: what holders before it left in the
// register is not known, and holders after it may be why the register refuses.
func modelOf(earlier, later bool) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{known: !earlier}} },
		Step: func(s, in, _ any) []any {
			var out []any
			for _, next := range s.(state).step(in.(Op), later) {
				out = append(out, next)
			}
			return out
		},
		DescribeOperation: func(in, _ any) string { return in.(Op).String() },
		DescribeState: func(s any) string {
			return fmt.Sprint(s)
		},
	}
	return m.ToModel()
}

// String tells the state.
func (s state) String() string {
	holder, value := "free", "?"
	if s.holder != 0 {
		holder = fmt.Sprintf("held by %d", s.holder)
	}
	if s.known {
		value = fmt.Sprintf("%q", s.value)
	}
	return fmt.Sprintf("%s, last fence %d; register %s, seen %d", holder, s.minted, value, s.seen)
}

// step returns the states that an operation can lead to: none, if it could not
// have come to what it came to.
func (s state) step(o Op, later bool) []state {
	next := s
	switch o.Kind {
	case Acquire:
		if s.holder != 0 || o.Fence <= s.minted {
			return nil
		}
		next.holder, next.minted = o.Fence, o.Fence
		return []state{next}
	case End:
		if s.holder != o.Fence {
			return nil
		}
		next.holder = 0
		return []state{next}
	}
	passes := o.Fence >= s.seen
	next.seen = max(s.seen, o.Fence)
	switch {
	case o.Result == Refused:
		if passes && !later {
			return nil
		}
		return []state{s}
	case o.Kind == Read && o.Result == OK:
		if !passes || s.known && s.value != o.Value {
			return nil
		}
		next.value, next.known = o.Value, true
		return []state{next}
	case o.Kind == Write:
		next.value, next.known = o.Value, true
	}
	switch {
	case o.Result == OK && passes:
		return []state{next}
	case o.Result == Unknown && passes:
		return []state{s, next}
	case o.Result == Unknown:
		return []state{s}
	}
	return nil
}
