-- quorum: what is different where the lock is a majority of independent nodes; it follows the prelude.
-- KEYS[1] lock   KEYS[3] line
-- Nobody is granted anything here: who is first in line is told to ask all nodes.

-- Nodes that ask their clocks at about the same time mint the same fence, and the
-- caller need not raise any.
clock = math.ceil(now / 65536) * 65536

-- wake: tell the first in line who listens that the lock is free here.
wake = function()
  for _ = 1, 64 do
    local e = redis.call('ZPOPMIN', KEYS[3])[1]
    if not e then return end
    local n, at = string.match(e, '^%d+ %d+ (%d+) ()')
    if n then
      n = tonumber(n)
      local said = '0 0 0 ' .. #KEYS[1] .. ' ' .. KEYS[1] .. string.sub(e, at + n)
      if redis.call('PUBLISH', string.sub(e, at, at + n - 1), said) > 0 then return end
    end
  end
end
serve = wake
