package lock

import (
	"fmt"
	"strings"
)

// maxName bounds a lock's name, in bytes.
const maxName = 1024

// keys are the Redis keys of one lock. All hash to one slot.
type keys struct {
	lock   string // STRING, PX: token, space, owner label
	fence  string // STRING, PXAT: the last fence minted
	line   string // ZSET, PX: the entries of those in line, by time of arrival
	parked string // SET, PX: delay queues to report at the next release
}

// keysOf names the keys of a lock. The siblings of key are {key}:fence and so
// on, or key:fence where key has a hash tag of its own. All are cut from one
// string, which is one allocation.
func keysOf(prefix, name string) keys {
	size := len(prefix) + len(name)
	open, shut := "{", "}"
	if len(prefix) == 0 && hasTag(name) || len(prefix) > 0 && hasTag(prefix+name) {
		open, shut = "", ""
	}
	all := open + prefix + name + shut + ":fence" +
		open + prefix + name + shut + ":line" +
		open + prefix + name + shut + ":parked"
	base := size + len(open) + len(shut)
	a, b := base+len(":fence"), 2*base+len(":fence:line")
	return keys{
		lock:   all[len(open) : len(open)+size],
		fence:  all[:a],
		line:   all[a:b],
		parked: all[b:],
	}
}

// mail names the channel of one process for this lock alone, in its slot.
func (k *keys) mail(process string) string {
	return strings.TrimSuffix(k.fence, ":fence") + ":mail:" + process
}

// hasTag reports whether Redis Cluster hashes only a part of key.
func hasTag(key string) bool {
	i := strings.IndexByte(key, '{')
	if i < 0 {
		return false
	}
	return strings.IndexByte(key[i+1:], '}') > 0
}

// CheckName returns an error that matches [ErrInvalid] unless a lock of this Locker can
// have that name. It sends nothing.
func (l *Locker) CheckName(name string) error {
	return l.checkName(name)
}

// checkName returns an error that matches ErrInvalid for a name that cannot be
// a lock's.
func (l *Locker) checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: name is empty", ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w: name of %d bytes is longer than %d", ErrInvalid, len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: name contains a NUL byte", ErrInvalid)
	}
	if strings.IndexByte(name, '}') < 0 && !l.prefixBrace {
		return nil // the usual case: no tag, and none can arise
	}
	key := l.cfg.Prefix + name
	for _, end := range []string{":fence", ":line", ":parked"} {
		if strings.HasSuffix(key, end) {
			return fmt.Errorf("%w: name has a brace and ends in %q, like a key of another lock", ErrInvalid, end)
		}
	}
	switch tag := hasTag(key); {
	case tag && key[0] == '{' && key[len(key)-1] == '}':
		return fmt.Errorf("%w: name is all in braces, so its keys would be those of the lock without", ErrInvalid)
	case !tag && l.sharded && strings.IndexByte(key, '}') >= 0:
		return fmt.Errorf("%w: name has a brace but no hash tag, so its keys cannot share a slot", ErrInvalid)
	}
	return nil
}

// splitValue splits what a lock key holds into token and owner label. A value
// that no Locker wrote has neither.
func splitValue(value string) (token, owner string) {
	i := strings.IndexByte(value, ' ')
	if i != tokenLen || value[processLen] != '.' {
		return "", ""
	}
	return value[:i], value[i+1:]
}
