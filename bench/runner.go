package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
)

// scenario is one comparison: the same work done by each peer, in turn.
type scenario struct {
	name   string // for -scenario
	title  string
	about  string // what is measured, and what the limit is
	rounds int    // unless -rounds says fewer; 0: 3, or as many as -rounds says
	// metrics are the columns; the first is the one that ratios are printed of.
	metrics []metric
	peers   []peer
	targets []target
}

// metric is one column.
type metric struct {
	name string
	less bool // less is better
}

// peer is one row: a library with its settings, or the work done by hand, which
// is the limit.
type peer struct {
	name  string
	note  string // its settings, where they are not the defaults, and why
	limit bool
	run   func(e *env) (values, error)
}

// values are the measurements of one round, by metric. What a peer cannot do is
// left out.
type values map[string]float64

// target is what is claimed: a value, or a ratio of two peers in the same
// rounds, within a bound.
type target struct {
	metric  string
	of      string // a peer; "sidestep" if empty
	over    string // another one; or bestPeer, the best that is no limit and not ours; "" for the value itself
	atLeast float64
	atMost  float64 // 0 with atLeast set: no bound
	zero    bool    // must be 0
}

const (
	ours     = "sidestep"
	bestPeer = "the best peer"
)

func isOurs(name string) bool { return strings.HasPrefix(name, ours) }

// result is what a scenario gave, as it is written to JSON.
type result struct {
	Scenario string         `json:"scenario"`
	Title    string         `json:"title"`
	About    string         `json:"about"`
	Metrics  []metricResult `json:"metrics"`
	Peers    []peerResult   `json:"peers"`
	Targets  []targetResult `json:"targets"`
	Seconds  float64        `json:"seconds"`
}

type metricResult struct {
	Name string `json:"name"`
	Less bool   `json:"less_is_better"`
}

type peerResult struct {
	Peer   string               `json:"peer"`
	Note   string               `json:"note,omitempty"`
	Limit  bool                 `json:"limit,omitempty"`
	Error  string               `json:"error,omitempty"`
	Rounds map[string][]float64 `json:"rounds"` // by metric
}

type targetResult struct {
	Text   string  `json:"text"`
	Value  float64 `json:"value"`
	Figure string  `json:"figure"` // the value as it is printed
	Holds  bool    `json:"holds"`
}

// runScenario measures every peer in every round, in alternating order. The first
// round begins with the first peer if turn is even, and with the last one if it is
// odd: else ours would always come first where there is but one round. It stops
// between two peers when ctx ends. rounds is what -rounds says, or 0.
func runScenario(ctx context.Context, e *env, s scenario, turn, rounds int, only func(string) bool, progress io.Writer) (result, error) {
	began := time.Now()
	switch {
	case rounds == 0:
		rounds = cmp.Or(s.rounds, 3)
	case s.rounds > 0:
		rounds = min(rounds, s.rounds)
	}
	r := result{Scenario: s.name, Title: s.title, About: s.about}
	for _, m := range s.metrics {
		r.Metrics = append(r.Metrics, metricResult{m.name, m.less})
	}
	var peers []peer
	for _, p := range s.peers {
		if only(p.name) {
			peers = append(peers, p)
			r.Peers = append(r.Peers, peerResult{Peer: p.name, Note: p.note, Limit: p.limit, Rounds: map[string][]float64{}})
		}
	}
	for round := range rounds {
		order := make([]int, len(peers))
		for i := range order {
			order[i] = i
		}
		if (turn+round)%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			p, out := peers[i], &r.Peers[i]
			if out.Error != "" {
				continue
			}
			if ctx.Err() != nil {
				fmt.Fprint(progress, "\r\033[K")
				return r, errInterrupted
			}
			fmt.Fprintf(progress, "\r\033[K%s: round %d of %d: %s", s.name, round+1, rounds, p.name)
			v, err := one(e, p)
			if err != nil {
				out.Error = err.Error() // what it measured until then is no measurement
				continue
			}
			for _, m := range s.metrics {
				if x, ok := v[m.name]; ok && !math.IsNaN(x) {
					out.Rounds[m.name] = append(out.Rounds[m.name], x)
				}
			}
		}
	}
	fmt.Fprint(progress, "\r\033[K")
	if !e.quick { // whose sizes are others than those that the targets are for
		r.Targets = judgeAll(s, r.Peers)
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// one is one peer's turn, on an empty server.
func one(e *env, p peer) (values, error) {
	if err := e.empty(); err != nil {
		return nil, err
	}
	runtime.GC()
	return p.run(e)
}

func judgeAll(s scenario, peers []peerResult) []targetResult {
	var all []targetResult
	for _, t := range s.targets {
		if tr, ok := t.judge(s, peers); ok {
			all = append(all, tr)
		}
	}
	return all
}

// judge compares a target with what was measured. It reports false if one of
// the peers was not run; the best peer is known only if all were.
func (t target) judge(s scenario, peers []peerResult) (targetResult, bool) {
	find := func(name string) []float64 {
		for _, p := range peers {
			if p.Peer == name {
				return p.Rounds[t.metric]
			}
		}
		return nil
	}
	of := t.of
	if of == "" {
		of = ours
	}
	mine := find(of)
	if len(mine) == 0 {
		return targetResult{}, false
	}
	text, value := of+": "+t.metric, median(mine)
	if t.over != "" {
		over := t.over
		if over == bestPeer {
			if len(peers) < len(s.peers) {
				return targetResult{}, false
			}
			over = best(s, peers, t.metric)
			text += " / " + bestPeer + "'s (" + over + ")"
		} else {
			text += " / " + over + "'s"
		}
		r := ratios(mine, find(over))
		if len(r) == 0 {
			return targetResult{}, false
		}
		value = median(r)
	}
	out := targetResult{Value: value}
	switch {
	case t.zero:
		text, out.Holds = text+" = 0", value == 0
	case t.atLeast != 0 && t.atMost != 0:
		text += fmt.Sprintf(" from %s to %s", number(t.atLeast), number(t.atMost))
		out.Holds = value >= t.atLeast && value <= t.atMost
	case t.atLeast != 0:
		text, out.Holds = text+" ≥ "+number(t.atLeast), value >= t.atLeast
	default:
		text, out.Holds = text+" ≤ "+number(t.atMost), value <= t.atMost
	}
	out.Text, out.Figure = text, number(value)
	if !out.Holds {
		out.Figure = apart(value, t.atLeast, t.atMost)
	}
	return out, true
}

// best returns the peer that is best at a metric among the other libraries.
func best(s scenario, peers []peerResult, name string) string {
	less := false
	for _, m := range s.metrics {
		if m.name == name {
			less = m.less
		}
	}
	at, found := "", math.NaN()
	for _, p := range peers {
		v := median(p.Rounds[name])
		if p.Limit || isOurs(p.Peer) || math.IsNaN(v) {
			continue
		}
		if at == "" || less == (v < found) && v != found {
			at, found = p.Peer, v
		}
	}
	return at
}
