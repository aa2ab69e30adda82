-- revoke: take the lock from whoever holds it, and serve the line.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line
-- ARGV[1] fence margin in ms
-- returns 0 nobody held it | 1 revoked
if not redis.call('GET', KEYS[1]) then return 0 end
local margin = tonumber(ARGV[1])
mint(1, margin)
redis.call('DEL', KEYS[1])
serve('', 0, 1, margin)
return 1
