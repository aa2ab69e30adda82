package queuemodel

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var long = flag.Bool("long", false, "also check the cases of more than half a million states")

const limit = 8_000_000

// on makes requests pushed with the given locks.
func on(locks ...uint8) (rs []Request) {
	for _, k := range locks {
		rs = append(rs, Request{Lock: k})
	}
	return rs
}

// with changes the n-th request.
func with(rs []Request, n int, change func(*Request)) []Request {
	change(&rs[n-1])
	return rs
}

func scheduled(r *Request) { r.Origin = Scheduled }
func deferred(r *Request)  { r.Origin = Deferred }
func poison(r *Request)    { r.Poison = true }

// outsider takes lock A for itself, n times.
func outsider(n uint8) Caller { return Caller{Lock: 1, Again: n - 1} }

// defers takes lock A, or defers a request.
func defers(id uint8) Caller { return Caller{Lock: 1, Request: id} }

var inTheLine = Caller{Lock: 1, InLine: true}

// cases are those in which all rules hold.
var cases = []struct {
	name string
	long bool
	c    Case
}{
	{"pushes", false, Case{Requests: on(1, 1, 1, 1), Once: true, Ordered: true}},
	{"two locks", false, Case{Requests: on(1, 2, 1, 2), Once: true, Ordered: true, Exchange: true}},
	{"without a lock", false, Case{Requests: with(on(1, 0, 1, 2), 3, scheduled), Once: true, Exchange: true}},
	{"outsider", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(2)}, Ordered: true, Exchange: true}},
	{"outsider again", true, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(2)}, Ordered: true}},
	{"outsiders", true, Case{Requests: on(1, 1), Callers: []Caller{outsider(2), outsider(1)}, Ordered: true}},
	{"deferral", false, Case{Requests: with(on(1, 1), 2, deferred), Callers: []Caller{outsider(1), defers(2)}}},
	{"deferrals", true, Case{Requests: with(with(on(1, 1, 1), 3, deferred), 2, deferred), Callers: []Caller{defers(3), defers(2)}}},
	{"deferral again", true, Case{Requests: with(on(1, 1, 1), 3, deferred), Callers: []Caller{outsider(2), defers(3)}}},
	{"schedule", true, Case{Requests: with(on(1, 1, 0, 2), 2, scheduled), Callers: []Caller{outsider(1)}}},
	{"schedules", false, Case{Requests: with(with(on(1, 1), 1, scheduled), 2, scheduled), Callers: []Caller{outsider(1)}}},
	{"line", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1), inTheLine}, Ordered: true}},
	{"death", false, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Deaths: 1}, Ordered: true}},
	{"deaths", true, Case{Requests: with(on(1, 1, 1), 3, deferred), Callers: []Caller{defers(3), outsider(1)}, Faults: Faults{Deaths: 2}}},
	{"pause", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Leases: 1}, Ordered: true}},
	{"pauses", true, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Leases: 2}, Ordered: true}},
	{"pause past the lock", false, Case{Requests: with(on(1, 1), 2, deferred), Callers: []Caller{defers(2)}, Faults: Faults{Leases: 1, TTLs: 1}}},
	{"lost replies", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Resends: 1}}},
	{"lost replies and a failure", true, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Resends: 1, Failures: 1}}},
	{"lost claims", false, Case{Requests: on(1, 1, 1), Faults: Faults{Claims: 1, Leases: 1}, Exchange: true, Ordered: true}},
	{"lost claims and an outsider", true, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Claims: 1, Leases: 1}, Exchange: true, Ordered: true}},
	{"lost reply of a deferral", false, Case{Requests: with(on(1, 1), 2, deferred), Callers: []Caller{defers(2)}, Faults: Faults{Resends: 1, Cancels: 1}}},
	{"failure", false, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Failures: 1}, Exchange: true}},
	{"failures in strict order", true, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Failures: 2}, Strict: true, Ordered: true}},
	{"strict order", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Failures: 1, Cancels: 1}, Strict: true, Ordered: true}},
	{"cancel", false, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Cancels: 1}, Ordered: true}},
	{"cancels", true, Case{Requests: on(1, 1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Cancels: 2}, Ordered: true}},
	{"max wait", false, Case{Requests: with(on(1, 1, 1), 2, poison), Callers: []Caller{outsider(1)}, Faults: Faults{Overdue: 1}, Ordered: true}},
	{"drain", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Drains: 1, Failures: 1}}},
	{"lost hint and token", false, Case{Requests: with(on(1, 1), 2, deferred), Callers: []Caller{outsider(1), defers(2)}, Faults: Faults{Hints: 1, Tokens: 1}}},
	{"reschedule", false, Case{Requests: on(1, 1), Callers: []Caller{outsider(1)}, Faults: Faults{Operations: 1, Failures: 1}}},
	{"reschedule and revive", false, Case{Requests: with(on(1, 1, 1), 2, poison), Faults: Faults{Operations: 2, Resends: 1}}},
	{"hand-over", false, Case{Requests: on(1, 1, 0, 2), Hands: true, Once: true, Ordered: true, Exchange: true}},
	{"hand-over beside an outsider", false, Case{Requests: on(1, 1), Hands: true, Callers: []Caller{outsider(2)}, Ordered: true}},
	{"hand-over, deaths", false, Case{Requests: on(1, 1, 0), Hands: true, Faults: Faults{Deaths: 1, Tokens: 1}, Ordered: true}},
	{"hand-over, pause", false, Case{Requests: on(1, 1), Hands: true, Callers: []Caller{outsider(1)}, Faults: Faults{Leases: 1}, Ordered: true}},
	{"hand-over, lost replies", false, Case{Requests: on(1, 1, 0), Hands: true, Faults: Faults{Resends: 1, Claims: 1}, Ordered: true, Exchange: true}},
	{"hand-over, cancel and drain", false, Case{Requests: on(1, 1, 1), Hands: true, Faults: Faults{Cancels: 1, Drains: 1}, Ordered: true}},
	{"hand-over, failure", false, Case{Requests: on(1, 1), Hands: true, Callers: []Caller{outsider(1)}, Faults: Faults{Failures: 1}, Exchange: true}},
	{"hand-over, operator", true, Case{Requests: with(on(1, 1, 1), 2, poison), Hands: true, Faults: Faults{Operations: 2, Resends: 1}}},
	{"hand-over, deferrals", true, Case{Requests: with(on(1, 1, 1), 3, deferred), Hands: true, Callers: []Caller{outsider(2), defers(3)}}},
	{"offer", false, Case{Requests: on(0, 0, 1), Hands: true, Offers: true, Once: true, Exchange: true}},
	{"offer, deaths", false, Case{Requests: on(0, 0), Hands: true, Offers: true, Faults: Faults{Deaths: 1, Tokens: 1}}},
	{"offer, pause", false, Case{Requests: on(0, 0), Offers: true, Faults: Faults{Leases: 1}}},
	{"offer, lost replies", false, Case{Requests: on(0, 0), Offers: true, Faults: Faults{Resends: 1, Claims: 1}, Exchange: true}},
	{"offer, cancel and drain", false, Case{Requests: on(0, 0), Hands: true, Offers: true, Faults: Faults{Cancels: 1, Drains: 1}}},
	{"offer, failure", false, Case{Requests: with(on(0, 0), 2, poison), Offers: true, Faults: Faults{Failures: 1, Operations: 1}, Exchange: true}},
	{"offer, faults", true, Case{Requests: on(0, 0), Hands: true, Offers: true, Faults: Faults{Deaths: 1, Resends: 2, Leases: 1, Failures: 1}}},
	{"death and pause", true, Case{Requests: with(on(1, 1), 2, deferred), Callers: []Caller{defers(2), outsider(1)}, Faults: Faults{Deaths: 1, Leases: 1}}},
}

