package queuemodel

import (
	"slices"
)

// graph is all states of a case, by number, and the steps between them that are
// no faults.
type graph struct {
	from  []origin
	done  []bool // nothing is left to do
	edges []int32
	to    []int32
	actor []uint8
}

// origin is the state that one was first reached from, and by which of its steps.
type origin struct {
	id   int32
	step uint8
}

// path is the steps to a state.
func (g *graph) path(id int32) (steps []uint8) {
	for ; id != 0; id = g.from[id].id {
		steps = append(steps, g.from[id].step)
	}
	slices.Reverse(steps)
	return steps
}

// live checks that everything can finish, L1; that it will if everybody goes on,
// L2; and that nobody goes round in circles without waiting for a time, H. only is
// as in Case.
func (g *graph) live(only string) (violation string, steps []uint8) {
	if only == "" || only == "L1" {
		if id := g.stuck(); id >= 0 {
			return "L1: from here the requests cannot finish", g.path(id)
		}
	}
	if only == "" || only == "L2" {
		for _, c := range g.cycles(^uint64(0)) {
			if g.fair(c) {
				return "L2: a fair cycle in which nothing finishes", g.path(slices.Min(c))
			}
		}
	}
	if only == "" || only == "H" {
		if c := g.cycles(looping); len(c) > 0 {
			return "H: a cycle without a timer", g.path(slices.Min(c[0]))
		}
	}
	return "", nil
}

// stuck returns a state from which none is reached in which all is done; or -1.
func (g *graph) stuck() int32 {
	n := len(g.done)
	start := make([]int32, n+1)
	for _, t := range g.to {
		start[t+1]++
	}
	for i := range n {
		start[i+1] += start[i]
	}
	fill := slices.Clone(start)
	back := make([]int32, len(g.to))
	for i := range n {
		for _, t := range g.to[g.edges[i]:g.edges[i+1]] {
			back[fill[t]] = int32(i)
			fill[t]++
		}
	}
	can := slices.Clone(g.done)
	var queue []int32
	for i, d := range g.done {
		if d {
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, b := range back[start[id]:start[id+1]] {
			if !can[b] {
				can[b] = true
				queue = append(queue, b)
			}
		}
	}
	return int32(slices.Index(can, false))
}

// fair reports whether one may stay in a cycle though all go on who always can.
func (g *graph) fair(cycle []int32) bool {
	if g.done[cycle[0]] {
		return false
	}
	inside := make(map[int32]bool, len(cycle))
	for _, v := range cycle {
		inside[v] = true
	}
	always, taken := ^uint64(0), uint64(0)
	for _, v := range cycle {
		var can uint64
		for e := g.edges[v]; e < g.edges[v+1]; e++ {
			can |= 1 << g.actor[e]
			if inside[g.to[e]] {
				taken |= 1 << g.actor[e]
			}
		}
		always &= can
	}
	return always&^taken == 0
}

// cycles returns the strongly connected components of more than one state, by
// the steps of some actors.
func (g *graph) cycles(actors uint64) (out [][]int32) {
	n := len(g.done)
	low, num, at := make([]int32, n), make([]int32, n), make([]int32, n)
	closed := make([]bool, n)
	var stack, path []int32
	count := int32(0)
	for root := range n {
		if num[root] != 0 {
			continue
		}
		path = append(path, int32(root))
		for len(path) > 0 {
			v := path[len(path)-1]
			if num[v] == 0 {
				count++
				num[v], low[v], at[v] = count, count, g.edges[v]
				stack = append(stack, v)
			}
			deeper := false
			for ; at[v] < g.edges[v+1]; at[v]++ {
				t := g.to[at[v]]
				if actors&(1<<g.actor[at[v]]) == 0 {
					continue
				}
				if num[t] == 0 {
					path = append(path, t)
					deeper = true
					at[v]++
					break
				}
				if !closed[t] {
					low[v] = min(low[v], num[t])
				}
			}
			if deeper {
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1]
				low[up] = min(low[up], low[v])
			}
			if low[v] != num[v] {
				continue
			}
			i := len(stack) - 1
			for stack[i] != v {
				i--
			}
			component := stack[i:]
			for _, t := range component {
				closed[t] = true
			}
			if len(component) > 1 {
				out = append(out, slices.Clone(component))
			}
			stack = stack[:i]
		}
	}
	return out
}
