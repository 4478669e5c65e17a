-- Takes over what was found, and sets aside what could not be read. It follows held.lua.
-- ARGV: as the fifth most set aside; then for each push: its place, and the id that it
-- has from now on, or nothing if it could not be read.
-- Returns the ids of those that were taken: others have taken the rest, or who held it is there again. And how many were given up, because too
-- many are set aside.
local taken, given_up = {}, 0

-- Another one may be held for the same key, or was, where the instance that is gone had not told that this one is acknowledged.
-- What this instance holds itself for the key stands for it. Returns whether this one is still to be sent.
local function is_needed(entry)
    if was_woken_after(entry.key, entry.at) then
        return false
    end
    local other_place = redis.call('HGET', KEYS[2], entry.key)
    local other = other_place and read(other_place)
    if not other or other.id == entry.id then
        return true
    end
    return not is_ours(other_place) and displaces(entry, other_place, other)
end

for at = 6, #ARGV, 2 do
    local place, id = ARGV[at], ARGV[at + 1]
    local entry, holder = read(place), string.match(place, '^%d+')
    local lease = tonumber(redis.call('ZSCORE', KEYS[4], holder) or 0)
    if entry and (lease <= now or is_ours(place)) then
        if id ~= '' then
            -- It has another id from now on: the instance that held it before finds the former one among those that were taken.
            remove(place, entry)
            finish(entry.id)
            if is_needed(entry) then
                local new = ARGV[1] .. ':t' .. id
                entry.id = id
                write(new, entry)
                redis.call('HSETNX', KEYS[2], entry.key, new)
                taken[#taken + 1] = id
            end
        elseif not redis.call('ZSCORE', KEYS[7], place) then
            -- Its id stays, so that the instance that held it goes on with it as soon as it is there again.
            redis.call('ZREM', KEYS[3], place)
            redis.call('ZADD', KEYS[7], count(), place)
            if redis.call('ZCARD', KEYS[7]) > tonumber(ARGV[5]) then
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
