-- reschedule: a request that nobody has claimed is due at another time.
-- ARGV[1] id  ARGV[2] due: ms since 1970, or "+ms"  ARGV[3] stamp of the call
-- returns {1 done | 2 already | 3 leased or dead | 0 unknown, due in ms since 1970, buried}
local id = ARGV[1]
local due = instant(ARGV[2])
begin()
takeback()
local s = get(id)
if not s then return {0, due, buried} end
if s.stamp == ARGV[3] then return {2, due, buried} end
if s.place == 'l' or s.place == 'x' then return {3, due, buried} end
unplace(id, s)
s.place, s.stamp = 'd', ARGV[3]
put(id, s)
call('ZADD', delayed, whole(due), id)
headed(id)
if due > now then leave(id, s) end -- due at once, it keeps its lock's turn
return {1, due, buried}
