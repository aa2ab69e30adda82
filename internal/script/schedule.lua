-- schedule: accept a request that is due at a time.
-- ARGV[1] id  ARGV[2] body  ARGV[3] lock or ""  ARGV[4] max wait in ms or 0  ARGV[5] due: ms since 1970, or "+ms"
-- ARGV[6] deferrals so far
-- returns {1 accepted | 2 already, due in ms since 1970}
local id = ARGV[1]
local due = instant(ARGV[5])
if known(id) then return {2, due} end
local s = fresh('d', ARGV[3], ARGV[4])
s.deferrals = tonumber(ARGV[6])
call('HSET', msg, id, ARGV[2])
put(id, s)
call('ZADD', delayed, whole(due), id)
headed(id)
return {1, due}
