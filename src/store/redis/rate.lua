-- GCRA by the clock of the server. KEYS[1]: the bucket; ARGV: time that one request costs, and time
-- that all of them cost which may come at once, in microseconds.
-- Answers 0: taken; else how long to wait, in microseconds.
local cost = tonumber(ARGV[1])
local depth = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then
  full = now
elseif full > now + depth then
  -- The clock went back: nobody waits for longer than an empty bucket takes.
  full = now + depth
end
local next = full + cost
local wait = next - depth - now
-- A little less than a microsecond is an error of the arithmetic.
if wait >= 1 then
  return math.ceil(wait)
end
redis.call('SET', KEYS[1], string.format('%.2f', next), 'PX', math.ceil((next - now) / 1000))
return 0
