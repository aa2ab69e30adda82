-- The words that all scripts of a queue share. script.go puts in front of each
-- script only the functions that it uses.
--
-- KEYS are the same for all, in this order: ready delayed parked leased dead msg
-- state held wake clock gone meta (keys.go). Ids hold no control characters and
-- lock names no NUL, so that NUL separates them.
local call = redis.call
local ready, delayed, parked, leased, dead, msg = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local state, held, wake, clock, gone, meta = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local buried = {}

-- whole prints a number without an exponent or a fraction.
local function whole(n) return string.format('%.0f', n) end

-- instant reads a due time: "+ms" from now, or ms since 1970.
local function instant(arg)
  if string.sub(arg, 1, 1) == '+' then return now + tonumber(string.sub(arg, 2)) end
  return tonumber(arg)
end

-- parse reads a packed state.
-- place: r ready, d delayed, p parked, l leased, x dead.
local function parse(v)
  local place, seq, dlv, att, dfr, acc, wait, stamp, tok, n, rest =
    string.match(v, '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|(%d+)|(.*)$')
  n = tonumber(n)
  return {
    place = place, seq = tonumber(seq), deliveries = tonumber(dlv), attempts = tonumber(att),
    deferrals = tonumber(dfr), accepted = tonumber(acc), maxwait = tonumber(wait),
    stamp = stamp, token = tok, lock = string.sub(rest, 1, n), note = string.sub(rest, n + 1),
  }
end

-- get reads the state of the request with an id, or returns nil.
local function get(id)
  local v = call('HGET', state, id)
  if v then return parse(v) end
  return nil
end

-- pack is the form in which put writes and parse reads a state.
local function pack(s)
  return s.place .. '|' .. whole(s.seq) .. '|' .. s.deliveries .. '|' .. s.attempts .. '|' .. s.deferrals .. '|' ..
    whole(s.accepted) .. '|' .. whole(s.maxwait) .. '|' .. s.stamp .. '|' .. s.token .. '|' ..
    #s.lock .. '|' .. s.lock .. s.note
end

local function put(id, s) call('HSET', state, id, pack(s)) end

-- fresh is the state of a request accepted now.
local function fresh(lock, maxwait)
  return {
    place = '', seq = 0, deliveries = 0, attempts = 0, deferrals = 0, accepted = now,
    maxwait = tonumber(maxwait), stamp = '', token = '', lock = lock, note = '',
  }
end

-- known tells whether an id is in the queue, or left it a short while ago.
local function known(id)
  if call('HEXISTS', state, id) == 1 then return true end
  local memory = call('ZSCORE', gone, id)
  return memory and tonumber(memory) > now
end

-- mint gives a request with a lock its place in that lock's line, once.
local function mint(s)
  if s.lock ~= '' and s.seq == 0 then s.seq = call('HINCRBY', meta, 'seq', 1) end
end

-- token says "somebody look": at most one token stands in wake. A claim is quiet:
-- it looks itself, and leaves a token at its end if there is more.
local quiet = false
local function token()
  if not quiet and call('LLEN', wake) == 0 then call('LPUSH', wake, '1') end
end

-- headed says so if member has become what is due first.
local function headed(member)
  if call('ZRANGE', delayed, 0, 0)[1] == member then token() end
end

-- heal counts a repair of what no script of ours leaves behind (lost keys).
local function heal() call('HINCRBY', meta, 'healed', 1) end

-- probe is a lock's member in delayed while the lock has parked requests.
local function probe(lock) return '\0' .. lock end

-- spot is a request's member in parked.
local function spot(id, s) return s.lock .. '\0' .. string.format('%016.0f', s.seq) .. '\0' .. id end

