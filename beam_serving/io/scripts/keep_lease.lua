-- KEYS: stream.  ARGV: group, consumer.  Resets the idle time of all that the consumer still owns.
local ids = {}
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 7000, ARGV[2])) do
  ids[#ids + 1] = row[1]
end
if #ids == 0 then return 0 end
ids[#ids + 1] = 'JUSTID'
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
return #ids - 1
