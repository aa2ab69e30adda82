-- pushone: push for one request without a lock and a max wait, as most are.
-- ARGV[1] id  ARGV[2] body
-- returns {1 accepted | 2 already}
local id = ARGV[1]
local memory = call('ZSCORE', gone, id)
local waiting, code
if memory and tonumber(memory) > now or call('HSETNX', state, id, string.format('r||%.0f', now)) == 0 then
  waiting, code = call('LLEN', ready), 2
else
  call('HSET', msg, id, ARGV[2])
  waiting, code = call('RPUSH', ready, id), 1
end
if waiting > 0 and call('LLEN', wake) == 0 then call('LPUSH', wake, '1') end
return {code}
