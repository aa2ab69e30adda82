-- claim: acknowledge what is done, bring what is due into ready, lease up to n
-- requests, say what is next.
-- KEYS[13] the feeder's last claim
-- ARGV[1] feeder  ARGV[2] count of its claims  ARGV[3] n  ARGV[4] lease in ms
-- ARGV[5] most deliveries that end with their leases, or 0  ARGV[6] slack of the others' clocks in ms
-- ARGV[7] most dead, or 0  ARGV[8] most ms that the dead are kept, or 0 (looked
-- at by every sixteenth claim, which also sweeps gone)
-- ARGV[9] ms after which a probe that nobody answered is due again
-- ARGV[10] ms for which finished ids are remembered, then of what is done, per request: id, token
-- returns {items, probes, wait, more, buried, codes}: items is flat, {id, body,
-- deliveries, attempts, deferrals, accepted ms} for each; probes are locks to
-- look at; wait is ms until something is due, -1 for never; more is 1 while
-- ready is not empty; buried is flat, {id, reason} for each; codes are those of ack.
local last = KEYS[13]
local feeder, ctr, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, most, slack = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local again = tonumber(ARGV[9])
local tok = feeder .. ':' .. ARGV[2]
local bound = 128
local items, probes, codes = {}, {}, {}

local function item(id, s, body)
  local i = #items
  items[i + 1], items[i + 2], items[i + 3] = id, body, s.deliveries
  items[i + 4], items[i + 5], items[i + 6] = s.attempts, s.deferrals, s.accepted
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

local answered = ''
if n > 0 then
  local c, ids = string.match(call('GET', last) or '0', '^(%d+)(.*)$')
  c = tonumber(c)
  if ctr < c then
    for i = 11, #ARGV, 2 do codes[#codes + 1] = 0 end
    return {items, probes, -1, 0, buried, codes}
  end
  if ctr == c then answered, n = ids, 0 end
end
quiet = true

codes = finish(11, tonumber(ARGV[10]))

for _, m in ipairs(call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, bound)) do
  if string.byte(m, 1) == 0 then
    probed(string.sub(m, 2))
  else
    call('ZREM', delayed, m)
    local s = get(m)
    if s and s.place == 'd' then
      mint(s)
      s.place = 'r'
      put(m, s)
      if s.lock ~= '' and call('HGET', held, s.lock) == m then
        call('LPUSH', ready, m)
      else
        call('RPUSH', ready, m)
      end
    else
      heal()
    end
  end
end

local late = call('ZRANGEBYSCORE', leased, '-inf', whole(now), 'LIMIT', 0, bound)
for i = #late, 1, -1 do
  local id = late[i]
  call('ZREM', leased, id)
  local s = get(id)
  if s and s.place == 'l' then
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
  else
    heal()
  end
end

for id in string.gmatch(answered, '\n([^\n]+)') do
  local s = get(id)
  if s and s.place == 'l' and s.token == tok then item(id, s, call('HGET', msg, id)) end
end

if n > 0 then
  local record, scanned, deadline = {ARGV[2]}, 0, whole(now + lease)
  while n > 0 and scanned < bound do
    local ids = call('LPOP', ready, math.min(n, bound - scanned))
    if not ids or #ids == 0 then break end
    scanned = scanned + #ids
    local packed, bodies = call('HMGET', state, unpack(ids)), call('HMGET', msg, unpack(ids))
    local seen, states, leases, turns, has = {}, {}, {}, {}, {}
    local function write() -- what has been leased so far
      if #states == 0 then return end
      call('HSET', state, unpack(states))
      call('ZADD', leased, unpack(leases))
      if #turns > 0 then call('HSET', held, unpack(turns)) end
      states, leases, turns = {}, {}, {}
    end
    for i, id in ipairs(ids) do
      local s
      if packed[i] and not seen[id] then s = parse(packed[i]) end
      if s and s.place == 'r' then
        seen[id] = true
        local pass = true
        if s.lock ~= '' then
          local h = has[s.lock]
          if not h then h = call('HGET', held, s.lock) end
          if h then
            if h ~= id then pass = false end
          elseif oldest(s.lock) then
            pass = false
          end
        end
        if not bodies[i] then
          write()
          unplace(id, s)
          call('HDEL', state, id)
          leave(id, s)
          heal()
        elseif not pass then
          line(id, s, now + lease)
        else
          if s.lock ~= '' then
            has[s.lock] = id
            turns[#turns + 1], turns[#turns + 2] = s.lock, id
          end
          s.place, s.token, s.deliveries = 'l', tok, s.deliveries + 1
          states[#states + 1], states[#states + 2] = id, pack(s)
          leases[#leases + 1], leases[#leases + 2] = deadline, id
          item(id, s, bodies[i])
          record[#record + 1] = id
          n = n - 1
        end
      end
    end
    write()
  end
  call('SET', last, table.concat(record, '\n'), 'PX', math.max(lease, 300000))
end

if ctr % 16 == 0 then
  local keep, age = tonumber(ARGV[7]), tonumber(ARGV[8])
  local old = {}
  if keep > 0 and call('ZCARD', dead) > keep then
    old = call('ZRANGE', dead, 0, math.min(bound, call('ZCARD', dead) - keep) - 1)
  elseif age > 0 then
    old = call('ZRANGEBYSCORE', dead, '-inf', whole(now - age), 'LIMIT', 0, bound)
  end
  for _, id in ipairs(old) do
    call('ZREM', dead, id)
    call('HDEL', msg, id)
    call('HDEL', state, id)
  end
  -- twice what sixteen claims can add
  local past = math.min(call('ZCOUNT', gone, '-inf', whole(now)), 32 * bound)
  if past > 0 then call('ZREMRANGEBYRANK', gone, 0, past - 1) end
end

quiet = false
local more = call('LLEN', ready) > 0
if more then token() end

local head = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
local first = call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2]
head = head and tonumber(head)
first = first and tonumber(first)
if first and (not head or first < head) then head = first end
local owner, deadline = string.match(call('GET', clock) or '', '^(%S+) (%d+)$')
deadline = tonumber(deadline or 0)
local wait = -1
if head then
  wait = math.max(head - now, 0)
  if not owner or owner == feeder or deadline <= now or head < deadline then
    call('SET', clock, feeder .. ' ' .. whole(head), 'PX', whole(wait + 60000))
  else
    wait = wait + slack
  end
elseif owner == feeder then
  call('DEL', clock)
end
return {items, probes, wait, more and 1 or 0, buried, codes}
