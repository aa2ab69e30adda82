-- look: if the lock is held, register a delay queue with it, in one step.
-- KEYS[1] lock   KEYS[2] parked
-- ARGV[1] name of the queue   ARGV[2] least lease to reckon with, in ms
-- returns -2 free | -1 held without an expiry | ms left
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return left end
redis.call('SADD', KEYS[2], ARGV[1])
local keep = 2 * math.max(left, tonumber(ARGV[2]))
if redis.call('PTTL', KEYS[2]) < keep then redis.call('PEXPIRE', KEYS[2], keep) end
return left
