-- The words that all scripts of a queue share. script.go puts in front of each
-- script only the blocks that it uses; they are divided by empty lines.
--
-- The keys have the names that keys.go gives them: ready delayed parked leased dead
-- msg state held wake clock gone past lots meta. source.go binds those that a script uses to
-- KEYS, and script.go sends no others. Ids hold no control characters and lock names no NUL,
-- so that NUL separates them.
local call = redis.call

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local buried = {}

-- begin comes before the first write of a script that works off what is there. While it is
-- out of memory, Redis refuses a script what may need some, until that has made a write that
-- needs none.
local function begin() call('HDEL', meta, '') end

-- whole prints a number without an exponent or a fraction.
local function whole(n) return string.format('%.0f', n) end

-- instant reads a due time: "+ms" from now, or ms since 1970.
local function instant(arg)
  if string.sub(arg, 1, 1) == '+' then return now + tonumber(string.sub(arg, 2)) end
  return tonumber(arg)
end

-- A packed state is place, token '|' deliveries '|' accepted, and for a request
-- of which there is more to tell '|' seq '|' attempts '|' deferrals '|' max wait '|'
-- stamp '|' length of the lock '|' lock, note; numbers that are 0 are left out.
-- What a claim changes stands in front.
-- place: r ready, d delayed, p parked, l leased, x dead.

-- zero writes a number, or nothing for 0.
local function zero(n)
  if n == 0 then return '' end
  return string.format('%.0f', n)
end

-- parse reads a packed state.
local function parse(v)
  local place, tok, dlv, acc, more = string.match(v, '^(%a)([^|]*)|(%d*)|(%d+)(.*)$')
  local s = {
    place = place, token = tok, deliveries = tonumber(dlv) or 0, accepted = tonumber(acc),
    seq = 0, attempts = 0, deferrals = 0, maxwait = 0, stamp = '', lock = '', note = '',
  }
  if more ~= '' then
    local seq, att, dfr, wait, stamp, n, rest = string.match(more, '^|(%d*)|(%d*)|(%d*)|(%d*)|([^|]*)|(%d*)|(.*)$')
    n = tonumber(n) or 0
    s.seq, s.attempts, s.deferrals = tonumber(seq) or 0, tonumber(att) or 0, tonumber(dfr) or 0
    s.maxwait, s.stamp = tonumber(wait) or 0, stamp
    s.lock, s.note = string.sub(rest, 1, n), string.sub(rest, n + 1)
  end
  return s
end

-- get reads the state of the request with an id, or returns nil.
local function get(id)
  local v = call('HGET', state, id)
  if v then return parse(v) end
  return nil
end

