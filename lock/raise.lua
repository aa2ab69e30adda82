-- raise: lift the fence to what another node has minted, whoever holds the lock: that cannot
-- disorder anything. What counts as an answer is whether the lock is still ours. It follows
-- lift.lua.
-- KEYS[1] lock   KEYS[2] fence
-- ARGV[1] value   ARGV[2] fence   ARGV[3] fence margin in ms
-- returns 1 still ours | 0 not ours
if (tonumber(redis.call('GET', KEYS[2]) or 0) or 0) < tonumber(ARGV[2]) then lift(KEYS[2], ARGV[2], tonumber(ARGV[3])) end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
