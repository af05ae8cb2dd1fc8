-- What replicas share of counts, the same as tollgate-policy's limit::slices.
--
-- KEYS: the store's memory of itself and of who asks, the leases that run, the counts that somebody wants, then one for each count.
-- ARGV: replica, number of the process, number of the ask, lease in milliseconds, the life of the store that was answered in last or `-`,
-- how often the lease had ended by then, whether everything is now told, whether it is the last ask, whether somebody else reports for it;
-- then for each count cap, what is kept, what is spent, what a call needs, what is wanted, in how many milliseconds the window ends or 0,
-- for how long what is held at the lease's end counts, and the shares of others that were known, as
-- holder,ceiling,spent,resets_at,counts_for;
-- Answer: `superseded` or `overtaken` and the latest number; or `rebuilding` or `granting`, the life, the lapses, whether everything is told,
-- replicas that are there, leases that have ended, how many counts are wanted and which; then for each count what is added, whether others
-- want some (`p`: a process before has some), what others have spent, and their shares as above.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Another process of the server may have lost what came last, or everything.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local WANTED_FOR = 1000
local FORGET_AFTER = 40 * 86400 * 1000
local KEEP_FOR = 2 * 86400 * 1000
local PAST = 8
local MOST_WANTED = 128
local function text(number) return string.format('%.0f', number) end

local memory, leases, wanted_counts = KEYS[1], KEYS[2], KEYS[3]
local replica, process, turn, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local named, named_lapses, whole, leaving = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local reports = ARGV[9] == '1'
local holder = replica .. '~' .. ARGV[2]

