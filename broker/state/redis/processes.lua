-- Processes that report. KEYS: a sorted set of their ids by the time they were heard from, and a hash of their reports.
-- ARGV: `hear`, `leave` or `list`; LIVE, in microseconds; the time for tests, or the empty text; then the process's id,
-- its uptime in microseconds and its report.

local heard, reports = KEYS[1], KEYS[2]
local operation, live, given, id, uptime, report = unpack(ARGV)
local time = redis.call('TIME')
local now = given ~= '' and tonumber(given) or time[1] * 1000000 + time[2]

local function text(number) return string.format('%.0f', number) end

local function forget(gone)
  redis.call('ZREM', heard, gone)
  redis.call('HDEL', reports, gone)
end

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', heard, '-inf', text(now - live))) do forget(gone) end
if operation == 'hear' then
  redis.call('ZADD', heard, text(now), id)
  redis.call('HSET', reports, id, text(now - uptime) .. ' ' .. report)
  redis.call('PEXPIRE', heard, math.ceil(live / 1000))
  redis.call('PEXPIRE', reports, math.ceil(live / 1000))
elseif operation == 'leave' then
  forget(id)
end
if operation ~= 'list' then return end
local found = {}
for _, its in ipairs(redis.call('HVALS', reports)) do
  local started, said = string.match(its, '^(%S+) (.*)$')
  found[#found + 1] = { text(now - started), said }
end
return found
