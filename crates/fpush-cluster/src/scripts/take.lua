-- Says that an instance is there, clears away what is left under its former names, and gives it what instances held that are
-- gone. Times are milliseconds by the engine's clock.
-- KEYS: held, keys, holders, leases, taken, watch.
-- ARGV: holder, all names of this instance with blanks between them, lease, milliseconds after which nobody was here, for how
-- long nobody is gone after that, milliseconds that keys are kept, 1 if former names are cleared, how many at a time; then an id
-- for each push that it takes.
-- Returns the former names of which nothing is left, whether there is more, and for each push: its id, its key, whether its instance was
-- stopped in order, milliseconds until it is due (-1: none) and given up (-1: never), its record.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- While the engine was away nobody could say that he is there.
local watch = redis.call('HMGET', KEYS[6], 'seen', 'quiet')
local quiet = tonumber(watch[2] or 0)
if watch[1] and now - tonumber(watch[1]) > tonumber(ARGV[4]) then
    quiet = now + tonumber(ARGV[5])
end
redis.call('HSET', KEYS[6], 'seen', string.format('%.0f', now), 'quiet', string.format('%.0f', quiet))
for holder in string.gmatch(ARGV[2], '%d+') do
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[3]), holder)
end
for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[6])
end

local function remove(place)
    local value = redis.call('HGET', KEYS[1], place)
    redis.call('ZREM', KEYS[3], place)
    if not value then
        return
    end
    redis.call('HDEL', KEYS[1], place)
    local at, due, give_up, id, key = string.match(value, '^%d+ (%d+) (%d+) (%d+) (%x+) ()')
    local entry = {at = at, due = tonumber(due), give_up = tonumber(give_up), id = id}
    entry.key, entry.record = string.sub(value, key, key + 15), string.sub(value, key + 16)
    if redis.call('HGET', KEYS[2], entry.key) == place then
        redis.call('HDEL', KEYS[2], entry.key)
    end
    return entry
end

local function left(time_)
    return time_ == 0 and -1 or math.max(time_ - now, 0)
end

-- It has another id from now on: whoever held it before finds the former one among those that were taken.
local taken, next_id = {}, 9
local function take(place, stopped)
    local entry = remove(place)
    if not entry then
        return
    end
    redis.call('ZADD', KEYS[5], now, entry.id)
    local id = ARGV[next_id]
    next_id = next_id + 1
    local head = string.format('%.0f %s %.0f %.0f %s ', redis.call('HINCRBY', KEYS[6], 'count', 1), entry.at, entry.due,
        entry.give_up, id)
    local new = ARGV[1] .. ':t' .. id
    redis.call('HSET', KEYS[1], new, head .. entry.key .. entry.record)
    redis.call('HSETNX', KEYS[2], entry.key, new)
    redis.call('ZADD', KEYS[3], ARGV[1], new)
    taken[#taken + 1] = {id, entry.key, stopped, left(entry.due), left(entry.give_up), entry.record}
end

local cleared, more = {}, 0
local function places(holder, most)
    return redis.call('ZRANGEBYSCORE', KEYS[3], holder, holder, 'LIMIT', 0, most)
end
if ARGV[7] == '1' then
    for holder in string.gmatch(ARGV[2], '%d+') do
        if holder ~= ARGV[1] then
            local found = places(holder, ARGV[8])
            if #found == 0 then
                redis.call('ZREM', KEYS[4], holder)
                cleared[#cleared + 1] = holder
            end
            for _, place in ipairs(found) do
                -- What was taken over, and whose answer was lost, is in nobody's hands yet.
                if not string.find(place, ':t', 1, true) then
                    remove(place)
                    more = 1
                elseif next_id <= #ARGV then
                    take(place, 0)
                    more = 1
                end
            end
        end
    end
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 8)
for at = 1, #gone, 2 do
    local holder, lease = gone[at], tonumber(gone[at + 1])
    local room = #ARGV - next_id + 1
    if room > 0 and (lease == 0 or now >= quiet) then
        local found = places(holder, room)
        if #found == 0 then
            redis.call('ZREM', KEYS[4], holder)
        end
        for _, place in ipairs(found) do
            take(place, lease == 0 and 1 or 0)
            more = 1
        end
    end
end
return {cleared, more, taken}
