package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/history"
)

// Result is the account of a run. Durations in JSON are nanoseconds.
type Result struct {
	Topology string        `json:"topology"`
	Seed     uint64        `json:"seed"`
	OK       bool          `json:"ok"` // every promise was kept
	Broken   []string      `json:"broken,omitempty"`
	Notes    []string      `json:"notes,omitempty"`
	From     int64         `json:"from_ns"` // of the shared clock
	To       int64         `json:"to_ns"`
	Harmed   time.Duration `json:"harmed_ns"`
	Drained  time.Duration `json:"drained_ns"` // until the queue was empty, once all harm was over

	Faults     []Fault `json:"faults"`
	FaultsDone int     `json:"faults_done"` // those without an error

	Replaced []Replacement `json:"replaced"` // masters, by their sentinels

	Requests    int      `json:"requests"`
	Accepted    int      `json:"accepted"` // stored, as the caller was told: they must run
	RanInCall   int      `json:"ran_in_call"`
	Done        int      `json:"done"`       // accepted, and a section of theirs came to its end
	Refused     int      `json:"refused"`    // an error was returned, and none ran
	Ambiguous   int      `json:"ambiguous"`  // no answer, or an error, and they ran all the same
	Unanswered  int      `json:"unanswered"` // their client was killed, and none ran
	Lost        int      `json:"lost"`
	LostIDs     []string `json:"lost_ids,omitempty"`
	Replication int      `json:"lost_to_replication"` // with a master that was replaced, where accepting did not wait
	Unfinished  int      `json:"unfinished"`          // accepted, and still in the queue
	Dead        int      `json:"dead"`

	Sections  int            `json:"sections"`
	Complete  int            `json:"sections_complete"`
	CutShort  int            `json:"sections_cut_short"`
	Again     int            `json:"done_again"` // complete sections beyond the first of a request
	Because   map[string]int `json:"done_again_because,omitempty"`
	Overlaps  []Overlap      `json:"overlaps"`
	Split     []Overlap      `json:"overlaps_of_two_masters"` // that the sentinels let serve at a time
	Disorders []Overlap      `json:"fence_disorders"`
	Late      int            `json:"late_contexts"` // seen to go on after their leases had run out
	Latest    time.Duration  `json:"latest_context_ns"`

	StaleLet     int `json:"stale_writes_let_through"`
	StaleRefused int `json:"stale_writes_refused"`
	StaleWithout int `json:"stale_writes_without_fence"` // of the same sections, beside the guard

	Recovery map[string]Times `json:"recovery"` // by kind: from the fault to the end of the next section
	Rerun    Times            `json:"rerun"`    // from a worker's death until its requests began again
	Calm     Times            `json:"rerun_undisturbed"`
	Bound    time.Duration    `json:"rerun_bound_ns"`
	Over     int              `json:"rerun_undisturbed_over_bound"`

	// Still is for how long no goroutine of this process ran, at worst: the machine
	// was busy elsewhere, or asleep, and all that is measured in time means less.
	Still time.Duration `json:"stood_still_ns"`

	History history.Report `json:"history"`
	Coped   map[string]int `json:"faults_logged_by_the_library"`
	Kills   int            `json:"processes_killed"`
	Lives   int            `json:"processes"`
	Deaths  []string       `json:"processes_that_died_by_themselves,omitempty"`

	sections []*section
	lives    []*life
	seats    []*seat
	ops      []history.Op
	servers  []string
}

// Overlap is a pair of sections that must not be.
type Overlap struct {
	Key    string        `json:"key"`
	First  string        `json:"first"`
	Second string        `json:"second"`
	By     time.Duration `json:"by_ns"`
}

// Times are of a number of durations.
type Times struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	Max   time.Duration `json:"max_ns"`
}

func timesOf(all []time.Duration) Times {
	slices.Sort(all)
	t := Times{Count: len(all)}
	if len(all) > 0 {
		t.P50, t.Max = all[(len(all)-1)/2], all[len(all)-1]
	}
	return t
}

// section is one run of the handler.
type section struct {
	by       *life
	id, key  string
	fence    int64
	from, to int64 // to: its end, or that of its process
	valid    int64 // the last time at which it was; 0: none
	wrote    string
	text     string
	over     bool // its last statement was reached
	complete bool
}

