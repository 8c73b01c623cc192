-- KEYS: stream.  ARGV: group, consumer.  Removes a consumer that leaves, unless it owns entries: these would be lost.
local own = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if own.err or #own > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