-- oldest returns a lock's first parked id and its member in parked, or nil.
local function oldest(lock)
  local m = call('ZRANGEBYLEX', parked, '[' .. lock .. '\0', '(' .. lock .. '\1', 'LIMIT', 0, 1)[1]
  if not m then return nil end
  return string.sub(m, #lock + 19), m
end

-- unprobe drops the lock's probe with its last parked request.
local function unprobe(lock)
  if not oldest(lock) then call('ZREM', delayed, probe(lock)) end
end

-- bury moves a request, already out of its place, to the dead.
local function bury(id, s, why)
  s.place, s.note = 'x', why
  put(id, s)
  call('ZADD', dead, whole(now), id)
  buried[#buried + 1] = id
  buried[#buried + 1] = why
end

-- expired tells whether a request has waited longer than it may.
local function expired(s) return s.maxwait > 0 and s.accepted + s.maxwait <= now end

-- turn tells whether the request that has a lock's turn really is about.
local function turn(lock)
  local id = call('HGET', held, lock)
  if not id then return nil end
  local s = get(id)
  if s and s.lock == lock and (s.place == 'r' or s.place == 'l' or s.place == 'd') then return id, s end
  call('HDEL', held, lock)
  heal()
  return nil
end

-- promote gives a lock's turn to its oldest parked request, at the head of
-- ready, unless another request has the turn. It may be called at any time.
local function promote(lock)
  if turn(lock) then return 0 end
  for _ = 1, 32 do
    local id, m = oldest(lock)
    if not id then
      call('ZREM', delayed, probe(lock))
      return 0
    end
    call('ZREM', parked, m)
    local s = get(id)
    if not s or s.place ~= 'p' then
      heal()
    elseif expired(s) then
      bury(id, s, 'max wait')
    else
      unprobe(lock)
      s.place = 'r'
      put(id, s)
      call('LPUSH', ready, id)
      call('HSET', held, lock, id)
      token()
      return 1
    end
  end
  if oldest(lock) then -- the others' turn to be buried comes with the next claim
    call('ZADD', delayed, whole(now), probe(lock))
    token()
  else
    call('ZREM', delayed, probe(lock))
  end
  return 0
end

-- leave: the request stops having its lock's turn; the next one gets it.
local function leave(id, s)
  if s.lock ~= '' and call('HGET', held, s.lock) == id then
    call('HDEL', held, s.lock)
    promote(s.lock)
  end
end

-- line: the request stands in line for its lock, with a probe at due at the
-- latest, or when it has waited too long.
local function line(id, s, due)
  if s.maxwait > 0 then due = math.min(due, s.accepted + s.maxwait) end
  s.place = 'p'
  put(id, s)
  call('ZADD', parked, 0, spot(id, s))
  if call('ZADD', delayed, 'LT', 'CH', whole(due), probe(s.lock)) > 0 then headed(probe(s.lock)) end
end

-- unplace takes a request out of where it is. In ready its id stays behind in
-- the LIST; claim skips it, because its place is another.
local function unplace(id, s)
  if s.place == 'd' then call('ZREM', delayed, id)
  elseif s.place == 'l' then call('ZREM', leased, id)
  elseif s.place == 'x' then call('ZREM', dead, id)
  elseif s.place == 'p' then
    call('ZREM', parked, spot(id, s))
    unprobe(s.lock)
  end
end

-- forget drops a request for good. If its producer may still send it again
-- (window), its id is remembered. A score in gone is when a memory ends; the
-- member itself stays until a claim sweeps it up.
local function forget(id, s, window)
  call('HDEL', msg, id)
  call('HDEL', state, id)
  if s.accepted + window > now then
    call('ZADD', gone, whole(now + window), id)
  end
end

-- mine tells what a worker may do with a request: 1 all, 2 it has done it
-- already (the command was sent again), 0 nothing: its lease is another's.
local function mine(id, s, tok)
  if not s then
    if call('ZSCORE', gone, id) then return 2 end
    return 0
  end
  if s.token ~= tok then return 0 end
  if s.place == 'l' then return 1 end
  return 2
end

-- finish acknowledges the requests of ARGV from the first-th on, an id and a
-- token each: they are done, and the next in line of their locks get the turns.
-- window is forget's. Returns a code for each.
local function finish(first, window)
  local codes, ids, toks = {}, {}, {}
  for i = first, #ARGV, 2 do
    ids[#ids + 1], toks[#toks + 1] = ARGV[i], ARGV[i + 1]
  end
  if #ids == 0 then return codes end
  local packed = call('HMGET', state, unpack(ids))
  local done, kept, recalled, leaving = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    if recalled[id] then
      codes[i] = recalled[id] -- named twice
    else
      local s
      if packed[i] then s = parse(packed[i]) end
      codes[i] = mine(id, s, toks[i])
      if codes[i] == 1 then
        done[#done + 1] = id
        recalled[id] = 0
        if s.accepted + window > now then
          recalled[id] = 2
          kept[#kept + 1], kept[#kept + 2] = whole(now + window), id
        end
        if s.lock ~= '' then leaving[#leaving + 1] = {id, s} end
      end
    end
  end
  if #done > 0 then
    call('ZREM', leased, unpack(done))
    call('HDEL', msg, unpack(done))
    call('HDEL', state, unpack(done))
    if #kept > 0 then call('ZADD', gone, unpack(kept)) end
    for _, l in ipairs(leaving) do leave(l[1], l[2]) end
  end
  return codes
end
