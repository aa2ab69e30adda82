package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// lane is what is seen of one request of the demo.
type lane struct {
	called, answered, begin, end int64
	answer                       kind
	owner                        string
	retryAfter                   time.Duration
	runner                       string
}

// view shows the first part of the demo: drawn live on a terminal, or as lines.
type view struct {
	out    io.Writer
	style  style
	server string
	live   bool
	done   chan struct{}
	drawn  sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	lanes [][]lane   // by panel and caller
	zero  int64
	lines int // that the last picture took
}

func newView(out io.Writer, s style, server string) *view {
	v := &view{out: out, style: s, server: server, live: fits(out), done: make(chan struct{})}
	for range demoPanels {
		v.lanes = append(v.lanes, make([]lane, demoCallers))
	}
	return v
}

// fits tells whether out is a terminal with room for the picture.
func fits(out io.Writer) bool {
	fd, ok := terminal(out)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	wide, high, err := term.GetSize(fd)
	return err == nil && wide >= 80 && high >= 24
}

// start begins the show; time counts from here.
func (v *view) start() {
	v.mu.Lock()
	v.zero = now()
	v.mu.Unlock()
	fmt.Fprintf(v.out, "%s %s\n", v.style.bold(fmt.Sprintf("%d callers need lock %q for %v, one every %v.", demoCallers, demoKey, demoWork, demoGap)),
		v.style.faint("("+v.server+")"))
	if !v.live {
		for _, p := range demoPanels {
			fmt.Fprintf(v.out, "  %-14s %s\n", p.code, p.says)
		}
		return
	}
	fmt.Fprint(v.out, "\x1b[?25l") // no cursor
	v.drawn.Go(func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			v.draw()
			select {
			case <-t.C:
			case <-v.done:
				v.draw()
				return
			}
		}
	})
}

// stop ends the show.
func (v *view) stop() {
	close(v.done)
	v.drawn.Wait()
	if v.live {
		fmt.Fprint(v.out, "\x1b[?25h")
	}
}

// event shows what a caller or a worker of a panel reports.
func (v *view) event(panel int, peer string, e event) {
	policy, caller := demoRequest(e.ID)
	if policy != demoPanels[panel].policy {
		return // no request's
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	l := &v.lanes[panel][caller]
	switch e.Kind {
	case kindCalled:
		l.called = e.At
		return
	case kindBegin:
		l.begin, l.runner = e.At, peer
	case kindEnd:
		l.end = e.At
	default:
		if !e.answers() {
			return
		}
		l.answered, l.answer, l.owner, l.retryAfter = e.At, e.Kind, e.Owner, e.RetryAfter
	}
	if text := l.news(e.Kind, caller); !v.live && text != "" {
		fmt.Fprintf(v.out, "  %6.3fs  %-14s %s\n", time.Duration(e.At-v.zero).Seconds(), demoPanels[panel].code, text)
	}
}

// demoRequest is the inverse of demoID.
func demoRequest(id string) (policy string, caller int) {
	policy, n, _ := strings.Cut(id, "/")
	if _, err := fmt.Sscan(n, &caller); err != nil || caller < 1 || caller > demoCallers {
		return "", 0
	}
	return policy, caller - 1
}

// news is the line for what just happened, or nothing.
func (l *lane) news(k kind, caller int) string {
	name := fmt.Sprintf("api-%d", caller+1)
	switch k {
	case kindBegin:
		waited := short(time.Duration(l.begin - l.called))
		switch {
		case l.runner != name:
			return fmt.Sprintf("%s  runs on %s, %v after the call", name, l.runner, waited)
		case l.waited():
			return fmt.Sprintf("%s  has the lock, after waiting %v", name, waited)
		}
		return name + "  has the lock at once"
	case kindEnd:
		return fmt.Sprintf("%s  is done", name)
	case kindLocked:
		return fmt.Sprintf("%s  is refused after %v: %s has the lock, retry after %v", name, l.took(), l.owner, short(l.retryAfter))
	case kindDeferred:
		return fmt.Sprintf("%s  goes on after %v: its request is stored", name, l.took())
	}
	return ""
}

// took is how long the call took.
func (l *lane) took() time.Duration { return short(time.Duration(l.answered - l.called)) }

// waited tells whether the request had to wait for its lock.
func (l *lane) waited() bool { return l.begin-l.called > int64(demoGap/4) }

// The picture: a column is so much time, and there are so many.
const (
	columnTime = 100 * time.Millisecond
	columns    = 34
)

// draw paints the picture over the last one.
func (v *view) draw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	var b strings.Builder
	if v.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.lines)
	}
	lines := 0
	put := func(s string) {
		b.WriteString(s + "\x1b[K\n")
		lines++
	}
	at := now()
	for p, panel := range demoPanels {
		put(fmt.Sprintf("%s %s", v.style.paint(fmt.Sprintf("%-14s", panel.code), text.Bold, text.FgCyan), panel.says))
		for c := range v.lanes[p] {
			l := &v.lanes[p][c]
			put(fmt.Sprintf("  api-%d %s %s", c+1, v.bar(l, at), v.outcome(l, c)))
		}
	}
	put(v.style.faint("        0s        1s        2s        3s"))
	put(fmt.Sprintf("%s has the lock  %s caller waits  %s refused  %s stored, caller free  %s in Redis",
		v.cell('█'), v.cell('░'), v.cell('✗'), v.cell('↷'), v.cell('·')))
	v.lines = lines
	fmt.Fprint(v.out, b.String())
}

