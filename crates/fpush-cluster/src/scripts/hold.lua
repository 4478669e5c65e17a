-- Takes note of what an instance holds. Times are milliseconds by the engine's clock.
-- KEYS: held, keys, holders, leases, taken, watch, unread.
-- ARGV: holder, all names of this instance with blanks between them, lease, most held, most taken, milliseconds that taken is kept;
-- then for each change: what, number, key, id, milliseconds until due (-1: none), until given up (-1: never), age, record. Of what is
-- told again (r) the age is not known: which of two came first is seen by when they are given up.
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
        local at, due, give_up, id, key = string.match(value, '^%d+ (%d+) (%d+) (%d+) (%x+) ()')
        local entry = {at = tonumber(at), due = tonumber(due), give_up = tonumber(give_up), id = id}
        entry.key = string.sub(value, key, key + 15)
        return entry
    end
end

local function remove(place, entry)
    entry = entry or read(place)
    if entry then
        redis.call('HDEL', KEYS[1], place)
        redis.call('ZREM', KEYS[3], place)
        redis.call('ZREM', KEYS[7], place)
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

local function is_ours(place)
    return string.find(ours, ' ' .. string.match(place, '^%d+') .. ' ', 1, true)
end

-- Whether nobody may be there who could send it.
local function is_set_aside(place)
    return redis.call('ZSCORE', KEYS[7], place)
end

-- What is acknowledged takes the place of an older one, whose instance need not send it any more.
local function acknowledge(place)
    local entry = read(place)
    if not entry then
        return
    end
    local other_place = redis.call('HGET', KEYS[2], entry.key)
    local other = other_place and other_place ~= place and read(other_place)
    if other and not is_ours(other_place) then
        if other.at > entry.at and not is_set_aside(other_place) then
            finish(entry.id)
            remove(place, entry)
            return
        end
        finish(other.id)
        remove(other_place, other)
    end
    redis.call('HSET', KEYS[2], entry.key, place)
end

local function ends(left)
    left = tonumber(left)
    return left < 0 and 0 or now + left
end

local twice, taken = 0, {}
local function put(first, again)
    local number, key, id = ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local place = ARGV[1] .. ':' .. number
    local before = read(place)
    -- The push that is held for the key. It may be the same one, at another place of ours, or of a process before this one.
    local other_place = redis.call('HGET', KEYS[2], key)
    local other = other_place and read(other_place)
    local is_known = other and other.id == id
    local same = is_known and other or before and before.id == id and before
    if before then
        remove(place, before)
    end
    if is_known then
        remove(other_place, other)
    end
    if is_known or other_place == place then
        other = nil
    end
    if redis.call('ZSCORE', KEYS[5], id) then
        taken[#taken + 1] = number
        return
    end
    if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
        return
    end
    local at = same and same.at or now - tonumber(ARGV[first + 6])
    local due, give_up = ends(ARGV[first + 4]), ends(ARGV[first + 5])
    -- Several instances may have been alone, and hold a push each for the key, which waits for the provider: the newest one is enough.
    -- What waits for its time may still be refused.
    if again and due == 0 and other and other.due == 0 and not is_ours(other_place) then
        local is_older = give_up > 0 and (other.give_up == 0 or other.give_up >= give_up)
        if is_older and not is_set_aside(other_place) then
            finish(id)
            taken[#taken + 1] = number
            return
        end
        finish(other.id)
        remove(other_place, other)
        other = nil
    end
    local head = string.format('%.0f %.0f %.0f %.0f %s ', redis.call('HINCRBY', KEYS[6], 'count', 1), at, due, give_up, id)
    redis.call('HSET', KEYS[1], place, head .. key .. ARGV[first + 7])
    redis.call('ZADD', KEYS[3], ARGV[1], place)
    -- What is told once is for its key when it is acknowledged.
    if is_known or again and not other then
        redis.call('HSET', KEYS[2], key, place)
    end
end

for first = 7, #ARGV, 8 do
    local what, number, key, id = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local place = ARGV[1] .. ':' .. number
    if what == 'p' or what == 'r' then
        put(first, what == 'r')
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
