-- push: accept requests at the tail of ready, in order. An id that is known is left alone.
-- Those of several callers may come in one call. The first may be handed to a consumer
-- that waits for it.
-- ARGV per request: id, body, lock or "", max wait in ms or 0
-- returns per request 1 accepted | 2 already
local reply, new, bodies, n = {}, {}, {}, 0
local plain = 'r||' .. whole(now)
local alone = not call('LINDEX', wake, -1) and call('EXISTS', ready) == 0
for i = 1, #ARGV, 4 do
  local id, body, lock, maxwait = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local code, v, handed = recalled(id) and 2 or 1, plain, false
  if code == 1 and lock == '' and maxwait == '0' then
    if call('HSETNX', state, id, v) == 0 then code = 2 end
  elseif code == 1 then
    if call('HEXISTS', state, id) == 1 then
      code = 2
    else
      local s = fresh('r', lock, maxwait)
      mint(s)
      v = pack(s)
      call('HSET', state, id, v)
    end
  end
  if code == 1 then
    n = n + 1
    bodies[2 * n - 1], bodies[2 * n] = id, body
    if alone and (lock == '' or call('HEXISTS', held, lock) == 0 and not oldest(lock)) then
      handed = hand(id, v, body)
      if handed and lock ~= '' then call('HSET', held, lock, id) end
    end
    if not handed then new[#new + 1] = id end
    alone = false
  end
  reply[#reply + 1] = code
end
if n > 0 then call('HSET', msg, unpack(bodies)) end
if #new > 0 then call('RPUSH', ready, unpack(new)) end
if #new > 0 or call('LLEN', ready) > 0 then token() end
return reply
