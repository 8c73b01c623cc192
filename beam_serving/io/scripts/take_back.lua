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
