-- Tells who waits for the results at these keys, from the first of them on; whoever subscribes later finds the hash.
-- Gives the error where the user may not tell of a key of ours; those of other protocols depend on the request.
local function announce(stream, keys, first)
  local own, unheard = 'cluster-serving_' .. stream .. ':', nil
  local function tell(key)
    local reply = redis.pcall('PUBLISH', key, '')
    if type(reply) == 'table' and reply.err and string.sub(key, 1, #own) == own then unheard = reply end
  end
  if string.find(stream, '{', 1, true) then
    -- With a hash tag it may be a cluster, where who waits may be connected to any node, and only a message gets there.
    for i = first, #keys do tell(keys[i]) end
    return unheard
  end
  -- Asking once who waits is cheaper than a PUBLISH for each record.
  for part = first, #keys, 4000 do
    local waiting = redis.call('PUBSUB', 'NUMSUB', unpack(keys, part, math.min(part + 3999, #keys)))
    for i = 1, #waiting, 2 do
      if waiting[i + 1] > 0 then tell(waiting[i]) end
    end
  end
  return unheard
end