// entry is what is known of a request.
type entry struct {
	offered, answered   int64
	accepted, ran, said bool // said: the call returned
	runs                []*section
	complete            []*section
}

// account makes the account from what the members wrote.
func (r *Result) account(ctx context.Context, c *crew, n *nemesis, queue *sidestep.Queue) error {
	r.lives, r.seats, r.Deaths, r.Lives = c.lives, c.seats, c.deaths, len(c.lives)
	for _, s := range c.servers.nodes {
		r.servers = append(r.servers, s.name)
	}
	r.Faults = n.faults
	slices.SortFunc(r.Faults, func(a, b Fault) int { return cmp.Compare(a.From, b.From) })
	for _, f := range r.Faults {
		if f.Err == "" {
			r.FaultsDone++
		}
	}
	r.Coped, r.Because = make(map[string]int), make(map[string]int)
	entries := make(map[string]*entry)
	for _, l := range c.lives {
		if l.killed {
			r.Kills++
		}
		if err := r.read(l, entries); err != nil {
			return fmt.Errorf("what %s wrote: %w", l.seat.name, err)
		}
	}
	r.Requests = len(entries)
	r.checkSections()
	r.checkRequests(ctx, entries, queue)
	r.recovery(entries)
	reg := newRegister(c.servers.register.addr, false)
	defer reg.rdb.Close()
	for i := range requestKeys + historyKeys {
		key := fmt.Sprint("k", i)
		if i >= requestKeys {
			key = fmt.Sprint("h", i-requestKeys)
		}
		let, err := reg.stale(ctx, passedKey(key))
		if err != nil {
			return err
		}
		without, err := reg.stale(ctx, unfencedKey(key))
		if err != nil {
			return err
		}
		r.StaleLet += let
		r.StaleWithout += without
	}
	return nil
}

// read enters what one process wrote.
func (r *Result) read(l *life, entries map[string]*entry) error {
	records, err := readNotebook(l.notebook)
	if err != nil {
		return err
	}
	at := func(id string) *entry {
		e := entries[id]
		if e == nil {
			e = &entry{}
			entries[id] = e
		}
		return e
	}
	open := make(map[int64]*section)
	ops := make(map[int64]history.Op)
	for _, rec := range records {
		switch rec.What {
		case offered:
			at(rec.ID).offered = rec.At
		case accepted:
			e := at(rec.ID)
			e.accepted, e.said, e.answered = true, true, rec.At
		case ran:
			e := at(rec.ID)
			e.ran, e.said, e.answered = true, true, rec.At
		case failed:
			e := at(rec.ID)
			e.said, e.answered = true, rec.At
		case entered:
			s := &section{by: l, id: rec.ID, key: rec.Key, fence: rec.Fence, from: rec.At, valid: rec.Valid}
			open[rec.Number] = s
			r.sections = append(r.sections, s)
			e := at(rec.ID)
			e.runs = append(e.runs, s)
			r.late(rec)
		case left:
			s := open[rec.Number]
			if s == nil {
				return fmt.Errorf("the end of section %d, which never began", rec.Number)
			}
			delete(open, rec.Number)
			s.over, s.to, s.valid, s.wrote, s.text = true, rec.At, rec.Valid, rec.Wrote, rec.Text
			if s.complete = rec.Text == ""; s.complete {
				at(rec.ID).complete = append(at(rec.ID).complete, s)
			}
			if rec.Wrote == "stale" {
				r.StaleRefused++
			}
			r.late(rec)
		case operation:
			if rec.Op.Result == history.Refused {
				r.StaleRefused++
			}
			ops[rec.Number] = *rec.Op
		case coped:
			r.Coped[rec.Text]++
		case died:
			r.Dead++
			r.Notes = append(r.Notes, fmt.Sprintf("%s is dead: %s", rec.ID, rec.Text))
		}
	}
	for _, s := range open {
		s.to = max(cmp.Or(l.to, r.To), s.from)
	}
	ended := make(map[string]bool)
	name := func(o history.Op) string { return fmt.Sprint(o.Key, " ", o.Fence) }
	for _, o := range ops {
		if o.Kind == history.End {
			ended[name(o)] = true
		}
		r.ops = append(r.ops, o)
	}
	for _, o := range ops {
		if o.Kind == history.Acquire && !ended[name(o)] { // killed before its next line
			o.Kind, o.Return = history.End, history.Forever
			r.ops = append(r.ops, o)
		}
	}
	return nil
}