// The rules hold in every state of these cases, and everything can and will
// finish from every one of them.
func TestRulesHold(t *testing.T) {
	skipUnderRace(t)
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			if tt.long && !*long {
				t.Skip("with -long")
			}
			began := time.Now()
			r := Check(tt.c, limit)
			t.Logf("%d states, %d steps in %v", r.States, r.Edges, time.Since(began).Round(time.Millisecond))
			if r.Violation != "" {
				t.Errorf("%s:\n%s", r.Violation, strings.Join(r.Trace, "\n"))
			} else if !r.Complete {
				t.Errorf("more than %d states", limit)
			}
		})
	}
}

var direct = []Caller{outsider(1)}

// withoutARule are the cases in which something breaks: the rule, what one would
// try instead, in the words of the table in docs/queue.md, and what it breaks.
var withoutARule = []struct {
	instead, breaks string
	c               Case
}{
	{`gate "held or parked ⇒ park" that does not know itself`, "L1", Case{Requests: on(1, 1), Off: Rules{GateForgetsItself: true}}},
	{"held only from claim on", "L2", Case{Requests: on(1, 1, 1), Off: Rules{TurnFromClaim: true}}},
	{"promote regardless of held", "I12", Case{Requests: on(1, 1, 1), Off: Rules{PromoteRegardless: true}}},
	{"gate ignores held", "I12", Case{Requests: on(1, 1), Off: Rules{GateIgnoresTurn: true}}},
	{"lease expiry or drain clears held", "I13", Case{Requests: on(1, 1), Faults: Faults{Leases: 1}, Off: Rules{ExpiryClearsTurn: true}}},
	{"park keeps held", "L1", Case{Requests: on(1), Callers: direct, Off: Rules{ParkKeepsTurn: true}}},
	{"park promotes the next", "H", Case{Requests: on(1), Callers: direct, Off: Rules{ParkPromotes: true}}},
	{"cancel forgets held", "L1", Case{Requests: on(1, 1), Faults: Faults{Cancels: 1}, Off: Rules{CancelKeepsTurn: true}}},
	{"nack or bury without promote", "I13", Case{Requests: on(1, 1), Faults: Faults{Failures: 1}, Off: Rules{PromotesNobody: true}}},
	{"no look after parking", "I13", Case{Requests: with(on(1, 1), 1, deferred), Callers: []Caller{defers(1), outsider(1)}, Off: Rules{NoLook: true}}},
	{"a look that does not register", "I13", Case{Requests: with(on(1), 1, deferred), Callers: []Caller{defers(1), outsider(1)}, Off: Rules{LookOnly: true}}},
	{"a stale worker tells nobody", "I13", Case{Requests: on(1), Faults: Faults{Leases: 1}, Off: Rules{StaleTellsNobody: true}}},
	{"ack before release", "S7", Case{Requests: on(1, 1), Once: true, Off: Rules{AckFirst: true}}},
	{"park by id without the token", "I5", Case{Requests: on(1), Callers: direct, Faults: Faults{Leases: 1}, Off: Rules{AnyToken: true}}},
	{`push is idempotent by "body exists"`, "S3", Case{Requests: on(1), Faults: Faults{Resends: 1}, Off: Rules{ForgetsFinished: true}}},
	{"claim not recorded", "I6", Case{Requests: on(1, 1), Faults: Faults{Claims: 1}, Off: Rules{ClaimUnrecorded: true}}},
	{"claim checks the body only", "I1", Case{Requests: on(1), Faults: Faults{Operations: 1}, Off: Rules{ClaimByBody: true}}},
	{"claim leaves no token", "I4", Case{Requests: on(0, 0), Off: Rules{ClaimEatsToken: true}}},
	{"promote pushes no token", "I4", Case{Requests: on(1, 1), Callers: direct, Off: Rules{PromoteSilently: true}}},
	{"no safety poll", "L1", Case{Requests: on(1), Faults: Faults{Tokens: 1}, Off: Rules{NoPoll: true}}},
	{"a request is handed over without the gate", "I12", Case{Requests: on(1, 1), Hands: true, Off: Rules{HandIgnoresTurn: true}}},
	{"a request is handed over past those in ready", "S6", Case{Requests: on(1, 1, 1), Hands: true, Ordered: true, Off: Rules{HandOvertakes: true}}},
	{"a request that is handed over stands for the token", "I4", Case{Requests: on(0, 0), Hands: true, Off: Rules{HandIsToken: true}}},
	{"a request that was offered is forgotten when it is done before it is stored", "S7", Case{Requests: on(0), Offers: true, Once: true, Off: Rules{OfferForgotten: true}}},
	{"a request is pushed whose offer may yet come", "S8", Case{Requests: on(0), Offers: true, Faults: Faults{Resends: 1}, Off: Rules{OfferPushed: true}}},
	{"waker pops while busy", "H", Case{Requests: on(0, 0), Off: Rules{WakerNeverPauses: true}}},
}

