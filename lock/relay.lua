-- relay: a section ends, and this process's next section of the same queue is about to come. Unless
-- somebody else waits, the lock goes to that one: what release and acquire do one after the other,
-- with nobody between. Else release, which follows.
-- KEYS[1] lock   KEYS[2] fence   KEYS[3] line   KEYS[4] parked
-- ARGV[1] value   ARGV[2] fence margin in ms   ARGV[3] ""   ARGV[4] value of the next section
-- ARGV[5] its lease in ms   ARGV[6] the queue
-- returns {fence of the next section} | what release returns
local had, margin = redis.call('GET', KEYS[1]), tonumber(ARGV[2])
if had == ARGV[4] then -- sent again
  local f = tonumber(redis.call('GET', KEYS[2]) or '') or mint(1, margin)
  prolong(KEYS[1], ARGV[5])
  return {f}
end
if had == ARGV[1] and redis.call('EXISTS', KEYS[3]) == 0 then
  local queues = redis.call('SMEMBERS', KEYS[4])
  if #queues == 0 or #queues == 1 and queues[1] == ARGV[6] then
    local f = mint(1, margin)
    redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
    return {f}
  end
end
