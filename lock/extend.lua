-- extend: a full lease again, if the lock is still ours. Never takes a free lock.
-- KEYS[1] lock
-- ARGV[1] value   ARGV[2] lease in ms
-- returns 1 extended | 0 not ours
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
