package sidestep

import "fmt"

// String names the Acquirer by its Locker. Like GoString, it keeps tokens, which
// are secrets, out of what is printed by a wrong verb.
func (a *Acquirer) String() string { return fmt.Sprintf("sidestep.Acquirer(%v)", a.locker) }

// GoString is String.
func (a *Acquirer) GoString() string { return a.String() }

// String names the queue. Like GoString, it shows nothing of what it holds.
func (q *Queue) String() string { return fmt.Sprintf("sidestep.Queue(%q)", q.name) }

// GoString is String.
func (q *Queue) GoString() string { return q.String() }

// String names the task and its queue. Like GoString, it shows nothing of what
// they hold.
func (t *Task[T]) String() string {
	return fmt.Sprintf("sidestep.Task(%q of %q)", t.name, t.queue.name)
}

// GoString is String.
func (t *Task[T]) GoString() string { return t.String() }
