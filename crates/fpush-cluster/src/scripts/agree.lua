-- Which text all use under a name: the one that is there, or the one that is offered where that is old enough.
-- KEYS: the name. ARGV: an offer (empty for none), its age, what it replaces is as old as this, 1 if early, kept.
-- Times are milliseconds by the engine's clock.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'text', 'since', 'confirmed')
local text, since = known[1], tonumber(known[2] or 0)
-- The clock was set back: how old it is nobody here knows, but those do that use it.
if since > now + 1000 then
    text = false
end
if ARGV[1] ~= '' then
    local is_old = not text or now - since >= tonumber(ARGV[3]) or (ARGV[4] == '1' and known[3] ~= text)
    if is_old then
        text, since = ARGV[1], now - tonumber(ARGV[2])
        redis.call('HSET', KEYS[1], 'text', text, 'since', string.format('%.0f', since))
        redis.call('PEXPIRE', KEYS[1], ARGV[5])
    end
end
if not text then
    return {}
end
return {text, math.max(now - since, 0)}
