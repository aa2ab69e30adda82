package listq

import (
	"errors"

	"github.com/sidestep-go/sidestep/internal/script"
)

// ErrStale is returned by the methods that settle a [Delivery] when the request
// is no longer this worker's: its lease ended and passed to another, or it was
// cancelled. It is also the cause with which a handler's context ends then.
var ErrStale = errors.New("listq: the request is no longer this worker's")

// ErrSettled is returned by the methods that settle a [Delivery] which has been
// settled before.
var ErrSettled = errors.New("listq: the delivery is already settled")

// ErrDraining is the cause with which a handler's context ends when Consume
// stops and the handler has not returned within the drain timeout.
var ErrDraining = errors.New("listq: draining")

// ErrInvalid is returned for a request, id or name that cannot be used, before
// anything is sent to Redis. The error's text names the argument.
var ErrInvalid = errors.New("invalid argument")

// ErrUnknown is returned by [Queue.Get], and by methods of package delayq, for a
// request that is not in the queue: it is finished or cancelled, or never was.
var ErrUnknown = errors.New("listq: no such request")

// ErrNotReplicated is returned, with [Config.Wait] set, by the methods that accept
// requests when fewer replicas than that confirmed in time. The master has the
// request, and it will run unless a failover loses it. To accept it again is safe
// if it has an ID, and succeeds once the replicas have it.
var ErrNotReplicated = script.ErrNotReplicated
