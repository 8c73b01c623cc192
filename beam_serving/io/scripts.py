"""The Lua scripts that run inside Redis: what must happen at once or not at all.

A script is atomic as MULTI/EXEC is, and can decide by what it reads: a result is written only for whoever still owns
the entry.
"""

ENSURE_GROUP = """
-- KEYS: stream.  ARGV: group.  Gives 1 when the group was made or moved to the start, else 0.
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if not made.err then return 1 end
if not string.find(made.err, 'BUSYGROUP') then return made end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  -- Old clients make the group at '$', which hides what was queued before: move it while nobody has read.
  if group['name'] == ARGV[1] and group['consumers'] == 0 and not group['entries-read'] then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], '0')
    return 1
  end
end
return 0
"""

KEEP_LEASE = """
-- KEYS: stream.  ARGV: group, consumer.  Resets the idle time of all that the consumer still owns.
local ids = {}
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 7000, ARGV[2])) do
  ids[#ids + 1] = row[1]
end
if #ids == 0 then return 0 end
ids[#ids + 1] = 'JUSTID'
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
return #ids - 1
"""

_SLIM = """
local most_bytes, most_fields = tonumber(ARGV[3]), tonumber(ARGV[4])
local known = {uri = true, id = true, image = true, data = true}
local function slim(row)
  if not row or not row[2] then return row end
  local flat, size = row[2], 0
  for _, part in ipairs(flat) do size = size + #part end
  if size <= most_bytes and #flat <= 2 * most_fields then return row end
  local kept = {}
  for i = 1, #flat - 1, 2 do
    if known[flat[i]] and #kept < 64 then
      kept[#kept + 1] = flat[i]
      kept[#kept + 1] = #flat[i + 1] <= 4096 and flat[i + 1] or ''
    end
  end
  return {row[1], kept, size, #flat / 2}
end
"""
"""Of an entry that is too large only what an error result needs leaves Redis, with its bytes and its fields."""

CLAIM = f"""
-- KEYS: stream.  ARGV: group, consumer, most bytes, most fields, id.  Claims one entry and gives it, or what it weighs.
{_SLIM}
local rows = {{}}
for i, row in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[5])) do rows[i] = slim(row) end
return rows
"""

CLAIM_ABANDONED = f"""
-- KEYS: stream.  ARGV: group, consumer, most bytes, most fields, idle limit in ms, cursor.  Does so with an entry
-- of any consumer; gives the next cursor, the entry, and the ids of those that were trimmed.
{_SLIM}
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[5], ARGV[6], 'COUNT', 1)
for i, row in ipairs(reply[2]) do reply[2][i] = slim(row) end
return reply
"""

TAKE_BACK = """
-- KEYS: stream.  ARGV: group, consumer.  What was delivered to the consumer once counts as not delivered: it was never
-- read.  Gives how many.
local unread = 0
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 7000, ARGV[2])) do
  if row[4] == 1 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, row[1], 'RETRYCOUNT', 0, 'JUSTID')
    unread = unread + 1
  end
end
return unread
"""

REAP_CONSUMERS = """
-- KEYS: stream.  ARGV: group, idle limit in ms.  Removes consumers that are gone and own nothing.
local reaped = 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #info, 2 do consumer[info[i]] = info[i + 1] end
  if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    reaped = reaped + 1
  end
end
return reaped
"""

RELEASE_CONSUMER = """
-- KEYS: stream.  ARGV: group, consumer.  Removes a consumer that leaves, unless it owns entries: these would be lost.
local own = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if own.err or #own > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

COMMIT = """
-- KEYS: stream, dead-letter stream, then one result key per record.
-- ARGV: group, consumer, first id, last id, lifetime in ms (0: indefinitely), most dead letters, most bytes of these,
-- most bytes of one, then per record: entry id, number of result fields and values, number of dead-letter fields and
-- values (-1: those of the entry and the reason, which follows), the former, the latter.
-- Writes the result of every record that the consumer still owns and takes its entry off the stream; gives how many, as
-- a negative number where the server had no memory for it. Where dead letters were dropped it gives a list: that
-- number, how many, and the error, if one is why.
local stream, group, ttl_ms = KEYS[1], ARGV[1], ARGV[5]
local most_letters, most_bytes, letter_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local records = #KEYS - 2
local own = 'cluster-serving_' .. stream .. ':'
local owned, full = {}, nil
local dropped, lost = 0, ''
local pending = redis.pcall('XPENDING', stream, group, ARGV[3], ARGV[4], 1000000, ARGV[2])
if pending.err and not string.find(pending.err, 'NOGROUP') then return pending end
local group_is_gone = pending.err ~= nil
if not group_is_gone then
  for _, row in ipairs(pending) do owned[row[1]] = true end
end

-- Lua hands at most some 8000 values to a call.
local function in_parts(list, call)
  for first = 1, #list, 4000 do call(unpack(list, first, math.min(first + 3999, #list))) end
end

