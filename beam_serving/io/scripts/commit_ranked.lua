-- KEYS: stream, then one result key per record.
-- ARGV: group, consumer, lifetime in ms (0: indefinitely), the fields of a result and how many these are, then by
-- columns: the entry ids in their order, and of each field the values.
-- COMMIT for records that all have results of the same fields. Gives how many were written, as a negative number where
-- the server had no memory for it, or 0 where the consumer does not own every one of them: then nothing is done.
-- include: announce.lua
local stream, group, ttl_ms, fields = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[4])
local records, first = #KEYS - 1, 4 + tonumber(ARGV[4])
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
for part = 2, records + 1, 4000 do redis.call('DEL', unpack(KEYS, part, math.min(part + 3999, records + 1))) end
local result = {}
for field = 1, fields do result[2 * field - 1] = ARGV[4 + field] end
for i = 1, records do
  for field = 1, fields do result[2 * field] = ARGV[first + field * records + i] end
  redis.call('HSET', KEYS[i + 1], unpack(result))
  if ttl_ms ~= '0' then redis.call('PEXPIRE', KEYS[i + 1], ttl_ms) end
end
for part = first + 1, first + records, 4000 do
  local to = math.min(part + 3999, first + records)
  redis.call('XACK', stream, group, unpack(ARGV, part, to))
  redis.call('XDEL', stream, unpack(ARGV, part, to))
end
return announce(stream, KEYS, 2) or (full and -records or records)
