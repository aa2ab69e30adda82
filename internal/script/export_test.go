package script

import "github.com/redis/go-redis/v9"

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
	return errs
}
