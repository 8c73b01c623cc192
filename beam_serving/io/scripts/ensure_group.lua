-- KEYS: stream.  ARGV: group.  Gives 1 when the group was made or moved to the start, else 0.
-- First of all a write that a server without memory allows: then it lets the script go on to its end.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if not made.err then return 1 end
if not string.find(made.err, 'BUSYGROUP') then return made end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  -- Old clients make the group at '$', which hides what was queued before: move it while nobody has read.
  if group['name'] == ARGV[1] and group['consumers'] == 0 and not group['entries-read'] then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], '0')
    return 1
  end
end
return 0
