-- Offers the key of fingerprints, takes that of the first, and counts the instances.
-- KEYS: key, instances. ARGV: our key, our id, milliseconds after which an instance is gone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[2], 86400000)
return {redis.call('GET', KEYS[1]), redis.call('ZCARD', KEYS[2])}
