package lock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The fences of a grant are larger than the last one, though the clock stepped back
// behind it, and not behind the clock, though the last one is lost.
func TestFencesOfAGrantGrow(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb *redis.Client, n *single) {
		ctx, began := context.Background(), time.Now()
		for _, last := range []int64{began.Add(time.Hour).UnixMicro(), 0} {
			rdb.FlushDB(ctx)
			b := newBed(t, rdb, n)
			b.acquire("h me", "", 1)
			b.acquire("a me", entry("up", "a me"), 4)
			rdb.Del(ctx, b.k.fence)
			if last != 0 {
				rdb.Set(ctx, b.k.fence, last, time.Hour)
			}
			b.release("h me", "")
			b.want("a me")
			if f, _ := rdb.Get(ctx, b.k.fence).Int64(); f < last+4 || f < began.Add(-time.Minute).UnixMicro() {
				t.Errorf("after %d a grant's last fence is %d", last, f)
			}
		}
	})
}
