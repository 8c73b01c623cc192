-- KEYS: whether a service is ready.  ARGV: what it says, lifetime in ms, its deployment, when that began.
-- Puts it there, also on a server without memory, where no deployment that began later has said something.
local there = redis.call('GET', KEYS[1])
if there then
  local is_json, about = pcall(cjson.decode, there)
  if is_json and type(about) == 'table' and about.deployment ~= ARGV[3] then
    if (tonumber(about.since) or 0) > tonumber(ARGV[4]) then return 0 end
  end
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
