-- nack: a request comes back later: it failed, or met a held lock and must wait
-- out its whole delay.
-- ARGV[1] id  ARGV[2] token  ARGV[3] delay in ms  ARGV[4] what it costs:
-- "attempt", "deferral" or "nothing"  ARGV[5] most of those, or 0 (an attempt is
-- spent by the failure, a deferral by the wait)  ARGV[6] 1: it keeps its lock's turn meanwhile (strict order)
-- ARGV[7] note: the error
-- returns {1 done | 2 already | 3 dead | 0 stale, buried}
local id = ARGV[1]
local s = get(id)
local code = mine(id, s, ARGV[2])
if code ~= 1 then return {code, buried} end
unplace(id, s)
local most, why = tonumber(ARGV[5]), nil
if ARGV[4] == 'attempt' then
  s.attempts = s.attempts + 1
  if most > 0 and s.attempts >= most then why = 'attempts: ' .. ARGV[7] end
elseif ARGV[4] == 'deferral' then
  s.deferrals = s.deferrals + 1
  if most > 0 and s.deferrals > most then why = 'deferrals' end
else
  s.deliveries = s.deliveries - 1
end
if why then
  bury(id, s, why)
  leave(id, s)
  return {3, buried}
end
s.place, s.note = 'd', ARGV[7]
put(id, s)
call('ZADD', delayed, whole(now + tonumber(ARGV[3])), id)
headed(id)
if ARGV[6] ~= '1' then leave(id, s) end
return {1, buried}
