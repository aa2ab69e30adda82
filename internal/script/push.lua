-- push: accept requests at the tail of ready. An id that is known is left alone.
-- ARGV per request: id, body, lock or "", max wait in ms or 0
-- returns per request 1 accepted | 2 already
local reply = {}
for i = 1, #ARGV, 4 do
  local id = ARGV[i]
  if known(id) then
    reply[#reply + 1] = 2
  else
    local s = fresh(ARGV[i + 2], ARGV[i + 3])
    mint(s)
    s.place = 'r'
    call('HSET', msg, id, ARGV[i + 1])
    put(id, s)
    call('RPUSH', ready, id)
    reply[#reply + 1] = 1
  end
end
if call('LLEN', ready) > 0 then token() end
return reply
