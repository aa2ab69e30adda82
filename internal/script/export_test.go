package script

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Link is the text of a script as it is sent, and its keys.
var Link = link

// Source is the text of a script as it is sent.
func Source(name string) string {
	source, _ := link(name)
	return source
}

// ReadReplies gives a reply to every reader of replies.
func ReadReplies(reply any) (errs []error) {
	cmd := &redis.Cmd{}
	cmd.SetVal(reply)
	keep := func(err error) { errs = append(errs, err) }
	_, err := codes(cmd, 2)
	keep(err)
	_, _, err = dated(cmd)
	keep(err)
	_, err = claimed(cmd, 0)
	keep(err)
	_, _, _, err = acked(cmd, 2)
	keep(err)
	_, _, err = settled(cmd)
	keep(err)
	_, _, _, err = rescheduled(cmd)
	keep(err)
	_, err = (&Queue{memory: time.Minute}).pushed(time.Now(), cmd)
	keep(err)
	return errs
}

// Answer is the whole answer to Confirm, or to the push of a request that was not offered.
func (q *Queue) Answer(ctx context.Context, h Handed) ([]int64, error) {
	if h.Offered() {
		return q.accept(ctx, offered, h.ID, h.Body, h.state(), ms(h.Lease)).Int64Slice()
	}
	return q.accept(ctx, pushone, h.ID, h.Body).Int64Slice()
}
