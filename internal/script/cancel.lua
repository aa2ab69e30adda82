-- cancel: a request is dropped, wherever it is. A handler that runs it learns so
-- when its lease is extended or acknowledged.
-- ARGV[1] ms for which finished ids are remembered  ARGV[2] id
-- returns {1 done | 0 unknown, buried}
local id = ARGV[2]
takeback()
local s = get(id)
if not s then return {0, buried} end
unplace(id, s)
forget({id}, tonumber(ARGV[1]))
leave(id, s)
return {1, buried}
