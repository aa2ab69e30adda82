package script_test

import "testing"

// A push that is sent again leaves a token while something is ready, in case that of the
// first went to a process that died.
func TestPushAgainLeavesToken(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		play(t,
			act{push("1"), "[1]", "wake"},
			act{takeToken, "token", "no wake"},
			act{push("1"), "[2]", "wake; ready 1"},
			act{push("1"), "[2]", "wake; ready 1"},
			act{takeToken, "token", "no wake"},
		)
	})
	t.Run("several", func(t *testing.T) {
		play(t,
			act{push("1", "2 A"), "[1 1]", "wake"},
			act{takeToken, "token", "no wake"},
			act{push("1", "2 A"), "[2 2]", "wake; ready 1 2"},
			act{takeToken, "token", "no wake"},
		)
	})
}
