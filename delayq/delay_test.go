package delayq_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestep-go/sidestep/delayq"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// A request is due at its time or later, never earlier: the server counts whole
// milliseconds, and a time between two of them is the later one.
func TestScheduleAtIsNeverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := delayq.New(listq.New(redistest.Mini(t), "q", listq.Config{}))
		whole := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		for at, want := range map[time.Time]time.Time{
			whole:                             whole,
			whole.Add(time.Nanosecond):        whole.Add(time.Millisecond),
			whole.Add(400 * time.Microsecond): whole.Add(time.Millisecond),
			whole.Add(time.Millisecond - 1):   whole.Add(time.Millisecond),
		} {
			if r, err := q.ScheduleAt(t.Context(), &listq.Request{}, at); err != nil || !r.Due.Equal(want) {
				t.Errorf("ScheduleAt(%v) is due at %v, %v, want %v", at, r.Due, err, want)
			}
		}
		if _, err := q.ScheduleAt(t.Context(), &listq.Request{}, time.Unix(0, 0)); err != nil {
			t.Errorf("ScheduleAt(1970) = %v, want nil: it is not before 1970", err)
		}
	})
}

// The longest delay is a century; what is longer is cut.
func TestLongestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := delayq.New(listq.New(redistest.Mini(t), "q", listq.Config{}))
		const century = 100 * 365 * 24 * time.Hour
		for _, d := range []time.Duration{century, century + time.Hour, math.MaxInt64} {
			want := time.Now().Add(century)
			r, err := q.ScheduleIn(t.Context(), &listq.Request{}, d)
			if err != nil || r.Due.Before(want) || r.Due.After(want.Add(time.Second)) {
				t.Errorf("ScheduleIn(%v) is due at %v, %v, want %v", d, r.Due, err, want)
			}
		}
	})
}

// A probe that fails is logged to the log that Run was given, or not at all; one
// that does not fail, never.
func TestRunLogsProbesThatFail(t *testing.T) {
	for _, failure := range []error{nil, errors.New("lock server away")} {
		for _, given := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				list := listq.New(redistest.Mini(t), "q", listq.Config{})
				q := delayq.New(list)
				if _, err := q.Park(t.Context(), &listq.Request{Lock: "k"}, time.Second); err != nil {
					t.Fatal(err)
				}
				l := locks{err: failure}
				var text bytes.Buffer
				var log *slog.Logger
				if given {
					log = slog.New(slog.NewTextHandler(&text, nil))
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- q.Run(ctx, &l, log) }()
				time.Sleep(1500 * time.Millisecond)
				stop()
				if err := <-done; err != nil {
					t.Errorf("Run = %v", err)
				}
				if l.count() == 0 {
					t.Error("there was no probe")
				}
				if want := failure != nil && given; strings.Contains(text.String(), "lock server away") != want || (text.Len() > 0) != want {
					t.Errorf("probes that end with %v, a log: %v; it says %q", failure, given, &text)
				}
			})
		}
	}
}
