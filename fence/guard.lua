-- guard: refuse a fence smaller than the register's, else raise the register. The caller's script follows it.
-- KEYS[1] register; the caller's keys follow and are KEYS[1], KEYS[2] ... to its script
-- ARGV[1] fence   ARGV[2] ttl of the register in ms, 0 for none; the caller's arguments follow, likewise
-- returns an error reply that begins with STALEFENCE and names the register's fence, or what the caller's script does
do
  local seen = tonumber(redis.call('GET', KEYS[1]) or 0)
  if not seen then return redis.error_reply('ERR fence: the register ' .. KEYS[1] .. ' holds no number') end
  local fence, ttl = tonumber(ARGV[1]), ARGV[2]
  if fence < seen then return redis.error_reply(string.format('STALEFENCE %.0f', seen)) end
  if ttl ~= '0' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
  elseif fence > seen then redis.call('SET', KEYS[1], ARGV[1]) end
  table.remove(KEYS, 1) table.remove(ARGV, 1) table.remove(ARGV, 1)
end
