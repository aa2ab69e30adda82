-- mark: mint, as in the prelude, for a lock that has just been taken; it stands inside the scripts that take one.
-- Before it: lock, fence, its keys; k, how many fences; f, said, the last of them by the clock, and that as text;
-- margin, of the fence in ms; period, how many margins there have been until f
-- After it: f, the last fence, or failed, an error, and the lock was never taken
-- The expiry holds for all fences of one period.
local last, failed = redis.pcall('SET', fence, said, 'KEEPTTL', 'GET'), nil
if type(last) == 'table' then
  failed = last
else
  last = tonumber(last or 0) or 0
  if last > f - k or last < period * margin * 1000 then
    f = math.max(f, last + k)
    last = redis.pcall('SET', fence, string.format('%.0f', f), 'PXAT', string.format('%.0f', (math.floor(f / 1000 / margin) + 2) * margin))
    failed = last.err and last
  end
end
if failed then redis.pcall('DEL', lock) end
