-- discard: take back one node's vote for an acquire that found no majority. It wakes nobody:
-- the lock was not held.
-- KEYS[1] lock
-- ARGV[1] value
-- returns 1 taken back | 0 not ours
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
