package chaos

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"time"
)

// The sizes of the picture, in pixels.
const (
	leftMargin  = 96
	rightMargin = 16
	pictureWide = 1400
	laneHigh    = 20
	serverHigh  = 14
	rateHigh    = 34
	barHigh     = 12
	legendHigh  = 62
)

// look is how a kind of fault is drawn: over its time, or as a mark where it
// began.
type look struct {
	class, glyph string
	spans        bool
}

var looks = map[string]look{
	"kill-worker":  {"kill", "✕", true},
	"kill-client":  {"kill", "✕", true},
	"stop":         {"stop", "", true},
	"cut":          {"mark", "╪", false},
	"black-hole":   {"hole", "", true},
	"late":         {"hole", "", true},
	"slow":         {"slow", "", true},
	"lost-reply":   {"mark", "↩", false},
	"lost-request": {"mark", "↪", false},
	"client-kill":  {"mark", "╪", false},
	"script-flush": {"mark", "∅", false},
	"idle-timeout": {"slow", "", true},
	"stall":        {"stop", "", true},
	"restart":      {"kill", "✕", true},
	"outage":       {"kill", "✕", true},
	"failover":     {"kill", "⇄", true},
}

const pictureStyle = `
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 14px }
.faint { fill: #888 }
.axis { stroke: #e4e4e4; stroke-width: 1 }
.life { fill: #eef0f2 }
.done { fill: #2f9e64 }
.cut { fill: #e08a00 }
.stale { fill: #c2185b }
.rate { fill: #2f9e64; opacity: .35 }
.kill { fill: #d32f2f; opacity: .28 }
.stop { fill: #6a4fb3; opacity: .30 }
.hole { fill: #444; opacity: .28 }
.slow { fill: #2b7bba; opacity: .20 }
.mark { fill: #b71c1c; font-size: 12px; font-weight: 700; text-anchor: middle }
`

// picture is what Draw writes to. The writer keeps the first error.
type picture struct {
	*bufio.Writer
	r *Result
	y int
}

