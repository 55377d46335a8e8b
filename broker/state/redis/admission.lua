-- Admission on Redis or Valkey: windows.py and decisions.py in Lua, because the rules must run where the state is.
-- Read those and circuit.py first. A function here does the same as its namesake there, and one suite tests both
-- against one model.
--
-- One run of this script executes calls of one bot, in order and at one moment. All keys of a bot share the hash tag
-- {bot}, so they are on one node of a cluster; KEYS[1], their common prefix, tells the cluster which one. KEYS[2], the
-- key `bot`, is named so that no node of a cluster runs the script while the bot's keys move from node to node: with two
-- keys of which one never exists, both nodes answer TRYAGAIN. All times are microseconds of the server's clock and never
-- go back. The keys:
--
--   bot                what the bot has spent, its pause, its learned rate
--   chat:<chat>        what the chat has received, the counters of its two lines, its call in flight, its pause
--   typing:<chat>      the chat's typing and drafts
--   pace:<f>:<chat>    the learned pace of a family of calls; slowed:<f>, by family, holds until when
--   job:<id>           a job's state; result:<id>, for a shorter time, Telegram's response
--   line:<p>:<chat>    the waiting jobs of a line, by place; oldest:<p>, those of all lines
--   keyed:<p>:<chat>   with a key after the chat: the jobs under it that wait in the line, by place; enqueued:<p>:<chat>,
--                      likewise: those that were enqueued and that no worker has received
--   waiters:<paid>     jobs in workers that wait for the bot's budget, by rank; waiting:<paid> holds until when
--   aliases            chats that migrated and names that were resolved; names holds until when
--   lines calls pauses dead refused counts     indexes for `floodgate status`
--   listed             jobs that ended without a dead letter, latest first; not_kept counts them by reason
--   writes             how many runs have written something
--   dropped            dead letters that were dropped, counted by reason
--
-- Everything but the bot, the aliases, the counts and the indexes expires. Bots, chats and jobs are written when their
-- call ends; a job that changes its place in a line is written at once, because the line's head is looked up next.
-- Times have more than 14 digits: never concatenate them with `..`, which would round them.
--
-- ARGV: the bot's limits as JSON; the epoch and the writes that the caller has seen last (0: none), and 1 if the server
-- is to be identified; then the operation and the arguments (as JSON) of each call. The reply holds the epoch, the
-- writes and a verdict, then one reply or error per call. If the state is not as the caller remembers it, nothing is
-- carried out, and the verdict says why: the caller then tells what it remembers and asks again. K, the constants of
-- policy.py, is prepended to the script.

local rules = cjson.decode(ARGV[1])
local args -- of the current call
local prefix = KEYS[1]
local INTERACTIVE, BULK = 'interactive', 'bulk'
local VERSION = 2
local CANCELLED, SHED, SUPERSEDED = 'cancelled', 'shed', 'superseded'

-- Sliding windows. A log holds the times of units, oldest first; a window is {cap, span}.

local function log_size(windows)
  local size = 0
  for _, window in ipairs(windows) do size = math.max(size, window[1]) end
  return size
end

