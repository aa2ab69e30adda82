-- push: accept requests at the tail of ready, in order. An id that is known is left alone.
-- Those of several callers may come in one call.
-- ARGV per request: id, body, lock or "", max wait in ms or 0
-- returns per request 1 accepted | 2 already
local reply, new, bodies, n = {}, {}, {}, 0
local plain = 'r||' .. whole(now)
for i = 1, #ARGV, 4 do
  local id, lock, maxwait = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local code = recalled(id) and 2 or 1
  if code == 1 and lock == '' and maxwait == '0' then
    if call('HSETNX', state, id, plain) == 0 then code = 2 end
  elseif code == 1 then
    if call('HEXISTS', state, id) == 1 then
      code = 2
    else
      local s = fresh('r', lock, maxwait)
      mint(s)
      put(id, s)
    end
  end
  if code == 1 then
    n = n + 1
    new[n], bodies[2 * n - 1], bodies[2 * n] = id, id, ARGV[i + 1]
  end
  reply[#reply + 1] = code
end
if n > 0 then
  call('HSET', msg, unpack(bodies))
  call('RPUSH', ready, unpack(new))
end
if n > 0 or call('LLEN', ready) > 0 then token() end
return reply
