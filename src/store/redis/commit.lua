-- Remembers a delivery. KEYS[1]: the delivery; ARGV: owner, window in ms. What somebody else took
-- meanwhile, after our lease had ended, stays theirs: 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], 'delivered', 'PX', ARGV[2])
return 1
