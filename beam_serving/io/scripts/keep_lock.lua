-- KEYS: lock.  ARGV: holder, lifetime in ms.  Renews the lock for whoever holds it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
