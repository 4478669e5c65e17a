-- What other instances have told since the last look, and keeps what is used from expiring.
-- KEYS: windows, queued, silences, blocks, pause, words, news.
-- ARGV: the last news that was read (empty at first), how many at most, milliseconds that keys are kept.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[7]}) do
    redis.call('PEXPIRE', key, ARGV[3])
end
local pause = tonumber(redis.call('GET', KEYS[5]) or 0)
local left = math.max(pause - now, 0)
if ARGV[1] == '' then
    local tail = redis.call('XREVRANGE', KEYS[7], '+', '-', 'COUNT', 1)
    return {now, left, tail[1] and tail[1][1] or '0-0', {}}
end
local news = redis.call('XRANGE', KEYS[7], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local last = news[#news]
return {now, left, last and last[1] or ARGV[1], news}
