package lock

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

const (
	minTTL     = 10 * time.Millisecond
	maxTTL     = 10 * 365 * 24 * time.Hour
	maxOwner   = 256     // bytes
	maxSection = 1 << 16 // fences in one block
	firstBlock = 16      // fences in the first block of several turns
)

// Config configures a [Locker]. The zero value means the defaults.
type Config struct {
	// ClaimLease is how long a lock stays reserved for a waiter that was handed
	// it, until the waiter speaks up: what a waiter that died in line costs the
	// others. It must cover some 20 round trips and the longest pause of the
	// process, so 100ms or more is wise. At least 10ms; it is never longer than
	// the TTL. At most ten years. Defaults to 1s.
	ClaimLease time.Duration

	// FenceMargin is how long the last fence of a lock is remembered beyond the
	// time that it encodes: how far the server's clock may be set back, all in
	// all, with fences that still grow. It counts from that time whether the lock
	// is held or not: extending a lease renews no fence. It costs about 140 bytes per name for that long, or
	// up to twice that long. Use the same everywhere: the shortest one counts.
	// At least 1s, at most ten years. Defaults to 60s.
	FenceMargin time.Duration

	// Hooks are called as locks are acquired, extended, released and lost.
	Hooks Hooks

	// LapseDelay is how long a lock stays closed after its lease ran out without
	// a release: time for what its holder had under way to come to its end, for
	// resources that cannot check a fence. In Redis the lock's key outlives each
	// lease by so much, so that everybody keeps out, clients of other libraries
	// too; Inspect and refusals name the old holder and count the delay as part of
	// its lease. The delay ends early when the holder releases the lock after all,
	// as Hold does when its function returns. A waiter that died in line costs the
	// delay on top of the claim lease. At most ten years. Defaults to 0: none.
	LapseDelay time.Duration

	// Logger receives what no caller can be told: lost subscriptions and failed
	// clean-ups. Nil discards it. Contention is never logged.
	Logger *slog.Logger

	// MaxHold bounds how long Hold, Do and TryDo keep a lock, however long the
	// function runs: then its context ends with ErrNotHeld and the lock is
	// released; with a LapseDelay, once the function has returned or the lease
	// and the delay are over. 0 means no bound; New panics if it is
	// negative.
	MaxHold time.Duration

	// NodeTimeout is how long a Locker of [NewQuorum] waits for a node when the
	// others do not decide: what goes on after that goes on in the background. What
	// asks for a lease, to acquire, extend or adopt, waits for a third of that at
	// most, and a release for 4.5s. At least 1ms. Defaults to 1s; not used by [New].
	NodeTimeout time.Duration

	// Owner is the label that others see while this process holds a lock. It is
	// no secret. At most 256 bytes, no NUL. Defaults to "host:pid".
	Owner string

	// Prefix is put in front of a lock's name to make its key in Redis. By
	// default there is none: the key is the name, as it is with redsync and
	// redislock, so that a lock excludes their locks of the same name. No NUL,
	// at most 1 KiB.
	Prefix string

	// TTL is how long a lease lasts that nobody extends, rounded down to whole
	// milliseconds. From 10ms to ten years. Defaults to 30s.
	TTL time.Duration

	// TurnSections and TurnTime bound a turn: goroutines of this process that
	// wait for the same lock hand it to each other without a round trip, until
	// so many sections or so much time have passed; then the lock goes back to
	// Redis and to the next process in line. TurnSections 1 means no such
	// hand-off; at most 65536. With sections that are longer than TurnTime,
	// processes take strict turns of one section each.
	//
	// The time is what a process in line waits for each one ahead of it, on top
	// of that one's last section. The sections of a turn each need a fence, and
	// a turn reserves them at its start: 16 at first, and then up to twice as
	// many as the turn before used, so that fences do not run ahead of the clock
	// that they are taken from. Defaults to 1024 sections and 4ms.
	TurnSections int
	TurnTime     time.Duration
}

