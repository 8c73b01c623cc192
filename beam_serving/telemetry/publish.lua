-- KEYS: worker, workers.  ARGV: its numbers, lifetime in ms, its id.
-- Publishes them, also on a server without memory: see transport/put.lua.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
return 1
