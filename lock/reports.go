package lock

import "github.com/sidestep-go/sidestep/internal/reports"

func init() {
	reports.Shared = func(locker, first any) any {
		l, ok := locker.(*Locker)
		if !ok {
			return first
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.shared == nil {
			l.shared = first
		}
		return l.shared
	}
}
