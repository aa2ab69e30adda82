package script_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/internal/script"
)

// act is a step of a trace: a call, what it answers, and what then is in the
// queue: every part of has, in the words of parse, with times in seconds.
type act struct {
	call  call
	reply string
	has   string
}

// feeder is a claim by another feeder than f.
func feeder(name string) func(*script.Feed) { return func(f *script.Feed) { f.Feeder = name } }

// expire lets all leases run out.
func expire(ctx ctx, q *script.Queue) (string, error) {
	ids, err := q.Client().ZRange(ctx, q.Keys().Leased(), 0, -1).Result()
	for _, id := range ids {
		err = q.Client().ZAdd(ctx, q.Keys().Leased(), redis.Z{Score: 1, Member: id}).Err()
	}
	return "", err
}

// takeToken is what a waker does.
func takeToken(ctx ctx, q *script.Queue) (string, error) {
	err := q.Client().LPop(ctx, q.Keys().Wake()).Err()
	if errors.Is(err, redis.Nil) {
		return "none", nil
	}
	return "token", err
}

func play(t *testing.T, acts ...act) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		t.Helper()
		q := testQueue(rdb)
		base := serverTime(t, rdb)
		for i, a := range acts {
			got, err := a.call(t.Context(), q)
			if err != nil || got != a.reply {
				t.Fatalf("step %d answered %q, %v, want %q", i+1, got, err, a.reply)
			}
			w, bad := read(t, q)
			if len(bad) > 0 {
				t.Fatalf("after step %d: %v", i+1, bad)
			}
			lines := strings.Split(w.text(base, unit), "\n")
			for part := range strings.SplitSeq(a.has, "; ") {
				ok := part == ""
				for _, l := range lines {
					ok = ok || l == part || strings.HasPrefix(l, part+" ")
				}
				if want, not := strings.CutPrefix(part, "no "); not {
					ok = true
					for _, l := range lines {
						ok = ok && l != want && !strings.HasPrefix(l, want)
					}
				}
				if !ok {
					t.Fatalf("after step %d: no %q in:\n%s", i+1, part, strings.Join(lines, "\n"))
				}
			}
		}
	})
}

// A promoted request passes the gate although its lock is held: by itself.
func TestGateRecognisesItself(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "1 l@30; 2 p"},
		act{ack("1 f:1"), "[1] more", "2 r; held A=2"},
		act{claim(2, 2), "2:1/0/0 wait 30", "2 l@30"},
	)
}

// A promoted request passes the gate although others are parked.
func TestGateLetsThePromotedPassTheParked(t *testing.T) {
	play(t,
		act{push("1 A", "2 A", "3 A"), "[1 1 1]", ""},
		act{claim(1, 3), "1:1/0/0 wait 30", "2 p; 3 p"},
		act{ack("1 f:1"), "[1] more", "2 r; 3 p"},
		act{claim(2, 2), "2:1/0/0 wait 30", "2 l@30; 3 p; held A=2"},
	)
}

func TestGateStopsASecondDelivery(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30 more", "2 r"},
		act{claim(1, 1, feeder("g")), "wait 40", "2 p; held A=1"},
	)
}

func TestPromoteDoesNothingWhileHeld(t *testing.T) {
	play(t,
		act{parkNew("1 A", 30), "1", ""},
		act{parkNew("2 A", 30), "1", ""},
		act{promote("A"), "1", "ready 1; held A=1"},
		act{promote("A"), "0", "ready 1; 2 p"},
		act{claim(1, 2), "1:1/0/1 wait 30", "2 p"},
		act{promote("A"), "0", "2 p; no ready"},
	)
}

func TestLeaseExpiryKeepsTurn(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{expire, "", ""},
		act{claim(1, 2, feeder("g")), "1:2/0/0 wait 40", "held A=1; 1 l@30; 2 p"},
		act{ack("1 f:1"), "[0]", "1 l@30"},
		act{park("1 f:1", 30, 0), "0", "1 l@30; 2 p"},
		act{ack("1 g:1"), "[1] more", "held A=2; ready 2"},
	)
}

