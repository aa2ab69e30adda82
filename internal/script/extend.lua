-- extend: leases last from now on.
-- ARGV[1] lease in ms, then per request: id, token
-- returns per request 1 done | 0 stale
begin()
local codes = {}
local deadline = whole(now + tonumber(ARGV[1]))
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local s = get(id)
  if s and s.place == 'l' and s.token == ARGV[i + 1] then
    if not call('ZSCORE', leased, id) then divide(s.token) end
    call('ZADD', leased, 'XX', deadline, id)
    codes[#codes + 1] = 1
  else
    codes[#codes + 1] = 0
  end
end
return codes
