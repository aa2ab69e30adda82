-- many: acquires and releases of several callers in one script: as if each had been sent by itself,
-- but that all see one time, and who gives a lock back twice hears twice that it did. Those of one
-- kind make a group, in which what they have in common is said once, and asked for once.
-- KEYS per group: its locks, then their fences, their lines, and the sets of parked queues; of a try no
-- lines, and no sets of who does not ask for those queues
-- ARGV per group: a head, the number n of calls, what they have in common; n values; n entries, if any.
-- The head is "a" for acquires or "r" for releases, and then a digit each: of how many keys a call is,
-- and of how many of values and entries. In common have acquires lease, margin, block, and claim, and
-- releases the margin
-- returns per call what its script does | an error, or false, if that failed: it is to be sent by itself
local ask, out, calls, key, arg = redis.pcall, {}, 0, 0, 1
while ARGV[arg] do
  local what, keys, own = string.byte(ARGV[arg], 1, 3)
  local acquires, n, common = what == 97, tonumber(ARGV[arg + 1]), arg + 1
  local value = common + (acquires and 4 or 1)
  keys, own = keys - 48, own - 48
  local answered = 0

  -- The shortcut of all of them, if nobody waits for any.
  if keys == 2 or ask('EXISTS', unpack(KEYS, key + 2 * n + 1, key + keys * n)) == 0 then
    if acquires then
      -- take
    else
      local held, mine = ask('MGET', unpack(KEYS, key + 1, key + n)), {}
      for i = 1, n do
        if held[i] == ARGV[value + i] then
          answered = answered + 1
          mine[answered], out[calls + i] = KEYS[key + i], 1
        end
      end
      if answered > 0 then redis.call('DEL', unpack(mine)) end
    end
  end

  -- The others by themselves.
  if answered < n then
    local function alone(i)
      local ks, entry = {}, own == 2 and ARGV[value + n + i] or nil
      for j = 1, keys do ks[j] = KEYS[key + (j - 1) * n + i] end
      if not acquires then return release(ks, {ARGV[value + i], ARGV[common + 1], entry}) end
      return acquire(ks, {ARGV[value + i], ARGV[common + 1], ARGV[common + 2], ARGV[common + 3], entry, ARGV[common + 4]})
    end
    for i = 1, n do
      if not out[calls + i] then
        local ok, said = pcall(alone, i)
        out[calls + i] = ok and said or false
      end
    end
  end
  calls, key, arg = calls + n, key + keys * n, value + own * n + 1
end
return out
