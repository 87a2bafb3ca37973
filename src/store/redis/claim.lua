-- Takes a delivery, unless somebody has it. KEYS[1]: the delivery; ARGV: owner, lease in ms.
-- Answers {0, 0}: it is yours; {1, 0}: it was delivered; {2, ms}: somebody else's for so long.
local holder = redis.call('GET', KEYS[1])
-- A client that lost the answer asks once more: an owner is one claim's alone.
if not holder or holder == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {0, 0}
end
if holder == 'delivered' then
  return {1, 0}
end
return {2, redis.call('PTTL', KEYS[1])}
