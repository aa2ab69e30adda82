-- unlock: the shortcut in front of release, with its arguments: nobody waits.
local call = redis.call
local held = call('GET', KEYS[1])
if held == ARGV[1] then
  call('DEL', KEYS[1])
  if call('EXISTS', KEYS[3], KEYS[4] or KEYS[3]) == 0 then return 1 end
end
