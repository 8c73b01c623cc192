-- KEYS: whether a service is ready.  ARGV: a deployment.
-- Takes away what that one has said; what another one says stays.
local there = redis.call('GET', KEYS[1])
if not there then return 0 end
local is_json, about = pcall(cjson.decode, there)
if is_json and type(about) == 'table' and about.deployment and about.deployment ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
