package script_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/sidestep-go/sidestep/internal/script"
)

// noticed is a context whose end others notice first.
type noticed struct {
	context.Context
	ended atomic.Bool
}

func (n *noticed) Err() error {
	if n.ended.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// That a client ends a command with its context says nothing about the command.
func TestUntilTheClientHasNoticed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := &noticed{Context: ctx}
	for _, ended := range []bool{false, true} {
		_, err := script.Until(n, func(ctx context.Context) (int, error) {
			n.ended.Store(ended)
			return 0, context.DeadlineExceeded
		})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, script.ErrUnanswered) != ended {
			t.Errorf("ended: %v: %v", ended, err)
		}
	}
}
