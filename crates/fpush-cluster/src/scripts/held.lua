-- What the scripts about held pushes begin with. Times are milliseconds by the engine's clock.
-- KEYS: held, keys, holders, leases, taken, watch, unread, delivered. ARGV: holder, all names of this instance with blanks between them,
-- most taken, milliseconds that taken and delivered are kept, and from the fifth on what each script says.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ours = ' ' .. ARGV[2] .. ' '

-- The push that is held at a place, if there is one.
local function read(place)
    local value = redis.call('HGET', KEYS[1], place)
    if value then
        local at, due, give_up, id, key = string.match(value, '^%d+ (%d+) (%d+) (%d+) (%x+) ()')
        local entry = {at = tonumber(at), due = tonumber(due), give_up = tonumber(give_up), id = id}
        entry.key, entry.record = string.sub(value, key, key + 15), string.sub(value, key + 16)
        return entry
    end
end

local function count()
    return redis.call('HINCRBY', KEYS[6], 'count', 1)
end

-- Puts a push at a place of this holder.
local function write(place, entry)
    local head = string.format('%.0f %.0f %.0f %.0f %s ', count(), entry.at, entry.due, entry.give_up, entry.id)
    redis.call('HSET', KEYS[1], place, head .. entry.key .. entry.record)
    redis.call('ZADD', KEYS[3], ARGV[1], place)
end

local function remove(place, entry)
    redis.call('HDEL', KEYS[1], place)
    redis.call('ZREM', KEYS[3], place)
    redis.call('ZREM', KEYS[7], place)
    if redis.call('HGET', KEYS[2], entry.key) == place then
        redis.call('HDEL', KEYS[2], entry.key)
    end
end

-- Whether nobody may be there who could send it.
local function is_set_aside(place)
    return redis.call('ZSCORE', KEYS[7], place)
end

-- Whether a push for this key was delivered after that time.
local function was_woken_after(key, at)
    return tonumber(redis.call('ZSCORE', KEYS[8], key) or 0) > at
end

local function is_ours(place)
    return string.find(ours, ' ' .. string.match(place, '^%d+') .. ' ', 1, true)
end

-- Takes out a little of what is too old, or the oldest where there is no room.
local function trim(key, most)
    local first = redis.call('ZRANGE', key, 0, 1, 'WITHSCORES')
    if first[4] and tonumber(first[4]) < now - tonumber(ARGV[4]) then
        redis.call('ZREMRANGEBYRANK', key, 0, 1)
    elseif redis.call('ZCARD', key) > tonumber(most) then
        redis.call('ZREMRANGEBYRANK', key, 0, 0)
    end
end

-- The instance that holds this push need not send it any more, and finds that out when it asks.
local function finish(id)
    redis.call('ZADD', KEYS[5], now, id)
    trim(KEYS[5], ARGV[3])
end

-- Another one is held for the same key, at another instance, and one of the two is enough: the newer one, and of two that came in the
-- same millisecond the one that was held for the key before. What is set aside goes. Returns whether this one stays; if so,
-- the other one is gone.
local function displaces(entry, other_place, other)
    if other.at >= entry.at and not is_set_aside(other_place) then
        return false
    end
    finish(other.id)
    remove(other_place, other)
    return true
end
