package main

import (
	"cmp"
	"math"
	"slices"
)

// percentile returns the smallest value that is not exceeded by a share p of
// the values (nearest rank); NaN of none. It does not change values.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p*float64(len(s)))) - 1
	return s[min(max(rank, 0), len(s)-1)]
}

// median returns the middle value, or the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// jain returns Jain's index of fairness of the shares: 1 if all are equal, 1/n
// if one has everything.
func jain(shares []float64) float64 {
	var sum, squares float64
	for _, x := range shares {
		sum += x
		squares += x * x
	}
	if squares == 0 {
		return math.NaN()
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// inversions returns the share of pairs that are out of order: 0 in ascending
// order, 1 in descending order.
func inversions(order []int) float64 {
	n := len(order)
	if n < 2 {
		return 0
	}
	_, count := mergeCount(slices.Clone(order))
	return float64(count) / (float64(n) * float64(n-1) / 2)
}

// mergeCount sorts s and counts its inversions.
func mergeCount(s []int) (sorted []int, count int) {
	if len(s) < 2 {
		return s, 0
	}
	left, a := mergeCount(s[:len(s)/2])
	right, b := mergeCount(s[len(s)/2:])
	count = a + b
	sorted = make([]int, 0, len(s))
	for len(left) > 0 && len(right) > 0 {
		if right[0] < left[0] {
			count += len(left)
			sorted, right = append(sorted, right[0]), right[1:]
		} else {
			sorted, left = append(sorted, left[0]), left[1:]
		}
	}
	return append(append(sorted, left...), right...), count
}

// ratios divides round by round, where both were measured.
func ratios(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if r := a[i] / b[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			out = append(out, r)
		}
	}
	return out
}

// section is one stay under a lock: when the lock was asked for, entered and
// left, in nanoseconds of the machine's clock, and by which worker.
type section struct {
	Worker             int
	Asked, Entry, Exit int64
}

// passage says how a lock went through many hands.
type passage struct {
	perSecond          float64
	gapP50, gapP99     float64 // from one section's end to the next one's start, µs
	waitP50, waitP99   float64 // from asking to entering, ms
	jain, leastOfMean  float64 // of the workers' counts
	overlaps, sections int
}

// analyse describes the sections of so many workers in the time that they took.
func analyse(all []section, workers int) passage {
	slices.SortFunc(all, func(a, b section) int { return cmp.Compare(a.Entry, b.Entry) })
	p := passage{sections: len(all), perSecond: math.NaN(), jain: math.NaN()}
	if len(all) == 0 {
		return p
	}
	shares := make([]float64, workers)
	var gaps, waits []float64
	end := all[0].Exit
	for i, s := range all {
		shares[s.Worker]++
		waits = append(waits, float64(s.Entry-s.Asked)/1e6)
		if i > 0 {
			if s.Entry < end {
				p.overlaps++
			}
			gaps = append(gaps, float64(s.Entry-end)/1e3)
		}
		end = max(end, s.Exit)
	}
	if took := float64(end-all[0].Entry) / 1e9; took > 0 {
		p.perSecond = float64(len(all)) / took
	}
	p.gapP50, p.gapP99 = percentile(gaps, 0.5), percentile(gaps, 0.99)
	p.waitP50, p.waitP99 = percentile(waits, 0.5), percentile(waits, 0.99)
	p.jain = jain(shares)
	p.leastOfMean = slices.Min(shares) * float64(workers) / float64(len(all))
	return p
}