func TestRequeueKeepsTurn(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{requeue("1 f:1"), "[1]", "held A=1; ready 1; 2 p"},
		act{promote("A"), "0", "ready 1; 2 p"},
		act{claim(2, 2), "1:1/0/0 wait 30", "2 p"},
	)
}

func TestParkClearsTurnWithoutPromoting(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{park("1 f:1", 30, 0), "1", "1 p; 2 p; no held; no ready"},
		act{promote("A"), "1", "ready 1; held A=1; 2 p"},
	)
}

func TestCancelFreesTurn(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{cancel("1"), "1", "ready 2; held A=2"},
		act{claim(2, 1), "2:1/0/0 wait 30", ""},
		// The first worker still has the lock: 2 parks behind it, and registers. The
		// worker's release is reported to it, its ack is not Done, so it promotes.
		act{park("2 f:2", 30, 0), "1", "2 p; no held"},
		act{ack("1 f:1"), "[2]", "2 p; no held"},
		act{promote("A"), "1", "ready 2; held A=2"},
	)
}

func TestNackAndBuryPromote(t *testing.T) {
	play(t,
		act{push("1 A", "2 A", "3 A"), "[1 1 1]", ""},
		act{claim(1, 3), "1:1/0/0 wait 30", "2 p; 3 p"},
		act{nack("1 f:1", 30, script.Attempt, 0, false), "1", "1 d@30; ready 2; held A=2"},
		act{claim(2, 3), "2:1/0/0 wait 30", ""},
		act{bury("2 f:2"), "1 buried 2: bad payload", "ready 3; held A=3"},
	)
}

func TestPushAfterDoneStaysDone(t *testing.T) {
	play(t,
		act{push("1"), "[1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30", ""},
		act{ack("1 f:1"), "[1]", "gone 1"},
		act{push("1"), "[2]", "no 1; no ready"},
		act{push("1 A"), "[2]", "no 1; no ready"},
		act{schedule("1", 30), "2", "no 1"},
		act{parkNew("1 A", 30), "2", "no 1"},
	)
}

func TestPushAfterCancelStaysCancelled(t *testing.T) {
	play(t,
		act{schedule("1", 30), "1", ""},
		act{cancel("1"), "1", "gone 1"},
		act{schedule("1", 30), "2", "no 1"},
	)
}

func TestClaimSentAgain(t *testing.T) {
	play(t,
		act{push("1", "2", "3"), "[1 1 1]", ""},
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30 more", "ready 3"},
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30 more", "ready 3"},
		act{claim(2, 2), "3:1/0/0 wait 30", "no ready"},
		act{claim(1, 2), "", "last f:2 3"},
	)
}

func TestRescheduledIdSkippedInReady(t *testing.T) {
	play(t,
		act{push("1", "2"), "[1 1]", ""},
		act{reschedule("1", 60, "s"), "1", "ready 1 2; 1 d@60"},
		act{claim(1, 2), "2:1/0/0 wait 30", "1 d@60"},
	)
}

func TestCancelledIdSkippedInReady(t *testing.T) {
	play(t,
		act{push("1", "2"), "[1 1]", ""},
		act{cancel("1"), "1", "ready 1 2"},
		act{claim(1, 2), "2:1/0/0 wait 30", "no ready"},
	)
}

func TestClaimLeavesToken(t *testing.T) {
	play(t,
		act{push("1", "2"), "[1 1]", "wake"},
		act{takeToken, "token", ""},
		act{claim(1, 1), "1:1/0/0 wait 30 more", "wake"},
		act{takeToken, "token", ""},
		act{claim(2, 0), "wait 30 more", "wake"},
		act{takeToken, "token", ""},
		act{claim(1, 1, feeder("g")), "2:1/0/0 wait 40", "no wake"},
	)
}

func TestPromotePushesToken(t *testing.T) {
	play(t,
		act{parkNew("1 A", 30), "1", ""},
		act{takeToken, "token", ""},
		act{promote("A"), "1", "wake; ready 1"},
	)
}

func TestAckThatPromotesPushesToken(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{takeToken, "token", ""},
		act{ack("1 f:1"), "[1] more", "wake; ready 2"},
	)
}

