-- Takes note of what an instance holds. It follows held.lua.
-- ARGV: from the fifth on lease, most held, most delivered;
-- then for each change: what, number, key, id, milliseconds until due (-1: none), until given up (-1: never), since it came or was
-- delivered, record.
-- Returns how many were delivered that others had taken, and the numbers of those that others have taken.
for holder in string.gmatch(ARGV[2], '%d+') do
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[5]), holder)
end

local function remove_at(place)
    local entry = read(place)
    if entry then
        remove(place, entry)
    end
end

-- What is acknowledged takes the place of an older one, whose instance need not send it any more.
local function acknowledge(place)
    local entry = read(place)
    if not entry then
        return
    end
    local other_place = redis.call('HGET', KEYS[2], entry.key)
    local other = other_place and other_place ~= place and read(other_place)
    if other and not is_ours(other_place) and not displaces(entry, other_place, other) then
        finish(entry.id)
        remove(place, entry)
        return
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
    -- It was taken over: it is held now.
    local taken_place = ARGV[1] .. ':t' .. id
    local taken_over = read(taken_place)
    local same = is_known and other or taken_over or before and before.id == id and before
    if before then
        remove(place, before)
    end
    if taken_over then
        remove(taken_place, taken_over)
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
    if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then
        return
    end
    local entry = {
        at = same and same.at or now - tonumber(ARGV[first + 6]),
        due = ends(ARGV[first + 4]),
        give_up = ends(ARGV[first + 5]),
        id = id,
        key = key,
        record = ARGV[first + 7],
    }
    if again and was_woken_after(key, entry.at) then
        finish(id)
        taken[#taken + 1] = number
        return
    end
    -- Several instances may have been alone, and hold a push each for the key, which waits for the provider. What waits for its time
    -- may still be refused.
    if again and entry.due == 0 and other and other.due == 0 and not is_ours(other_place) then
        if not displaces(entry, other_place, other) then
            finish(id)
            taken[#taken + 1] = number
            return
        end
        other = nil
    end
    write(place, entry)
    -- What is told once is for its key when it is acknowledged.
    if is_known or again and not other then
        redis.call('HSET', KEYS[2], key, place)
    end
end

for first = 8, #ARGV, 8 do
    local what, number, key, id = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local place = ARGV[1] .. ':' .. number
    if what == 'p' or what == 'r' then
        put(first, what == 'r')
    elseif what == 'a' then
        acknowledge(place)
    elseif what == 'g' then
        remove_at(place)
    elseif what == 't' then
        remove_at(ARGV[1] .. ':t' .. id)
    elseif what == 'd' then
        redis.call('ZADD', KEYS[8], 'GT', now - tonumber(ARGV[first + 6]), key)
        trim(KEYS[8], ARGV[7])
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
