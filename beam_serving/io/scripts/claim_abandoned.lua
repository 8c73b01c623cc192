-- KEYS: stream.  ARGV: group, consumer, most bytes, most fields, idle limit in ms, cursor.  Does so with an entry
-- of any consumer; gives the next cursor, the entry, and the ids of those that were trimmed.
-- include: slim.lua
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[5], ARGV[6], 'COUNT', 1)
for i, row in ipairs(reply[2]) do reply[2][i] = slim(row) end
return reply
