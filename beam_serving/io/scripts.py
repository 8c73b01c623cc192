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
-- ARGV: group, consumer, first id, last id, lifetime in ms (0: for ever), then per record: entry id, number of result
-- fields and values, number of dead-letter fields and values, the former, the latter.
-- Writes the result of every record that the consumer still owns and takes its entry off the stream; gives how many, as
-- a negative number where the server had no memory for it.
local stream, group, ttl_ms = KEYS[1], ARGV[1], ARGV[5]
local records = #KEYS - 2
local owned, full = {}, nil
local pending = redis.pcall('XPENDING', stream, group, ARGV[3], ARGV[4], 1000000, ARGV[2])
if pending.err and not string.find(pending.err, 'NOGROUP') then return pending end
local group_is_gone = pending.err ~= nil
if not group_is_gone then
  for _, row in ipairs(pending) do owned[row[1]] = true end
end
local done, keys, at = {}, {}, 6
for i = 1, records do
  local id, fields, letter = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + fields + letter
  if owned[id] or group_is_gone then
    done[#done + 1] = id
    if fields > 0 then
      local key = KEYS[i + 2]
      keys[#keys + 1] = key
      if full == nil then
        -- The first write of all is one that a server without memory refuses.
        local said = redis.pcall('SET', key, '')
        full = type(said) == 'table' and said.err ~= nil and string.find(said.err, 'OOM') ~= nil
      end
      -- And then one that it allows: after that it lets the script go on to its end, the entries leave the stream, and
      -- a full queue drains instead of standing still.
      redis.call('DEL', key)
      redis.call('HSET', key, unpack(ARGV, first, first + fields - 1))
      if ttl_ms ~= '0' then redis.call('PEXPIRE', key, ttl_ms) end
    end
    if letter > 0 then
      redis.call('XACK', stream, group, id)  -- for the same reason
      redis.call('XADD', KEYS[2], '*', unpack(ARGV, first + fields, at - 1))
    end
    -- row
  end
end
if #done == 0 then return 0 end
if not group_is_gone then
  redis.call('XACK', stream, group, unpack(done))
  redis.call('XDEL', stream, unpack(done))
end
-- Asking once who waits is cheaper than a PUBLISH for each record; whoever subscribes later finds the hash.
if string.find(stream, '{', 1, true) then
  -- With a hash tag it may be a cluster, where who waits may be connected to any node, and only a message gets there.
  for _, key in ipairs(keys) do redis.call('PUBLISH', key, '') end
elseif #keys > 0 then
  local waiting = redis.call('PUBSUB', 'NUMSUB', unpack(keys))
  for i = 1, #waiting, 2 do
    if waiting[i + 1] > 0 then redis.call('PUBLISH', waiting[i], '') end
  end
end
return full and -#done or #done
"""

COMMIT_AND_KEEP = COMMIT.replace(
    "local records = #KEYS - 2", "local records, rows = #KEYS - 3, KEYS[#KEYS]  -- the last key: stream of rows"
).replace(
    "-- row\n",
    """if fields > 0 then
      redis.call('XADD', rows, '*', 'entry', id, 'key', KEYS[i + 2], unpack(ARGV, first, first + fields - 1))
    elseif letter > 0 then
      -- Without a usable uri there is no result; the reason is the last value of the dead letter.
      redis.call('XADD', rows, '*', 'entry', id, 'error', ARGV[at - 1])
    end
""",
)
"""COMMIT that also appends each result to a stream of rows, from which they are written to files (`io/outbox.py`)."""

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
