-- acquireall: take several locks, or none. It looks at no line, as a try does.
-- KEYS[2i-1] lock   KEYS[2i] fence
-- ARGV[1] lease in ms   ARGV[2] fence margin in ms   ARGV[2+i] value for the i-th lock
-- returns {1, fence, ...} granted | {0, i, ms left or -1, value of the holder} the i-th is held
local n = #KEYS / 2
local fences = {1}
for i = 1, n do
  local held = redis.call('GET', KEYS[2 * i - 1])
  if held == ARGV[2 + i] then
    fences[1 + i] = tonumber(redis.call('GET', KEYS[2 * i]) or '')
  elseif held then
    return {0, i, redis.call('PTTL', KEYS[2 * i - 1]), held}
  end
end
for i = 1, n do
  fences[1 + i] = fences[1 + i] or mint(1, tonumber(ARGV[2]), KEYS[2 * i])
end
for i = 1, n do
  redis.call('SET', KEYS[2 * i - 1], ARGV[2 + i], 'PX', ARGV[1])
end
return fences
