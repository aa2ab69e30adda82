-- promote: a hint that a lock may be free.
-- ARGV[1] lock
-- returns {1 a request was promoted | 0 none, buried}
return {promote(ARGV[1]), buried}
