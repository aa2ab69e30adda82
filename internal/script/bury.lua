-- bury: a claimed request can never succeed.
-- ARGV[1] id  ARGV[2] token  ARGV[3] reason
-- returns {1 done | 2 already | 0 stale, buried}
local id = ARGV[1]
local s = get(id)
local code = mine(id, s, ARGV[2])
if code ~= 1 then return {code, buried} end
unplace(id, s)
bury(id, s, ARGV[3])
leave(id, s)
return {1, buried}
