-- KEYS: key.  ARGV: value, lifetime in ms.  SET, also on a server without memory: after a write that it allows, as DEL,
-- it lets a script go on to its end.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
