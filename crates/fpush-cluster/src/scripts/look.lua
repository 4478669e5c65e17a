-- What other instances have told since the last look, and keeps what is used from expiring.
-- Says that we are there, and what the engine's memory of the module began as: after another beginning nothing is there.
-- KEYS: windows, queued, silences, blocks, pause, alive, words, news, deaths, beginning.
-- ARGV: the last news that was read (empty at first), how many at most, milliseconds that keys are kept, our number, the
-- beginning if there is none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[6], now, ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - 86400000)
redis.call('SET', KEYS[10], ARGV[5], 'NX')
local beginning = redis.call('GET', KEYS[10])
for at, key in ipairs(KEYS) do
    if at ~= 5 then
        redis.call('PEXPIRE', key, ARGV[3])
    end
end
local pause = tonumber(redis.call('GET', KEYS[5]) or 0)
local left = math.max(pause - now, 0)
if ARGV[1] == '' then
    local tail = redis.call('XREVRANGE', KEYS[8], '+', '-', 'COUNT', 1)
    return {now, left, tail[1] and tail[1][1] or '0-0', {}, beginning}
end
local news = redis.call('XRANGE', KEYS[8], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local last = news[#news]
return {now, left, last and last[1] or ARGV[1], news, beginning}
