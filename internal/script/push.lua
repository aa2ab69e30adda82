-- push: accept requests at the tail of ready. An id that is known is left alone.
-- ARGV per request: id, body, lock or "", max wait in ms or 0
-- returns per request 1 accepted | 2 already
local reply, waiting = {}, 0
local plain = 'r||' .. whole(now)
for i = 1, #ARGV, 4 do
  local id, lock, maxwait = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local new = not recalled(id)
  if new and lock == '' and maxwait == '0' then
    new = call('HSETNX', state, id, plain) == 1
  elseif new then
    new = call('HEXISTS', state, id) == 0
    if new then
      local s = fresh('r', lock, maxwait)
      mint(s)
      put(id, s)
    end
  end
  if new then
    call('HSET', msg, id, ARGV[i + 1])
    waiting = call('RPUSH', ready, id)
    reply[#reply + 1] = 1
  else
    reply[#reply + 1] = 2
  end
end
if waiting > 0 or call('LLEN', ready) > 0 then token() end
return reply
