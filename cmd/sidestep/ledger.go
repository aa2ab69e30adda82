package main

import (
	"fmt"
	"sync"
	"time"
)

// state is what became of a request.
type state int

const (
	waiting state = iota
	done          // a section of it ended without an error
	refused       // its policy gave up while the lock was held
	failed        // its call returned another error
	dead          // the queue gave up on it
)

// entry is the ledger's account of one request.
type entry struct {
	line
	called     int64 // 0: not yet
	answered   int64 // when the caller was free again; 0: not yet
	started    int64 // begin of its first section; 0: none
	ended      int64 // of the section that made it done
	complete   int   // sections that ended without an error
	cut        int   // sections that ended with one, or with their process
	deliveries int   // as far as known
	deferrals  int
	byCaller   bool // stored by a direct call
	stopped    bool // its call was ended with the run
	state      state
	reason     string
	retryAfter time.Duration
}

// ledger keeps account of every request and every section, from what the
// processes report. It is safe for concurrent use.
type ledger struct {
	settled chan struct{} // closed when every request is
	changed func(settled int)

	mu       sync.Mutex // guards the fields below
	entries  map[string]*entry
	order    []*entry
	sections []section
	open     map[sectionID]int // into sections
	left     int
	last     int64 // when something last happened
	faults   map[string]int
	reasons  map[string]int // why sections were cut
	strange  []string       // events that make no sense
}

// sectionID names a section that has not ended.
type sectionID struct {
	process int
	number  int64
}

// newLedger returns a ledger of the requests. changed is called when one is
// settled; it must not block.
func newLedger(lines []line, changed func(settled int)) *ledger {
	l := &ledger{
		settled: make(chan struct{}),
		changed: changed,
		entries: make(map[string]*entry, len(lines)),
		order:   make([]*entry, len(lines)),
		open:    make(map[sectionID]int),
		left:    len(lines),
		last:    now(),
		faults:  make(map[string]int),
		reasons: make(map[string]int),
	}
	for i, in := range lines {
		e := &entry{line: in}
		l.order[i], l.entries[in.id] = e, e
	}
	if l.left == 0 {
		close(l.settled)
	}
	return l
}

// record enters what a process reported.
func (l *ledger) record(process int, e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = max(l.last, e.At)
	switch e.Kind {
	case kindReady:
		return
	case kindFault:
		l.faults[e.Text]++
		return
	}
	r := l.entries[e.ID]
	if r == nil {
		l.strange = append(l.strange, fmt.Sprintf("%s of an unknown id %q", e.Kind, e.ID))
		return
	}
	r.deliveries = max(r.deliveries, e.Deliveries)
	if e.answers() && r.answered == 0 {
		r.answered = e.At
	}
	switch e.Kind {
	case kindCalled:
		if r.called == 0 {
			r.called = e.At
		}
	case kindBegin:
		l.begin(process, e, r)
	case kindEnd:
		l.end(sectionID{process, e.Section}, e, r)
	case kindRan:
		// Its section said so already.
	case kindStopped:
		r.stopped = true
	case kindDeferred:
		r.deferrals++
		r.byCaller = true
	case kindPostponed:
		r.deferrals++
	case kindLocked:
		r.retryAfter = e.RetryAfter
		l.settle(r, refused, e.Owner)
	case kindFailed:
		l.settle(r, failed, e.Text)
	case kindDead:
		l.settle(r, dead, e.Text)
	default:
		l.strange = append(l.strange, fmt.Sprintf("unknown event %q", e.Kind))
	}
}

func (l *ledger) begin(process int, e event, r *entry) {
	if r.started == 0 {
		r.started = e.At
	}
	l.open[sectionID{process, e.Section}] = len(l.sections)
	l.sections = append(l.sections, section{
		id: r.id, key: r.key, line: r.number, process: process, begin: e.At, fence: e.Fence, ready: r.called,
	})
}

func (l *ledger) end(id sectionID, e event, r *entry) {
	i, ok := l.open[id]
	if !ok {
		l.strange = append(l.strange, fmt.Sprintf("end of a section of %q that never began", e.ID))
		return
	}
	delete(l.open, id)
	l.sections[i].end = e.At
	if e.Text != "" {
		r.cut++
		l.reasons[e.Text]++
		return
	}
	r.complete++
	if r.ended == 0 {
		r.ended = e.At
	}
	l.settle(r, done, "")
}

// settle makes a request's state final. Done outweighs all others: an answer may
// say less than what a worker then did.
func (l *ledger) settle(r *entry, to state, reason string) {
	was := r.state
	if was == done {
		return
	}
	r.state, r.reason = to, reason
	if was != waiting {
		return
	}
	l.left--
	if l.changed != nil {
		l.changed(len(l.order) - l.left)
	}
	if l.left == 0 {
		close(l.settled)
	}
}

// died ends the sections that a process left open. It can have worked on them
// until then, at most.
func (l *ledger) died(process int, at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, i := range l.open {
		if id.process != process {
			continue
		}
		delete(l.open, id)
		s := &l.sections[i]
		s.end = max(at, s.begin)
		l.entries[s.id].cut++
		l.reasons["its process died"]++
	}
}

// quiet returns for how long nothing has happened.
func (l *ledger) quiet() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(now() - l.last)
}
