-- KEYS: stream.  ARGV: group, consumer, most bytes, most fields, id.  Claims one entry and gives it, or what it weighs.
-- include: slim.lua
local rows = {}
for i, row in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[5])) do rows[i] = slim(row) end
return rows
