// Package client looks at Redis clients.
package client

import (
	"reflect"

	"github.com/redis/go-redis/v9"
)

// IsNil tells whether there is no client: rdb is nil, or a nil pointer, as of a variable
// of a client's type that was never set.
func IsNil(rdb redis.UniversalClient) bool {
	v := reflect.ValueOf(rdb)
	return rdb == nil || v.Kind() == reflect.Pointer && v.IsNil()
}
