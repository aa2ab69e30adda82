-- mark: mint, as in the prelude, for a lock that has just been taken.
-- lock, fence: its keys   k: how many fences   n, said: the last of them by the clock, and that as text
-- margin: of the fence, in ms. The expiry holds for all fences of one period. If this fails, the lock was never taken.
local last = redis.pcall('SET', fence, said, 'KEEPTTL', 'GET')
if type(last) == 'table' then
  redis.pcall('DEL', lock)
  return last
end
last = tonumber(last or 0) or 0
if last > n - k or math.floor(last / 1000 / margin) < math.floor(n / 1000 / margin) then
  n = math.max(n, last + k)
  local kept = redis.pcall('SET', fence, string.format('%.0f', n), 'PXAT', string.format('%.0f', (math.floor(n / 1000 / margin) + 2) * margin))
  if kept.err then
    redis.pcall('DEL', lock)
    return kept
  end
end
return n
