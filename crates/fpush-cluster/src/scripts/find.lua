-- Says that an instance is there, clears away what is left under its former names, and shows it what instances held that are
-- gone, and what others have set aside because they could not read it. It follows held.lua.
-- ARGV: from the fifth on lease, milliseconds after which nobody was here, for how
-- long nobody is gone after that, milliseconds that keys are kept, 1 if former names are cleared, how many at a time; how many
-- pushes are shown, and the number up to which it has seen what was set aside.
-- Returns the former names of which nothing is left, whether there may be more, for each push that is shown: its place, its key, whether its
-- instance was stopped in order, milliseconds until it is due (-1: none) and given up (-1: never), and since it came, its record; the number up to which it has
-- seen what was set aside, how many are set aside, and how many of them were given up.
local most = tonumber(ARGV[11])
-- While the engine was away nobody could say that he is there.
local watch = redis.call('HMGET', KEYS[6], 'seen', 'quiet')
local quiet = tonumber(watch[2] or 0)
if watch[1] and now - tonumber(watch[1]) > tonumber(ARGV[6]) then
    quiet = now + tonumber(ARGV[7])
end
-- The clock was set back, or that of the primary which took over is behind. What was delivered by the other clock seems to come after
-- what is held since, and instances that are gone seem to be there for as long as that was ahead.
if watch[1] and now < tonumber(watch[1]) - 1000 then
    redis.call('DEL', KEYS[8])
    local lease = now + tonumber(ARGV[5])
    for _, holder in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. string.format('%.0f', lease), '+inf')) do
        redis.call('ZADD', KEYS[4], lease, holder)
    end
    quiet = math.min(quiet, now + tonumber(ARGV[7]))
end
redis.call('HSET', KEYS[6], 'seen', string.format('%.0f', now), 'quiet', string.format('%.0f', quiet))
for holder in string.gmatch(ARGV[2], '%d+') do
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[5]), holder)
end
for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[8])
end

-- The push at a place that is listed. If there is none, the place is listed no more.
local function look(place)
    local entry = read(place)
    if not entry then
        redis.call('ZREM', KEYS[3], place)
        redis.call('ZREM', KEYS[7], place)
    end
    return entry
end

local function left(time_)
    return time_ == 0 and -1 or math.max(time_ - now, 0)
end

local found, more = {}, 0
local function show(place, entry, stopped)
    found[#found + 1] = {place, entry.key, stopped, left(entry.due), left(entry.give_up), math.max(now - entry.at, 0), entry.record}
    more = 1
end

-- What was taken over, and whose answer was lost, is in nobody's hands yet. All else of ours has been told anew, or sent.
local function clear(place, entry)
    if string.find(place, ':t', 1, true) then
        if #found < most then
            show(place, entry, 0)
        end
    else
        remove(place, entry)
        more = 1
    end
end

local cleared = {}
local function places(holder, count)
    return redis.call('ZRANGEBYSCORE', KEYS[3], holder, holder, 'LIMIT', 0, count)
end
if ARGV[9] == '1' then
    for holder in string.gmatch(ARGV[2], '%d+') do
        if holder ~= ARGV[1] then
            local of_holder = places(holder, ARGV[10])
            if #of_holder == 0 then
                redis.call('ZREM', KEYS[4], holder)
                cleared[#cleared + 1] = holder
            end
            for _, place in ipairs(of_holder) do
                local entry = look(place)
                if entry then
                    clear(place, entry)
                end
            end
        end
    end
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 8)
for at = 1, #gone, 2 do
    local holder, lease = gone[at], tonumber(gone[at + 1])
    if #found < most and (lease == 0 or now >= quiet) then
        local of_holder = places(holder, most - #found)
        if #of_holder == 0 then
            redis.call('ZREM', KEYS[4], holder)
        end
        for _, place in ipairs(of_holder) do
            local entry = look(place)
            if entry then
                show(place, entry, lease == 0 and 1 or 0)
            end
        end
    end
end

local seen, given_up = ARGV[12], 0
for _, place in ipairs(redis.call('ZRANGE', KEYS[7], 0, 9)) do
    local entry = look(place)
    if entry and entry.give_up > 0 and entry.give_up <= now then
        remove(place, entry)
        given_up = given_up + 1
    end
end
if #found < most then
    local aside = redis.call('ZRANGEBYSCORE', KEYS[7], '(' .. seen, '+inf', 'WITHSCORES', 'LIMIT', 0, most - #found)
    for at = 1, #aside, 2 do
        local place, entry = aside[at], look(aside[at])
        seen = aside[at + 1]
        if entry and is_ours(place) then
            clear(place, entry)
        elseif entry then
            show(place, entry, 0)
        end
    end
end
return {cleared, more, found, tonumber(seen), redis.call('ZCARD', KEYS[7]), given_up}
