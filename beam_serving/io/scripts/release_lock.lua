-- KEYS: lock.  ARGV: holder.  Removes the lock if it is still the holder's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
