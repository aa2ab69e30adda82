-- pushone: push for one request without a lock and a max wait, as most are.
-- ARGV[1] id  ARGV[2] body
-- returns {1 accepted | 2 already}
local id, body = ARGV[1], ARGV[2]
local memory = call('ZSCORE', gone, id)
local last = call('LINDEX', wake, -1)
local plain = 'r||' .. whole(now)
if memory and tonumber(memory) > now or call('HSETNX', state, id, plain) == 0 then
  if last ~= '1' and call('LLEN', ready) > 0 then call('RPUSH', wake, '1') end
  return {2}
end
call('HSET', msg, id, body)
if last or call('EXISTS', ready) == 1 or not hand(id, plain, body) then
  call('RPUSH', ready, id)
  if last ~= '1' then call('RPUSH', wake, '1') end
end
return {1}