func TestEarlierHeadTakesClock(t *testing.T) {
	play(t,
		act{schedule("1", 50), "1", ""},
		act{claim(1, 0), "wait 50", "clock f@50"},
		act{claim(1, 0, feeder("g")), "wait 60", "clock f@50"},
		act{takeToken, "token", ""},
		act{schedule("2", 20), "1", "wake"},
		act{claim(2, 0, feeder("g")), "wait 20", "clock g@20"},
	)
}

func TestYieldHandsOverClock(t *testing.T) {
	play(t,
		act{schedule("1", 50), "1", ""},
		act{claim(1, 0), "wait 50", "clock f@50"},
		act{takeToken, "token", ""},
		act{yield("f"), "", "wake; no clock"},
		act{claim(1, 0, feeder("g")), "wait 50", "clock g@50"},
	)
}

func TestStrictNackBlocksTheLine(t *testing.T) {
	play(t,
		act{push("1 A", "2 A"), "[1 1]", ""},
		act{claim(1, 2), "1:1/0/0 wait 30", "2 p"},
		act{nack("1 f:1", 0, script.Attempt, 0, true), "1", "1 d@0; held A=1; 2 p"},
		act{promote("A"), "0", "2 p"},
		act{push("3 A"), "[1]", ""},
		act{claim(2, 1), "1:2/1/0 wait 30 more", "held A=1"},
	)
}

// Work that is parked late, or stale, must not stand in two places.
func TestLateParkIsStale(t *testing.T) {
	play(t,
		act{push("1 A"), "[1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30", ""},
		act{expire, "", ""},
		act{claim(2, 0), "more", "1 r; held A=1"},
		act{park("1 f:1", 30, 0), "0", "1 r; held A=1"},
		act{nack("1 f:1", 30, script.Attempt, 0, false), "0", "1 r"},
		act{bury("1 f:1"), "0", "1 r"},
		act{requeue("1 f:1"), "[0]", "1 r"},
		act{extend(60, "1 f:1"), "[0]", "1 r"},
	)
}

// turnedBefore makes the memory of finished ids have been turned over so many
// seconds earlier.
func turnedBefore(s int64) call {
	return func(ctx ctx, q *script.Queue) (string, error) {
		return "", q.Client().HIncrBy(ctx, q.Keys().Meta(), "turned", -1000*s).Err()
	}
}

// An id may be used again when nobody can send its first request again.
func TestFinishedIdCanBeUsedAgain(t *testing.T) {
	play(t,
		act{push("1"), "[1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30", ""},
		act{ack("1 f:1"), "[1]", "gone 1"},
		act{exchange(16, 0), "", "past 1; turned @0; no gone"},
		act{push("1"), "[2]", "no 1"},
		act{turnedBefore(60), "", "past 1; turned @-60"},
		act{exchange(32, 0), "", "no past; no turned"},
		act{push("1"), "[1]", "1 r"},
	)
}

// However the turns fall, an id is remembered for the whole window.
func TestFinishedIdIsRememberedForTheWindow(t *testing.T) {
	play(t,
		act{push("1", "2", "3"), "[1 1 1]", ""},
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30 more", ""},
		act{ack("1 f:1"), "[1] more", "gone 1"},
		act{exchange(16, 0), "wait 30 more", "past 1; turned @0"},
		act{turnedBefore(60), "", "turned @-60"},
		act{ack("2 f:1"), "[1] more", "gone 2; past 1"},
		act{exchange(16, 0), "more", "past 2; turned @0; no gone; no past 1"}, // just after 2 was finished
		act{cancel("3"), "1", "gone 3"},
		act{exchange(32, 0), "more", "past 2; gone 3; turned @0"},
		act{turnedBefore(50), "", "turned @-50"},
		act{exchange(48, 0), "more", "past 2; gone 3; turned @-50"},
		act{push("2"), "[2]", "no 2"},
		act{push("3"), "[2]", "no 3 "},
		act{push("1 A", "2 A", "3 A"), "[1 2 2]", "1 r; no 2; no 3 "},
	)
}

// lane1 is a claim of the feeder's second lane.
func lane1(f *script.Feed) { f.Lane = 1 }

