-- ack: requests are done. Their locks were released before; the next in line of
-- each gets its turn.
-- ARGV[1] ms for which finished ids are remembered, then per lease its token and how many
-- there are, and per request: id
-- returns {codes, more, buried}: code per request 1 done | 2 already | 0 stale;
-- more is 1 while ready is not empty
local codes = finish(2, tonumber(ARGV[1]))
return {codes, call('LLEN', ready) > 0 and 1 or 0, buried}
