-- KEYS: outbox.  ARGV: id of a record.  Removes the records up to this one, and the stream with its last.
local ms, number = string.match(ARGV[1], '^(%d+)-(%d+)$')
local forgotten = redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', number + 1))
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return forgotten
