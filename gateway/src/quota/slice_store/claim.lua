-- Whose it is to tell something, and whether it was told.
--
-- KEYS: what is to be told.
-- ARGV: who asks; an id for it, if it has none yet; for how long it is theirs alone and for how long it is remembered, in milliseconds; and
-- whether they have told it.
-- Answer: `told`, `held` or `yours`; and its id.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local key, who = KEYS[1], ARGV[1]
local holder, till, id, told = unpack(redis.call('HMGET', key, 'holder', 'until', 'id', 'told'))
id = id or ARGV[2]
if told then
  return { 'told', id }
end
if ARGV[5] == '1' then
  redis.call('HSET', key, 'id', id, 'told', who)
  redis.call('PEXPIRE', key, ARGV[4])
  return { 'told', id }
end
if holder and holder ~= who and tonumber(till) > now then
  return { 'held', id }
end
redis.call('HSET', key, 'id', id, 'holder', who, 'until', string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('PEXPIRE', key, ARGV[4])
return { 'yours', id }
