-- release: give the lock to the first in line, or free it; and leave the line. It follows unlock.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- KEYS[4] parked, if those queues are to be taken out and reported
-- ARGV[1] value   ARGV[2] fence margin in ms   ARGV[3] entry to take out of the line, if any
-- returns 0 not ours | 2 granted to someone in line | 1 freed
--       | {queue, ...} freed, and these queues had registered
if ARGV[3] then call('ZREM', KEYS[3], ARGV[3]) end
if held ~= ARGV[1] then
  if not held then wake() end
  return 0
end
if serve('', 0, 1, tonumber(ARGV[2])) then return 2 end
if not KEYS[4] then return 1 end
local queues = call('SMEMBERS', KEYS[4])
if #queues == 0 then return 1 end
call('DEL', KEYS[4])
return queues
