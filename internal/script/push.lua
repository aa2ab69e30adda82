-- push: accept requests at the tail of ready, in order. An id that is known is left alone.
-- Those of several callers may come in one call. The first may be handed to a consumer
-- that waits for it.
-- ARGV per request: id, body, lock or "", max wait in ms or 0
-- returns per request 1 accepted | 2 already
local ids, reply, new, bodies, n = {}, {}, {}, {}, 0
for i = 1, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local recent, earlier = call('SMISMEMBER', gone, unpack(ids)), call('SMISMEMBER', past, unpack(ids))
local plain = 'r||' .. whole(now)
local alone = call('EXISTS', wake, ready) == 0
for i, id in ipairs(ids) do
  local body, lock, maxwait = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i]
  local code, v, lease = recent[i] + earlier[i] > 0 and 2 or 1, plain, nil
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
    if alone and (lock == '' or call('HEXISTS', held, lock) == 0 and not oldest(lock)) then lease = listener() end
    if lease then
      v = handed(v)
      call('HSET', state, id, v)
      hand(id, v, body, lease)
      if lock ~= '' then call('HSET', held, lock, id) end
    else
      new[#new + 1] = id
    end
    alone = false
  end
  reply[#reply + 1] = code
end
if n > 0 then call('HSET', msg, unpack(bodies)) end
if #new > 0 then call('RPUSH', ready, unpack(new)) end
if #new > 0 or call('LLEN', ready) > 0 then token() end
return reply