local function trimmed(log, size)
  local kept = {}
  for index = math.max(1, #log - size + 1), #log do kept[#kept + 1] = log[index] end
  return kept
end

local function free_at(log, windows, cost)
  local at = 0
  if cost > 0 then
    for _, window in ipairs(windows) do
      local cap, span = window[1], window[2]
      local newest_to_leave = #log - cap + math.min(cost, cap)
      if newest_to_leave >= 1 then at = math.max(at, log[newest_to_leave] + span) end
    end
  end
  return at
end

local function turn_at(log, windows, start, ahead, cost)
  if #windows == 0 then return start end
  local size = log_size(windows)
  local round = 0
  for _, window in ipairs(windows) do
    round = math.max(round, math.floor(window[2] * size / window[1]))
  end
  local rounds, rest = math.floor(ahead / size), ahead % size
  local at = start
  local future = trimmed(log, size)
  for _ = 1, rest do
    at = math.max(at, free_at(future, windows, 1))
    future[#future + 1] = at
  end
  return math.max(at, free_at(future, windows, cost)) + rounds * round
end

local function units_of(windows, cost, now)
  local units = {}
  for unit = 0, cost - 1 do
    local later = 0
    for _, window in ipairs(windows) do
      later = math.max(later, math.floor(unit / window[1]) * window[2])
    end
    units[#units + 1] = now + later
  end
  return units
end

local function spend(log, windows, cost, now)
  if #windows == 0 or cost == 0 then return log end
  for _, unit in ipairs(units_of(windows, cost, now)) do log[#log + 1] = unit end
  return trimmed(log, log_size(windows))
end

local function refund(log, windows, cost, spent_at)
  for _, unit in ipairs(units_of(windows, cost, spent_at)) do
    for index, at in ipairs(log) do
      if at == unit then
        table.remove(log, index)
        break
      end
    end
  end
  return log
end

local function moved(log, windows, cost, spent_at, later)
  if #windows == 0 or cost == 0 then return log end
  log = refund(log, windows, cost, spent_at)
  for _, unit in ipairs(units_of(windows, cost, spent_at + later)) do log[#log + 1] = unit end
  table.sort(log)
  return trimmed(log, log_size(windows))
end

-- The bot's pace: a window, or none, and the spacing within it.

local function slowed_interval(pace, permille)
  if permille >= 1000 then return pace.interval end
  local even = pace.window and math.floor(pace.window[2] / pace.window[1]) or 0
  return math.floor(math.max(pace.interval, even) * 1000 / permille)
end

local function pace_windows(pace)
  return pace.window and { pace.window } or {}
end

local function bot_turn_at(budget, pace, interval, ahead, cost, now)
  local at = math.max(budget.arrival, now) - pace.tolerance + ahead * interval
  if not pace.window then return at end
  local cap, span = pace.window[1], pace.window[2]
  local last = ahead + math.min(cost, cap) - 1
  local rounds, units = math.floor(last / cap), last % cap
  if rounds == 0 then return math.max(at, free_at(budget.log, pace_windows(pace), units + 1)) end
  return math.max(at, math.max(now, free_at(budget.log, pace_windows(pace), 1)) + rounds * span)
end

local function paced_from(budget, pace, interval, cost)
  local opened = free_at(budget.log, pace_windows(pace), cost)
  return opened > 0 and opened + pace.tolerance - interval or 0
end

local function cautious_budget(pace, now)
  if not pace then return { log = {}, arrival = 0 } end
  local log = {}
  if pace.window then
    local cap, span = pace.window[1], pace.window[2]
    for unit = 0, cap - 1 do log[#log + 1] = now - span + math.floor(span * unit / cap) end
  end
  return { log = log, arrival = now + pace.tolerance }
end

-- The state. Rows are loaded into these tables, changed there, and written by `save` after each call.

local bot, now
local chats, jobs = {}, {}
local written = false -- whether this run has written anything
local written_before = tonumber(redis.call('GET', prefix .. 'writes') or 0)
local created = false -- whether it is the first for the bot

local function load(name)
  local packed = redis.call('GET', prefix .. name)
  return packed and cmsgpack.unpack(packed) or nil
end

local function server_time()
  if args.now then return args.now end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function open_bot()
  local ticks = server_time()
  bot = load('bot')
  if not bot then
    created = true
    bot = {
      v = VERSION, offset = 0, born = ticks, granted = 0, dirty = true,
      epoch = ticks, rebuilt = 0, unknown_until = 0, gap = 0, rollbacks = 0,
      free = cautious_budget(rules.free, ticks), paid = cautious_budget(rules.paid, ticks),
      paused_until = 0, pause_why = '', permille = 1000, slowed_at = 0, refusals = {}, aliases = 0,
      minute = 0, this_minute = 0, last_minute = 0,
    }
  end
  bot.slowed_until = bot.slowed_until or 0 -- written by an earlier version
  if not bot.epoch then -- written by an earlier version
    bot.epoch, bot.rebuilt, bot.unknown_until, bot.gap, bot.rollbacks, bot.dirty = ticks, 0, 0, 0, 0, true
  end
  now = ticks + bot.offset
  if now < bot.granted then -- the clock went back: continue from the last grant
    bot.offset, bot.dirty = bot.granted - ticks, true
    now = bot.granted
  end
end

local function in_line(job) return job.state == 'waiting' or job.state == 'lost' end

local function untouched(job) return job.state == 'waiting' or job.state == 'absent' end

local function ended(job) return job.state == 'sent' or job.state == 'dead' end

local function get_job(id)
  if jobs[id] == nil then
    jobs[id] = load('job:' .. id) or false
  end
  return jobs[id] or nil
end

local function put_job(job)
  job.dirty = true
  jobs[job.id] = job
end

local function get_chat(key)
  if chats[key] == nil then
    local chat = load('chat:' .. key) or false
    if chat and not chat.refused_at then chat.refused_at, chat.refused_why = 0, '' end -- written by an earlier version
    chats[key] = chat
  end
  return chats[key] or nil
end

local function new_chat(key, log)
  return {
    key = key, log = log, last_place = 0, sending_since = 0, lease_end = 0, rest_until = 0,
    paused_until = 0, pause_why = '', overtaken = 0, refused_at = 0, refused_why = '',
    interactive = { length = 0, units = 0, missing_since = 0 },
    bulk = { length = 0, units = 0, missing_since = 0 },
  }
end

local function put_chat(chat)
  chat.dirty = true
  chats[chat.key] = chat
end

local function ttl(duration) return math.max(1, math.ceil(duration / 1000)) end

local function line_key(chat, priority) return prefix .. 'line:' .. priority .. ':' .. chat end

local function oldest_key(priority) return prefix .. 'oldest:' .. priority end

local function head_of(chat, priority)
  while true do
    local id = redis.call('ZRANGE', line_key(chat.key, priority), 0, 0)[1]
    if not id then return nil end
    local job = get_job(id)
    if job then return job end
    redis.call('ZREM', line_key(chat.key, priority), id) -- the job expired long after it was due
    redis.call('ZREM', oldest_key(priority), id)
    redis.call('HINCRBY', prefix .. 'counts', priority, -1)
    chat[priority].length = math.max(0, chat[priority].length - 1)
  end
end

local function keyed_key(chat, priority, key) return prefix .. 'keyed:' .. priority .. ':' .. chat .. '\n' .. key end

local function last_of_key(chat, priority, key)
  while true do
    local keyed = keyed_key(chat.key, priority, key)
    local id = redis.call('ZRANGE', keyed, 0, 0, 'REV')[1]
    if not id then return nil end
    local job = get_job(id)
    if job then return job end
    redis.call('ZREM', keyed, id) -- the job expired long after it was due
  end
end

local function is_name(key) return string.sub(key, 1, 1) == '@' end

local function alias_of(key)
  if bot.aliases == 0 then return nil end
  return redis.call('HGET', prefix .. 'aliases', key) or nil
end

local function real_chat(key)
  local real = alias_of(key)
  if not real then return key end
  if is_name(key) and tonumber(redis.call('ZSCORE', prefix .. 'names', key)) <= now then
    local chat = get_chat(real)
    if not chat or not (chat.sending or chat.interactive.length + chat.bulk.length > 0) then return key end
  end
  return real
end

local function save_key(job)
  local key = job.chat and untouched(job) and keyed_key(job.chat, job.priority, job.key) or nil
  if job.keyed and job.keyed ~= key then redis.call('ZREM', job.keyed, job.id) end
  if key then
    redis.call('ZADD', key, job.place, job.id)
    redis.call('PEXPIRE', key, ttl(math.max(0, job.due - now) + rules.ledger))
  end
  job.keyed = key
end

local function save_job(job)
  written = true
  local listed = in_line(job)
  if job.key then save_key(job) end
  if job.chat and (listed ~= (job.listed or false) or job.replaced) then
    if job.replaced then redis.call('ZREM', line_key(job.replaced, job.priority), job.id) end
    local key = line_key(job.chat, job.priority)
    if listed then redis.call('ZADD', key, job.place, job.id) else redis.call('ZREM', key, job.id) end
    if listed then redis.call('PEXPIRE', key, ttl(math.max(0, job.due - now) + rules.ledger)) end
  end
  if listed ~= (job.listed or false) then
    redis.call('HINCRBY', prefix .. 'counts', job.priority, listed and 1 or -1)
    local key = oldest_key(job.priority)
    if job.chat and listed then
      redis.call('ZADD', key, job.place, job.id)
      redis.call('PEXPIRE', key, ttl(math.max(0, job.due - now) + rules.ledger * 2))
    elseif not listed then
      redis.call('ZREM', key, job.id)
    end
  end
  if job.state == 'dead' then
    redis.call('ZADD', prefix .. 'dead', now, job.id)
    redis.call('ZREMRANGEBYSCORE', prefix .. 'dead', '-inf', now - rules.ledger)
  end
  job.listed = listed
  job.dirty, job.replaced = nil, nil
  local duration = math.max(0, job.due - now) + rules.ledger
  local kept = job
  if ended(job) then
    kept = { id = job.id, state = job.state, reason = job.reason, content = job.content, chain = job.chain }
  end
  redis.call('SET', prefix .. 'job:' .. job.id, cmsgpack.pack(kept), 'PX', ttl(duration))
end

local function save_indexes(chat)
  for _, priority in ipairs({ INTERACTIVE, BULK }) do
    local line = chat[priority]
    if line.length ~= (line.shown or 0) then
      local name = priority .. ':' .. chat.key
      if line.length > 1 then
        redis.call('ZADD', prefix .. 'lines', line.length, name)
      else
        redis.call('ZREM', prefix .. 'lines', name)
      end
      line.shown = line.length
    end
  end
  local lease = chat.sending and chat.lease_end or 0
  if lease ~= (chat.shown_lease or 0) then
    if chat.sending then
      redis.call('ZADD', prefix .. 'calls', lease, chat.key)
    else
      redis.call('ZREM', prefix .. 'calls', chat.key)
    end
    chat.shown_lease = lease
  end
  if chat.paused_until ~= (chat.shown_pause or 0) then
    redis.call('ZREMRANGEBYSCORE', prefix .. 'pauses', '-inf', now - rules.ledger)
    redis.call('ZADD', prefix .. 'pauses', chat.paused_until, chat.key)
    chat.shown_pause = chat.paused_until
  end
  if chat.refused_at ~= (chat.shown_refusal or 0) then
    redis.call('ZREMRANGEBYSCORE', prefix .. 'refused', '-inf', now - rules.unreachable)
    if chat.refused_at > 0 then
      redis.call('ZADD', prefix .. 'refused', chat.refused_at, chat.key)
    else
      redis.call('ZREM', prefix .. 'refused', chat.key)
    end
    chat.shown_refusal = chat.refused_at
  end
end

local function save_chat(chat)
  written = true
  save_indexes(chat)
  local until_idle = math.max(now, chat.paused_until, chat.rest_until, chat.lease_end, chat.log[#chat.log] or 0) - now
  local waiting = chat.interactive.length + chat.bulk.length > 0
  local duration = until_idle + (waiting and rules.ledger * 2 or K.CHAT_IDLE_US)
  if chat.refused_at > 0 then duration = math.max(duration, chat.refused_at + rules.unreachable - now) end
  chat.dirty = nil
  redis.call('SET', prefix .. 'chat:' .. chat.key, cmsgpack.pack(chat), 'PX', ttl(duration))
end

local function save()
  for _, job in pairs(jobs) do
    if job and job.dirty then save_job(job) end
  end
  for _, chat in pairs(chats) do
    if chat and chat.dirty then save_chat(chat) end
  end
  if bot.dirty then
    bot.dirty, written = nil, true
    redis.call('SET', prefix .. 'bot', cmsgpack.pack(bot))
  end
end

-- Jobs that wait for the bot's budget.

local function pool(paid) return paid and 'paid' or 'free' end

local function units_ahead(job, own_rank, asking_since)
  local waiters, waiting = prefix .. 'waiters:' .. pool(job.paid), prefix .. 'waiting:' .. pool(job.paid)
  local found = redis.call('ZRANGEBYSCORE', waiters, '-inf', own_rank, 'WITHSCORES')
  local ahead = 0
  for index = 1, #found, 2 do
    local id, rank = found[index], tonumber(found[index + 1])
    if id ~= job.id and (rank < own_rank or id < job.id) then
      local entry = cmsgpack.unpack(redis.call('HGET', waiting, id))
      if entry[1] >= asking_since then
        ahead = ahead + entry[2]
      elseif entry[1] < now - K.MINUTE then
        redis.call('ZREM', waiters, id)
        redis.call('HDEL', waiting, id)
      end
    end
  end
  return ahead
end

local function wait_for_bot(job)
  redis.call('ZADD', prefix .. 'waiters:' .. pool(job.paid), job.rank, job.id)
  redis.call('HSET', prefix .. 'waiting:' .. pool(job.paid), job.id, cmsgpack.pack({ job.due, job.bot_units }))
end

local function leave_pool(job)
  if job.rank ~= 0 then
    redis.call('ZREM', prefix .. 'waiters:' .. pool(job.paid), job.id)
    redis.call('HDEL', prefix .. 'waiting:' .. pool(job.paid), job.id)
  end
end

local function stop_waiting(job)
  leave_pool(job)
  job.rank = 0
end

-- The circuit (circuit.py): nil or {silences, open_since, probe_at, probe, failures}.

local function outage_since() return bot.circuit and bot.circuit.open_since or 0 end

local function probe_interval(failures)
  return math.min(K.PROBE_FIRST_US * 2 ^ math.min(failures, 30), K.PROBE_MOST_US)
end

local function circuit_wait()
  local circuit = bot.circuit
  if outage_since() == 0 or circuit.probe_at <= now then return 0 end
  local left = circuit.probe_at - now
  return circuit.probe ~= 0 and math.min(left, K.PROBE_POLL_US) or left
end

local function bot_held_until()
  local open = outage_since() ~= 0 and bot.circuit.probe == 0
  return open and math.max(bot.paused_until, bot.circuit.probe_at) or bot.paused_until
end

local function begin_probe(job)
  local circuit = bot.circuit
  if circuit.probe ~= 0 then circuit.failures = circuit.failures + 1 end -- the previous probe was lost
  circuit.probe, circuit.probe_at, bot.dirty = job.since, job.lease_end, true
end

local function add_evidence(circuit, chat)
  local recent = {}
  for _, one in ipairs(circuit.silences) do
    if one[1] ~= chat and now - one[2] < K.OUTAGE_MOMENT_US then recent[#recent + 1] = one end
  end
  recent[#recent + 1] = { chat, now }
  circuit.silences = recent
  if #recent >= K.OUTAGE_CHATS then
    circuit.silences, circuit.open_since, circuit.probe_at = {}, now, now + probe_interval(0)
  end
end

local function miss(job)
  bot.circuit = bot.circuit or { silences = {}, open_since = 0, probe_at = 0, probe = 0, failures = 0 }
  local circuit = bot.circuit
  bot.dirty = true
  if circuit.open_since == 0 then
    add_evidence(circuit, job.chat or '')
  elseif circuit.probe == job.since then
    circuit.failures = circuit.failures + 1
    circuit.probe, circuit.probe_at = 0, now + probe_interval(circuit.failures)
  end
end

local function resume_evenly(at)
  bot.dirty = true
  for _, paid in ipairs({ 'free', 'paid' }) do
    local pace, budget = rules[paid], bot[paid]
    if pace then budget.arrival = math.max(budget.arrival, at + pace.tolerance) end
  end
end

local function tells_of_telegram()
  return not args.answers or not (args.unanswered or args.how == 'released')
end

local function note_answer(job)
  local circuit = bot.circuit
  if args.unanswered then
    miss(job)
  elseif not circuit then
    return
  elseif args.how == 'released' then
    if circuit.probe == job.since then circuit.probe, circuit.probe_at, bot.dirty = 0, now, true end
  elseif job.since > circuit.open_since then
    bot.circuit, bot.dirty = nil, true
    if circuit.open_since ~= 0 then resume_evenly(now) end
  end
end

-- The rules.

local function permille_now()
  return math.min(1000, bot.permille + math.floor(math.max(0, now - bot.slowed_at) / K.RECOVERY_US_PER_PERMILLE))
end

local function windows_of(chat)
  if rules.own[chat] then return rules.own[chat] end
  for _, name in ipairs(rules.names) do
    if alias_of(name) == chat then return rules.own[name] end
  end
  local first = string.sub(chat, 1, 1)
  if string.sub(chat, 1, 7) == 'inline:' then return {} end
  return (first == '-' or first == '@') and rules.group or rules.user
end

local function first_log(windows)
  local longest
  for _, window in ipairs(windows) do
    if not longest or window[2] > longest[2] then longest = window end
  end
  local log = {}
  if longest and now < bot.born + longest[2] then
    local step = math.floor(longest[2] / longest[1])
    for unit = 1, longest[1] do log[#log + 1] = bot.born - longest[2] + step * unit end
  end
  return log
end

-- After the store has gone back in time: rebuilding.py.

local function is_doubtful(job) return job.due < bot.rebuilt end

local function grace(head) return is_doubtful(head) and K.REBUILD_GRACE_US or K.MISSING_GRACE_US end

local function cautious_log(log, windows)
  if bot.rebuilt == 0 or #windows == 0 then return log end
  local longest, units, step = windows[1], math.huge, math.huge
  for _, window in ipairs(windows) do
    local cap, span = window[1], window[2]
    if span > longest[2] then longest = window end
    units = math.min(units, cap * (math.floor(bot.gap / span) + 1))
    step = math.min(step, math.floor(span / cap))
  end
  if now >= bot.unknown_until + longest[2] then return log end
  for _, at in ipairs(log) do
    if at == bot.unknown_until then return log end
  end
  if bot.gap >= longest[2] then units, step = longest[1], math.floor(longest[2] / longest[1]) end
  for unit = 0, units - 1 do log[#log + 1] = bot.unknown_until - step * unit end
  table.sort(log)
  return trimmed(log, log_size(windows))
end

local function begin_epoch(after, certain)
  bot.epoch = math.max(now, bot.epoch + 1, after + 1)
  bot.unknown_until = math.max(bot.granted, now)
  bot.gap = bot.unknown_until - bot.granted
  bot.rebuilt, bot.rollbacks, bot.dirty = now, bot.rollbacks + (certain and 1 or 0), true
  bot.free, bot.paid = cautious_budget(rules.free, now), cautious_budget(rules.paid, now)
end

local function reclaim_lost(chat)
  local expired = chat.lease_end <= now
  if not expired and chat.sending_since >= bot.rebuilt then return end
  local job = get_job(chat.sending)
  if not expired and job and not is_doubtful(job) then return end
  chat.sending = nil
  if job and job.state == 'sending' then
    job.state = 'lost'
    if expired then job.due = job.lease_end end
    chat[job.priority].length = chat[job.priority].length + 1
    save_job(job)
  end
end

local function open_chat(key, keep_call)
  if not key then return nil end
  key = real_chat(key)
  local chat = get_chat(key)
  if not chat then
    chat = new_chat(key, first_log(windows_of(key)))
  elseif not keep_call and chat.sending then
    reclaim_lost(chat)
  end
  if bot.rebuilt ~= 0 then chat.log = cautious_log(chat.log, windows_of(key)) end
  return chat
end

local function holds(chat)
  return chat.refused_at > 0 and now - chat.refused_at < rules.unreachable
end

local function refused(chat)
  if not chat or args.units == 0 or not holds(chat) then return nil end
  if args.priority == BULK or now - chat.refused_at < K.ASK_ANEW_US then return { 'unreachable', chat.refused_why } end
  return nil
end

-- The learned pace of a family of calls in a chat, after a 429.

local SLOWABLE = { 'messages', 'edits', 'typing' }

local function pace_key(chat, family) return prefix .. 'pace:' .. family .. ':' .. chat end

local function permille_of(slow)
  return math.max(1000, slow.permille - math.floor(math.max(0, now - slow.slowed_at) / K.NARROWING_US_PER_PERMILLE))
end

local function recovered_at(slow) return slow.slowed_at + (slow.permille - 1000) * K.NARROWING_US_PER_PERMILLE end

local function windows_of_family(chat, family) return family == 'typing' and rules.typing or windows_of(chat) end

local function spacing(windows, permille)
  local widest = 0
  for _, window in ipairs(windows) do widest = math.max(widest, math.floor(window[2] / window[1])) end
  return math.floor(widest * permille / 1000)
end

local function slowed_of(chat, family)
  if bot.slowed_until <= now or family == 'other' then return nil end
  local slow = load('pace:' .. family .. ':' .. chat)
  if not slow or recovered_at(slow) <= now then return nil end
  if bot.rebuilt > math.max(slow.granted_at, slow.slowed_at) then
    local own = windows_of_family(chat, family)
    slow.next_at = math.max(slow.next_at, bot.unknown_until + spacing(own, permille_of(slow)))
  end
  return slow
end

local function save_slowed(slow)
  redis.call('SET', pace_key(slow.chat, slow.family), cmsgpack.pack(slow), 'PX', ttl(recovered_at(slow) - now))
end

local function list_slowed(slow)
  local index, at = prefix .. 'slowed:' .. slow.family, recovered_at(slow)
  bot.slowed_until, bot.dirty = math.max(bot.slowed_until, at), true
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  redis.call('ZADD', index, at, slow.chat)
  redis.call('PEXPIRE', index, ttl(bot.slowed_until - now))
end

local function slow_down(chat, until_)
  local family = args.family
  if not chat or family == 'other' or #windows_of_family(chat, family) == 0 then return end
  local slow = slowed_of(chat, family)
    or { chat = chat, family = family, permille = 1000, slowed_at = 0 }
  if slow.slowed_at <= now then
    slow.permille = math.min(K.WIDEST_PERMILLE, math.floor(permille_of(slow) * K.WIDER_PERMILLE / 1000))
  end
  slow.slowed_at = math.max(slow.slowed_at, until_)
  slow.next_at, slow.granted_at = slow.slowed_at, 0
  save_slowed(slow)
  list_slowed(slow)
end

local function space_out(slow, windows, units)
  slow.granted_at = now
  slow.next_at = now + units * spacing(windows, permille_of(slow))
  save_slowed(slow)
end

local function respace(job, chat, later)
  local slow = chat and slowed_of(chat.key, args.family)
  if slow and slow.granted_at == job.since then
    slow.next_at = later and slow.next_at + later or job.since
    save_slowed(slow)
  end
end

local function move_paces(old_key, new_key)
  for _, family in ipairs(SLOWABLE) do
    local old = slowed_of(old_key, family)
    if old then
      local new = slowed_of(new_key, family)
      redis.call('DEL', pace_key(old_key, family))
      redis.call('ZREM', prefix .. 'slowed:' .. family, old_key)
      if not new or recovered_at(new) < recovered_at(old) then
        old.chat = new_key
        save_slowed(old)
        list_slowed(old)
      end
    end
  end
end

local function shown_pace(slow)
  local interval = spacing(windows_of_family(slow.chat, slow.family), permille_of(slow))
  return { slow.chat, slow.family, interval, slow.next_at - now, recovered_at(slow) - now }
end

local function supersedable(chat)
  if not chat or not args.key then return nil end
  local last = last_of_key(chat, args.priority, args.key)
  if not last or last.final or last.variant ~= args.variant then return nil end
  return last
end

local function take_place(job, earlier, line)
  job.place, job.units_before, job.lease_end = earlier.place, earlier.units_before, earlier.lease_end
  line.units = line.units + math.max(0, job.units - earlier.units)
  if earlier.paid == job.paid then job.rank = earlier.rank end
  leave_pool(earlier)
end

local function backing_off(earlier)
  if not earlier or earlier.lease_end == 0 or earlier.due <= now then return nil end
  return { delay = earlier.due - now, scope = 'chat', why = 'line' }
end

-- What was enqueued under the job's key; nil if nothing was, or it no longer matters. And the name of its key.
local function enqueued_row()
  local name = 'enqueued:' .. args.priority .. ':' .. args.chat .. '\n' .. args.key
  local row = load(name)
  return row and row.over > now and row or nil, name
end

-- The first of the jobs that a new one superseded before a worker received it.
local function superseded_unseen()
  local row = args.key and args.chat and enqueued_row()
  if not row then return nil end
  if args.job == row.newest then return row.newest_chain end
  return args.job == row.first and row.first_chain or nil
end

local function join(job, chat, earlier)
  if not job then
    job = {
      id = args.job, priority = args.priority, state = 'waiting', place = 0, units_before = 0, units = args.units,
      due = 0, since = 0, lease_end = 0, bot_units = 0, paid = args.paid, rank = 0, unsettled = 0, handed_back = 0,
      content = args.content,
    }
    if chat then
      local line = chat[job.priority]
      job.chat = chat.key
      job.key, job.variant, job.final = args.key, args.variant, args.final
      job.chain = superseded_unseen()
      line.length = line.length + 1
      if earlier then
        take_place(job, earlier, line)
      else
        job.place = math.max(now, chat.last_place + 1)
        chat.last_place = job.place
        job.units_before = line.units
        line.units = line.units + job.units
      end
    end
  elseif job.state == 'absent' then
    job.state = 'waiting'
    if chat then
      job.chat = chat.key
      chat[job.priority].length = chat[job.priority].length + 1
    end
  end
  return job
end

local function first_of(chat, job)
  local head = head_of(chat, job.priority)
  if not head or head.place >= job.place then return job end
  return head
end

local function step_over(chat, job)
  local line = chat[job.priority]
  local overdue = math.max(bot.rebuilt, now - K.MISSING_GRACE_US)
  local before = redis.call('ZRANGEBYSCORE', line_key(chat.key, job.priority), '-inf', job.place)
  for _, id in ipairs(before) do
    local other = get_job(id)
    if other and other.place < job.place and other.due < overdue then
      other.state = other.state == 'lost' and 'absent_lost' or 'absent'
      line.length = line.length - 1
      save_job(other)
    end
  end
end

local function find_head(chat, job)
  local line = chat[job.priority]
  local head = line.length > 1 and first_of(chat, job) or job
  if head == job or head.due + K.LATE_US >= now then
    line.missing_since = 0
  elseif line.missing_since == 0 or line.missing_since < bot.rebuilt then
    line.missing_since = now
  elseif line.missing_since + grace(head) <= now then
    line.missing_since = 0
    step_over(chat, job)
    head = first_of(chat, job)
  end
  return head
end

local function claims(chat, head)
  local free = free_at(chat.log, windows_of(chat.key), 1)
  local soon = math.max(now, free, chat.rest_until, chat.paused_until) + K.CLAIM_US
  return head.state == 'waiting' and now - K.LATE_US <= head.due and head.due <= soon
end

local function rival_units(chat, job)
  local bulk_asks = job.priority == BULK
  local other = bulk_asks and INTERACTIVE or BULK
  local bulks_turn = chat.overtaken >= K.INTERACTIVE_TURNS
  if chat[other].length == 0 or bulk_asks == bulks_turn then return nil end
  local head = head_of(chat, other)
  if not head or not claims(chat, head) then return nil end
  if not bulk_asks then return head.units end
  return math.min(chat[other].units - head.units_before, K.INTERACTIVE_TURNS - chat.overtaken)
end

local function hindrance(chat, job, head, rival, free)
  if chat.paused_until > now then return 'pause' end
  if chat.sending then return 'in-flight' end
  if head ~= job or rival then return 'line' end
  if math.max(chat.rest_until, free) > now then return 'rate' end
  return nil
end

local function least_wait(chat, job, head, why, ahead)
  if why == 'in-flight' then
    return math.min(math.max(math.floor((now - chat.sending_since) / 2), K.IN_FLIGHT_MIN_US), K.IN_FLIGHT_MAX_US)
  end
  if why == 'line' then
    local missing_since = chat[job.priority].missing_since
    if missing_since ~= 0 then
      return math.min(K.MISSING_POLL_US, missing_since + grace(head) - now)
    end
    return math.min(K.PLACE_US * (ahead + 1), K.IN_FLIGHT_MAX_US)
  end
  return 1
end

local function chat_wait(job, chat, slow)
  if not chat then return nil end
  local head = find_head(chat, job)
  local rival = rival_units(chat, job)
  local windows = windows_of(chat.key)
  local next_at = slow and slow.next_at or 0
  local why = hindrance(chat, job, head, rival, math.max(next_at, free_at(chat.log, windows, job.units)))
  if not why then return nil end
  local held_until = math.max(chat.paused_until, bot_held_until())
  local start = math.max(now, chat.rest_until, math.min(held_until, now + K.PAUSE_POLL_US))
  if head ~= job then start = math.max(start, head.due) end
  local ahead = job.units_before - head.units_before + (rival or 0)
  local missing_since = chat[job.priority].missing_since
  if why == 'line' and head ~= job and missing_since ~= 0 and is_doubtful(head) then
    return { delay = missing_since + grace(head) - now, scope = 'chat', why = why }
  end
  local turn = math.max(next_at, turn_at(chat.log, windows, start, ahead, job.units))
  return { delay = math.max(turn - now, least_wait(chat, job, head, why, ahead)), scope = 'chat', why = why }
end

local function pace_of(paid) return paid and rules.paid or rules.free end

local function budget_of(paid) return paid and bot.paid or bot.free end

local function bot_wait(job)
  if args.answers then return nil end
  local cost, pace = args.bot_units, pace_of(args.paid)
  local rank = 0
  if pace and cost > 0 then
    rank = job.rank ~= 0 and job.rank or now + (job.priority == BULK and K.AGING_US or 0)
  end
  if bot.paused_until > now then
    job.rank, job.bot_units = rank, cost
    return { delay = math.min(bot.paused_until - now, K.PAUSE_POLL_US), scope = 'bot', why = 'pause' }
  end
  local delay = circuit_wait()
  if delay > 0 then
    job.rank, job.bot_units = rank, cost
    return { delay = delay, scope = 'bot', why = 'outage' }
  end
  if not pace or cost == 0 then return nil end
  local interval = slowed_interval(pace, permille_now())
  local ahead = units_ahead(job, rank, now - K.WAITER_GRACE_US)
  local turn = bot_turn_at(budget_of(args.paid), pace, interval, ahead, cost, now)
  if turn <= now then return nil end
  job.rank, job.bot_units = rank, cost
  return { delay = turn - now, scope = 'bot', why = 'rate' }
end

local function park(job, chat, wait)
  job.due = now + wait.delay
  if wait.scope == 'chat' then stop_waiting(job) end
  put_job(job)
  if job.rank ~= 0 then wait_for_bot(job) end
  if chat then put_chat(chat) end
  return { 'wait', wait.delay, wait.scope, wait.why }
end

local function spend_bot(job)
  bot.granted, bot.dirty = now, true
  local pace, budget = pace_of(job.paid), budget_of(job.paid)
  if pace and job.bot_units > 0 then
    local interval = slowed_interval(pace, permille_now())
    local from = math.max(budget.arrival, now, paced_from(budget, pace, interval, job.bot_units))
    budget.arrival = from + job.bot_units * interval
    budget.log = spend(budget.log, pace_windows(pace), job.bot_units, now)
  end
  if now - bot.minute >= K.MINUTE then
    bot.last_minute = now - bot.minute < 2 * K.MINUTE and bot.this_minute or 0
    bot.minute, bot.this_minute = now - now % K.MINUTE, 0
  end
  bot.this_minute = bot.this_minute + job.bot_units
end

local function begin_call(chat, job)
  chat[job.priority].length = chat[job.priority].length - 1
  chat.sending, chat.sending_since, chat.lease_end = job.id, now, job.lease_end
  chat.log = spend(chat.log, windows_of(chat.key), job.units, now)
  local overtakes = chat.bulk.length > 0 and job.priority == INTERACTIVE
  chat.overtaken = overtakes and chat.overtaken + 1 or 0
end

local function address(chat_key)
  if args.chat and is_name(args.chat) then return args.chat end
  return chat_key or (args.chat and real_chat(args.chat))
end

local function go_reply(job, chat_key)
  local probe = bot.circuit and bot.circuit.probe == job.since and not args.answers
  return { 'go', address(chat_key) or false, job.since, probe and 1 or 0 }
end

local function go(job, chat, slow)
  stop_waiting(job)
  job.state, job.since, job.due, job.lease_end = 'sending', now, now, now + args.lease
  job.bot_units, job.nonce = args.bot_units, args.nonce
  job.unsettled = job.unsettled + 1
  if outage_since() ~= 0 and not args.answers then begin_probe(job) end
  spend_bot(job)
  if chat then
    begin_call(chat, job)
    put_chat(chat)
    if slow then space_out(slow, windows_of(chat.key), job.units) end
  end
  put_job(job)
  return go_reply(job, chat and chat.key)
end

local function outcome_of(job) return redis.call('GET', prefix .. 'result:' .. job.id) end

local function uncertain(job)
  if job.state == 'sending' then return job.lease_end <= now end
  return job.state == 'lost' or job.state == 'absent_lost'
end

local function known(job)
  if job.state == 'sending' and job.nonce == args.nonce then -- a repetition of the same call, whose reply was lost
    return go_reply(job, job.chat)
  end
  if uncertain(job) then return { 'unsettled', now - job.since } end
  if job.state == 'sent' then return { 'sent', outcome_of(job) or false, job.content or false } end
  if job.state == 'dead' then return { 'dead', job.reason, job.content or false } end
  if job.state == 'sending' and is_doubtful(job) then
    job.due = now
    put_job(job)
  end
  if job.state == 'sending' then return { 'wait', job.lease_end - now, 'chat', 'lease' } end
  return nil
end

local function exhausted(job)
  if job.unsettled < args.calls_left and job.handed_back < K.HANDED_BACK_MOST then return nil end
  return { 'exhausted', job.unsettled, job.handed_back }
end

local function leave(chat, job)
  if chat.sending == job.id then
    chat.sending = nil
    local call = job.since >= bot.rebuilt and now - job.since or 0
    chat.rest_until = now + (call > K.SLOW_CALL_US and math.min(call, K.REST_MAX_US) or 0)
  elseif in_line(job) then
    chat[job.priority].length = chat[job.priority].length - 1
  end
end

-- Saves where a superseded job leads to. It has ended, and only this changes.
local function save_chain(job)
  written = true
  redis.call('SET', prefix .. 'job:' .. job.id, cmsgpack.pack(job), 'KEEPTTL')
end

local function finish(job, chat, state, reason, outcome)
  if chat then
    leave(chat, job)
    put_chat(chat)
  end
  stop_waiting(job)
  job.state, job.since, job.due, job.reason = state, now, now, reason
  put_job(job)
  if outcome then redis.call('SET', prefix .. 'result:' .. job.id, outcome, 'PX', ttl(rules.result)) end
  local ids = job.chain and job.id .. ' ' .. job.chain or job.id
  redis.call('PUBLISH', rules.channel, ids .. '\n' .. state .. '\n' .. (outcome or reason))
end

local function is_over(listed)
  return rules.listed_for ~= nil and listed[4] <= now - rules.listed_for
end

local function account_for(reason)
  local list = prefix .. 'listed'
  redis.call('HINCRBY', prefix .. 'not_kept', reason, 1)
  if reason == SHED then return end
  redis.call('LPUSH', list, cmsgpack.pack({ args.job, args.chat or false, reason, now }))
  redis.call('LTRIM', list, 0, rules.listed - 1)
  if not rules.listed_for then
    redis.call('PERSIST', list)
    return
  end
  redis.call('PEXPIRE', list, ttl(rules.listed_for))
  for _ = 1, 2 do -- deletes more than are added
    local oldest = redis.call('LINDEX', list, -1)
    if oldest and is_over(cmsgpack.unpack(oldest)) then redis.call('RPOP', list) end
  end
end

-- Ends a job that another one supersedes. Returns the first of their chain, which leads to the other one.
local function end_superseded(earlier, first, successor, chat)
  first = first or earlier
  earlier.chain = first.id
  redis.call('HINCRBY', prefix .. 'not_kept', SUPERSEDED, 1)
  finish(earlier, chat, 'dead', SUPERSEDED)
  first.chain = successor
  if first ~= earlier then save_chain(first) end
  return first.id
end

-- Makes the first job of one chain lead to the first of another, and tells those that wait for its end.
local function lead_on(id, chain)
  local first = get_job(id)
  if not first then return end
  first.chain = chain
  save_chain(first)
  redis.call('PUBLISH', rules.channel, first.id .. ' ' .. chain .. '\ndead\n' .. SUPERSEDED)
end

local function supersede(earlier, job, chat)
  local first = earlier.chain and get_job(earlier.chain)
  local its = first and first.id or earlier.id
  if job.chain and job.chain ~= its then lead_on(job.chain, its) end
  job.chain = its
  end_superseded(earlier, first, job.id, chat)
end

-- A row for a job that ends without having been admitted.
local function stranger()
  return {
    id = args.job, chat = args.line, priority = args.priority, state = 'absent', place = 0, units_before = 0,
    units = 0, due = 0, since = 0, lease_end = 0, bot_units = 0, paid = args.paid, rank = 0, unsettled = 0,
    handed_back = 0, content = args.content,
  }
end

local function give_back(job, chat)
  if chat then chat.log = refund(chat.log, windows_of(chat.key), job.units, job.since) end
  local pace, budget = pace_of(job.paid), budget_of(job.paid)
  if pace then
    budget.arrival = budget.arrival - job.bot_units * pace.interval
    budget.log = refund(budget.log, pace_windows(pace), job.bot_units, job.since)
  end
  local minute = job.since >= bot.minute and 'this_minute' or 'last_minute'
  bot[minute] = math.max(0, bot[minute] - job.bot_units)
  bot.dirty = true
end

-- How much later than at its permit the call counts for its chat, and for its bot.
local function delays(job)
  if args.charged == false then return 0, 0 end
  local call = now - job.since
  if args.upload then return call, 0 end
  local late = math.min(args.late or 0, call)
  return late, math.min(late, K.BOT_LATE_MOST_US)
end

local function count_later(job, chat)
  local chat_delay, bot_delay = delays(job)
  if chat and chat_delay > 0 then
    chat.log = moved(chat.log, windows_of(chat.key), job.units, job.since, chat_delay)
    respace(job, chat, chat_delay)
  end
  local pace, budget = pace_of(job.paid), budget_of(job.paid)
  if pace and bot_delay > 0 then
    budget.log = moved(budget.log, pace_windows(pace), job.bot_units, job.since, bot_delay)
    bot.dirty = true
  end
end

local function put_back(job, chat, delay, charged)
  if job.since ~= 0 then
    job.unsettled = job.unsettled - 1
    if not charged then
      give_back(job, chat)
      respace(job, chat)
    end
  end
  if chat then
    leave(chat, job)
    chat[job.priority].length = chat[job.priority].length + 1
    put_chat(chat)
  end
  stop_waiting(job)
  job.state, job.since, job.due = 'waiting', 0, now + delay
  put_job(job)
end

local function pause_chat(chat, until_, why)
  if until_ > chat.paused_until then chat.paused_until, chat.pause_why = until_, why end
end

local function pause_bot(until_, why)
  if until_ <= bot.paused_until then return end
  bot.paused_until, bot.pause_why = until_, why
  resume_evenly(until_)
end

-- The latest refusal of each chat that still counts: {chat, at, long}.
local function recent_refusals(refusals)
  local kept, seen = {}, {}
  for index = #refusals, 1, -1 do
    local one = refusals[index]
    local age = now - one[2]
    if not seen[one[1]] and age < (one[3] and K.LONG_WAIT_US or K.MOMENT_US) and #kept < K.REFUSALS_KEPT then
      seen[one[1]] = true
      table.insert(kept, 1, one)
    end
  end
  return kept
end

local function move_line(old, new, priority)
  local moved = {}
  for _, chat in ipairs({ old, new }) do
    for _, id in ipairs(redis.call('ZRANGE', line_key(chat.key, priority), 0, -1)) do
      local job = get_job(id)
      if job then
        if chat == old then job.replaced = old.key end
        moved[#moved + 1] = job
      end
    end
  end
  -- Ties keep their insertion order, which table.sort would not guarantee.
  for index, job in ipairs(moved) do job.index = index end
  table.sort(moved, function(a, b)
    if a.place ~= b.place then return a.place < b.place end
    return a.index < b.index
  end)
  local units, place = 0, 0
  for _, job in ipairs(moved) do
    place = math.max(job.place, place + 1)
    job.chat, job.place, job.units_before, job.index, job.listed = new.key, place, units, nil, false
    redis.call('HINCRBY', prefix .. 'counts', priority, -1) -- counted again when it is listed again
    units = units + job.units
    put_job(job)
  end
  new.last_place = math.max(new.last_place, place)
  new[priority] = { length = #moved, units = units, missing_since = 0, shown = new[priority].shown }
end

local function drop_chat(chat)
  redis.call('DEL', prefix .. 'chat:' .. chat.key)
  redis.call('ZREM', prefix .. 'lines', INTERACTIVE .. ':' .. chat.key, BULK .. ':' .. chat.key)
  redis.call('ZREM', prefix .. 'calls', chat.key)
  redis.call('ZREM', prefix .. 'pauses', chat.key)
  redis.call('ZREM', prefix .. 'refused', chat.key)
  chats[chat.key] = false
end

-- The time before which jobs of this campaign were cancelled; all of the bot's are under the name ''.
local function cancelled_before()
  local all, its = unpack(redis.call('ZMSCORE', prefix .. 'cancelled', '', args.campaign or ''))
  return math.max(tonumber(all or 0), tonumber(its or 0))
end

-- Ends a job as cancelled, unless it has ended or may have been sent.
local function take_back(job, listed)
  job = job or stranger()
  if untouched(job) then
    if listed then account_for(CANCELLED) end
    finish(job, open_chat(job.chat, true), 'dead', CANCELLED)
  end
  return job
end

local function shed(job, chat)
  account_for(SHED)
  finish(job, chat, 'dead', SHED)
  return { 'dead', SHED, job.content or false }
end

-- Typing and drafts: sent at once, or shed.

local function typing_of(key)
  return load('typing:' .. key) or { log = {}, paused_until = 0 }
end

-- Its budget starts cautiously, as the chat's own does.
local function cautious_typing(key)
  local typing = typing_of(key)
  if #typing.log == 0 then typing.log = first_log(rules.typing) end
  typing.log = cautious_log(typing.log, rules.typing)
  return typing
end

local function save_typing(key, typing)
  local duration = math.max(typing.paused_until - now, K.TYPING_IDLE_US)
  redis.call('SET', prefix .. 'typing:' .. key, cmsgpack.pack(typing), 'PX', ttl(duration))
end

local function outlives(wait)
  return not args.worth or wait < args.worth
end

local function holds_up_typing(chat)
  if bot.paused_until > now or outage_since() ~= 0 then return true end
  if not chat then return false end
  local calling = chat.sending and chat.lease_end > now
  local behind_bulk = args.priority == BULK and chat.bulk.length > 0
  return chat.paused_until > now or calling or chat.interactive.length > 0 or behind_bulk
end

local function spent(typing)
  return math.max(typing.paused_until, free_at(typing.log, rules.typing, 1)) > now
end

local function admit_typing()
  local key = args.chat and real_chat(args.chat)
  local typing = key and cautious_typing(key)
  local slow = key and slowed_of(key, 'typing')
  local held_up = holds_up_typing(key and get_chat(key)) or (slow and slow.next_at > now)
  if not outlives(0) or held_up or (typing and spent(typing)) then return shed(stranger()) end
  if typing and #rules.typing > 0 then
    typing.log = spend(typing.log, rules.typing, 1, now)
    save_typing(key, typing)
  end
  if slow then space_out(slow, rules.typing, 1) end
  return { 'go', address() or false, false, 0 }
end

local function pause_typing(key, until_)
  if not key then return end
  local typing = typing_of(key)
  typing.paused_until = math.max(typing.paused_until, until_)
  save_typing(key, typing)
end

-- When a waiting job is expected to be sent. During a pause it asks again earlier than that.
local function due_of(job)
  local chat = job.chat and get_chat(real_chat(job.chat))
  return math.max(job.due, bot.paused_until, chat and chat.paused_until or 0)
end

-- The first and the last of the jobs that superseded each other, for one that was superseded; for any other, the job
-- itself. The last is nil if no worker has received it.
local function chain_of(job)
  local first, last = job, job
  for _ = 1, K.CHAIN_STEPS do
    if last.reason ~= SUPERSEDED or not last.chain then break end
    first, last = last, get_job(last.chain)
    if not last then return first, nil end
  end
  return first, last
end

local function record(job)
  if not job then return { 'none' } end
  local content = job.content or false
  local first, last = chain_of(job)
  local chain = last ~= job and first.id or false
  if not last then return { 'waiting', false, 0, content, chain } end
  if ended(last) then return { last.state, outcome_of(last) or last.reason or false, 0, content, chain } end
  return { last.state, false, math.max(0, due_of(last) - now), content, chain }
end

-- The operations.

local operations = {}

function operations.admit()
  local job = get_job(args.job)
  local answer = job and (known(job) or exhausted(job))
  if answer then return answer end
  if args.created < cancelled_before() then return { 'dead', CANCELLED, take_back(job, true).content or false } end
  if args.family == 'typing' then return admit_typing() end
  local chat = open_chat(job and job.chat or args.line)
  local no = refused(chat)
  if no then
    put_chat(chat) -- opening it may have taken back a lost call
    return no
  end
  local earlier = not job and supersedable(chat) or nil
  job = join(job, chat, earlier)
  local slow = chat and slowed_of(chat.key, args.family)
  local wait = backing_off(earlier) or chat_wait(job, chat, slow) or bot_wait(job)
  if not outlives(wait and wait.delay or 0) then return shed(job, chat) end
  if earlier then supersede(earlier, job, chat) end
  if wait then return park(job, chat, wait) end
  return go(job, chat, slow)
end

local function supersede_unseen(row)
  local earlier = stranger()
  earlier.id, earlier.chat, earlier.content = row.newest, nil, nil
  return end_superseded(earlier, row.newest_chain and get_job(row.newest_chain), args.job, nil)
end

local function may_follow(row)
  local of_its_kind = row.variant == args.variant and row.campaign == args.campaign
  return of_its_kind and not row.final and not get_job(row.newest)
end

local function note_enqueued()
  local job = get_job(args.job)
  if job and ended(job) then return end
  local row, name = enqueued_row()
  if row and (args.job == row.first or args.job == row.newest) then return end
  if not row or not may_follow(row) then
    row = { variant = args.variant, campaign = args.campaign, first = args.job, over = now + K.ENQUEUED_US }
  elseif row.first ~= row.newest and not get_job(row.first) then
    row.newest_chain = supersede_unseen(row)
  elseif row.first ~= row.newest then
    row.first, row.first_chain, row.newest_chain = row.newest, row.newest_chain, nil
    row.over = now + K.ENQUEUED_US
  end
  row.newest, row.final = args.job, args.final
  written = true
  redis.call('SET', prefix .. name, cmsgpack.pack(row), 'PX', ttl(row.over - now))
end

function operations.enqueued()
  for _, its in ipairs(args.asks) do
    args = its
    note_enqueued()
  end
  return { 'ok' }
end

function operations.renew_unsettled()
  local job = get_job(args.job)
  if job and uncertain(job) and job.nonce ~= args.nonce then
    local chat = open_chat(job.chat, true)
    if job.state == 'sending' and chat then
      if chat.sending == job.id then chat.sending = nil end
      chat[job.priority].length = chat[job.priority].length + 1
      put_chat(chat)
    end
    job.state = job.state == 'absent_lost' and 'absent' or 'waiting'
    job.since, job.due = 0, now
    save_job(job)
  end
  return operations.admit()
end

function operations.settle()
  local job = get_job(args.job)
  local ends = args.how == 'sent' or args.how == 'dead'
  if not job then
    if not ends then return { 'ok' } end
    job = stranger()
  end
  if ended(job) then return { 'ok' } end
  local chat = open_chat(job.chat, true)
  if args.grant and args.grant == job.since and tells_of_telegram() then note_answer(job) end
  if job.state == 'sending' and (not args.grant or args.grant == job.since) then count_later(job, chat) end
  if ends then
    if args.how == 'sent' and chat and args.units > 0 then chat.refused_at = 0 end
    if args.not_kept then account_for(args.reason) end
    finish(job, chat, args.how, args.reason, args.outcome)
  elseif not args.grant or args.grant == job.since then
    job.handed_back = args.how == 'released' and job.handed_back + 1 or 0
    put_back(job, chat, args.delay, args.charged)
  end
  return { 'ok' }
end

-- Enters a job that a process remembers: decisions.rejoin.
local function resume_call(job, chat, lease_end)
  job.state, job.since, job.lease_end, job.nonce = 'sending', args.grant, lease_end, nil
  job.unsettled = job.unsettled + 1
  if chat then
    chat[job.priority].length = chat[job.priority].length - 1
    if not chat.sending then chat.sending, chat.sending_since, chat.lease_end = job.id, args.grant, lease_end end
  end
end

function operations.rejoin()
  local job = get_job(args.job)
  if job and ended(job) then return { 'ok' } end
  local chat
  if job then chat = open_chat(job.chat, true) else chat = open_chat(args.line, true) end
  local due = now + args.delay
  local under_way = args.grant and job and job.since == args.grant
  if not job then
    local earlier = supersedable(chat)
    job = join(nil, chat, earlier)
    if earlier then supersede(earlier, job, chat) end
  elseif not under_way then
    put_back(job, chat, 0, true)
  end
  if not args.grant then
    job.due = due
  elseif not under_way then
    resume_call(job, chat, due)
  end
  job.due = math.max(job.due, now)
  save_job(job) -- at once: the next to join looks up the line
  jobs[job.id] = job
  if chat then put_chat(chat) end
  return { 'ok' }
end

-- Enters a learned pace that a process remembers: decisions.restore_pace.
function operations.restore_pace()
  local key, family, until_ = real_chat(args.chat), args.family, now + args.delay
  if family == 'typing' then pause_typing(key, until_) end
  local told = {
    chat = key, family = family, permille = args.permille, slowed_at = until_, next_at = until_, granted_at = 0,
  }
  local known = slowed_of(key, family)
  local latest = math.max(now, known and recovered_at(known) or 0)
  if recovered_at(told) > latest and #windows_of_family(key, family) > 0 then
    save_slowed(told)
    list_slowed(told)
  end
  return { 'ok' }
end

function operations.cancel()
  return record(take_back(get_job(args.job), args.listed))
end

function operations.cancel_campaign()
  local key, campaign = prefix .. 'cancelled', args.campaign or ''
  redis.call('ZADD', key, 'GT', args.before, campaign)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', args.before - K.CANCELLED_KEPT_US / 1000)
  redis.call('ZREMRANGEBYRANK', key, 0, -K.CANCELLED_MOST - 1)
  redis.call('PEXPIRE', key, ttl(K.CANCELLED_KEPT_US))
  return { 'ok' }
end

function operations.lookup()
  return record(get_job(args.job))
end

function operations.reopen()
  local job = get_job(args.job)
  local found = record(job)
  if job and job.state == 'dead' and job.reason ~= SUPERSEDED then
    redis.call('DEL', prefix .. 'job:' .. job.id, prefix .. 'result:' .. job.id)
    redis.call('ZREM', prefix .. 'dead', job.id)
    jobs[job.id] = false
  end
  return found
end

function operations.mark_unreachable()
  local chat = open_chat(args.chat)
  chat.refused_at, chat.refused_why = now, args.why
  put_chat(chat)
  return { 'ok' }
end

function operations.heard_from()
  local chat = get_chat(real_chat(args.chat))
  if not chat or chat.refused_at == 0 then return { 0 } end
  local held = holds(chat)
  chat.refused_at = 0
  put_chat(chat)
  return { held and 1 or 0 }
end

function operations.unreachable()
  local listed = redis.call('ZRANGE', prefix .. 'refused', args.first, args.last, 'REV')
  local found = {}
  for _, key in ipairs(listed) do
    local chat = get_chat(key)
    if chat and holds(chat) then found[#found + 1] = { key, chat.refused_why, now - chat.refused_at } end
  end
  return found
end

function operations.unreachable_among()
  local found = {}
  for _, key in ipairs(args.chats) do
    local at = redis.call('ZSCORE', prefix .. 'refused', real_chat(key))
    if at and now - tonumber(at) < rules.unreachable then found[#found + 1] = key end
  end
  return found
end

function operations.not_kept()
  local found = {}
  for _, packed in ipairs(redis.call('LRANGE', prefix .. 'listed', args.first, args.last)) do
    local one = cmsgpack.unpack(packed)
    if not is_over(one) then found[#found + 1] = { one[1], one[2], one[3], now - one[4] } end
  end
  return found
end

function operations.count_dropped()
  redis.call('HINCRBY', prefix .. 'dropped', args.reason, args.letters)
  return { 'ok' }
end

function operations.pause()
  if not args.chat then
    pause_bot(now + args.duration, args.why)
  else
    local chat = open_chat(args.chat)
    pause_chat(chat, now + args.duration, args.why)
    put_chat(chat)
  end
  return { 'ok' }
end

-- Pauses the chat after a 429, and the bot if it is to blame; returns whether it is.
local function flood_wait(key, duration)
  if key then
    local chat = open_chat(key)
    pause_chat(chat, now + duration, '429')
    put_chat(chat)
  end
  local refusals = bot.refusals
  refusals[#refusals + 1] = { key or '', now, args.duration > K.LONG_WAIT_US }
  bot.refusals, bot.dirty = recent_refusals(refusals), true
  local chats_refused = 0
  for _, one in ipairs(bot.refusals) do chats_refused = chats_refused + (one[3] and K.LONG_WAIT_CHATS or 1) end
  if chats_refused < K.EVIDENCE_CHATS then return false end
  if bot.paused_until <= now then
    bot.permille = math.max(K.SLOWEST_PERMILLE, math.floor(permille_now() * K.SLOWER_PERMILLE / 1000))
    bot.slowed_at = now
  end
  pause_bot(now + duration, '429')
  return true
end

function operations.too_many_requests()
  local key, duration = args.chat and real_chat(args.chat), args.duration + K.PAUSE_MARGIN_US
  if args.family == 'typing' then
    pause_typing(key, now + duration)
  elseif flood_wait(key, duration) then
    return { 'bot' }
  end
  slow_down(key, now + duration)
  return { 'chat' }
end

function operations.resume()
  if args.chat then
    local chat = get_chat(real_chat(args.chat))
    if not chat or chat.paused_until <= now then return { 0 } end
    chat.paused_until = 0
    put_chat(chat)
    return { 1 }
  end
  if bot.paused_until <= now and outage_since() == 0 then return { 0 } end
  bot.paused_until, bot.circuit, bot.dirty = 0, nil, true
  for _, paid in ipairs({ false, true }) do
    local pace = pace_of(paid)
    if pace then budget_of(paid).arrival = now + pace.tolerance end
  end
  return { 1 }
end

local function save_alias(key, real)
  redis.call('HSET', prefix .. 'aliases', key, real)
  bot.aliases, bot.dirty = bot.aliases + 1, true
end

local function move_aliases(old_key, new_key)
  local known_aliases = redis.call('HGETALL', prefix .. 'aliases')
  for index = 1, #known_aliases, 2 do
    if known_aliases[index + 1] == old_key then
      redis.call('HSET', prefix .. 'aliases', known_aliases[index], new_key)
    end
  end
end

-- Deletes a few names that expired long ago; this happens whenever another name is confirmed.
local function forget_names()
  local over = string.format('%.0f', now - rules.ledger)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'names', '-inf', over, 'LIMIT', 0, 10)) do
    redis.call('ZREM', prefix .. 'names', name)
    redis.call('HDEL', prefix .. 'aliases', name)
  end
end

local function move_chat(old_key, new_key)
  move_paces(old_key, new_key)
  local old = get_chat(old_key)
  if not old then return end
  local new = get_chat(new_key) or new_chat(new_key, {})
  move_line(old, new, INTERACTIVE)
  move_line(old, new, BULK)
  if old.sending then
    local job = get_job(old.sending)
    if job then
      job.chat = new_key
      put_job(job)
    end
    if not new.sending then
      new.sending, new.sending_since, new.lease_end = old.sending, old.sending_since, old.lease_end
    end
  end
  for _, at in ipairs(old.log) do new.log[#new.log + 1] = at end
  table.sort(new.log)
  new.log = trimmed(new.log, log_size(windows_of(new_key)))
  new.last_place = math.max(old.last_place, new.last_place)
  new.rest_until = math.max(old.rest_until, new.rest_until)
  pause_chat(new, old.paused_until, old.pause_why)
  drop_chat(old)
  put_chat(new)
end

local function resolve(name, real)
  local left = tonumber(redis.call('ZSCORE', prefix .. 'names', name) or 0) - now
  if alias_of(name) == real and left >= K.NAME_US / 2 then return end
  forget_names()
  save_alias(name, real)
  redis.call('ZADD', prefix .. 'names', now + K.NAME_US, name)
  move_chat(name, real)
end

function operations.migrate()
  if is_name(args.old) then
    resolve(args.old, real_chat(args.new))
    return { 'ok' }
  end
  local old_key, new_key = real_chat(args.old), real_chat(args.new)
  if old_key ~= new_key then
    move_aliases(old_key, new_key)
    save_alias(old_key, new_key)
    move_chat(old_key, new_key)
  end
  return { 'ok' }
end

function operations.vouch_idle()
  if bot.granted == 0 then
    bot.born, bot.dirty = 0, true
    bot.free, bot.paid = { log = {}, arrival = 0 }, { log = {}, arrival = 0 }
  end
  return { 'ok' }
end

function operations.waiting()
  return redis.call('HMGET', prefix .. 'counts', INTERACTIVE, BULK)
end

-- How long ago the oldest job that waits in a line joined it. Forgets a few jobs that expired long after they were due.
local function age_of_oldest(priority)
  for _ = 1, 100 do
    local id, place = unpack(redis.call('ZRANGE', oldest_key(priority), 0, 0, 'WITHSCORES'))
    if not id then return false end
    if redis.call('EXISTS', prefix .. 'job:' .. id) == 1 then return now - tonumber(place) end
    redis.call('ZREM', oldest_key(priority), id)
  end
  return false
end

-- How many chats are slowed, by family, and those that recover last.
local function slowed_chats(shown)
  local counts, found = {}, {}
  if bot.slowed_until <= now then return { counts, found } end
  for _, family in ipairs(SLOWABLE) do
    local index, after = prefix .. 'slowed:' .. family, '(' .. string.format('%.0f', now)
    counts[#counts + 1] = redis.call('ZCOUNT', index, after, '+inf')
    for _, key in ipairs(redis.call('ZRANGE', index, '+inf', after, 'BYSCORE', 'REV', 'LIMIT', 0, shown)) do
      local slow = slowed_of(key, family)
      if slow then found[#found + 1] = shown_pace(slow) end
    end
  end
  return { counts, found }
end

function operations.snapshot()
  local second, minute = 0, 0
  for _, at in ipairs(bot.free.log) do
    -- Units from before the bot's birth were not sent: they make a new bot start cautiously.
    if at > math.max(now - K.SECOND, bot.born - 1) then second = second + 1 end
  end
  local age = now - bot.minute
  if age < K.MINUTE then
    minute = bot.this_minute + math.floor(bot.last_minute * (K.MINUTE - age) / K.MINUTE)
  elseif age < 2 * K.MINUTE then
    minute = math.floor(bot.this_minute * (2 * K.MINUTE - age) / K.MINUTE)
  end
  local pauses = {}
  if bot.paused_until > now then pauses[1] = { false, bot.paused_until - now, bot.pause_why } end
  local paused = redis.call('ZRANGE', prefix .. 'pauses', 0, args.shown - 1, 'REV', 'WITHSCORES')
  for index = 1, #paused, 2 do
    local left = tonumber(paused[index + 1]) - now
    local chat = get_chat(paused[index])
    if left > 0 and chat then pauses[#pauses + 1] = { paused[index], left, chat.pause_why } end
  end
  return {
    second, permille_now(), minute,
    redis.call('ZCOUNT', prefix .. 'calls', '(' .. string.format('%.0f', now), '+inf'),
    operations.waiting(),
    pauses,
    redis.call('ZRANGE', prefix .. 'lines', 0, args.shown - 1, 'REV', 'WITHSCORES'),
    redis.call('ZCOUNT', prefix .. 'dead', '-inf', '+inf'),
    redis.call('ZCOUNT', prefix .. 'refused', '(' .. string.format('%.0f', now - rules.unreachable), '+inf'),
    redis.call('HGETALL', prefix .. 'not_kept'), redis.call('HGETALL', prefix .. 'dropped'),
    outage_since() ~= 0 and now - outage_since() or false,
    { age_of_oldest(INTERACTIVE), age_of_oldest(BULK) }, slowed_chats(args.shown),
    bot.rollbacks, bot.rollbacks > 0 and now - bot.rebuilt or false,
  }
end

-- Why a chat waits: explanation.py.

local function heads_of(chat)
  local heads = {}
  for _, priority in ipairs({ INTERACTIVE, BULK }) do
    local length = chat[priority].length
    if length > 0 then heads[priority] = head_of(chat, priority) end
    if chat[priority].length ~= length then put_chat(chat) end -- some had expired
  end
  return heads
end

local function bot_turn(head, ahead, units)
  local paid = head and head.paid
  local pace = pace_of(paid)
  if not pace then return 0 end
  if head then
    local rank = head.rank ~= 0 and head.rank or now + (head.priority == BULK and K.AGING_US or 0)
    ahead = ahead + units_ahead(head, rank, now - K.WAITER_GRACE_US)
  end
  return bot_turn_at(budget_of(paid), pace, slowed_interval(pace, permille_now()), ahead, units, now)
end

local function others(chat, heads, head, ahead, before_head)
  local other = heads[head.priority == INTERACTIVE and BULK or INTERACTIVE]
  if not other then return 0 end
  local turns = other.priority == BULK and math.floor(ahead / K.INTERACTIVE_TURNS) or ahead * K.INTERACTIVE_TURNS
  return math.min(chat[other.priority].units - other.units_before, before_head + turns)
end

local function expected(chat, heads, head, ahead, units)
  if holds(chat) or outage_since() ~= 0 then return false end
  local windows = windows_of(chat.key)
  local start = math.max(now, chat.rest_until, chat.paused_until, bot.paused_until)
  local behind = ahead + others(chat, heads, head, ahead, 0)
  local after_head = turn_at(chat.log, windows, math.max(start, head.due), behind, units)
  ahead = ahead + others(chat, heads, head, ahead, rival_units(chat, head) or 0)
  local turn = turn_at(chat.log, windows, start, ahead, units)
  return math.max(turn, after_head, bot_turn(head, ahead, math.max(1, units))) - now
end

local function is_here(chat, job) return job.chat and real_chat(job.chat) == chat.key end

local function is_behind(chat, heads, job)
  local head = heads[job.priority]
  return (head and head.id ~= job.id) or rival_units(chat, job) ~= nil
end

local function cause(chat, heads, job, slowed)
  local first = heads[INTERACTIVE] or heads[BULK]
  local waits = job and in_line(job) and is_here(chat, job)
  local subject = waits and job or first
  local units = subject and subject.units or 1
  if holds(chat) then return 'unreachable', 'chat' end
  if chat.paused_until > now then return 'pause', 'chat' end
  if chat.sending and chat.lease_end > now then return 'in-flight', 'chat' end
  if waits and is_behind(chat, heads, job) then return 'line', 'chat' end
  if math.max(chat.rest_until, free_at(chat.log, windows_of(chat.key), units)) > now then return 'rate', 'chat' end
  for _, slow in ipairs(slowed) do
    if subject and subject.due > now and slow.next_at == subject.due then return 'rate', 'chat' end
  end
  if bot.paused_until > now then return 'pause', 'bot' end
  if bot_held_until() > now or outage_since() ~= 0 then return 'outage', 'bot' end
  if bot_turn(subject, 0, math.max(1, units)) > now then return 'rate', 'bot' end
  if first and (first.due > now or first.due + K.LATE_US < now) then return 'line', 'chat' end
  return false, false
end

local function line_of(chat, heads, head)
  local line = chat[head.priority]
  local units = line.units - head.units_before
  return {
    head.priority, line.length, units, head.id, now - head.place, math.max(0, head.due - now),
    head.due + K.LATE_US < now and now - head.due or false,
    expected(chat, heads, head, 0, head.units), expected(chat, heads, head, math.max(0, units - 1), 1),
  }
end

local function place_of(chat, heads, job)
  if not job then return { 'none' } end
  local head = heads[job.priority]
  if not in_line(job) or not head or not is_here(chat, job) then return { record(job)[1] } end
  local ahead = job.units_before - head.units_before
  return { job.state, job.priority, ahead, expected(chat, heads, head, ahead, job.units) }
end

function operations.explain()
  local key = real_chat(args.chat)
  local known = get_chat(key)
  local chat = known or new_chat(key, first_log(windows_of(key)))
  local heads, job = heads_of(chat), args.job and get_job(args.job)
  local slowed, paces = {}, {}
  for _, family in ipairs(SLOWABLE) do
    local slow = slowed_of(key, family)
    if slow then slowed[#slowed + 1], paces[#paces + 1] = slow, shown_pace(slow) end
  end
  local why, scope = cause(chat, heads, job, slowed)
  local lines = {}
  for _, priority in ipairs({ INTERACTIVE, BULK }) do
    if heads[priority] then lines[#lines + 1] = line_of(chat, heads, heads[priority]) end
  end
  local free = math.max(chat.rest_until, chat.paused_until, free_at(chat.log, windows_of(key), 1))
  return {
    key, known and 1 or 0, why, scope,
    chat.paused_until - now, chat.pause_why, bot.paused_until - now, bot.pause_why,
    outage_since() ~= 0 and now - outage_since() or false,
    holds(chat) and { chat.refused_why, now - chat.refused_at } or false,
    chat.sending and { chat.sending, now - chat.sending_since, math.max(0, chat.lease_end - now) } or false,
    math.max(0, free - now), math.max(0, bot_held_until() - now, bot_turn(nil, 0, 1) - now),
    lines, args.job and place_of(chat, heads, job) or false, paces,
  }
end

local function carry_out(operation)
  local reply = operations[operation]()
  save()
  return reply
end

-- Discards the changes that an unfinished call made to the tables, so that later calls start from the written state.
local function failed(reason)
  chats, jobs = {}, {}
  open_bot()
  return redis.error_reply(type(reason) == 'table' and reason.err or reason)
end

-- The server's id, which changes when it restarts; nil if the caller may not ask for it.
local function server_id()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%x+)') or nil
end

-- Whether the state is as the caller remembers it, and if not, why. The first to find that it is not begins an epoch.
local function verdict(epoch, writes, identify)
  local server = identify and server_id()
  if epoch == 0 then
    local moved = server and bot.server and bot.server ~= server
    if moved then begin_epoch(0, false) end
    if server and bot.server ~= server then bot.server, bot.dirty = server, true end
    return moved and 'another server' or false
  end
  if created or bot.epoch < epoch or (bot.epoch == epoch and written_before < writes) then
    begin_epoch(epoch, true)
    bot.server = server or bot.server
    return 'behind'
  end
  if server and bot.server ~= server then bot.server, bot.dirty = server, true end -- all is there, as the caller knows
  return bot.epoch > epoch and 'newer' or false
end

args = cjson.decode(ARGV[6])
open_bot()
if bot.v ~= VERSION then return redis.error_reply('SCHEMA ' .. tostring(bot.v)) end
local why = verdict(tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1')
local replies = { {} }
if why then
  save()
else
  for index = 5, #ARGV, 2 do
    args = cjson.decode(ARGV[index + 1])
    local done, reply = pcall(carry_out, ARGV[index])
    replies[#replies + 1] = done and reply or failed(reply)
  end
end
if written then written_before = redis.call('INCR', prefix .. 'writes') end
replies[1] = { bot.epoch, written_before, why }
return replies