// Each lane of a feeder counts its own claims, of which the last can be made again.
func TestLanesCountTheirOwnClaims(t *testing.T) {
	play(t,
		act{push("1", "2", "3", "4"), "[1 1 1 1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30 more", "1 l@30 tok=f:1"},
		act{claim(1, 1, lane1), "2:1/0/0 wait 30 more", "2 l@30 tok=f/1:1; last f:1 1; last f/1:1 2"},
		act{claim(1, 1), "1:1/0/0 wait 30 more", ""},
		act{claim(1, 1, lane1), "2:1/0/0 wait 30 more", ""},
		act{claim(2, 1, lane1), "3:1/0/0 wait 30 more", "last f:1 1; last f/1:2 3"},
		act{claim(1, 1), "1:1/0/0 wait 30 more", ""},
		act{ack("1 f/1:1", "2 f/1:1"), "[0 1] more", "1 l@30 tok=f:1; no 2"},
	)
}

// The lanes of a feeder have one clock: whichever finds out what is due first, the
// feeder is the timekeeper, and looks at once.
func TestLanesKeepOneClock(t *testing.T) {
	play(t,
		act{push("1", "2", "3"), "[1 1 1]", ""},
		act{claim(1, 1, lane1), "1:1/0/0 wait 30 more", "clock f@30"},
		act{claim(1, 1), "2:1/0/0 wait 30 more", "clock f@30"},
		act{claim(1, 1, feeder("g")), "3:1/0/0 wait 40", "clock f@30"},
		act{claim(2, 1, lane1), "wait 30", "clock f@30"},
		act{yield("f"), "", "no clock"},
	)
}

// allDue makes all that is delayed due.
func allDue(ctx ctx, q *script.Queue) (string, error) {
	all, err := q.Client().ZRange(ctx, q.Keys().Delayed(), 0, -1).Result()
	for i, m := range all {
		err = q.Client().ZAdd(ctx, q.Keys().Delayed(), redis.Z{Score: float64(1 + i), Member: m}).Err()
	}
	return "", err
}

// A claim brings as much of what is due as it leases, or a few; the rest is known to be
// there, and due.
func TestClaimBringsWhatItNeeds(t *testing.T) {
	scheduled := func(n int) (acts []act) {
		for i := range n {
			acts = append(acts, act{schedule(strconv.Itoa(i+1), 30+10*i), "1", ""})
		}
		return append(acts, act{allDue, "", ""})
	}
	eighteen := "1:1/0/0 2:1/0/0 3:1/0/0 4:1/0/0 5:1/0/0 6:1/0/0 7:1/0/0 8:1/0/0 9:1/0/0 " +
		"10:1/0/0 11:1/0/0 12:1/0/0 13:1/0/0 14:1/0/0 15:1/0/0 16:1/0/0 17:1/0/0 18:1/0/0"
	play(t, append(scheduled(20),
		act{claim(1, 18), eighteen + " wait 0 more", "no ready; 18 l@30; wake"},
		act{claim(2, 18), "19:1/0/0 20:1/0/0 wait 30", "no ready; 20 l@30"},
	)...)
	play(t, append(scheduled(20),
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 0 more", "ready 3 4 5 6 7 8 9 10 11 12 13 14 15 16; 2 l@30; wake"},
		act{claim(2, 0), "wait 30 more", "ready 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"},
	)...)
}

// What is leased past ready is what would come out of it: not before what a worker left
// behind, nor what stands in ready, nor what is due earlier and has a lock.
func TestDueRequestsKeepTheirOrder(t *testing.T) {
	play(t,
		act{push("1"), "[1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30", ""},
		act{schedule("2", 60), "1", ""},
		act{allDue, "", ""},
		act{expire, "", ""},
		act{claim(2, 1), "1:2/0/0 wait 30 more", "ready 2"},
	)
	play(t,
		act{schedule("2", 60), "1", ""},
		act{allDue, "", ""},
		act{push("1"), "[1]", ""},
		act{claim(1, 1), "1:1/0/0 wait 30 more", "ready 2"},
	)
	play(t,
		act{schedule("1 A", 60), "1", ""},
		act{schedule("2", 70), "1", ""},
		act{allDue, "", ""},
		act{claim(1, 2), "1:1/0/0 2:1/0/0 wait 30", "held A=1"},
	)
}
