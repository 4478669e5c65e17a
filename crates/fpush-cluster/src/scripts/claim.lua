-- What all instances say to one push. Times are milliseconds by the engine's clock.
-- KEYS: windows, queued, silences, blocks, pause, alive, held, keys, taken.
-- ARGV: slot, token, window, wish (0 send, 1 hold, 2 send what is held), hold, what a dead token means (0 that nothing is sent,
-- 1 nothing, 2 that one is sent an hour), call, grace, most, our number,
-- milliseconds after which an instance is gone, all names under which this one holds, id.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Adds to a set of ends in this unit, and takes out a little of what is over, or what is over next where there is no room.
local function add(key, member, score, unit)
    redis.call('ZADD', key, score, member)
    local first = redis.call('ZRANGE', key, 0, 1, 'WITHSCORES')
    if first[4] and tonumber(first[4]) <= now * unit then
        redis.call('ZREMRANGEBYRANK', key, 0, 1)
    elseif redis.call('ZCARD', key) > tonumber(ARGV[9]) then
        redis.call('ZREMRANGEBYRANK', key, 0, 0)
    end
end

-- Another instance has taken it over, or has sent one for its key.
if ARGV[4] == '2' and redis.call('ZSCORE', KEYS[9], ARGV[13]) then
    return {5}
end
local block = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[2]) or 0)
local reason = block % 4
local until_ = (block - reason) / 4
if until_ > now and not (reason == 0 and ARGV[6] == '1') then
    -- A member of its own. A little less than an hour, by which the others' clocks may be ahead.
    local asked = ARGV[2] .. 'a'
    if reason ~= 0 or ARGV[6] ~= '2' or tonumber(redis.call('ZSCORE', KEYS[1], asked) or 0) > now then
        return {3, until_ - now, reason}
    end
    add(KEYS[1], asked, now + 3590000, 1)
end
local pause = tonumber(redis.call('GET', KEYS[5]) or 0)
if pause > now then
    return {4, pause - now}
end

local wish = ARGV[4]
local due = math.max(
    tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0),
    tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0))
if wish == '1' then
    due = math.max(due, now + tonumber(ARGV[5]))
end
-- What is queued is an end and the number of who holds it. One that is gone may hold nothing any more; one that asks holds
-- nothing that it does not know.
if wish ~= '2' then
    local mark = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
    local owner = mark % 1024
    if mark > now * 1024 and owner ~= tonumber(ARGV[10]) then
        local seen = tonumber(redis.call('ZSCORE', KEYS[6], owner) or 0)
        if seen > now - tonumber(ARGV[11]) then
            return {2}
        end
    end
end
if due > now then
    if ARGV[7] ~= '1' then
        add(KEYS[2], ARGV[1], (due + tonumber(ARGV[8])) * 1024 + tonumber(ARGV[10]), 1024)
        redis.call('ZADD', KEYS[6], now, ARGV[10])
    end
    return {1, due - now}
end
if wish == '2' then
    redis.call('ZREM', KEYS[2], ARGV[1])
end
-- What another instance holds for the key, by its count there, if one does.
local covers, place = 0, redis.call('HGET', KEYS[8], ARGV[1])
if place and not string.find(' ' .. ARGV[12] .. ' ', ' ' .. string.match(place, '^%d+') .. ' ', 1, true) then
    local value = redis.call('HGET', KEYS[7], place)
    covers = value and tonumber(string.match(value, '^%d+')) or 0
end
local window = tonumber(ARGV[3])
if window == 0 then
    return {0, 0, covers}
end
add(KEYS[1], ARGV[1], now + window, 1)
return {0, now + window, covers}
