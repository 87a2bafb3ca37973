-- Gives a delivery back, unless it is no longer ours. KEYS[1]: the delivery; ARGV: owner.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
