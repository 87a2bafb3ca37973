-- Remembers a delivery. KEYS[1]: the delivery; ARGV: window in ms. Whoever has the claim by now: the app has it.
redis.call('SET', KEYS[1], 'delivered', 'PX', ARGV[1])
return 1
