-- KEYS: dead-letter stream.  ARGV: the newest id to look at, most letters, most bytes of a value.  Gives the bytes of what
-- was looked at, and per letter, newest first: its id, and by turns the names, sizes and beginnings of its fields, of
-- which those that hold inputs are left out.
local told = {uri = true, id = true, error = true, cut = true}
local letters, total = {}, 0
for i, row in ipairs(redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])) do
  local flat, fields = row[2], {}
  for j = 1, #flat, 2 do
    total = total + #flat[j] + #flat[j + 1]
    fields[#fields + 1] = flat[j]
    fields[#fields + 1] = #flat[j + 1]
    fields[#fields + 1] = told[flat[j]] and string.sub(flat[j + 1], 1, tonumber(ARGV[3])) or ''
  end
  letters[i] = {row[1], fields}
end
return {total, letters}
