-- Takes note of what an instance holds. Times are milliseconds by the engine's clock.
-- KEYS: held, keys, holders, leases, taken, watch.
-- ARGV: holder, all names of this instance with blanks between them, lease, most held, most taken, milliseconds that taken is kept;
-- then for each change: what, number, key, id, milliseconds until due (-1: none), until given up (-1: never), age, record.
-- Returns how many were delivered that others had taken, and the numbers of those that others have taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ours = ' ' .. ARGV[2] .. ' '
for holder in string.gmatch(ARGV[2], '%d+') do
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[3]), holder)
end

local function read(place)
    local value = redis.call('HGET', KEYS[1], place)
    if value then
        local at, id, key = string.match(value, '^%d+ (%d+) %d+ %d+ (%x+) ()')
        return {at = tonumber(at), id = id, key = string.sub(value, key, key + 15)}
    end
end

local function remove(place, entry)
    entry = entry or read(place)
    if entry then
        redis.call('HDEL', KEYS[1], place)
        redis.call('ZREM', KEYS[3], place)
        if redis.call('HGET', KEYS[2], entry.key) == place then
            redis.call('HDEL', KEYS[2], entry.key)
        end
    end
end

local function finish(id)
    redis.call('ZADD', KEYS[5], now, id)
    local first = redis.call('ZRANGE', KEYS[5], 0, 1, 'WITHSCORES')
    if first[4] and tonumber(first[4]) < now - tonumber(ARGV[6]) then
        redis.call('ZREMRANGEBYRANK', KEYS[5], 0, 1)
    elseif redis.call('ZCARD', KEYS[5]) > tonumber(ARGV[5]) then
        redis.call('ZREMRANGEBYRANK', KEYS[5], 0, 0)
    end
end

-- The push that is held for a key. The same push at another place of ours, or of a process before this one, is the one that comes.
local function held_for(key, id)
    local place = redis.call('HGET', KEYS[2], key)
    local entry = place and read(place)
    if entry and entry.id == id then
        remove(place, entry)
        return
    end
    return place, entry
end

-- What is acknowledged takes the place of an older one, whose instance need not send it any more.
local function acknowledge(place)
    local entry = read(place)
    if not entry then
        return
    end
    local other_place, other = held_for(entry.key)
    if other and other_place ~= place then
        if other.at > entry.at then
            return
        end
        if not string.find(ours, ' ' .. string.match(other_place, '^%d+') .. ' ', 1, true) then
            finish(other.id)
            remove(other_place, other)
        end
    end
    redis.call('HSET', KEYS[2], entry.key, place)
end

local function ends(left)
    left = tonumber(left)
    return left < 0 and 0 or now + left
end

local twice, taken = 0, {}
for first = 7, #ARGV, 8 do
    local what, number, key, id = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local place = ARGV[1] .. ':' .. number
    if what == 'p' then
        local at = now - tonumber(ARGV[first + 6])
        remove(place)
        if redis.call('ZSCORE', KEYS[5], id) then
            taken[#taken + 1] = number
        elseif redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4]) then
            local other = held_for(key, id)
            local head = string.format('%.0f %.0f %.0f %.0f %s ', redis.call('HINCRBY', KEYS[6], 'count', 1), at,
                ends(ARGV[first + 4]), ends(ARGV[first + 5]), id)
            redis.call('HSET', KEYS[1], place, head .. key .. ARGV[first + 7])
            redis.call('ZADD', KEYS[3], ARGV[1], place)
            if not other then
                redis.call('HSET', KEYS[2], key, place)
            end
        end
    elseif what == 'a' then
        acknowledge(place)
    elseif what == 'g' then
        remove(place)
    elseif what == 't' then
        remove(ARGV[1] .. ':t' .. id)
    elseif what == 'd' then
        if redis.call('ZSCORE', KEYS[5], id) then
            twice = twice + 1
        else
            local held = redis.call('HGET', KEYS[2], key)
            local entry = held and read(held)
            if entry and entry.id == id then
                remove(held, entry)
            end
        end
    end
end
return {twice, taken}
