-- KEYS: stream, dead-letter stream, one result key per record, and where results become files the outbox.
-- ARGV: group, consumer, first id, last id, lifetime in ms (0: indefinitely), most dead letters, most bytes of these,
-- most bytes of one, then per record: entry id, number of result fields and values, number of dead-letter fields and
-- values (-1: those of the entry and the reason, which follows), the former, the latter.
-- Writes the result of every record that the consumer still owns and takes its entry off the stream; gives how many, as
-- a negative number where the server had no memory for it. Where dead letters were dropped it gives a list: that
-- number, how many, and the error, if one is why.
local stream, group, ttl_ms = KEYS[1], ARGV[1], ARGV[5]
local most_dead, most_bytes, most_bytes_each = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
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

-- include: announce.lua
local function error_of(reply) return type(reply) == 'table' and reply.err or nil end

local function is_refused(err)
  return string.find(err, 'has no permissions to', 1, true) or string.find(err, "can't ", 1, true)
end

-- Keeps what a request had, cut to size, as the newest dead letter, and drops the oldest ones beyond the bounds. The
-- second part of its id counts the bytes of all up to it: two ids tell what lies between them. Gives the
-- error where the user may not do so.
local function bury(fields, reason)
  local dead_letter, bytes, cut = {}, 0, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local room = i < 512 and math.max(most_bytes_each - bytes, 0) or 0
    if room == 0 then
      cut = cut + #name + #value
    else
      local kept_name, kept = string.sub(name, 1, 256), string.sub(value, 1, room)
      cut = cut + #name + #value - #kept_name - #kept
      bytes = bytes + #kept_name + #kept
      dead_letter[#dead_letter + 1], dead_letter[#dead_letter + 2] = kept_name, kept
    end
  end
  dead_letter[#dead_letter + 1], dead_letter[#dead_letter + 2] = 'error', reason
  if cut > 0 then
    dead_letter[#dead_letter + 1], dead_letter[#dead_letter + 2] = 'cut', cut .. ' bytes of the request are left out'
  end
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
  local err = error_of(redis.pcall('XADD', KEYS[2], 'MAXLEN', most_dead, id, unpack(dead_letter)))
  if err then
    -- No record is worth the service: where the stream takes no dead letters (its last id is the last of all, it is of
    -- another type), this one is lost, and counted.
    dropped, lost = dropped + 1, err
    return is_refused(err) and err or nil
  end
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
  while oldest[1][1] ~= id do
    local from = tonumber(string.match(oldest[1][1], '-(%d+)$'))
    if from <= total and total - from <= most_bytes - most_bytes_each then break end
    redis.call('XDEL', KEYS[2], oldest[1][1])
    oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
  end
  dropped = dropped + before + 1 - redis.call('XLEN', KEYS[2])
end

local done, keys, at, record = {}, {}, 9, 0
while at <= #ARGV do
  record = record + 1
  local id, fields, dead_letter = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + fields + (dead_letter < 0 and 1 or dead_letter)
  if owned[id] or group_is_gone then
    done[#done + 1] = id
    local key = KEYS[record + 2]
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
    if dead_letter ~= 0 then
      local held = {}
      if dead_letter < 0 then
        local entry = redis.call('XRANGE', stream, id, id)
        held = #entry > 0 and entry[1][2] or held
      else
        for j = first + fields, at - 3 do held[#held + 1] = ARGV[j] end
      end
      local refusal = bury(held, ARGV[at - 1])
      if refusal then return redis.error_reply(refusal) end
    end
    -- include: keep_outbox_record.lua
  end
end
if #done == 0 then return 0 end
if not group_is_gone then
  in_parts(done, function(...) redis.call('XACK', stream, group, ...) end)
  in_parts(done, function(...) redis.call('XDEL', stream, ...) end)
end
local unheard = announce(stream, keys, 1)
if unheard then return unheard end
local written = full and -#done or #done
if dropped == 0 then return written end
return {written, dropped, lost}
