package main

import (
	"runtime"
	"sync/atomic"
	"time"
)

// meter measures a stretch of work that counts what it has done.
type meter struct {
	e        *env
	count    *atomic.Int64
	from     int64
	commands int64
	server   float64
	client   float64
	mallocs  uint64
	began    time.Time
}

func (e *env) meter(count *atomic.Int64) *meter {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return &meter{
		e: e, count: count, from: count.Load(), commands: e.wire.commands.Load(), server: e.cpu(), client: ownCPU(),
		mallocs: mem.Mallocs, began: time.Now(),
	}
}

func (m *meter) values() values {
	took := time.Since(m.began).Seconds()
	n := float64(m.count.Load() - m.from)
	client := ownCPU() - m.client
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return values{
		"requests/s":        n / took,
		"commands/request":  float64(m.e.wire.commands.Load()-m.commands) / n,
		"server µs/request": (m.e.cpu() - m.server) * 1e6 / n,
		"client µs/request": client * 1e6 / n,
		"allocs/request":    float64(mem.Mallocs-m.mallocs) / n,
	}
}
