-- KEYS: lock.  ARGV: holder, lifetime in ms.  Takes the lock if it is free, also on a server without memory.
if redis.call('GET', KEYS[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
