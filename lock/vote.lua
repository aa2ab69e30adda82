-- vote: one node's part in an acquire by majority: take the lock, or join its line.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- ARGV[1] value: token, space, owner label   ARGV[2] lease in ms   ARGV[3] fence margin in ms
-- ARGV[4] block: how many fences to reserve; 1 if left out
-- ARGV[5] entry to stand in line with, left out in a try   ARGV[6] its claim lease in ms
-- returns last fence granted
--       | {ms left or -1, value of the holder, server's time in us} held
local me, lease, entry = ARGV[1], ARGV[2], ARGV[5]
local held = redis.call('GET', KEYS[1])
if held and held ~= me then
  local left = redis.call('PTTL', KEYS[1])
  if entry then join(entry, tonumber(ARGV[6]), left) end
  return {left, held, now}
end
local f = held and tonumber(redis.call('GET', KEYS[2]) or '') or mint(tonumber(ARGV[4] or 1), tonumber(ARGV[3]))
if entry then redis.call('ZREM', KEYS[3], entry) end
if held then prolong(KEYS[1], lease) else redis.call('SET', KEYS[1], me, 'PX', lease) end
return f
