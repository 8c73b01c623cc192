-- Part of claim.lua and claim_abandoned.lua: of an entry that is too large only what an error result needs leaves
-- Redis, with its bytes and its fields.
local most_bytes, most_fields = tonumber(ARGV[3]), tonumber(ARGV[4])
local known = {uri = true, id = true, image = true, data = true}
local function slim(row)
  if not row or not row[2] then return row end
  local flat, size = row[2], 0
  for _, part in ipairs(flat) do size = size + #part end
  if size <= most_bytes and #flat <= 2 * most_fields then return row end
  local kept = {}
  for i = 1, #flat - 1, 2 do
    if known[flat[i]] and #kept < 64 then
      kept[#kept + 1] = flat[i]
      kept[#kept + 1] = #flat[i + 1] <= 4096 and flat[i + 1] or ''
    end
  end
  return {row[1], kept, size, #flat / 2}
end