// bar is a request's life so far, a cell per column.
func (v *view) bar(l *lane, at int64) string {
	var b strings.Builder
	for i := range columns {
		from := v.zero + int64(i)*int64(columnTime)
		b.WriteString(v.cell(l.glyph(from, from+int64(columnTime), at)))
	}
	return b.String()
}

// glyph says what a request did between two times, as far as it is known now.
func (l *lane) glyph(from, to, now int64) rune {
	within := func(t int64) bool { return from <= t && t < to }
	switch {
	case from > now || l.called == 0 || l.called >= to:
		return ' '
	case l.answer == kindLocked:
		if within(l.answered) {
			return '✗'
		}
		return ' '
	case l.answer == kindDeferred && within(l.answered):
		return '↷'
	case l.begin != 0 && (within(l.begin) && l.begin-from < int64(columnTime)/2 || l.begin < from):
		if l.end == 0 || l.end-from >= int64(columnTime)/2 {
			return '█'
		}
		return ' '
	case l.answer == kindDeferred:
		return '·'
	case l.begin == 0 && now-l.called < int64(columnTime)/2:
		return ' ' // it may get the lock at once
	}
	return '░'
}

func (v *view) cell(r rune) string {
	switch r {
	case '█':
		return v.style.paint("█", text.FgGreen)
	case '░':
		return v.style.paint("░", text.FgYellow)
	case '✗':
		return v.style.paint("✗", text.FgRed, text.Bold)
	case '↷':
		return v.style.paint("↷", text.FgMagenta, text.Bold)
	case '·':
		return v.style.paint("·", text.FgMagenta)
	}
	return string(r)
}

// outcome is what became of a request so far, in at most 37 columns.
func (v *view) outcome(l *lane, caller int) string {
	byWorker := l.runner != "" && l.runner != fmt.Sprintf("api-%d", caller+1)
	switch {
	case l.answer == kindLocked:
		return v.style.bad(fmt.Sprintf("refused: %s has it, retry in %.1fs", l.owner, l.retryAfter.Seconds()))
	case byWorker && l.end != 0:
		return fmt.Sprintf("free in %v; ran on %s", l.took(), l.runner)
	case byWorker:
		return fmt.Sprintf("free in %v; runs on %s", l.took(), l.runner)
	case l.answer == kindDeferred:
		return v.style.paint(fmt.Sprintf("free in %v; request stored", l.took()), text.FgMagenta)
	case l.begin != 0 && l.waited():
		return fmt.Sprintf("waited %v, then ran", short(time.Duration(l.begin-l.called)))
	case l.begin != 0:
		return "ran at once"
	case l.called != 0 && time.Duration(now()-l.called) > columnTime:
		return v.style.warn("waits")
	}
	return ""
}