func (r *Result) late(rec record) {
	if rec.Late > 0 {
		r.Late++
		r.Latest = max(r.Latest, time.Duration(rec.Late))
	}
}

// checkSections looks for valid sections of a key that overlap, and whose fences
// do not grow.
func (r *Result) checkSections() {
	r.Overlaps, r.Split, r.Disorders = []Overlap{}, []Overlap{}, []Overlap{} // [] in JSON, not null
	slices.SortFunc(r.sections, func(a, b *section) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.from, b.from))
	})
	var longest, highest *section
	for _, s := range r.sections {
		r.Sections++
		switch {
		case s.complete:
			r.Complete++
		default:
			r.CutShort++
		}
		if s.valid == 0 {
			continue
		}
		if longest != nil && longest.key != s.key {
			longest, highest = nil, nil
		}
		if longest != nil && s.from < longest.valid {
			o := Overlap{s.key, longest.name(), s.name(), time.Duration(min(longest.valid, s.valid) - s.from)}
			if r.split(s.from) {
				r.Split = append(r.Split, o)
			} else {
				r.Overlaps = append(r.Overlaps, o)
			}
		}
		if highest != nil && s.fence <= highest.fence {
			r.Disorders = append(r.Disorders, Overlap{s.key, highest.name(), s.name(), time.Duration(s.from - highest.from)})
		}
		if longest == nil || s.valid > longest.valid {
			longest = s
		}
		if highest == nil || s.fence > highest.fence {
			highest = s
		}
	}
}

func (s *section) name() string {
	return fmt.Sprintf("%s on %s, fence %d", s.id, s.by.seat.name, s.fence)
}

// checkRequests looks at what became of each request.
func (r *Result) checkRequests(ctx context.Context, entries map[string]*entry, queue *sidestep.Queue) {
	for id, e := range entries {
		slices.SortFunc(e.complete, func(a, b *section) int { return cmp.Compare(a.from, b.from) })
		slices.SortFunc(e.runs, func(a, b *section) int { return cmp.Compare(a.from, b.from) })
		for i := 1; i < len(e.complete); i++ {
			r.Again++
			r.Because[r.why(e.complete[i-1], e.complete[i])]++
		}
		switch {
		case e.accepted && len(e.complete) > 0:
			r.Accepted++
			r.Done++
		case e.accepted:
			r.Accepted++
			_, err := queue.Get(ctx, id)
			switch {
			case err == nil || !errors.Is(err, sidestep.ErrUnknown):
				r.Unfinished++
			case r.Topology == SentinelAsync && r.replaced(e):
				r.Replication++
			default:
				r.Lost++
				if len(r.LostIDs) < 20 {
					r.LostIDs = append(r.LostIDs, id)
				}
			}
		case e.ran:
			r.RanInCall++
		case len(e.complete) > 0:
			r.Ambiguous++
		case e.said:
			r.Refused++
		default:
			r.Unanswered++
		}
	}
	slices.Sort(r.LostIDs)
}

// replaced tells whether a request was accepted by a master that was replaced
// before the replica surely had it.
func (r *Result) replaced(e *entry) bool {
	return slices.ContainsFunc(r.Replaced, func(m Replacement) bool { return e.answered >= m.From && e.offered <= m.To })
}

// split tells whether, when the second of two sections began, two masters may
// have served, or leases of both still ran.
func (r *Result) split(from int64) bool {
	return slices.ContainsFunc(r.Replaced, func(m Replacement) bool {
		return m.Both && from >= m.From && from <= m.To+int64(lockTTL)
	})
}

// twoMasters says when a master served on that had been replaced; "" if none did.
func (r *Result) twoMasters() string {
	var all []string
	for _, m := range r.Replaced {
		if m.Both {
			all = append(all, fmt.Sprintf("%s replaced %s, which served on for %v", m.New, m.Old, time.Duration(m.To-m.At).Round(time.Millisecond)))
		}
	}
	return strings.Join(all, "; ")
}

