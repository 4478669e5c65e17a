-- Takes note of changes. Told twice, or again by another instance, they mean the same: the later end, the earlier first word.
-- KEYS: windows, queued, silences, blocks, pause, alive, words, news, deaths, beginning, held, keys, holders,
-- taken, unread.
-- ARGV: instance, its number, milliseconds after which one is gone, grace, most windows, most blocks, most words, most news;
-- then for each change: what, member, three numbers.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local second = math.floor(now / 1000)
local today = math.floor(second / 86400)

local function trim(key, most, unit)
    local first = redis.call('ZRANGE', key, 0, 1, 'WITHSCORES')
    if first[4] and tonumber(first[4]) <= now * unit then
        redis.call('ZREMRANGEBYRANK', key, 0, 1)
    elseif redis.call('ZCARD', key) > tonumber(most) then
        redis.call('ZREMRANGEBYRANK', key, 0, 0)
    end
end

local function news(...)
    redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[8], '*', 'i', ARGV[1], ...)
end

-- A word is one number, so that those of long ago come first: the last day, the second of the first one, the days, whether it
-- is beyond doubt.
local function pack(word)
    return ((word.day * 4294967296 + word.at) * 4 + word.days) * 2 + word.beyond
end

local function unpack_word(score)
    local word = {}
    word.beyond = score % 2
    score = (score - word.beyond) / 2
    word.days = score % 4
    score = (score - word.days) / 4
    word.at = score % 4294967296
    word.day = (score - word.at) / 4294967296
    return word
end

local function add_word(token, age, last, days_and_beyond)
    local beyond = days_and_beyond % 2
    local word = {
        at = math.max(second - age, 0),
        day = math.floor(math.max(second - last, 0) / 86400),
        days = math.min((days_and_beyond - beyond) / 2, 3),
        beyond = beyond,
    }
    local score = redis.call('ZSCORE', KEYS[7], token)
    if score then
        local known = unpack_word(tonumber(score))
        if known.beyond >= word.beyond then
            local days = known.days
            if word.day > known.day then
                days = days + 1
            end
            if known.beyond == word.beyond then
                known.at = math.min(known.at, word.at)
                days = math.max(days, word.days)
            end
            known.day = math.max(known.day, word.day)
            known.days = math.min(days, 3)
            word = known
        end
    end
    local packed = pack(word)
    if score and tonumber(score) == packed then
        return
    end
    redis.call('ZADD', KEYS[7], packed, token)
    local first = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
    if unpack_word(tonumber(first[2])).day + 30 < today or redis.call('ZCARD', KEYS[7]) > tonumber(ARGV[7]) then
        redis.call('ZREMRANGEBYRANK', KEYS[7], 0, 0)
    end
    news('f', token, 'w', string.format('%.0f', packed))
end

-- So many tokens an instance takes for dead. Once the lane is as usual, what those have that are gone counts no more: that holds
-- also if a later count was claimed before this one came.
local function note_deaths(count, version, lane_and_calm)
    local calm = lane_and_calm % 2 == 1
    local lane = string.format('%.0f', (lane_and_calm - lane_and_calm % 2) / 2)
    local field, known = ARGV[1] .. ':' .. lane, -1
    local fields = redis.call('HGETALL', KEYS[9])
    for at = 1, #fields, 2 do
        local of_version, _, number = string.match(fields[at + 1], '^(%d+) (%d+) (%d+)')
        if fields[at] == field then
            known = tonumber(of_version)
        elseif calm and string.match(fields[at], ':(%d+)$') == lane then
            local seen = tonumber(redis.call('ZSCORE', KEYS[6], number) or 0)
            if seen <= now - tonumber(ARGV[3]) then
                redis.call('HDEL', KEYS[9], fields[at])
            end
        end
    end
    if version >= known then
        redis.call('HSET', KEYS[9], field, string.format('%.0f %.0f %s', version, count, ARGV[2]))
    end
end

-- A push was accepted for a key: the one that is held for it is not needed, if it is still the one that was seen.
local function cover(key, count)
    local place = redis.call('HGET', KEYS[12], key)
    local value = place and redis.call('HGET', KEYS[11], place)
    local seen, id = string.match(value or '', '^(%d+) %d+ %d+ %d+ (%x+) ')
    if seen and tonumber(seen) == count then
        redis.call('HDEL', KEYS[11], place)
        redis.call('HDEL', KEYS[12], key)
        redis.call('ZREM', KEYS[13], place)
        redis.call('ZREM', KEYS[15], place)
        redis.call('ZADD', KEYS[14], now, id)
    end
end

for at = 9, #ARGV, 5 do
    local what, member = ARGV[at], ARGV[at + 1]
    local a, b, c = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    if what == 'g' then
        if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) == a then
            redis.call('ZREM', KEYS[1], member)
        end
    elseif what == 'c' then
        cover(member, a)
    elseif what == 'w' then
        redis.call('ZADD', KEYS[1], 'GT', now + a, member)
        trim(KEYS[1], ARGV[5], 1)
    elseif what == 'q' then
        redis.call('ZADD', KEYS[2], 'GT', (now + a + tonumber(ARGV[4])) * 1024 + tonumber(ARGV[2]), member)
        redis.call('ZADD', KEYS[6], now, ARGV[2])
        trim(KEYS[2], ARGV[5], 1024)
    elseif what == 'u' then
        -- Another instance may hold one.
        if tonumber(redis.call('ZSCORE', KEYS[2], member) or 0) % 1024 == tonumber(ARGV[2]) then
            redis.call('ZREM', KEYS[2], member)
        end
    elseif what == 's' then
        redis.call('ZADD', KEYS[3], 'GT', now + a, member)
        trim(KEYS[3], ARGV[5], 1)
    elseif what == 'b' then
        local known = tonumber(redis.call('ZSCORE', KEYS[4], member) or 0)
        local reason = known % 4
        local end_ = (known - reason) / 4
        -- What is dead does not become less so by another answer that was under way.
        if not (end_ > now and reason == 0 and b ~= 0) then
            redis.call('ZADD', KEYS[4], math.max(end_, now + a) * 4 + b, member)
            local first = redis.call('ZRANGE', KEYS[4], 0, 1, 'WITHSCORES')
            if first[4] and tonumber(first[4]) <= now * 4 then
                redis.call('ZREMRANGEBYRANK', KEYS[4], 0, 1)
            elseif redis.call('ZCARD', KEYS[4]) > tonumber(ARGV[6]) then
                redis.call('ZREMRANGEBYRANK', KEYS[4], 0, 0)
            end
        end
    elseif what == 'x' then
        redis.call('ZREM', KEYS[4], member)
        redis.call('ZREM', KEYS[7], member)
        news('f', member)
    elseif what == 'd' then
        note_deaths(a, b, c)
    elseif what == 'v' then
        add_word(member, a, b, c)
    elseif what == 'p' then
        local known = tonumber(redis.call('GET', KEYS[5]) or 0)
        if now + a > known then
            redis.call('SET', KEYS[5], string.format('%.0f', now + a), 'PX', a)
        end
    elseif what == 'r' then
        redis.call('DEL', KEYS[5])
    end
end
return redis.status_reply('OK')
