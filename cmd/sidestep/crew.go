package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// crew is the processes of a run: this one alone, or several others.
type crew struct {
	calls  chan call // direct calls to make
	gone   chan struct{}
	ledger *ledger

	members []*member
	cancel  context.CancelFunc
	running sync.WaitGroup // feeders, and this process's own worker
	stopped chan struct{}  // closed by stop
}

// startCrew starts the processes and waits until all can work. The workers of j
// are spread over them.
func startCrew(ctx context.Context, j job, processes int, srv *server, l *ledger) (*crew, error) {
	c := &crew{calls: make(chan call), gone: make(chan struct{}), stopped: make(chan struct{}), ledger: l}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	if processes == 1 {
		if err := c.here(inner, j, srv); err != nil {
			cancel()
			return nil, err
		}
		return c, nil
	}
	left := j.Workers
	for i := range processes {
		part := j
		part.Workers = (left + processes - i - 1) / (processes - i)
		left -= part.Workers
		m, err := startMember(i+1, part, func(e event) { l.record(i+1, e) }, c.died)
		if err != nil {
			c.stop()
			return nil, err
		}
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		c.running.Go(func() { m.feed(inner, c.calls, c.died) })
	}
	go func() {
		for _, m := range c.members {
			<-m.gone
		}
		close(c.gone)
	}()
	if err := c.ready(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// here makes this process the crew.
func (c *crew) here(ctx context.Context, j job, srv *server) error {
	rdb, err := srv.client(2 * j.Workers)
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	j.Name = memberName(1)
	w, err := newWorker(j, rdb, func(e event) {
		if e.Kind == kindReady {
			close(ready)
		}
		c.ledger.record(1, e)
	})
	if err != nil {
		rdb.Close()
		return err
	}
	c.running.Go(func() {
		defer close(c.gone)
		defer rdb.Close()
		defer w.close()
		if err := w.run(ctx, c.calls); err != nil {
			c.ledger.record(1, event{Kind: kindFault, At: now(), Text: err.Error()})
		}
	})
	<-ready
	return nil
}

// ready waits until all processes can work.
func (c *crew) ready(ctx context.Context) error {
	for _, m := range c.members {
		select {
		case <-m.ready:
		case <-m.gone:
			return m.death
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(30 * time.Second):
			return errors.New("a process did not become ready within 30s")
		}
	}
	return nil
}

// died accounts for a process that has ended: its open sections are over, and
// others make the calls that it left unanswered.
func (c *crew) died(m *member, orphans []call) {
	c.ledger.died(m.number, now())
	if len(orphans) == 0 {
		return
	}
	go func() {
		for _, o := range orphans {
			select {
			case c.calls <- o:
			case <-c.gone:
				return
			case <-c.stopped:
				return
			}
		}
	}()
}

// deaths returns why processes ended before they were told to.
func (c *crew) deaths() []string {
	var all []string
	for _, m := range c.members {
		m.mu.Lock()
		if m.death != nil {
			all = append(all, m.death.Error())
		}
		m.mu.Unlock()
	}
	return all
}

// stop ends the run in all processes and waits for them.
func (c *crew) stop() {
	close(c.stopped)
	c.cancel()
	var all sync.WaitGroup
	for _, m := range c.members {
		all.Go(m.stop)
	}
	all.Wait()
	c.running.Wait()
}