-- A life begins with another process of the server, and where somebody was answered in a life that this memory does not go on from.
local life, since, past = unpack(redis.call('HMGET', memory, 'life', 'since', 'past'))
past = past or ''
local is_known = named == '-' or named == life or string.find(past, named .. ';', 1, true) ~= nil
if not life or string.match(life, '^(.*):') ~= run or not is_known then
  past = past .. (life and life .. ';' or '') .. (is_known and '' or named .. ';')
  local lives = {}
  for one in string.gmatch(past, '[^;]+') do lives[#lives + 1] = one end
  past = table.concat(lives, ';', math.max(1, #lives - PAST + 1)) .. ';'
  if #lives == 0 then past = '' end
  life, since = run .. ':' .. text(now), false
  redis.call('HSET', memory, 'life', life, 'past', past)
  redis.call('HDEL', memory, 'since')
end
local begun = tonumber(string.match(life, ':(%d+)$'))
if named == life and not since then
  since = text(now)
  redis.call('HSET', memory, 'since', since)
end

-- One process: number of its ask, lease's end, lapses, the life in which it told everything or `-`, whether it went on beside a copy.
local processes = {}
local function process_of(id)
  local known = processes[id]
  if not known then
    local kept = redis.call('HGET', memory, 'h:' .. id)
    local at, lease_end, lapses, heard, split = string.match(kept or '0,0,0,-,0', '^(%d+),(%d+),(%d+),(.*),(%d)$')
    known = { turn = tonumber(at), lease_end = tonumber(lease_end), lapses = tonumber(lapses), heard = heard == life, split = split == '1' }
    processes[id] = known
  end
  return known
end
local function keep(id)
  local one = processes[id]
  redis.call('HSET', memory, 'h:' .. id, table.concat({
    text(one.turn), text(one.lease_end), text(one.lapses), one.heard and life or '-', one.split and '1' or '0' }, ','))
end
local latest = {}
local function latest_of(id)
  latest[id] = latest[id] or tonumber(redis.call('HGET', memory, 'c:' .. id) or '0')
  return latest[id]
end

local own = process_of(holder)
if process < latest_of(replica) then
  -- Who reports for it spends nothing: it is no process beside a copy.
  if not reports then
    own.split = true
    keep(holder)
  end
  return { 'superseded', text(latest_of(replica)) }
end
if turn <= own.turn then
  return { 'overtaken', text(own.turn) }
end
own.turn = turn
if own.heard and own.lease_end <= now then
  own.lapses = own.lapses + 1
end
own.heard = named == life and named_lapses == own.lapses and whole
if own.heard then
  own.lease_end = (leaving or reports) and now or math.max(own.lease_end, now + lease)
  -- Who only reports has no lease that could end.
  if not reports then redis.call('ZADD', leases, own.lease_end, holder) end
end
keep(holder)
redis.call('HSET', memory, 'c:' .. replica, ARGV[2])
latest[replica] = process

local over = redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
local ended = redis.call('HINCRBY', memory, 'ended', over)
if over > 0 then
  local fields = redis.call('HGETALL', memory)
  for i = 1, #fields, 2 do
    local lease_end = string.match(fields[i], '^h:') and string.match(fields[i + 1], '^%d+,(%d+)')
    if lease_end and lease_end ~= '0' and tonumber(lease_end) + FORGET_AFTER < now then
      local id = string.sub(fields[i], 3)
      redis.call('HDEL', memory, fields[i])
      local of = string.match(id, '^(.*)~')
      if 'h:' .. of .. '~' .. text(latest_of(of)) == fields[i] then redis.call('HDEL', memory, 'c:' .. of) end
    end
  end
end
local live = redis.call('ZCARD', leases)
if not own.heard or leaving or reports then
  live = live + (redis.call('ZSCORE', leases, holder) and 0 or 1)
end
local rebuilding = not since or now < tonumber(since) + lease
local granting = own.heard and not rebuilding

-- When it stops to spend. Of who was not heard in this life nobody knows whether it had asked since.
local function end_of(id)
  local one = process_of(id)
  if one.heard then return one.lease_end end
  if not since then return math.huge end
  return math.max(one.lease_end, tonumber(since) + lease)
end
-- Whether a later process of the same directory has said all that this one did.
local function is_succeeded(id)
  local of, number = string.match(id, '^(.*)~(%d+)$')
  local last = latest_of(of)
  return last > tonumber(number) and process_of(of .. '~' .. text(last)).heard and not process_of(id).split
end

local answers = {}
for count = 4, #KEYS do
  local key, at = KEYS[count], 10 + (count - 4) * 8
  local name = string.sub(key, #memory + 2)
  local cap, kept, spent = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local need, want = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local resets_in, counts_for = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  for id, share in string.gmatch(ARGV[at + 7], '([^,;]+),([%d,]+);') do
    if id ~= holder then
      redis.call('HSETNX', key, id, share .. ',0')
    end
  end

  local preceded, others, parts = false, {}, {}
  local shares = redis.call('HGETALL', key)
  for i = 1, #shares, 2 do
    local id = shares[i]
    local ceiling, their_spent, resets_at, counts, told_at =
      string.match(shares[i + 1], '^(%d+),(%d+),(%d+),(%d+),(%d+)$')
    if id ~= holder then
      local lease_end = end_of(id)
      -- What was told later than that counts from then.
      local last = math.max(lease_end, tonumber(told_at))
      local drops_at = last <= tonumber(resets_at) and tonumber(resets_at) or last + tonumber(counts)
      local is_said = not process_of(id).heard or tonumber(told_at) >= begun
      if not is_said or (last <= now and (is_succeeded(id) or drops_at <= now)) then
        redis.call('HDEL', key, id)
      else
        others[#others + 1] = table.concat({ id, ceiling, their_spent, resets_at, counts }, ',') .. ';'
        local is_live = lease_end > now
        local of = string.match(id, '^(.*)~')
        if process_of(id).split then of = id end
        if of == replica then
          preceded = true
        else
          local part = parts[of] or { ceiling = 0, spent = 0, live = false, spare = false }
          parts[of] = part
          part.ceiling = math.max(part.ceiling, tonumber(ceiling))
          part.spent = math.max(part.spent, tonumber(is_live and their_spent or ceiling))
          part.live = part.live or is_live
          part.spare = part.spare or (is_live and tonumber(ceiling) > tonumber(their_spent))
        end
      end
    end
  end
  local taken, others_spent, sharers, spare = 0, 0, 1, false
  for _, part in pairs(parts) do
    taken, others_spent = taken + part.ceiling, others_spent + part.spent
    sharers = sharers + (part.live and 1 or 0)
    spare = spare or part.spare
  end

  local free = math.max(0, math.max(0, cap - taken) - kept)
  local grants = granting and not preceded
  if grants and need > free and spare then
    redis.call('ZADD', wanted_counts, now + WANTED_FOR, name)
  end
  local wanted_until = tonumber(redis.call('ZSCORE', wanted_counts, name) or '0')
  local wanted, more = wanted_until > now, 0
  if grants and need <= free and (need > 0 or not wanted) then
    more = math.max(need, math.min(want, math.floor(free / (2 * sharers))))
  end
  if kept + more > 0 then
    local resets_at = resets_in > 0 and now + resets_in or 0
    redis.call('HSET', key, holder, table.concat(
      { text(kept + more), text(spent), text(resets_at), text(counts_for), text(now) }, ','))
    -- Who is there speaks of each of its shares once a day. What nobody speaks of is gone when nothing of it counts any more.
    local expires = now + KEEP_FOR + lease + math.max(resets_in, 0) + counts_for
    if redis.call('PEXPIRETIME', key) < expires then
      redis.call('PEXPIREAT', key, text(expires))
    end
  else
    redis.call('HDEL', key, holder)
  end
  answers[#answers + 1] = text(more)
  answers[#answers + 1] = preceded and 'p' or wanted and '1' or '0'
  answers[#answers + 1] = text(others_spent)
  answers[#answers + 1] = table.concat(others)
end

redis.call('ZREMRANGEBYSCORE', wanted_counts, '-inf', now)
local wanted = redis.call('ZREVRANGE', wanted_counts, 0, MOST_WANTED - 1)
local answer = { rebuilding and 'rebuilding' or 'granting', life, text(own.lapses), own.heard and '1' or '0',
  text(live), text(ended), text(#wanted) }
for _, name in ipairs(wanted) do answer[#answer + 1] = name end
for _, part in ipairs(answers) do answer[#answer + 1] = part end
return answer
