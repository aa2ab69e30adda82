package retry

import (
	"fmt"
	"time"
)

// Constant returns a backoff that waits d before every try: d, d, d, … and never
// gives up. With zero every try follows at once, which suits only a caller that
// is held up in another way. It panics if d is negative.
func Constant(d time.Duration) Backoff {
	if d < 0 {
		panic(fmt.Sprintf("retry: Constant by a negative duration %v", d))
	}
	return constant{d}
}

type constant struct{ d time.Duration }

func (c constant) Next(int, time.Duration) (time.Duration, bool) { return c.d, true }

func (c constant) String() string { return fmt.Sprintf("constant(%v)", c.d) }
