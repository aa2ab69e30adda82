-- look: if the lock is held, register a delay queue with it, in one step.
-- KEYS[1] lock   KEYS[2] parked
-- ARGV[1] name of the queue   ARGV[2] least lease to reckon with, in ms
-- returns {-2} free | {ms left or -1, value of the holder} held
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return {left} end
redis.call('SADD', KEYS[2], ARGV[1])
local keep = math.min(2 * math.max(left, tonumber(ARGV[2])), 1e13) -- no expiry that Redis refuses
if redis.call('PTTL', KEYS[2]) < keep then redis.call('PEXPIRE', KEYS[2], keep) end
local held = redis.pcall('GET', KEYS[1]) -- another program's key may be no string
return {left, type(held) == 'string' and held or ''}
