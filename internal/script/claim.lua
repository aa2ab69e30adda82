-- claim: acknowledge what is done, bring what is due into ready, lease up to n
-- requests, say what is next.
-- KEYS[15] the feeder's last claim
-- ARGV[1] feeder, '/' and which of its lanes if it has more than one  ARGV[2] count of its claims  ARGV[3] n  ARGV[4] lease in ms
-- ARGV[5] most deliveries that end with their leases, or 0  ARGV[6] slack of the others' clocks in ms
-- ARGV[7] most dead, or 0  ARGV[8] most ms that the dead are kept, or 0 (that is looked
-- at by every sixteenth claim, which also turns over the memory of finished ids)
-- ARGV[9] ms after which a probe that nobody answered is due again
-- ARGV[10] ms for which finished ids are remembered
-- ARGV[11] ms for which a feeder with a free slot will wait on wake, or 0: until
-- then a request may be handed to it, with a lease of at most half as long
-- ARGV[12] 1: what is done is told for the first time
-- ARGV[13] 1: it will take what is offered as well
-- then what is done: per lease its token and how many there are, and per request: id
-- returns {items, probes, wait, more, buried, codes, now}: items is flat, {id, body,
-- state} for each, the state as it is packed; probes are locks to look at; wait is
-- ms until something is due, -1 for never; more is 1 while ready is not empty, or more is due;
-- buried is flat, {id, reason} for each; codes are those of ack, or none if all are 1; now is in ms.
local last = KEYS[15]
local feeder, ctr, n = string.match(ARGV[1], '^[^/]*'), tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, most, slack = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local again, window = tonumber(ARGV[9]), tonumber(ARGV[10])
local tok = ARGV[1] .. ':' .. ARGV[2]
local bound = 128
local enough = 1048576 -- bytes that are leased, to lease no more: their line may be slow
local long = '\0' .. string.rep('-', 65)
local items, probes, codes = {}, {}, {}
local match, find = string.match, string.find

local count = 0 -- the length of items
local function item(id, body, packed)
  items[count + 1], items[count + 2], items[count + 3] = id, body, packed
  count = count + 3
end

