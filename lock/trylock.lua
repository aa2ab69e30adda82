-- trylock: the shortcut in front of acquire, with its arguments: a free lock in whose line nobody
-- stands, and a try that is refused. Each call costs the server time, and so does each number
-- that is written out: hence SET NX to look and take at once, and the fence as text.
local call = redis.call
if (not ARGV[5] or call('EXISTS', KEYS[3]) == 0) and call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local lock, fence, time, margin, k = KEYS[1], KEYS[2], redis.call('TIME'), tonumber(ARGV[3]), ARGV[4]
  local f, said
  if k then
    f = time[1] * 1000000 + time[2] + k - 1
    said = string.format('%.0f', f)
  else
    k, said = 1, time[1] .. string.sub('00000' .. time[2], -6)
    f = tonumber(said)
  end
  local period = math.floor(f / 1000 / margin)
  -- mark
  return failed or f
end
if not ARGV[5] then
  local held = call('GET', KEYS[1])
  if held and held ~= ARGV[1] then return {call('PTTL', KEYS[1]), held} end
end
