-- lift: what another node has minted, this one never mints again.
local function lift(key, fence, margin)
  redis.call('SET', key, fence, 'PXAT', string.format('%.0f', (math.floor(tonumber(fence) / 1000 / margin) + 2) * margin))
end
