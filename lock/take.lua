-- take: trylock, of a group of acquires in whose lines nobody stands; it stands inside many.
local lease, margin, k = ARGV[common + 1], tonumber(ARGV[common + 2]), tonumber(ARGV[common + 3])
local least = time[1] * 1000000 + time[2] + k - 1
local said, period = string.format('%.0f', least), math.floor(least / 1000 / margin)
for i = 1, n do
  local lock, fence, f = KEYS[key + i], KEYS[key + n + i], least
  local took = ask('SET', lock, ARGV[value + i], 'NX', 'PX', lease)
  if took and took.ok then
    -- mark
    out[calls + i], answered = failed or f, answered + 1
  end
end
