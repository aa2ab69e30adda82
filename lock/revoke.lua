-- revoke: take the lock from a holder, and serve the line.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- KEYS[4] parked, if those queues are to be taken out and reported
-- ARGV[1] fence margin in ms   ARGV[2] value of the holder
-- returns 3 that one does not hold it any more | 2 granted to someone in line | 1 freed
--       | {queue, ...} freed, and these queues had registered
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 3 end
local margin = tonumber(ARGV[1])
mint(1, margin)
redis.call('DEL', KEYS[1])
if serve('', 0, 1, margin) then return 2 end
if not KEYS[4] then return 1 end
local queues = redis.call('SMEMBERS', KEYS[4])
if #queues == 0 then return 1 end
redis.call('DEL', KEYS[4])
return queues