func (p *picture) put(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// x is the place of a time.
func (p *picture) x(at int64) float64 {
	at = min(max(at, p.r.From), p.r.To)
	return leftMargin + float64(at-p.r.From)/float64(p.r.To-p.r.From)*(pictureWide-leftMargin-rightMargin)
}

// Draw draws the timelines of runs as SVG: a lane for each process and each
// server, sections where they ran, faults where they were done.
func Draw(w io.Writer, results []*Result) error {
	p := &picture{Writer: bufio.NewWriter(w)}
	high := 16 + legendHigh
	for _, r := range results {
		high += panelHigh(r)
	}
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`, pictureWide, high, pictureWide, high)
	p.put(`<style>%s</style><rect width="100%%" height="100%%" fill="#fff"/>`, pictureStyle)
	p.y = 8
	p.legend()
	for _, r := range results {
		p.r = r
		p.panel()
	}
	p.put(`</svg>`)
	return p.Flush()
}

func panelHigh(r *Result) int {
	return 26 + rateHigh + laneHigh*len(r.seats) + serverHigh*len(r.servers) + 34
}

// legend says what the signs mean.
func (p *picture) legend() {
	x, y := 16, p.y+14
	sample := func(class, text string) {
		p.put(`<rect class="%s" x="%d" y="%d" width="22" height="%d"/><text x="%d" y="%d">%s</text>`,
			class, x, y-10, barHigh, x+28, y, html.EscapeString(text))
		x += 44 + 6*len(text)
	}
	mark := func(glyph, text string) {
		p.put(`<text class="mark" x="%d" y="%d">%s</text><text x="%d" y="%d">%s</text>`, x+6, y, glyph, x+18, y, html.EscapeString(text))
		x += 34 + 6*len(text)
	}
	sample("done", "section, done")
	sample("cut", "section, cut short")
	sample("stale", "its stale write was refused")
	sample("life", "process or server runs")
	sample("rate", "sections done per 200 ms")
	x, y = 16, y+18
	sample("kill", "killed, until started again")
	sample("stop", "stopped (SIGSTOP)")
	sample("hole", "nothing passes")
	sample("slow", "slow, or timeout 1")
	x, y = 16, y+18
	mark("✕", "killed")
	mark("⇄", "failover")
	mark("╪", "connections cut")
	mark("↩", "reply lost")
	mark("↪", "request lost")
	mark("∅", "SCRIPT FLUSH")
	p.y += legendHigh
}

// panel draws one run.
func (p *picture) panel() {
	r := p.r
	verdict := "all promises kept"
	if !r.OK {
		verdict = fmt.Sprint("BROKEN: ", r.Broken)
	}
	p.put(`<text class="title" x="16" y="%d">%s</text><text class="faint" x="%d" y="%d">%s</text>`, p.y+18, r.Topology, leftMargin+40, p.y+18,
		html.EscapeString(fmt.Sprintf("seed %d · %d faults · %d requests accepted, %d lost · %d sections, %d valid overlaps · %d stale writes refused, %d let through · %s",
			r.Seed, r.FaultsDone, r.Accepted, r.Lost+r.Replication, r.Sections, len(r.Overlaps), r.StaleRefused, r.StaleLet, verdict)))
	p.y += 26
	top, bottom := p.y, p.y+rateHigh+laneHigh*len(r.seats)+serverHigh*len(r.servers)
	step := time.Second
	for (r.To-r.From)/int64(step) > 30 {
		step *= 5
	}
	for t := int64(0); r.From+t <= r.To; t += int64(step) {
		x := p.x(r.From + t)
		p.put(`<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text class="faint" x="%.1f" y="%d" text-anchor="middle">%d s</text>`,
			x, x, top, bottom, x, bottom+14, t/int64(time.Second))
	}
	p.rate()
	for _, s := range r.seats {
		p.lane(s)
	}
	for _, name := range r.servers {
		p.put(`<text x="16" y="%d" class="faint">%s</text>`, p.y+serverHigh-3, name)
		p.put(`<rect class="life" x="%.1f" y="%d" width="%.1f" height="%d"/>`, p.x(r.From), p.y+1, p.x(r.To)-p.x(r.From), serverHigh-3)
		p.faults(name, serverHigh)
		p.y += serverHigh
	}
	p.y = bottom + 34
}

// rate draws how many sections were done.
func (p *picture) rate() {
	const bucket = int64(200 * time.Millisecond)
	counts := make([]int, (p.r.To-p.r.From)/bucket+1)
	most := 1
	for _, s := range p.r.sections {
		if s.complete && s.to >= p.r.From && s.to <= p.r.To {
			i := (s.to - p.r.From) / bucket
			counts[i]++
			most = max(most, counts[i])
		}
	}
	base := p.y + rateHigh - 3
	p.put(`<text x="16" y="%d" class="faint">done/s</text>`, base-8)
	fmt.Fprintf(p, `<path class="rate" d="M%.1f %d`, p.x(p.r.From), base)
	for i, n := range counts {
		y := float64(base) - float64(n)/float64(most)*(rateHigh-8)
		from := p.r.From + int64(i)*bucket
		fmt.Fprintf(p, "L%.1f %.1fL%.1f %.1f", p.x(from), y, p.x(from+bucket), y)
	}
	p.put(`L%.1f %dZ"/>`, p.x(p.r.To), base)
	p.y += rateHigh
}

// lane draws the processes of a seat.
func (p *picture) lane(s *seat) {
	p.put(`<text x="16" y="%d">%s</text>`, p.y+laneHigh-6, s.name)
	for _, l := range s.lives {
		to := l.to
		if to == 0 {
			to = p.r.To
		}
		p.put(`<rect class="life" x="%.1f" y="%d" width="%.1f" height="%d"/>`, p.x(l.from), p.y+2, max(p.x(to)-p.x(l.from), 0), laneHigh-4)
	}
	for _, class := range []string{"done", "cut", "stale"} {
		fmt.Fprintf(p, `<path class="%s" d="`, class)
		for _, x := range p.r.sections {
			if x.by.seat != s || x.class() != class {
				continue
			}
			from := p.x(x.from)
			fmt.Fprintf(p, "M%.1f %dh%.1fv%dh-%.1fz", from, p.y+4, max(p.x(x.to)-from, 0.7), barHigh, max(p.x(x.to)-from, 0.7))
		}
		p.put(`"/>`)
	}
	p.faults(s.name, laneHigh)
	p.y += laneHigh
}

func (s *section) class() string {
	switch {
	case s.wrote == "stale":
		return "stale"
	case s.complete:
		return "done"
	}
	return "cut"
}

// faults draws what was done to one process or server.
func (p *picture) faults(target string, high int) {
	for _, f := range p.r.Faults {
		if f.Target != target || f.Err != "" {
			continue
		}
		l := looks[f.Kind]
		from, to := p.x(f.From), p.x(f.To)
		p.put(`<g><title>%s, %.3f s to %.3f s</title>`, f.Kind, time.Duration(f.From-p.r.From).Seconds(), time.Duration(f.To-p.r.From).Seconds())
		if l.spans {
			p.put(`<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`, l.class, from, p.y, max(to-from, 1.5), high-1)
		}
		if l.glyph != "" {
			p.put(`<text class="mark" x="%.1f" y="%d">%s</text>`, from, p.y+high-4, l.glyph)
		}
		p.put(`</g>`)
	}
}
