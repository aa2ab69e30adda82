package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// report is what a run came to. Durations in JSON are nanoseconds.
type report struct {
	Input      string    `json:"input"`
	Server     string    `json:"server"`
	Via        string    `json:"via"`
	Policy     string    `json:"policy"`
	Workers    int       `json:"workers"`
	Processes  int       `json:"processes"`
	Bad        []badLine `json:"bad_lines"`
	OK         bool      `json:"ok"` // every promise was kept
	Interrupt  bool      `json:"interrupted"`
	Notes      []string  `json:"notes,omitempty"`
	Deaths     []string  `json:"dead_processes,omitempty"`
	Unbalanced string    `json:"unbalanced,omitempty"` // why the ledger does not balance

	Requests  int `json:"requests"`
	Done      int `json:"done"`
	Locked    int `json:"failed_locked"`
	Failed    int `json:"failed_error"`
	Dead      int `json:"dead"`
	Stored    int `json:"unfinished_in_redis"`
	NotMade   int `json:"unfinished_not_made"`
	Lost      int `json:"lost"`
	Lingering int `json:"done_still_in_redis"`

	LostIDs []string       `json:"lost_ids,omitempty"`
	Reasons map[string]int `json:"reasons,omitempty"` // of failed and dead
	Cut     map[string]int `json:"cut_sections,omitempty"`
	Faults  map[string]int `json:"faults,omitempty"` // that the library dealt with

	RetryAfter    time.Duration `json:"longest_retry_after_ns"`
	Deferred      int           `json:"deferred"` // requests
	DeferredByDo  int           `json:"deferred_by_callers"`
	DeferredDone  int           `json:"deferred_by_callers_done"`
	Deferrals     int           `json:"deferrals"` // times
	Deliveries    int           `json:"deliveries"`
	Delivered     int           `json:"delivered"` // requests
	PerRequest    float64       `json:"deliveries_per_request"`
	Sections      int           `json:"sections"`
	RanAgain      int           `json:"ran_again"`
	Overlaps      []overlap     `json:"overlaps"`
	Disorders     []disorder    `json:"fence_disorders"`
	Inversions    int           `json:"inversions"`
	WorstKey      string        `json:"inversions_worst_key,omitempty"`
	WorstCount    int           `json:"inversions_worst_count"`
	Keys          int           `json:"keys"`
	KeysRemoved   int           `json:"redis_keys_removed"`
	LongestKey    string        `json:"longest_key"`
	LongestCount  int           `json:"longest_key_requests"`
	Makespan      time.Duration `json:"makespan_ns"`
	Ideal         time.Duration `json:"ideal_ns"`
	InSections    time.Duration `json:"in_sections_ns"`
	LongestActive time.Duration `json:"longest_key_in_sections_ns"`
	PerSecond     float64       `json:"done_per_second"`
	Wait          percentiles   `json:"wait"`
	Blocked       percentiles   `json:"blocked"` // callers, in Do
	HandOver      percentiles   `json:"hand_over"`
}

// percentiles of a set of durations.
type percentiles struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

func percentilesOf(sorted []time.Duration) percentiles {
	return percentiles{
		Count: len(sorted),
		P50:   percentile(sorted, 0.5), P90: percentile(sorted, 0.9),
		P99: percentile(sorted, 0.99), Max: percentile(sorted, 1),
	}
}

// newReport closes the ledger. left are the ids that Redis still has.
func newReport(opt replayOptions, server string, l *ledger, left map[string]bool, end ending) *report {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.open { // nobody says how they ended
		l.sections[i].end = max(now(), l.sections[i].begin)
	}
	r := &report{
		Server: server, Via: opt.via, Policy: opt.policy.String(), Workers: opt.workers, Processes: opt.processes,
		Interrupt: end.interrupted, Notes: append(end.notes, l.strange...),
		Requests: len(l.order), Sections: len(l.sections),
		Reasons: make(map[string]int), Cut: l.reasons, Faults: l.faults,
	}
	var waits, blocked []time.Duration
	for _, e := range l.order {
		r.count(e, left[e.id])
		if e.started > 0 && e.called > 0 {
			waits = append(waits, time.Duration(e.started-e.called))
		}
		if e.answered > 0 && e.called > 0 {
			blocked = append(blocked, time.Duration(e.answered-e.called))
		}
	}
	slices.Sort(waits)
	slices.Sort(blocked)
	r.Wait, r.Blocked = percentilesOf(waits), percentilesOf(blocked)
	if r.Delivered > 0 {
		r.PerRequest = float64(r.Deliveries) / float64(r.Delivered)
	}
	r.look(l)
	r.time(opt, l)
	r.balance(l)
	r.OK = r.Lost == 0 && len(r.Overlaps) == 0 && len(r.Disorders) == 0 && r.Unbalanced == "" &&
		(r.Interrupt || r.Stored+r.NotMade == 0)
	return r
}

