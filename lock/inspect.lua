-- inspect: what is known of a lock; changes nothing.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line   KEYS[4] parked
-- returns {value or '', ms left or -1 or -2, fence or '', waiters, {queue, ...}}
return {
  redis.call('GET', KEYS[1]) or '',
  redis.call('PTTL', KEYS[1]),
  redis.call('GET', KEYS[2]) or '',
  redis.call('ZCARD', KEYS[3]),
  redis.call('SMEMBERS', KEYS[4]),
}
