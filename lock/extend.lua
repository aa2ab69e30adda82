-- extend: a full lease again for each lock that is still ours, unless it has a longer one. Never takes a free lock.
-- KEYS[i] lock
-- ARGV[2i-1] its value   ARGV[2i] its lease in ms
-- returns {1 extended or 0 not ours, ...}
local held = {}
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[2 * i - 1] then
    if redis.call('PTTL', key) < tonumber(ARGV[2 * i]) then redis.call('PEXPIRE', key, ARGV[2 * i]) end
    held[i] = 1
  else
    held[i] = 0
  end
end
return held