// withDefaults fills in defaults and panics on values out of range.
func (c Config) withDefaults() Config {
	given := c
	c.TTL = cmp.Or(c.TTL, 30*time.Second).Truncate(time.Millisecond)
	c.ClaimLease = cmp.Or(c.ClaimLease, time.Second).Truncate(time.Millisecond)
	c.LapseDelay = c.LapseDelay.Truncate(time.Millisecond)
	c.FenceMargin = cmp.Or(c.FenceMargin, time.Minute)
	c.NodeTimeout = cmp.Or(c.NodeTimeout, time.Second)
	c.TurnSections = cmp.Or(c.TurnSections, 1024)
	c.TurnTime = cmp.Or(c.TurnTime, 4*time.Millisecond)
	if c.Owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		c.Owner = fmt.Sprintf("%.200s:%d", host, os.Getpid())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.TTL < minTTL || c.TTL > maxTTL:
		panic(fmt.Sprintf("lock: Config.TTL %v is not between %v and %v", given.TTL, minTTL, maxTTL))
	case c.ClaimLease < minTTL || c.ClaimLease > maxTTL:
		panic(fmt.Sprintf("lock: Config.ClaimLease %v is not between %v and %v", given.ClaimLease, minTTL, maxTTL))
	case c.LapseDelay < 0 || c.LapseDelay > maxTTL:
		panic(fmt.Sprintf("lock: Config.LapseDelay %v is not between 0 and %v", given.LapseDelay, maxTTL))
	case c.FenceMargin < time.Second || c.FenceMargin > maxTTL:
		panic(fmt.Sprintf("lock: Config.FenceMargin %v is not between 1s and %v", c.FenceMargin, maxTTL))
	case c.MaxHold < 0:
		panic(fmt.Sprintf("lock: Config.MaxHold %v is negative", c.MaxHold))
	case c.NodeTimeout < time.Millisecond:
		panic(fmt.Sprintf("lock: Config.NodeTimeout %v is less than 1ms", c.NodeTimeout))
	case c.TurnSections < 1 || c.TurnSections > maxSection:
		panic(fmt.Sprintf("lock: Config.TurnSections %d is not between 1 and %d", c.TurnSections, maxSection))
	case c.TurnTime < 0:
		panic(fmt.Sprintf("lock: Config.TurnTime %v is negative", c.TurnTime))
	case len(c.Prefix) > maxName || strings.IndexByte(c.Prefix, 0) >= 0:
		panic("lock: Config.Prefix is longer than 1 KiB or contains a NUL byte")
	}
	if err := checkOwner(c.Owner); err != nil {
		panic("lock: Config." + strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
	}
	return c
}

// claim is the claim lease of a lock with the given TTL.
func (c *Config) claim(ttl time.Duration) time.Duration { return min(c.ClaimLease, ttl) }

func checkOwner(owner string) error {
	if owner == "" || len(owner) > maxOwner || strings.IndexByte(owner, 0) >= 0 {
		return fmt.Errorf("%w: owner is empty, longer than %d bytes, or contains a NUL byte", ErrInvalid, maxOwner)
	}
	return nil
}

// Option changes one setting for one call. Options are made by [WithTTL],
// [WithOwner], [Relay] and [LastOfRelay]; they are comparable and print themselves.
type Option interface {
	String() string
	apply(*settings) error
}

type settings struct {
	ttl   time.Duration
	owner string
	relay relayOption // its queue is "" for none
}

type ttlOption time.Duration

// WithTTL sets how long the lease lasts that nobody extends, instead of
// Config.TTL: from 10ms to ten years, rounded down to whole milliseconds.
func WithTTL(d time.Duration) Option { return ttlOption(d) }

func (o ttlOption) String() string { return "WithTTL(" + time.Duration(o).String() + ")" }

func (o ttlOption) apply(s *settings) error {
	d := time.Duration(o).Truncate(time.Millisecond)
	if d < minTTL || d > maxTTL {
		return fmt.Errorf("%w: ttl %v is not between %v and %v", ErrInvalid, time.Duration(o), minTTL, maxTTL)
	}
	s.ttl = d
	return nil
}

type ownerOption string

// WithOwner sets the label that others see while the lock is held, instead of
// Config.Owner: at most 256 bytes, not empty, no NUL.
func WithOwner(label string) Option { return ownerOption(label) }

func (o ownerOption) String() string { return fmt.Sprintf("WithOwner(%q)", string(o)) }

func (o ownerOption) apply(s *settings) error {
	if err := checkOwner(string(o)); err != nil {
		return err
	}
	s.owner = string(o)
	return nil
}

// settings returns what a call runs with, or an error that names the argument.
func (l *Locker) settings(name string, opts []Option) (settings, error) {
	s := settings{ttl: l.cfg.TTL, owner: l.cfg.Owner}
	if err := l.checkName(name); err != nil {
		return s, err
	}
	if len(opts) == 0 {
		return s, nil
	}
	return s.with(opts)
}

func (s settings) with(opts []Option) (settings, error) {
	for _, o := range opts {
		if o == nil {
			return s, fmt.Errorf("%w: option is nil", ErrInvalid)
		}
		if err := o.apply(&s); err != nil {
			return s, err
		}
	}
	return s, nil
}
