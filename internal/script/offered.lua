-- offered: push for one request that was offered before: it is leased to whoever took it, and
-- restored if nobody did. Who took it sends that as well, before all but an acknowledgement.
-- ARGV[1] id  ARGV[2] body  ARGV[3] its state  ARGV[4] lease in ms
-- returns {1 accepted | 2 already, and what answer adds}
local id, code = ARGV[1], 2
if not recalled(id) and call('HSETNX', state, id, ARGV[3]) == 1 then
  call('HSET', msg, id, ARGV[2])
  call('ZADD', leased, whole(now + ARGV[4]), id)
  code = 1
end
takeback()
if call('EXISTS', wake, ready) > 0 then return {code} end
return answer(code, listener())
