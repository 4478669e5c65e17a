-- Takes over what was found, and sets aside what could not be read. Times are milliseconds by the engine's clock.
-- KEYS: held, keys, holders, leases, taken, watch, unread.
-- ARGV: holder, all names of this instance with blanks between them, most set aside; then for each push: its place, and the id that it
-- has from now on, or nothing if it could not be read.
-- Returns the ids of those that were taken: others have taken the rest, or who held it is there again. And how many were given up, because too
-- many are set aside.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ours = ' ' .. ARGV[2] .. ' '

-- Its id, its key, its times and the rest, unless it is gone.
local function read(place)
    local value = redis.call('HGET', KEYS[1], place)
    if value then
        local times, id, key = string.match(value, '^%d+ (%d+ %d+ %d+) (%x+) ()')
        return {times = times, id = id, key = string.sub(value, key, key + 15), rest = string.sub(value, key)}
    end
end

local function remove(place, entry)
    redis.call('HDEL', KEYS[1], place)
    redis.call('ZREM', KEYS[3], place)
    redis.call('ZREM', KEYS[7], place)
    if redis.call('HGET', KEYS[2], entry.key) == place then
        redis.call('HDEL', KEYS[2], entry.key)
    end
end

local function count()
    return redis.call('HINCRBY', KEYS[6], 'count', 1)
end

local taken, given_up = {}, 0
for at = 4, #ARGV, 2 do
    local place, id = ARGV[at], ARGV[at + 1]
    local entry, holder = read(place), string.match(place, '^%d+')
    local lease = tonumber(redis.call('ZSCORE', KEYS[4], holder) or 0)
    if entry and (lease <= now or string.find(ours, ' ' .. holder .. ' ', 1, true)) then
        if id ~= '' then
            -- It has another id from now on: whoever held it before finds the former one among those that were taken.
            remove(place, entry)
            redis.call('ZADD', KEYS[5], now, entry.id)
            local new = ARGV[1] .. ':t' .. id
            redis.call('HSET', KEYS[1], new, string.format('%.0f %s %s ', count(), entry.times, id) .. entry.rest)
            redis.call('HSETNX', KEYS[2], entry.key, new)
            redis.call('ZADD', KEYS[3], ARGV[1], new)
            taken[#taken + 1] = id
        elseif not redis.call('ZSCORE', KEYS[7], place) then
            -- Its id stays, so that whoever held it goes on with it as soon as it is there again.
            redis.call('ZREM', KEYS[3], place)
            redis.call('ZADD', KEYS[7], count(), place)
            if redis.call('ZCARD', KEYS[7]) > tonumber(ARGV[3]) then
                local first = redis.call('ZRANGE', KEYS[7], 0, 0)[1]
                local oldest = read(first)
                if oldest then
                    remove(first, oldest)
                    given_up = given_up + 1
                else
                    redis.call('ZREM', KEYS[7], first)
                end
            end
        end
    end
end
return {taken, given_up}