-- the probe of a lock is due: the line's head may have waited too long; and if
-- nobody has the turn, the feeder must look at the lock.
local function probed(lock)
  local due
  for _ = 1, 32 do
    local id, m = oldest(lock)
    if not id then
      call('ZREM', delayed, probe(lock))
      return
    end
    local s = get(id)
    if s and s.place == 'p' and not expired(s) then
      if s.maxwait > 0 then due = s.accepted + s.maxwait end
      break
    end
    call('ZREM', parked, m)
    if s and s.place == 'p' then bury(id, s, 'max wait') else heal() end
  end
  local at = now + again
  local id, s = turn(lock)
  if id and s.place == 'l' then at = math.max(at, tonumber(call('ZSCORE', leased, id) or 0)) end
  if due and due < at then at = math.max(due, now + 1) end
  call('ZADD', delayed, whole(at), probe(lock))
  if not id then probes[#probes + 1] = lock end
end

-- stirred tells whether what is due first may have changed since head was read
local stirred

-- what this claim leases
local record, taken, deadline, mark = {ARGV[2]}, 0, whole(now + lease), 'l' .. tok .. '|'
local states, turns, k = {}, {}, 0 -- not written yet; the length of states
local bytes = 0
local plain = true -- none of it has a lock
local function grant(id, body, v, lock)
  states[k + 1], states[k + 2] = id, v
  k = k + 2
  if lock ~= '' then
    turns[#turns + 1], turns[#turns + 2] = lock, id
    plain = false
  end
  item(id, body, v)
  record[taken + 2] = id
  taken = taken + 1
  bytes = bytes + #body
  n = n - 1
end

local function write()
  if k == 0 then return end
  call('HSET', state, unpack(states))
  if #turns > 0 then call('HSET', held, unpack(turns)) end
  states, turns, k = {}, {}, 0
end

-- become returns the state of a request that is leased.
local function become(dlv, rest)
  if dlv == '' then return mark .. '1|' .. rest end
  return mark .. dlv + 1 .. '|' .. rest
end

-- leaseAll leases what was granted: if it is several and none has a lock, all as one.
local function leaseAll()
  if plain and taken > 1 then
    call('ZADD', leased, deadline, lot(tok))
    call('HSET', lots, tok, table.concat(record, '\n', 2))
    call('HSET', meta, left(tok), taken)
    return
  end
  local leases = {}
  for i = 2, taken + 1 do
    leases[#leases + 1], leases[#leases + 2] = deadline, record[i]
  end
  -- A ZSET of up to 128 members may be a list that each ZADD goes through from
  -- the front. A long member ends that for as long as the key exists.
  if taken > 16 then call('ZADD', leased, 0, long) end
  call('ZADD', leased, unpack(leases))
  if taken > 16 then call('ZREM', leased, long) end
end

-- read returns the bodies of ids in order, how many, and the bytes that would be leased with
-- them: no more than are enough, and little in vain, since copying holds up the server.
local function read(ids)
  local bodies, k, size, largest, step = {}, 0, bytes, 1, 1
  while k < #ids and size < enough do
    local to = math.min(k + step, #ids)
    for _, body in ipairs(call('HMGET', msg, unpack(ids, k + 1, to))) do
      k = k + 1
      bodies[k] = body
      if body then
        size = size + #body
        largest = math.max(largest, #body)
      end
    end
    step = math.max(math.min(4 * step, 32, math.floor((enough - size) / largest)), 1)
  end
  return bodies, k, size
end

-- straight leases due requests without passing them through ready, where all of them
-- would be leased by this claim, and nothing before them, and all are plain: it comes to
-- the same. Returns false if not.
local function straight(ids, packed)
  if #ids > n or call('EXISTS', ready) == 1 then return false end
  local to = {}
  for i = 1, #ids do
    local v = packed[i] or ''
    if not to[v] then
      local dlv, rest = match(v, '^d[^|]*|(%d*)|(%d+)$')
      if not rest then return false end
      to[v] = become(dlv, rest)
    end
  end
  local bodies, _, size = read(ids)
  if size > enough then return false end
  for i = 1, #ids do
    if not bodies[i] then return false end
  end
  for i, id in ipairs(ids) do grant(id, bodies[i], to[packed[i]], '') end
  write()
  return true
end

-- admit grants a request that came out of ready, if it may pass.
local seen, has = {}, {} -- ids; locks whose turn was given
local brief = {} -- states of such that say little, as many do, and what they become
local function admit(id, v, body)
  local to, lock, s = body and brief[v], '', nil
  if not to then
    local dlv, rest = match(v, '^r[^|]*|(%d*)|(.*)$')
    if not rest then return end
    to = become(dlv, rest)
    if find(rest, '|', 1, true) then
      s = parse(v)
      lock = s.lock
    elseif body then
      brief[v] = to
    end
  end
  seen[id] = true
  local pass = true
  if lock ~= '' then
    local h = has[lock] or call('HGET', held, lock)
    if h then pass = h == id else pass = not oldest(lock) end
  end
  if not body then
    write()
    s = s or parse(v)
    unplace(id, s)
    call('HDEL', state, id)
    leave(id, s)
    heal()
    stirred = true
  elseif not pass then
    line(id, s, now + lease)
    stirred = true
  else
    if lock ~= '' then has[lock] = id end
    grant(id, body, to, lock)
  end
end

-- lapse brings back a request whose lease has ended.
local function lapse(id)
  call('ZREM', leased, id)
  local s = get(id)
  if not s or s.place ~= 'l' then
    heal()
    return
  end
  s.token = ''
  -- claims that ended in neither a failure nor a conflict: their workers died
  if most > 0 and s.deliveries - s.attempts - s.deferrals >= most then
    bury(id, s, 'crash loop')
    leave(id, s)
  else
    s.place = 'r'
    put(id, s)
    call('LPUSH', ready, id)
  end
end

-- overdue returns what stands in leased with a time that has passed.
local function overdue() return call('ZRANGEBYSCORE', leased, '-inf', whole(now), 'LIMIT', 0, bound) end

local answered, once = '', false -- once: this claim has not been made before
local unrecorded = false -- none of its lane is known: they have been forgotten, or it is the first
if n > 0 then
  local c, ids = string.match(call('GET', last) or '0', '^(%d+)(.*)$')
  c = tonumber(c)
  if ctr < c then
    local i = 14
    while i < #ARGV do
      local k = tonumber(ARGV[i + 1])
      for _ = 1, k do codes[#codes + 1] = 0 end
      i = i + 2 + k
    end
    return {items, probes, -1, 0, buried, codes, now}
  end
  if ctr == c then answered, n = ids, 0 else once = ARGV[12] == '1' end
  unrecorded = c == 0
end
quiet = true
begin()
if unrecorded and call('HGET', lots, tok) then divide(tok) end -- it was made long ago

codes, stirred = finish(14, window, once)

takeback()

local first = tonumber(call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2])
local head = tonumber(call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
if head and head <= now then
  stirred = true
  local ids = {}
  local few = bound -- no more than are to be leased, or a few
  if n > 0 then few = math.min(bound, math.max(n - call('LLEN', ready), 16)) end
  for _, m in ipairs(call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, few)) do
    if string.byte(m, 1) == 0 then probed(string.sub(m, 2)) else ids[#ids + 1] = m end
  end
  if #ids > 0 then
    call('ZREM', delayed, unpack(ids))
    local packed, moved, back = call('HMGET', state, unpack(ids)), {}, {}
    if not (first and first <= now) and straight(ids, packed) then ids = {} end
    for i, id in ipairs(ids) do
      local v = packed[i]
      if v and string.sub(v, 1, 1) == 'd' then
        local s
        if string.find(v, '^[^|]*|%d*|%d+|') then s = parse(v) end
        if s then
          mint(s)
          s.place = 'r'
          v = pack(s)
        else
          v = 'r' .. string.sub(v, 2)
        end
        moved[#moved + 1], moved[#moved + 2] = id, v
        if s and s.lock ~= '' and call('HGET', held, s.lock) == id then
          call('LPUSH', ready, id)
        else
          back[#back + 1] = id
        end
      else
        heal()
      end
    end
    if #moved > 0 then call('HSET', state, unpack(moved)) end
    if #back > 0 then call('RPUSH', ready, unpack(back)) end
  end
end

if first and first <= now then
  stirred = true
  local late = overdue()
  local room = bound
  for _, m in ipairs(late) do
    if room > 0 and string.byte(m, 1) == 0 then room = room - divide(string.sub(m, 2)) end
  end
  if room < bound then late = overdue() end
  for i = #late, 1, -1 do
    if string.byte(late[i], 1) ~= 0 then lapse(late[i]) end -- the next claim divides those
  end
  first = tonumber(call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2])
end

for id in string.gmatch(answered, '\n([^\n]+)') do
  local v = call('HGET', state, id)
  if v and string.find(v, 'l' .. tok .. '|', 1, true) == 1 then item(id, call('HGET', msg, id), v) end
end

local more = true -- unless ready is found empty
if n > 0 or taken > 0 then
  local scanned = taken
  while n > 0 and scanned < bound do
    local ids = call('LPOP', ready, math.min(n, bound - scanned))
    if not ids or #ids == 0 then
      more = false
      break
    end
    scanned = scanned + #ids
    local packed, bodies, k = call('HMGET', state, unpack(ids)), read(ids)
    for i, id in ipairs(ids) do
      if bytes >= enough then n = 0 end
      if i > k or bytes >= enough then -- the rest stays
        local back = {}
        for j = #ids, i, -1 do back[#back + 1] = ids[j] end
        call('LPUSH', ready, unpack(back))
        scanned = scanned - #back
        break
      end
      if packed[i] and not seen[id] then admit(id, packed[i], bodies[i]) end
    end
    write()
  end
  if taken > 0 then
    leaseAll()
    first = math.min(first or now + lease, now + lease)
  end
  call('SET', last, table.concat(record, '\n'), 'PX', math.max(lease, 300000))
end

local keep, old = tonumber(ARGV[7]), {}
local over = keep > 0 and call('ZCARD', dead) - keep or 0
if over > 0 then old = call('ZRANGE', dead, 0, math.min(bound, over) - 1) end

if ctr % 16 == 0 then
  local age = tonumber(ARGV[8])
  if age > 0 and over <= 0 then
    old = call('ZRANGEBYSCORE', dead, '-inf', whole(now - age), 'LIMIT', 0, bound)
  end
  -- The same for the states, of which each is short. No id is empty.
  local size = call('HLEN', state)
  if size > 16 and size <= 512 then
    call('HSET', state, '', long)
    call('HDEL', state, '')
  end
  -- What is in past was finished before gone was begun. There is a past if and
  -- only if there is a turned.
  local turned = tonumber(call('HGET', meta, 'turned') or 0)
  if turned > now then -- the clock was set back
    call('HSET', meta, 'turned', whole(now))
  elseif now - turned >= window then
    call('UNLINK', past)
    if call('EXISTS', gone) == 1 then
      call('RENAME', gone, past)
      call('HSET', meta, 'turned', whole(now))
    elseif turned > 0 then
      call('HDEL', meta, 'turned')
    end
  end
end

if #old > 0 then
  call('ZREM', dead, unpack(old))
  call('HDEL', msg, unpack(old))
  call('HDEL', state, unpack(old))
end

quiet = false
if stirred then head = tonumber(call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]) end
more = more and call('LLEN', ready) > 0 or head and head <= now
if more then token() end
local listen = tonumber(ARGV[11])
if listen > 0 and n > 0 and not more then
  local offers = ARGV[13] == '1' and ' offers' or ''
  call('HSET', meta, 'idle', whole(now + listen) .. ' ' .. whole(math.min(lease, listen / 2)) .. offers)
end

if first and (not head or first < head) then head = first end
local owner, deadline = string.match(call('GET', clock) or '', '^(%S+) (%d+)$')
deadline = tonumber(deadline or 0)
local wait = -1
if head then
  wait = math.max(head - now, 0)
  if owner == feeder and head == deadline then -- it stands as it should
  elseif not owner or owner == feeder or deadline <= now or head < deadline then
    call('SET', clock, feeder .. ' ' .. whole(head), 'PX', whole(wait + 60000))
  else
    wait = wait + slack
  end
elseif owner == feeder then
  call('DEL', clock)
end
return {items, probes, wait, more and 1 or 0, buried, codes, now}
