-- prelude: what the scripts share; it is put in front of each, after its shortcut
-- if it has one.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- An entry of the line is "claim block n channelvalue": the claim lease in ms,
-- the size of the block of fences, the length of the channel's name, that name,
-- and the value to write to the lock key.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local clock = now -- what fences are minted from

local function text(n) return string.format('%.0f', n) end

-- prolong: keep a key for at least so many ms more; never for less than it has.
local function prolong(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end

-- mint: reserve k fences; the last of them. Before any write to the lock. Its key
-- is kept for one or two margins beyond it: until the end of the next period that
-- long.
local function mint(k, margin, key)
  key = key or KEYS[2]
  local n = math.max((tonumber(redis.call('GET', key) or 0) or 0) + 1, clock) + k - 1
  redis.call('SET', key, text(n), 'PXAT', text((math.floor(n / 1000 / margin) + 2) * margin))
  return n
end

-- serve: the lock is free; give it to the first in line who listens. me is the
-- caller's own value, or ''. Who listens is asked first: what is published goes to
-- replicas and to a Cluster's other nodes too, and PUBLISH counts none of those it
-- reaches there. Write, then tell: a told waiter needs no check.
-- returns the value written, its last fence, its lease in ms; or nothing.
local function serve(me, lease, k, margin)
  for _ = 1, 64 do
    local e = redis.call('ZPOPMIN', KEYS[3])[1]
    if not e then return end
    local claim, block, n, at = string.match(e, '^(%d+) (%d+) (%d+) ()')
    if claim then
      n = tonumber(n)
      local chan, value = string.sub(e, at, at + n - 1), string.sub(e, at + n)
      if value == me then
        local f = mint(k, margin)
        redis.call('SET', KEYS[1], me, 'PX', lease)
        return me, f, lease
      end
      if redis.call('PUBSUB', 'NUMSUB', chan)[2] > 0 then
        local f = mint(tonumber(block), margin)
        redis.call('SET', KEYS[1], value, 'PX', claim)
        redis.call('PUBLISH', chan, text(f) .. ' ' .. text(now) .. ' ' .. claim .. ' ' .. #KEYS[1] .. ' ' .. KEYS[1] .. value)
        return value, f, tonumber(claim)
      end
    end
  end
end

-- wake: the lock is free, and nobody was told. On one node the waiters' timers see to that.
local wake = function() end

-- join: stand in line, once; the line outlives its last visit by a while, but not
-- by so much that Redis refuses it: another program's key may expire in ages.
local function join(entry, claim, left)
  redis.call('ZADD', KEYS[3], 'NX', text(now), entry)
  prolong(KEYS[3], math.min(2 * math.max(left, 10 * claim), 1e13))
end
