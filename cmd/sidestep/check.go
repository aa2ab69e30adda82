package main

import (
	"cmp"
	"slices"
	"time"
)

// section is the time from the first to the last statement of a handler, as the
// handler saw it. What is found out about sections owes nothing to the lock.
type section struct {
	id, key    string
	line       int // of the input
	process    int
	ready      int64 // when the request was made
	begin, end int64
	fence      int64
}

// overlap is a pair of sections of one key that ran at the same time.
type overlap struct {
	Key    string        `json:"key"`
	First  string        `json:"first"`
	Second string        `json:"second"`
	By     time.Duration `json:"by_ns"`
}

// disorder is a section whose fence does not exceed that of the one before.
type disorder struct {
	Key    string `json:"key"`
	ID     string `json:"id"`
	Fence  int64  `json:"fence"`
	Before int64  `json:"before"`
}

// findings is what the sections of a run show.
type findings struct {
	overlaps   []overlap
	disorders  []disorder
	inversions int             // requests that started after a later line of their key
	worstKey   string          // the key with most of them
	worst      int             // how many those are
	handovers  []time.Duration // from an end to the next begin, where someone waited
	took       time.Duration   // all sections together
	first      int64           // begin of the first
	last       int64           // end of the last
}

// check looks at the sections of every key in the order in which they began.
func check(sections []section) findings {
	byKey := make(map[string][]section)
	f := findings{overlaps: []overlap{}, disorders: []disorder{}} // [] in JSON, not null
	for _, s := range sections {
		byKey[s.key] = append(byKey[s.key], s)
		f.took += time.Duration(s.end - s.begin)
		if f.first == 0 || s.begin < f.first {
			f.first = s.begin
		}
		f.last = max(f.last, s.end)
	}
	for key, of := range byKey {
		slices.SortFunc(of, func(a, b section) int {
			return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.fence, b.fence))
		})
		f.neighbours(key, of)
		f.lineOrder(key, of)
	}
	slices.SortFunc(f.overlaps, func(a, b overlap) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.First, b.First)) })
	slices.SortFunc(f.disorders, func(a, b disorder) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Fence, b.Fence)) })
	slices.Sort(f.handovers)
	return f
}

// neighbours compares each section of a key with those before it.
func (f *findings) neighbours(key string, of []section) {
	var fence int64
	latest := -1 // the section that has ended last so far
	for i, s := range of {
		if s.fence <= fence {
			f.disorders = append(f.disorders, disorder{Key: key, ID: s.id, Fence: s.fence, Before: fence})
		}
		fence = max(fence, s.fence)
		if latest >= 0 {
			before := of[latest]
			switch {
			case s.begin < before.end:
				f.overlaps = append(f.overlaps, overlap{
					Key: key, First: before.id, Second: s.id,
					By: time.Duration(min(before.end, s.end) - s.begin),
				})
			case s.ready > 0 && s.ready < before.end:
				f.handovers = append(f.handovers, time.Duration(s.begin-before.end))
			}
		}
		if latest < 0 || s.end > of[latest].end {
			latest = i
		}
	}
}

// lineOrder counts the requests of a key whose first section began after that of
// a later line.
func (f *findings) lineOrder(key string, of []section) {
	started := make(map[string]bool, len(of))
	furthest, count := 0, 0
	for _, s := range of {
		if started[s.id] {
			continue
		}
		started[s.id] = true
		if s.line < furthest {
			count++
		}
		furthest = max(furthest, s.line)
	}
	f.inversions += count
	if count > f.worst || count == f.worst && count > 0 && key < f.worstKey {
		f.worst, f.worstKey = count, key
	}
}

// percentile returns the smallest of the sorted values that at least a share p
// of them does not exceed, or 0 if there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(p*float64(len(sorted))+0.9999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
