-- yield: a feeder stops: another takes over the time and looks at once.
-- KEYS[4] the list on which the feeder's waker waits besides wake, if it has one
-- ARGV[1] feeder
-- returns 1
local stop = KEYS[4]
local owner = string.match(call('GET', clock) or '', '^(%S+) ')
if owner == ARGV[1] then call('DEL', clock) end
call('HDEL', meta, 'idle')
if stop then
  call('LPUSH', stop, '1')
  call('PEXPIRE', stop, 60000)
end
token()
return 1