local function error_of(said) return type(said) == 'table' and said.err or nil end

local function is_refused(err)
  return string.find(err, 'has no permissions to', 1, true) or string.find(err, "can't ", 1, true)
end

-- Keeps what a request had, cut to size, as the newest dead letter, and drops the oldest ones beyond the bounds. The
-- second part of a letter's id counts the bytes of all letters up to it: two ids tell what lies between them. Gives the
-- error where the user may not do so.
local function bury(fields, reason)
  local letter, bytes, cut = {}, 0, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local room = i < 512 and math.max(letter_bytes - bytes, 0) or 0
    if room == 0 then
      cut = cut + #name + #value
    else
      local kept_name, kept = string.sub(name, 1, 256), string.sub(value, 1, room)
      cut = cut + #name + #value - #kept_name - #kept
      bytes = bytes + #kept_name + #kept
      letter[#letter + 1], letter[#letter + 2] = kept_name, kept
    end
  end
  letter[#letter + 1], letter[#letter + 2] = 'error', reason
  if cut > 0 then letter[#letter + 1], letter[#letter + 2] = 'cut', cut .. ' bytes of the request are left out' end
  local before, last_ms, total = 0, 0, 0
  local about = redis.pcall('XINFO', 'STREAM', KEYS[2])
  if about.err then
    if is_refused(about.err) then return about.err end
  else
    for i = 1, #about, 2 do
      if about[i] == 'length' then before = about[i + 1] end
      if about[i] == 'last-generated-id' then
        local ms, number = string.match(about[i + 1], '^(%d+)-(%d+)$')
        last_ms, total = tonumber(ms), tonumber(number)
      end
    end
  end
  local now = redis.call('TIME')
  local ms = math.max(now[1] * 1000 + math.floor(now[2] / 1000), last_ms)
  total = total + bytes + #reason
  redis.call('XACK', stream, group, '0-0')  -- a write that is allowed without memory; see below
  local id = string.format('%.0f-%.0f', ms, total)
  local err = error_of(redis.pcall('XADD', KEYS[2], 'MAXLEN', most_letters, id, unpack(letter)))
  if err then
    -- No record is worth the service: where the stream takes no letters (its last id is the last of all, it is of
    -- another type), this one is lost, and counted.
    dropped, lost = dropped + 1, err
    return is_refused(err) and err or nil
  end
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
  while oldest[1][1] ~= id do
    local from = tonumber(string.match(oldest[1][1], '-(%d+)$'))
    if from <= total and total - from <= most_bytes - letter_bytes then break end
    redis.call('XDEL', KEYS[2], oldest[1][1])
    oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
  end
  dropped = dropped + before + 1 - redis.call('XLEN', KEYS[2])
end

local done, keys, at = {}, {}, 9
for i = 1, records do
  local id, fields, letter = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + fields + (letter < 0 and 1 or letter)
  if owned[id] or group_is_gone then
    done[#done + 1] = id
    local key = KEYS[i + 2]
    if fields > 0 then
      keys[#keys + 1] = key
      if full == nil then
        -- The first write of all is one that a server without memory refuses.
        local err = error_of(redis.pcall('SET', key, ''))
        full = err ~= nil and string.find(err, 'OOM') ~= nil
      end
      -- And then one that it allows: after that it lets the script go on to its end, the entries leave the stream, and
      -- a full queue drains instead of standing still.
      redis.call('DEL', key)
      for part = first, first + fields - 1, 4000 do
        redis.call('HSET', key, unpack(ARGV, part, math.min(part + 3999, first + fields - 1)))
      end
      if ttl_ms ~= '0' then redis.call('PEXPIRE', key, ttl_ms) end
    end
    if letter ~= 0 then
      local held = {}
      if letter < 0 then
        local entry = redis.call('XRANGE', stream, id, id)
        held = #entry > 0 and entry[1][2] or held
      else
        for j = first + fields, at - 3 do held[#held + 1] = ARGV[j] end
      end
      local refusal = bury(held, ARGV[at - 1])
      if refusal then return redis.error_reply(refusal) end
    end
    -- row
  end
end
if #done == 0 then return 0 end
if not group_is_gone then
  in_parts(done, function(...) redis.call('XACK', stream, group, ...) end)
  in_parts(done, function(...) redis.call('XDEL', stream, ...) end)
end
-- Asking once who waits is cheaper than a PUBLISH for each record; whoever subscribes later finds the hash.
local unheard = nil
local function tell(key)
  local said = redis.pcall('PUBLISH', key, '')
  if error_of(said) and string.sub(key, 1, #own) == own then unheard = said end
end
if string.find(stream, '{', 1, true) then
  -- With a hash tag it may be a cluster, where who waits may be connected to any node, and only a message gets there.
  for _, key in ipairs(keys) do tell(key) end
else
  in_parts(keys, function(...)
    local waiting = redis.call('PUBSUB', 'NUMSUB', ...)
    for i = 1, #waiting, 2 do
      if waiting[i + 1] > 0 then tell(waiting[i]) end
    end
  end)
end
if unheard then return unheard end
local written = full and -#done or #done
if dropped == 0 then return written end
return {written, dropped, lost}
"""

COMMIT_AND_KEEP = COMMIT.replace(
    "local records = #KEYS - 2", "local records, rows = #KEYS - 3, KEYS[#KEYS]  -- the last key: stream of rows"
).replace(
    "-- row\n",
    """if fields > 0 then
      redis.call('XADD', rows, '*', 'entry', id, 'key', key, unpack(ARGV, first, first + fields - 1))
    elseif letter ~= 0 then
      -- Without a usable uri there is no result; the reason is the last value of the dead letter.
      redis.call('XADD', rows, '*', 'entry', id, 'error', ARGV[at - 1])
    end
""",
)
"""COMMIT that also appends each result to a stream of rows, from which they are written to files (`io/outbox.py`)."""

COMMIT_RANKED = """
-- KEYS: stream, then one result key per record.
-- ARGV: group, consumer, lifetime in ms (0: indefinitely), the fields of a result and how many these are, then by
-- columns: the entry ids in their order, and of each field the values.
-- COMMIT for records that all have results of the same fields. Gives how many were written, as a negative number where
-- the server had no memory for it, or 0 where the consumer does not own every one of them: then nothing is done.
local stream, group, ttl_ms, fields = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[4])
local call, records, first = redis.call, #KEYS - 1, 4 + tonumber(ARGV[4])
-- Between our first and last entry there may be others of this consumer, which are served by themselves.
local most = 2 * records + 64
local pending = redis.pcall('XPENDING', stream, group, ARGV[first + 1], ARGV[first + records], most, ARGV[2])
if pending.err or #pending < records then return 0 end
local at = 1
for i = 1, #pending do
  if pending[i][1] == ARGV[first + at] then
    at = at + 1
    if at > records then break end
  end
end
if at <= records then return 0 end
-- The first write of all is one that a server without memory refuses, and the next one that it allows: see COMMIT.
local full = redis.pcall('SET', KEYS[2], '')
full = type(full) == 'table' and full.err ~= nil and string.find(full.err, 'OOM') ~= nil
for part = 2, records + 1, 4000 do call('DEL', unpack(KEYS, part, math.min(part + 3999, records + 1))) end
for i = 1, records do
  local key, result = KEYS[i + 1], {}
  for field = 1, fields do
    result[2 * field - 1], result[2 * field] = ARGV[4 + field], ARGV[first + field * records + i]
  end
  call('HSET', key, unpack(result))
  if ttl_ms ~= '0' then call('PEXPIRE', key, ttl_ms) end
end
for part = first + 1, first + records, 4000 do
  local to = math.min(part + 3999, first + records)
  call('XACK', stream, group, unpack(ARGV, part, to))
  call('XDEL', stream, unpack(ARGV, part, to))
end
if string.find(stream, '{', 1, true) then
  for i = 2, records + 1 do call('PUBLISH', KEYS[i], '') end
else
  for part = 2, records + 1, 4000 do
    local waiting = call('PUBSUB', 'NUMSUB', unpack(KEYS, part, math.min(part + 3999, records + 1)))
    for i = 1, #waiting, 2 do
      if waiting[i + 1] > 0 then call('PUBLISH', waiting[i], '') end
    end
  end
end
return full and -records or records
"""

FORGET_ROWS = """
-- KEYS: stream of rows.  ARGV: id of a row.  Removes the rows up to this one, and the stream with its last row.
local ms, number = string.match(ARGV[1], '^(%d+)-(%d+)$')
local forgotten = redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', number + 1))
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return forgotten
"""

KEEP_LOCK = """
-- KEYS: lock.  ARGV: holder, lifetime in ms.  Renews the lock for whoever holds it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

TAKE_LOCK = """
-- KEYS: lock.  ARGV: holder, lifetime in ms.  Takes the lock if it is free, also on a server without memory.
if redis.call('GET', KEYS[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

RELEASE_LOCK = """
-- KEYS: lock.  ARGV: holder.  Removes the lock if it is still the holder's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

OWN = """
-- KEYS: who serves a stream and group.  ARGV: owner, whose first line is the name, and lifetime in ms.
-- Takes or renews it; gives the owner where that has another name, else nothing.
local function name(owner) return string.match(owner, '^[^\\n]*') end
local owner = redis.call('GET', KEYS[1])
if owner and name(owner) ~= name(ARGV[1]) then return owner end
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""

DISOWN = """
-- KEYS: who serves a stream and group.  ARGV: name.  Gives it up for a service of which nobody works any more; what a
-- start has taken, whose second line is empty until its workers are there, stays.
local owner = redis.call('GET', KEYS[1])
if not owner then return 0 end
local name, run = string.match(owner, '^([^\\n]*)\\n([^\\n]*)')
if name ~= ARGV[1] or run == '' then return 0 end
return redis.call('DEL', KEYS[1])
"""
