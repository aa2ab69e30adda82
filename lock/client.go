package lock

import "github.com/redis/go-redis/v9"

// Client returns the Redis client that the Locker keeps its locks on; of a
// quorum, the first one.
func (l *Locker) Client() redis.UniversalClient { return l.clients[0] }
