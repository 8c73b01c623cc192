-- KEYS: who serves a stream and group.  ARGV: name.  Gives it up for a service of which nobody works any more; what a
-- start has taken, whose second line is empty until its workers are there, stays.
local owner = redis.call('GET', KEYS[1])
if not owner then return 0 end
local name, run = string.match(owner, '^([^\n]*)\n([^\n]*)')
if name ~= ARGV[1] or run == '' then return 0 end
return redis.call('DEL', KEYS[1])
