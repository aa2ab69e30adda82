-- adopt: take a held lock over from the token that holds it, for a full lease. It follows
-- lift.lua.
-- KEYS[1] lock   KEYS[2] fence
-- ARGV[1] that token   ARGV[2] its fence   ARGV[3] the new value   ARGV[4] lease in ms
-- ARGV[5] of a quorum: fence margin in ms; else 0
-- returns 1 taken over | 0 the token does not hold the lock
local held, margin = redis.call('GET', KEYS[1]) or '', tonumber(ARGV[5])
if held ~= ARGV[3] then -- else: sent again
  if string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
  local f = tonumber(redis.call('GET', KEYS[2]) or '')
  if f and f < tonumber(ARGV[2]) then
    if margin == 0 then return 0 end -- never handed out
    lift(KEYS[2], ARGV[2], margin) -- a majority knew it, and this node was not of that
  end
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
