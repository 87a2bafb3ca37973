-- Writes, so that a server that only reads counts as none, and says since when it has remembered:
-- the Unix time in seconds when KEYS[1] was first written.
local since = redis.call('GET', KEYS[1]) or redis.call('TIME')[1]
redis.call('SET', KEYS[1], since)
return tonumber(since)
