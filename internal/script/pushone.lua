-- pushone: push for one request without a lock and a max wait, as most are.
-- ARGV[1] id  ARGV[2] body
-- returns {1 accepted | 2 already, and what answer adds}
local id, body = ARGV[1], ARGV[2]
local v = 'r||' .. whole(now)
local lease, till
if call('EXISTS', wake, ready) == 0 then lease, till = listener() end
if lease then v = handed(v) end
if call('SISMEMBER', gone, id) == 1 or call('SISMEMBER', past, id) == 1 or call('HSETNX', state, id, v) == 0 then
  if call('LLEN', ready) > 0 then token() end
  return {2}
end
call('HSET', msg, id, body)
if lease then
  hand(id, v, body, lease)
  return answer(1, lease, till)
else
  call('RPUSH', ready, id)
  token()
end
return {1}
