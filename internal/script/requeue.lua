-- requeue: claimed requests go back to the head of ready, uncounted, and keep
-- their locks' turns.
-- ARGV per request: id, token
-- returns per request 1 done | 2 already | 0 stale
local codes = {}
for i = #ARGV - 1, 1, -2 do
  local id = ARGV[i]
  local s = get(id)
  local code = mine(id, s, ARGV[i + 1])
  if code == 1 then
    unplace(id, s)
    s.place, s.deliveries = 'r', s.deliveries - 1
    put(id, s)
    call('LPUSH', ready, id)
    token()
  end
  codes[(i + 1) / 2] = code
end
return codes
