// Package lock keeps leases on names in Redis.
package lock
