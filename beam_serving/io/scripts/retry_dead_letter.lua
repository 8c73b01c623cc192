-- KEYS: stream, its dead-letter stream, where the client looks for the result.  ARGV: id of a dead letter.
-- Puts the request back on its stream as it was sent, removes the letter, and the error that told of its end. Gives the id
-- of the entry; 0 where there is no such letter, -1 where it does not hold the whole request.
-- First of all a write that a server without memory allows: what is moved takes none, and the script goes on to its end.
redis.call('XDEL', KEYS[2], '0-0')
local found = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
-- The reason, or what was cut off, was appended to the fields of the request.
local fields = found[1][2]
local reason = #fields - 1
if reason < 3 or fields[reason] ~= 'error' then return -1 end
local entry = redis.call('XADD', KEYS[1], '*', unpack(fields, 1, reason - 1))
redis.call('XDEL', KEYS[2], ARGV[1])
local request_id = false
for i = 1, reason - 1, 2 do
  if fields[i] == 'id' then request_id = fields[i + 1] end
end
-- Whoever may not look leaves the error there, until the result replaces it.
local result = redis.pcall('HMGET', KEYS[3], 'error', 'id')
if not result.err and result[1] and result[2] == request_id then redis.pcall('DEL', KEYS[3]) end
return entry
