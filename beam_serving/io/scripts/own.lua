-- KEYS: who serves a stream and group.  ARGV: owner, whose first line is the name, lifetime in ms, whether it serves.
-- Takes or renews it; gives the owner where that has another name, else nothing. The last line, the model, is that of who
-- serves: it stays as it was where the new one does not serve yet, or does not say it.
local function name(owner) return string.match(owner, '^[^\n]*') end
local owner = redis.call('GET', KEYS[1])
if owner and name(owner) ~= name(ARGV[1]) then return owner end
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('DEL', KEYS[1])
local model = string.match(ARGV[1], '\n([^\n]*)$') or ''
local taken = string.sub(ARGV[1], 1, #ARGV[1] - #model)
local before = owner and string.match(owner, '\n([^\n]*)$') or ''
if before ~= '' and (model == '' or ARGV[3] == '0') then model = before end
redis.call('SET', KEYS[1], taken .. model, 'PX', ARGV[2])
return false
