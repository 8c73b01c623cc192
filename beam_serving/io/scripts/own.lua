-- KEYS: who serves a stream and group.  ARGV: owner, whose first line is the name, and lifetime in ms.
-- Takes or renews it; gives the owner where that has another name, else nothing.
local function name(owner) return string.match(owner, '^[^\n]*') end
local owner = redis.call('GET', KEYS[1])
if owner and name(owner) ~= name(ARGV[1]) then return owner end
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
