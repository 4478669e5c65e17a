-- Whether one more token may be taken for dead: in an incident so many are by all instances together.
-- KEYS: deaths. ARGV: instance, its number, version, its deaths with this one, most, milliseconds that they are kept, lane.
local field = ARGV[1] .. ':' .. ARGV[7]
local own, version = tonumber(ARGV[4]), tonumber(ARGV[3])
local all, known = own, -1
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
    local of_version, count = string.match(fields[at + 1], '^(%d+) (%d+)')
    if fields[at] == field then
        known = tonumber(of_version)
    elseif string.match(fields[at], ':(%d+)$') == ARGV[7] then
        all = all + tonumber(count)
    end
end
if all > tonumber(ARGV[5]) then
    return 0
end
if version >= known then
    redis.call('HSET', KEYS[1], field, ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
