package lock

import "fmt"

// String names the lock and its fence. Like GoString, it keeps the token, which
// is a secret, out of logs and errors, and looks at nothing that changes.
func (lk *Lock) String() string {
	if lk == nil {
		return "lock.Lock(nil)"
	}
	return fmt.Sprintf("lock.Lock(%q, fence %d)", lk.name, lk.fence)
}

// GoString is String.
func (lk *Lock) GoString() string { return lk.String() }

// String names the Locker by its owner label and prefix. Like GoString, it keeps
// the tokens of its locks, which are secrets, out of logs and errors.
func (l *Locker) String() string {
	if l == nil {
		return "lock.Locker(nil)"
	}
	return fmt.Sprintf("lock.Locker(owner %q, prefix %q)", l.cfg.Owner, l.cfg.Prefix)
}

// GoString is String.
func (l *Locker) GoString() string { return l.String() }