// count enters one request. stored tells whether Redis still has it.
func (r *report) count(e *entry, stored bool) {
	r.RanAgain += max(0, e.complete-1)
	r.Deferrals += e.deferrals
	if e.deferrals > 0 {
		r.Deferred++
	}
	if e.byCaller {
		r.DeferredByDo++
		if e.state == done {
			r.DeferredDone++
		}
	}
	if e.deliveries > 0 {
		r.Delivered++
		r.Deliveries += e.deliveries
	}
	switch e.state {
	case done:
		r.Done++
		if stored {
			r.Lingering++
		}
	case refused:
		r.Locked++
		r.RetryAfter = max(r.RetryAfter, e.retryAfter)
	case failed:
		r.Failed++
		r.Reasons[e.reason]++
	case dead:
		r.Dead++
		r.Reasons[e.reason]++
	default:
		switch {
		case stored:
			r.Stored++
		case e.called == 0 || e.stopped:
			r.NotMade++
		default:
			r.Lost++
			if len(r.LostIDs) < 20 {
				r.LostIDs = append(r.LostIDs, e.id)
			}
		}
	}
}

// look takes over what the sections show.
func (r *report) look(l *ledger) {
	f := check(l.sections)
	r.Overlaps, r.Disorders = f.overlaps, f.disorders
	r.Inversions, r.WorstKey, r.WorstCount = f.inversions, f.worstKey, f.worst
	r.HandOver = percentilesOf(f.handovers)
	r.InSections = f.took
}

// time compares the run with the shortest possible one.
func (r *report) time(opt replayOptions, l *ledger) {
	counts := make(map[string]int)
	active := make(map[string]time.Duration)
	for _, e := range l.order {
		counts[e.key]++
	}
	for _, s := range l.sections {
		active[s.key] += time.Duration(s.end - s.begin)
	}
	r.Keys = len(counts)
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if counts[key] > r.LongestCount {
			r.LongestKey, r.LongestCount = key, counts[key]
		}
	}
	r.LongestActive = active[r.LongestKey]
	places := opt.workers
	if opt.via == "direct" && opt.policy.defers {
		places *= 2 // workers beside the callers
	}
	r.Ideal = max(time.Duration(r.LongestCount)*opt.work, time.Duration(r.Requests)*opt.work/time.Duration(places))
	var first, last int64
	for _, e := range l.order {
		if e.called > 0 && (first == 0 || e.called < first) {
			first = e.called
		}
		last = max(last, e.ended)
	}
	if last > first && first > 0 {
		r.Makespan = time.Duration(last - first)
		r.PerSecond = float64(r.Done) / r.Makespan.Seconds()
	}
}

// balance says why the numbers do not add up, if they do not.
func (r *report) balance(l *ledger) {
	sum := r.Done + r.Locked + r.Failed + r.Dead + r.Stored + r.NotMade + r.Lost
	complete, cut := 0, 0
	for _, e := range l.order {
		complete += e.complete
		cut += e.cut
	}
	switch {
	case sum != r.Requests:
		r.Unbalanced = fmt.Sprintf("%d requests, but %d accounted for", r.Requests, sum)
	case complete != r.Done+r.RanAgain:
		r.Unbalanced = fmt.Sprintf("%d sections completed, but %d requests done and %d ran again", complete, r.Done, r.RanAgain)
	case complete+cut+len(l.open) != r.Sections:
		r.Unbalanced = fmt.Sprintf("%d sections began, but %d ended", r.Sections, complete+cut)
	case len(l.strange) > 0:
		r.Unbalanced = l.strange[0]
	}
}

// verdict returns the exit status as an error, or nil.
func (r *report) verdict() error {
	switch {
	case !r.OK:
		return &exitError{status: exitBroken}
	case r.Interrupt:
		return &exitError{status: exitInterrupted}
	}
	return nil
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// counted is a text and how often it came up.
type counted struct {
	text string
	n    int
}

// mostFirst sorts counts for reading.
func mostFirst(counts map[string]int) []counted {
	var all []counted
	for text, n := range counts {
		all = append(all, counted{text, n})
	}
	slices.SortFunc(all, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.text, b.text))
	})
	return all
}
