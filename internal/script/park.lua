-- park: a claimed request met a held lock: it stands in line for it, in the
-- place it had. Its lock's turn is free, and nobody is promoted: the caller then
-- looks at the lock.
-- ARGV[1] id  ARGV[2] token  ARGV[3] ms until the probe is due  ARGV[4] most deferrals, or 0
-- returns {1 done | 2 already | 3 dead | 0 stale, buried}
local id = ARGV[1]
local s = get(id)
local code = mine(id, s, ARGV[2])
if code ~= 1 then return {code, buried} end
unplace(id, s)
s.deferrals = s.deferrals + 1
local most = tonumber(ARGV[4])
if most > 0 and s.deferrals > most then
  bury(id, s, 'deferrals')
  leave(id, s)
  return {3, buried}
end
line(id, s, now + tonumber(ARGV[3]))
if call('HGET', held, s.lock) == id then call('HDEL', held, s.lock) end
return {1, buried}