// Without any one of the rules something breaks.
func TestEachRuleIsNeeded(t *testing.T) {
	skipUnderRace(t)
	for _, tt := range withoutARule {
		t.Run(tt.instead, func(t *testing.T) {
			began := time.Now()
			c := tt.c
			c.Only = tt.breaks
			r := Check(c, limit)
			if !strings.HasPrefix(r.Violation, tt.breaks+":") || len(r.Trace) == 0 {
				t.Fatalf("of %d states (complete: %v) it is %q, want a violation of %s\n%s", r.States, r.Complete, r.Violation, tt.breaks, strings.Join(r.Trace, "\n"))
			}
			t.Logf("after %d states in %v: %s\n%s", r.States, time.Since(began).Round(time.Millisecond), r.Violation, strings.Join(r.Trace, "\n"))
		})
	}
}

// skipUnderRace skips where the race detector would only cost minutes: nothing
// here is concurrent.
func skipUnderRace(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("nothing here is concurrent")
	}
}

// Every row of the table in docs/queue.md is a case here, or of the clock.
func TestEachRowOfTheTableIsACase(t *testing.T) {
	doc, err := os.ReadFile("../../docs/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "| instead of the rule |")
	table, _, _ = strings.Cut(table, "\n\n")
	var rows, names []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(table, -1) {
		rows = append(rows, m[1])
	}
	rows = slices.DeleteFunc(rows, func(r string) bool { return r == "---" })
	for _, tt := range withoutARule {
		names = append(names, tt.instead)
	}
	names = append(names, clockWithoutARule[0].instead)
	if len(rows) == 0 || !slices.Equal(rows, names) {
		t.Errorf("the table in docs/queue.md has\n%q,\nthe model\n%q", rows, names)
	}
}
