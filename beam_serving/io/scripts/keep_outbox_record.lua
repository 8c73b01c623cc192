-- Part of commit.lua, for a service whose results become files: appends each to the outbox.
if fields > 0 then
  redis.call('XADD', KEYS[#KEYS], '*', 'entry', id, 'key', key, unpack(ARGV, first, first + fields - 1))
elseif dead_letter ~= 0 then
  -- Without a usable uri there is no result; the reason is the last value of the dead letter.
  redis.call('XADD', KEYS[#KEYS], '*', 'entry', id, 'error', ARGV[at - 1])
end
