-- take: trylock, for one of several that look at the clock once. n and said are the last of its k
-- fences by that, as a number and as text.
-- returns the last fence | nothing, or an error, if it was not taken
local function take(lock, fence, value, lease, margin, k, n, said)
  local took = redis.pcall('SET', lock, value, 'NX', 'PX', lease)
  if not took or took.err then return end
  -- mark
end
