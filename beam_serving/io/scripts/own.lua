-- KEYS: who serves a stream and group.  ARGV: owner, whose first line is the name, and lifetime in ms.
-- Takes or renews it; gives the owner where that has another name, else nothing. The last line, the model, stays where
-- it is empty: workers know a private copy of that by another name.
local function name(owner) return string.match(owner, '^[^\n]*') end
local owner = redis.call('GET', KEYS[1])
if owner and name(owner) ~= name(ARGV[1]) then return owner end
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('DEL', KEYS[1])
local taken = ARGV[1]
if owner and string.match(taken, '\n$') then taken = taken .. string.match(owner, '[^\n]*$') end
redis.call('SET', KEYS[1], taken, 'PX', ARGV[2])
return false
