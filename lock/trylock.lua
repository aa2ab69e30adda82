-- trylock: the shortcut in front of acquire, with its arguments: a free lock in whose line nobody
-- stands, and a try that is refused. Each call costs the server time, and so does each number
-- that is written out: hence SET NX to look and take at once, and the fence as text.
local call = redis.call
if (not ARGV[5] or call('EXISTS', KEYS[3]) == 0) and call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local time, margin, k = redis.call('TIME'), tonumber(ARGV[3]), ARGV[4]
  local n, said
  if k then
    n = time[1] * 1000000 + time[2] + k - 1
    said = string.format('%.0f', n)
  else
    k, said = 1, time[1] .. string.sub('00000' .. time[2], -6)
    n = tonumber(said)
  end
  -- mint, as in the prelude, whose expiry holds for all fences of one period. If it fails, the
  -- lock was never taken.
  local last = redis.pcall('SET', KEYS[2], said, 'KEEPTTL', 'GET')
  if type(last) == 'table' then
    call('DEL', KEYS[1])
    return last
  end
  last = tonumber(last or 0) or 0
  if last > n - k or math.floor(last / 1000 / margin) < math.floor(n / 1000 / margin) then
    n = math.max(n, last + k)
    call('SET', KEYS[2], string.format('%.0f', n), 'PXAT', string.format('%.0f', (math.floor(n / 1000 / margin) + 2) * margin))
  end
  return n
end
if not ARGV[5] then
  local held = call('GET', KEYS[1])
  if held and held ~= ARGV[1] then return {call('PTTL', KEYS[1]), held} end
end