// why names the fault between two complete sections of a request: delivery is at
// least once, so that what keeps an acknowledgement from Redis makes a second.
func (r *Result) why(first, second *section) string {
	for _, m := range r.Replaced {
		if m.From <= second.from && m.To+int64(queueLease) >= first.from { // what was acknowledged may be undone
			return "failover"
		}
	}
	var own, other string
	for _, f := range r.Faults {
		switch {
		case f.From > second.from || f.To+int64(queueLease) < first.from:
		case f.Target == first.by.seat.name:
			own = cmp.Or(own, f.Kind)
		case slices.Contains(r.servers, f.Target):
			other = cmp.Or(other, f.Kind)
		}
	}
	return cmp.Or(own, other, "no fault")
}

// recovery measures how long it took to go on.
func (r *Result) recovery(entries map[string]*entry) {
	var ends []int64
	for _, s := range r.sections {
		if s.complete {
			ends = append(ends, s.to)
		}
	}
	slices.Sort(ends)
	r.Recovery = make(map[string]Times)
	byKind := make(map[string][]time.Duration)
	for _, f := range r.Faults {
		if f.Err == "" && len(ends) > 0 {
			byKind[f.Kind] = append(byKind[f.Kind], stall(ends, f))
		}
	}
	for kind, all := range byKind {
		r.Recovery[kind] = timesOf(all)
	}
	r.Bound = queueLease + 100*time.Millisecond
	var all, calm []time.Duration
	for _, e := range entries {
		for i, s := range e.runs {
			if s.over || !s.by.killed || !s.by.seat.worker || i+1 == len(e.runs) {
				continue
			}
			next := e.runs[i+1]
			took := time.Duration(next.from - s.by.to)
			if took < 0 {
				continue // its lease had ended before
			}
			all = append(all, took)
			if r.calm(s.by, next) {
				calm = append(calm, took)
				if took > r.Bound {
					r.Over++
				}
			}
		}
	}
	r.Rerun, r.Calm = timesOf(all), timesOf(calm)
}

// stall returns the longest time without the end of a section that touches a
// fault, of which counts what comes after the fault began.
func stall(ends []int64, f Fault) time.Duration {
	longest := int64(0)
	for i, _ := slices.BinarySearch(ends, f.From); i < len(ends); i++ {
		begin := f.From
		if i > 0 {
			begin = max(begin, ends[i-1])
		}
		longest = max(longest, ends[i]-begin)
		if ends[i] > f.To {
			break
		}
	}
	return time.Duration(longest)
}

// calm tells whether, between a worker's death and the new run of its request,
// nothing else happened that could have kept that up: no fault of a server or of
// another worker, and nobody else under that lock, such as a direct caller.
func (r *Result) calm(dead *life, next *section) bool {
	from, to := dead.to, next.from
	for _, f := range r.Faults {
		if f.Kind != "script-flush" && f.From < to && f.To > from && f.Target != dead.seat.name {
			return false
		}
	}
	for _, s := range r.sections {
		if s.key == next.key && s != next && s.by != dead && s.from < to && s.to > from {
			return false
		}
	}
	return true
}

// judge says which promises were broken.
func (r *Result) judge() {
	broken := func(n int, format string, args ...any) {
		if n > 0 {
			r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
		}
	}
	broken(r.Lost, "%d accepted requests are lost", r.Lost)
	broken(r.Unfinished, "%d accepted requests did not run within %v", r.Unfinished, drainLimit)
	broken(r.Dead, "%d requests are dead, though failures are not limited", r.Dead)
	broken(len(r.Overlaps), "%d valid sections overlap another of their lock", len(r.Overlaps))
	broken(len(r.Disorders), "%d valid sections have a fence that is not larger than one before", len(r.Disorders))
	broken(r.StaleLet, "%d stale writes passed the fence", r.StaleLet)
	if two := r.twoMasters(); two == "" {
		broken(len(r.History.Violations), "the history of the locks breaks a rule %d times", len(r.History.Violations))
	} else {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: %d valid sections overlap another of their lock then, and the history of the locks breaks a rule %d times",
			two, len(r.Split), len(r.History.Violations)))
	}
	broken(len(r.Deaths), "%d processes died by themselves", len(r.Deaths))
	if r.Complete == 0 {
		broken(1, "no section came to its end")
	}
	r.OK = len(r.Broken) == 0
}
