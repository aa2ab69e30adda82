-- release: give the lock to the first in line, or free it; and leave the line.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line   KEYS[4] parked
-- ARGV[1] value   ARGV[2] fence margin in ms   ARGV[3] entry to take out of the line, or ''
-- ARGV[4] 1: take the parked queues out and report them
-- returns 0 not ours | 2 granted to someone in line | 1 freed
--       | {queue, ...} freed, and these queues had registered
if ARGV[3] ~= '' then redis.call('ZREM', KEYS[3], ARGV[3]) end
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  if not held then wake() end
  return 0
end
redis.call('DEL', KEYS[1])
if serve('', 0, 1, tonumber(ARGV[2])) then return 2 end
if ARGV[4] ~= '1' then return 1 end
local queues = redis.call('SMEMBERS', KEYS[4])
if #queues == 0 then return 1 end
redis.call('DEL', KEYS[4])
return queues
