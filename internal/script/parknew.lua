-- parknew: accept a request that met a held lock, in line for that lock. The
-- caller then looks at the lock.
-- ARGV[1] id  ARGV[2] body  ARGV[3] lock  ARGV[4] max wait in ms or 0  ARGV[5] due of the probe: ms since 1970, or "+ms"
-- returns {1 accepted | 2 already, due in ms since 1970}
local id = ARGV[1]
local due = instant(ARGV[5])
if known(id) then return {2, due} end
local s = fresh('p', ARGV[3], ARGV[4])
s.deferrals = 1
mint(s)
call('HSET', msg, id, ARGV[2])
line(id, s, due)
return {1, due}
