-- many: acquires and releases of several callers in one script: one after the other, each with
-- keys and arguments of its own, and as if it had been sent by itself.
-- KEYS those of each call, in turn
-- ARGV per call: a head, then its arguments. The head is "a" for acquire or "r" for release, and
-- then the numbers of its keys and of its arguments, a digit each
-- returns per call what its script does | false if that failed: it is to be sent by itself
local out, n, k, a = {}, 0, 0, 1
while ARGV[a] do
  local what, keys, args = string.byte(ARGV[a], 1, 3)
  keys, args = keys - 48, args - 48
  local ok, said = pcall(what == 97 and acquire or release, {unpack(KEYS, k + 1, k + keys)}, {unpack(ARGV, a + 1, a + args)})
  n, k, a = n + 1, k + keys, a + 1 + args
  out[n] = ok and said or false
end
return out
