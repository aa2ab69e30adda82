-- acquire: take the lock, or join its line: try, join, re-check and confirm are all this.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- ARGV[1] value: token, space, owner label   ARGV[2] lease in ms   ARGV[3] fence margin in ms
-- ARGV[4] block: how many fences to reserve; 1 if left out
-- ARGV[5] entry to stand in line with, left out in a try   ARGV[6] its claim lease in ms
-- returns last fence granted
--       | {ms left or -1, value of the holder, server's time in us} held
local me, lease, margin, k, entry = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4] or 1), ARGV[5]
local claim = tonumber(ARGV[6])
local held = redis.call('GET', KEYS[1])
if held == me then
  local f = tonumber(redis.call('GET', KEYS[2]) or '') or mint(k, margin)
  prolong(KEYS[1], lease)
  return f
end
if held then
  local left = redis.call('PTTL', KEYS[1])
  if entry then join(entry, claim, left) end
  return {left, held, now}
end
if not entry or redis.call('ZCARD', KEYS[3]) == 0 then
  local f = mint(k, margin)
  redis.call('SET', KEYS[1], me, 'PX', lease)
  return f
end
join(entry, claim, 0)
local who, f, left = serve(me, lease, k, margin)
if who == me then return f end
return {left or 0, who or '', now}
