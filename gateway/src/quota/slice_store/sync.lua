-- What replicas share of counts, the same as tollgate-policy's limit::slices.
--
-- KEYS: the store's memory of itself and of who asks, then one for each count.
-- ARGV: replica, number of the ask, lease in milliseconds, whether it has now told of all its counts; then for each count cap, what is
-- kept, what is spent, what a call needs, what is wanted, for how long what is held at the lease's end counts in milliseconds, and the
-- shares of others that were known, as id,ceiling,spent,drops_at;
-- Answer: `overtaken`, `rebuilding` or `granting`; the number of the latest ask; replicas that are there; then for each count what is
-- added, whether others want some, what others have spent, and their shares as id,ceiling,spent,drops_at;

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Another process of the server may have lost what came last, or everything.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local WANTED_FOR = 1000
local FORGET_AFTER = 40 * 86400 * 1000
local function text(number) return string.format('%.0f', number) end

local memory, replica = KEYS[1], ARGV[1]
local turn, lease, whole = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local known_run, since = unpack(redis.call('HMGET', memory, 'run', 'since'))
if known_run ~= run then
  since = text(now)
  redis.call('HSET', memory, 'run', run, 'since', since)
end
local latest = tonumber(redis.call('HGET', memory, 't:' .. replica) or '0')
if turn <= latest then
  return { 'overtaken', text(latest), '0' }
end
redis.call('HSET', memory, 't:' .. replica, ARGV[2])
local granting = now >= tonumber(since) + lease

-- Who is there, and who has said in this life of the server all that it has.
local live, heard = 1, {}
local fields = redis.call('HGETALL', memory)
for i = 1, #fields, 2 do
  local id = string.match(fields[i], '^h:(.*)$')
  if id then
    local in_run, lease_end = string.match(fields[i + 1], '^(%w+),(%d+)$')
    heard[id] = in_run == run
    if id ~= replica and tonumber(lease_end) > now then
      live = live + 1
    elseif tonumber(lease_end) + FORGET_AFTER < now then
      redis.call('HDEL', memory, 'h:' .. id, 't:' .. id)
    end
  end
end
if whole then
  heard[replica] = true
end
redis.call('HSET', memory, 'h:' .. replica, (heard[replica] and run or '0') .. ',' .. text(now + lease))

local answer = { granting and 'granting' or 'rebuilding', ARGV[2], text(live) }
for count = 2, #KEYS do
  local key, at = KEYS[count], 5 + (count - 2) * 7
  local cap, keep, spent = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local need, want, counts_for = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  for id, ceiling, their_spent, drops_at in string.gmatch(ARGV[at + 6], '([^,;]+),(%d+),(%d+),(%d+);') do
    if id ~= replica then
      redis.call('HSETNX', key, id, table.concat({ ceiling, their_spent, '0', drops_at }, ','))
    end
  end

  local taken, others_spent, sharers, last_drop, others, wanted_until = 0, 0, 1, now, {}, 0
  local shares = redis.call('HGETALL', key)
  for i = 1, #shares, 2 do
    local id = shares[i]
    if id == 'wanted' then
      wanted_until = tonumber(shares[i + 1])
    else
      local ceiling, their_spent, lease_end, drops_at = string.match(shares[i + 1], '^(%d+),(%d+),(%d+),(%d+)$')
      lease_end = tonumber(lease_end)
      if tonumber(drops_at) <= now or (lease_end == 0 and heard[id]) then
        redis.call('HDEL', key, id)
      elseif id ~= replica then
        local is_live = lease_end > now
        taken = taken + tonumber(ceiling)
        others_spent = others_spent + tonumber(is_live and their_spent or ceiling)
        sharers = sharers + (is_live and 1 or 0)
        last_drop = math.max(last_drop, tonumber(drops_at))
        others[#others + 1] = table.concat({ id, ceiling, their_spent, drops_at }, ',') .. ';'
      end
    end
  end

  local free = math.max(0, math.max(0, cap - taken) - keep)
  if granting and need > free then
    wanted_until = now + WANTED_FOR
    redis.call('HSET', key, 'wanted', text(wanted_until))
  end
  local wanted, more = wanted_until > now, 0
  if granting and need <= free then
    more = wanted and need or math.max(need, math.min(want, math.floor(free / (2 * sharers))))
  end
  if keep + more > 0 then
    local drops_at = now + lease + counts_for
    last_drop = math.max(last_drop, drops_at)
    redis.call('HSET', key, replica, table.concat({ text(keep + more), text(spent), text(now + lease), text(drops_at) }, ','))
  else
    redis.call('HDEL', key, replica)
  end
  -- It is gone when nothing of it counts any more.
  redis.call('PEXPIREAT', key, text(math.max(last_drop, wanted_until)))
  answer[#answer + 1] = text(more)
  answer[#answer + 1] = wanted and '1' or '0'
  answer[#answer + 1] = text(others_spent)
  answer[#answer + 1] = table.concat(others)
end
return answer