-- pack is the form in which put writes and parse reads a state.
local function pack(s)
  local v = s.place .. s.token .. '|' .. zero(s.deliveries) .. '|' .. whole(s.accepted)
  if s.lock == '' and s.note == '' and s.stamp == '' and s.seq + s.attempts + s.deferrals + s.maxwait == 0 then return v end
  return v .. '|' .. zero(s.seq) .. '|' .. zero(s.attempts) .. '|' .. zero(s.deferrals) .. '|' .. zero(s.maxwait) ..
    '|' .. s.stamp .. '|' .. zero(#s.lock) .. '|' .. s.lock .. s.note
end

local function put(id, s) call('HSET', state, id, pack(s)) end

-- fresh is the state of a request accepted now.
local function fresh(place, lock, maxwait)
  return {
    place = place, seq = 0, deliveries = 0, attempts = 0, deferrals = 0, accepted = now,
    maxwait = tonumber(maxwait), stamp = '', token = '', lock = lock, note = '',
  }
end

-- recalled tells whether a request of this id left the queue a short while ago.
local function recalled(id)
  return call('SISMEMBER', gone, id) == 1 or call('SISMEMBER', past, id) == 1
end

-- known tells whether an id is in the queue, or left it a short while ago.
local function known(id) return call('HEXISTS', state, id) == 1 or recalled(id) end

-- mint gives a request with a lock its place in that lock's line, once.
local function mint(s)
  if s.lock ~= '' and s.seq == 0 then s.seq = call('HINCRBY', meta, 'seq', 1) end
end

-- token says "somebody look": at most one token stands in wake. A claim is quiet:
-- it looks itself, and leaves a token at its end if there is more.
local quiet = false
local function token()
  if not quiet and call('LINDEX', wake, -1) ~= '1' then call('RPUSH', wake, '1') end
end

-- listener is the lease in ms with which a request may be handed to a consumer that
-- waits on wake, if one said that it would; and until when requests may be offered to it, if
-- it said so. Neither ready nor wake may hold anything.
local function listener()
  local till, lease, offers = string.match(call('HGET', meta, 'idle') or '', '^(%d+) (%d+)(.*)$')
  if not till or tonumber(till) <= now then return nil end
  return lease, offers ~= '' and till
end

-- answer is that to a push of one request: its code; and, if the next one may be offered, until
-- when, with what lease, and what time it is.
local function answer(code, lease, till)
  if not till then return {code} end
  return {code, tonumber(till), tonumber(lease), now}
end

-- handed is the state of a new request that is handed over; v is that of one in ready.
local function handed(v) return 'lh' .. whole(now) .. '|1|' .. string.sub(v, 4) end

-- hand leases a new request of that state, and gives it to whoever waits. A hand-over is
-- the lease in ms, the lengths of id and state, then id, state and body; if nobody takes
-- it, the next claim does.
local function hand(id, v, body, lease)
  call('ZADD', leased, whole(now + lease), id)
  call('LPUSH', wake, lease .. ' ' .. #id .. ' ' .. #v .. ' ' .. id .. v .. body)
end

-- headed says so if member has become what is due first.
local function headed(member)
  if call('ZRANGE', delayed, 0, 0)[1] == member then token() end
end

-- heal counts a repair of what no script of ours leaves behind (lost keys).
local function heal() call('HINCRBY', meta, 'healed', 1) end

-- probe is a lock's member in delayed while the lock has parked requests.
local function probe(lock) return '\0' .. lock end

-- spot is a request's member in parked: its lock, its place in line, its id. The
-- place is behind a sign for its length, so that it sorts as a number.
local function spot(id, s)
  local seq = whole(s.seq)
  return s.lock .. '\0' .. string.char(48 + #seq) .. seq .. '\0' .. id
end

-- oldest returns a lock's first parked id and its member in parked, or nil.
local function oldest(lock)
  local m = call('ZRANGEBYLEX', parked, '[' .. lock .. '\0', '(' .. lock .. '\1', 'LIMIT', 0, 1)[1]
  if not m then return nil end
  return string.sub(m, #lock + 4 + (string.byte(m, #lock + 2) or 48) - 48), m
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

-- lot is the member in leased for the requests of a claim, none of which has a lock, that
-- are leased as one. left is the field of meta with how many of them are not acknowledged
-- yet; lots has the ids of all, each in a line.
local function lot(tok) return '\0' .. tok end
local function left(tok) return 'lot:' .. tok end

-- drop ends a lot.
local function drop(tok)
  call('ZREM', leased, lot(tok))
  call('HDEL', lots, tok)
  call('HDEL', meta, left(tok))
end

-- divide gives the requests of a lot leases of their own, and tells how many there are. All
-- that happens to one of them before, but for its first acknowledgement, begins with that:
-- whatever is in a lot and has not been acknowledged is leased with its token.
local function divide(tok)
  local all, deadline = call('HGET', lots, tok), call('ZSCORE', leased, lot(tok))
  drop(tok)
  if not all or not deadline then return 0 end
  local ids, own = {}, {}
  for id in string.gmatch(all, '[^\n]+') do ids[#ids + 1] = id end
  local head = 'l' .. tok .. '|'
  for i, v in ipairs(call('HMGET', state, unpack(ids))) do
    if v and string.sub(v, 1, #head) == head then
      own[#own + 1] = deadline
      own[#own + 1] = ids[i]
    end
  end
  if #own > 0 then call('ZADD', leased, unpack(own)) end
  return #own / 2
end

-- unlease takes requests out of leased. toks has the tokens of their leases as keys.
local function unlease(ids, toks)
  if call('ZREM', leased, unpack(ids)) < #ids then
    for tok in pairs(toks) do divide(tok) end
    call('ZREM', leased, unpack(ids))
  end
end

-- unplace takes a request out of where it is. In ready its id stays behind in
-- the LIST; claim skips it, because its place is another.
local function unplace(id, s)
  if s.place == 'd' then call('ZREM', delayed, id)
  elseif s.place == 'l' then unlease({id}, {[s.token] = 1})
  elseif s.place == 'x' then call('ZREM', dead, id)
  elseif s.place == 'p' then
    call('ZREM', parked, spot(id, s))
    unprobe(s.lock)
  end
end

-- offered tells whether a token is that of a request which was offered: put into wake as one
-- that is handed over, before its push, which follows.
local function offered(tok) return string.byte(tok) == 111 end

-- restore puts a request that nobody has taken out of wake to the head of ready, as if it
-- had not been claimed; it keeps its lock's turn. If it was offered, and is not known yet,
-- that accepts it.
local function restore(id, v, body)
  local s, known = parse(v), call('HGET', state, id)
  if known == v then
    unplace(id, s)
  elseif known or not offered(s.token) or recalled(id) then
    return
  else
    call('HSET', msg, id, body)
  end
  s.place, s.token, s.deliveries = 'r', '', 0
  put(id, s)
  call('LPUSH', ready, id)
  token()
end

-- takeback restores all that stands in wake.
local function takeback()
  for _ = 1, 128 do
    local over = call('LINDEX', wake, 0)
    if not over or over == '1' then return end
    call('LPOP', wake)
    local x, y, from = string.match(over, '^%d+ (%d+) (%d+) ()')
    if x then
      local v = from + x
      restore(string.sub(over, from, v - 1), string.sub(over, v, v + y - 1), string.sub(over, v + y))
    end
  end
end

-- forget drops requests for good, all of ids or those from a place to another, and tells how
-- many there were. Their ids are remembered, if there is a window: in gone, and in past once
-- a claim has turned the memory over, until one does so again.
local function forget(ids, window, from, to)
  from, to = from or 1, to or #ids
  call('HDEL', msg, unpack(ids, from, to))
  if window > 0 then call('SADD', gone, unpack(ids, from, to)) end
  return call('HDEL', state, unpack(ids, from, to))
end

-- mine tells what a worker may do with a request: 1 all, 2 it has done it
-- already (the command was sent again), 0 nothing: its lease is another's.
local function mine(id, s, tok)
  if not s then
    if recalled(id) then return 2 end
    return 0
  end
  if s.token ~= tok then return 0 end
  if s.place == 'l' then return 1 end
  return 2
end

-- finish acknowledges the requests of ARGV from the first-th on, those of one lease
-- together, its token and how many there are in front: they are done, and the next in line
-- of their locks get the turns. window is forget's. once says that none of this has been
-- sent before: then those of a lot need not be looked at. Returns a code for each, or none
-- if all are 1, and whether a lock's turn ended.
local function finish(first, window, once)
  local ids, at, of, n = {}, {}, {}, 0 -- not of a lot; the place of each among all, and its token
  local all = 0
  while first < #ARGV do
    local tok, k = ARGV[first], tonumber(ARGV[first + 1])
    local from, to = first + 2, first + 1 + k
    if once and call('HGET', meta, left(tok)) then
      if call('HINCRBY', meta, left(tok), -forget(ARGV, window, from, to)) <= 0 then drop(tok) end
    else
      for i = from, to do
        n = n + 1
        ids[n], at[n], of[n] = ARGV[i], all + i - from + 1, tok
      end
    end
    first, all = to + 1, all + k
  end
  local codes = {}
  if n == 0 then return codes, false end
  for i = 1, all do codes[i] = 1 end
  local match, sub = string.match, string.sub
  local packed = call('HMGET', state, unpack(ids))
  local done, toks, named, leaving = {}, {}, {}, {}
  local tok, head, from
  for j, id in ipairs(ids) do
    local v, code = packed[j], 1
    if of[j] ~= tok then
      tok = of[j]
      head = 'l' .. tok .. '|'
      from = #head + 1
    end
    if named[id] then
      code = named[id] -- named twice
    elseif v and sub(v, 1, from - 1) == head then
      named[id] = window > 0 and 2 or 0
      done[#done + 1], toks[tok] = id, 1
      if match(v, '^%d*|%d+|', from) then
        local s = parse(v)
        if s.lock ~= '' then leaving[#leaving + 1] = {id, s} end
      end
    else
      code = mine(id, v and parse(v), tok)
      if code == 0 and not v and offered(tok) and window > 0 then -- its push comes later, and finds that
        begin()
        call('SADD', gone, id)
        code = 1
      end
    end
    codes[at[j]] = code
  end
  if #done > 0 then
    unlease(done, toks)
    forget(done, window)
    for _, l in ipairs(leaving) do leave(l[1], l[2]) end
  end
  return codes, #leaving > 0
end
