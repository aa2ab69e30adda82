-- rearm: a lock's probe is due at another time.
-- ARGV[1] lock  ARGV[2] ms from now
-- returns 1 there is a probe | 0 there is none
local id = oldest(ARGV[1])
if not id then return 0 end
local due = now + tonumber(ARGV[2])
local s = get(id)
if s and s.maxwait > 0 then due = math.min(due, s.accepted + s.maxwait) end
local before = tonumber(call('ZSCORE', delayed, probe(ARGV[1])) or 0)
begin()
call('ZADD', delayed, 'XX', whole(due), probe(ARGV[1]))
if due < before then headed(probe(ARGV[1])) end
return 1
