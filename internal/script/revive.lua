-- revive: a dead request starts anew, at the tail of ready.
-- ARGV[1] id  ARGV[2] stamp of the call
-- returns 1 done | 2 already | 3 not dead | 0 unknown
local id = ARGV[1]
local s = get(id)
if not s then return 0 end
if s.stamp == ARGV[2] then return 2 end
if s.place ~= 'x' then return 3 end
unplace(id, s)
local new = fresh('r', s.lock, s.maxwait)
mint(new)
new.stamp = ARGV[2]
put(id, new)
call('RPUSH', ready, id)
token()
return 1
