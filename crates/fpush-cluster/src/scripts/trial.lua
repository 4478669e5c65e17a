-- Whether our user may run each command that the other scripts run. The keys are nobody else's, and are gone afterwards.
-- KEYS: a string, a sorted set, a hash, a stream. Returns the commands that it may not run.
local missing = {}
local trouble
local function try(...)
    local answer = redis.pcall(...)
    if type(answer) == 'table' and answer.err then
        -- The words for a missing right are other ones in each version, and have no code of their own within a script.
        if string.find(answer.err, 'permission', 1, true) or string.find(answer.err, 'executing the script', 1, true) then
            missing[#missing + 1] = (...)
        else
            trouble = trouble or answer
        end
    end
end

local text, set, hash, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
try('TIME')
try('SET', text, '1')
try('GET', text)
try('ZADD', set, 1, 'm')
try('ZSCORE', set, 'm')
try('ZCARD', set)
try('ZRANGE', set, 0, 1)
try('ZRANGEBYSCORE', set, 0, 1)
try('ZREM', set, 'm')
try('ZREMRANGEBYRANK', set, 0, 1)
try('ZREMRANGEBYSCORE', set, 0, 1)
try('HSET', hash, 'f', '1')
try('HSETNX', hash, 'f', '1')
try('HINCRBY', hash, 'f', 1)
try('HGET', hash, 'f')
try('HMGET', hash, 'f')
try('HGETALL', hash)
try('HLEN', hash)
try('HDEL', hash, 'g')
try('XADD', stream, 'MAXLEN', '~', 1, '*', 'f', '1')
try('XRANGE', stream, '-', '+', 'COUNT', 1)
try('XREVRANGE', stream, '+', '-', 'COUNT', 1)
for _, key in ipairs(KEYS) do
    try('PEXPIRE', key, 1000)
    try('DEL', key)
end
return trouble or missing
