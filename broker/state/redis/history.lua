-- Adds to the buckets of one bot's history, of the second and of the minute. `buckets.py` reads and writes the same
-- texts. 60 buckets are a hash, history:<seconds>:<number>, which expires when its last bucket is too old; small hashes
-- are compact.
--
-- KEYS: the prefix of the bot's keys, and its key `bot`, as for admission.lua. ARGV: the counts, as the text of a bucket; the bot's full rate if the gauges
-- are to be sampled, or else the empty text; the time in microseconds for tests, or the empty text. It uses what admission.lua
-- writes. Prepended: FOLDS, how the numbers of each series join; GAUGES, the places of the gauges; RESOLUTIONS, the
-- seconds and the number of buckets; IN_A_HASH; RECOVERY_US_PER_PERMILLE.

local prefix = KEYS[1]

local function split(text)
  local fields = {}
  for field in string.gmatch(text .. ',', '([^,]*),') do fields[#fields + 1] = field end
  return fields
end

local function fold(how, old, new)
  if old == '' then return new end
  if new == '' then return old end
  local one, other = tonumber(old), tonumber(new)
  if how == 'sum' then return string.format('%.10g', one + other) end
  return string.format('%.10g', how == 'max' and math.max(one, other) or math.min(one, other))
end

local function merged(old, new)
  local fields, added = split(old), split(new)
  for index = 1, math.max(#fields, #added) do
    fields[index] = fold(FOLDS[index] or 'sum', fields[index] or '', added[index] or '')
  end
  return table.concat(fields, ',')
end

local time = redis.call('TIME')
local now_us = ARGV[3] ~= '' and tonumber(ARGV[3]) or time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000000)

local function place(resolution)
  local seconds = resolution[1]
  local at = now - now % seconds
  local number = math.floor(at / (seconds * IN_A_HASH))
  return string.format('%shistory:%d:%.0f', prefix, seconds, number), string.format('%.0f', at)
end

local function is_sampled()
  local found = redis.call('HGET', place(RESOLUTIONS[1]))
  return found and (split(found)[GAUGES.in_flight] or '') ~= ''
end

local function permille(bot)
  local since = math.max(0, now_us + bot.offset - bot.slowed_at)
  return math.min(1000, bot.permille + math.floor(since / RECOVERY_US_PER_PERMILLE))
end

local function sample(counts)
  local packed = redis.call('GET', prefix .. 'bot')
  local bot = packed and cmsgpack.unpack(packed) or { offset = 0, permille = 1000, slowed_at = 0 }
  local waiting = redis.call('HMGET', prefix .. 'counts', 'interactive', 'bulk')
  local since = '(' .. string.format('%.0f', now_us + bot.offset)
  for index = #counts + 1, GAUGES.limit do counts[index] = '' end
  counts[GAUGES.waiting_interactive] = tostring(waiting[1] or 0)
  counts[GAUGES.waiting_bulk] = tostring(waiting[2] or 0)
  counts[GAUGES.in_flight] = tostring(redis.call('ZCOUNT', prefix .. 'calls', since, '+inf'))
  local rate = tonumber(ARGV[2])
  if rate and rate < math.huge then counts[GAUGES.limit] = string.format('%.10g', rate * permille(bot) / 1000) end
  return table.concat(counts, ',')
end

local counts = ARGV[1]
if ARGV[2] ~= '' and not is_sampled() then counts = sample(split(counts)) end
if counts == '' then return end
for _, resolution in ipairs(RESOLUTIONS) do
  local key, at = place(resolution)
  redis.call('HSET', key, at, merged(redis.call('HGET', key, at) or '', counts))
  redis.call('EXPIRE', key, resolution[1] * (resolution[2] + IN_A_HASH))
end
