// Package reports lets package sidestep tell the queues that a release names by
// itself, in place of package lock, and keep with a Locker which queues it knows.
package reports

// Take keeps the release of lk, a *lock.Lock, at the end of its section from telling the Locker's listeners of
// the queues that it names: the caller does so. Package lock sets it.
var Take func(lk any)

// Taken tells whether that is so still: a release from within the section, whose end
// may be far, has told the listeners itself. Package lock sets it.
var Taken func(lk any) bool

// Shared returns what package sidestep keeps with a *lock.Locker for all who use it: first,
// if there is nothing yet. Package lock sets it.
var Shared func(locker, first any) any
