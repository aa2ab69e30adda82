// Package retry holds backoffs: rules for how long to wait before the next try
// and when to give up.
//
// A [Backoff] is a value, not a process. Next computes the delay from the number
// of tries made and the time they took, both of which the caller's loop counts,
// so one value can be kept in a package variable and used by any number of loops
// at once, none of which spends another's budget:
//
//	var polite = retry.Within(retry.FullJitter(10*time.Millisecond, time.Second), 5*time.Second)
//
// The delays come from [Constant], [Exponential], [FullJitter] and
// [DecorrelatedJitter]. [Jitter] spreads the delays of another backoff, [Limit]
// and [Within] say when to give up; they wrap, and are read from the inside out.
// [Default] is there for those who do not want to choose. All of them print
// themselves and can be compared with ==, unless they hold a [BackoffFunc].
//
// The package waits for nothing, starts nothing and imports nothing but the
// standard library. The loop is the caller's:
//
//	start := time.Now()
//	for attempt := 1; ; attempt++ {
//		err := try()
//		if err == nil {
//			return nil
//		}
//		delay, ok := backoff.Next(attempt, time.Since(start))
//		if !ok {
//			return err
//		}
//		select {
//		case <-ctx.Done():
//			return context.Cause(ctx)
//		case <-time.After(delay):
//		}
//	}
//
// Many callers that meet the same held lock and wait the same time come back at
// the same moment. Where that can happen use a backoff with jitter.
package retry
