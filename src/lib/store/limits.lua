-- Answers a question about limits in Redis, as limits::decide does in the program. All that it
-- reads and writes is in one script, so that no other question comes between.
--
-- KEYS: the accounts in the order of the parts, then the message, if there is one. ARGV: the mode,
-- the digest of a request that may be repeated (or ""), the number of parts, and of each part: the
-- name of the limit, the account, "add" or "upto", the units, whether a refused request is charged
-- (1 or 0), whether the limit only counts (1 or 0), the number of windows, and of each window: its
-- length in milliseconds and the most units (or "").
--
-- The answer is a list of integers. {number of the refusing part or 0, and of each part: 0, or 1,
-- length, most, used, wait, news}; of a repetition {-1, number of the refusing part or 0, length,
-- most, used, wait}. In the mode "usage", whose KEYS are accounts: for each the number of windows
-- in use, and of each window: length, used, most (or -1), wait.
--
-- Numbers are doubles, which are exact up to 2^53. Times in milliseconds times 60 stay below that
-- until the year 6700, and there a quotient that is rounded never reaches the next integer: with
-- a < 2^53 it lies at least 1/b below it, which is more than the error of a/b. Units are cut at
-- 2^53, and compared by differences of numbers below that, so that no sum is rounded.

local MAX = 9007199254740992
local FRAMES = 60
local MESSAGE_LIFETIME = 3600000
local floor, min, max = math.floor, math.min, math.max

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)

-- A window is {length, most (or -1), time of the last news, first frame, and of each frame with
-- units, the oldest first: its distance to the first frame, its units}.
local LENGTH, MOST, NEWS, FIRST = 1, 2, 3, 4

local function frame_of(length)
  return floor(now * FRAMES / length)
end

-- Drops what has left the window, counts what lies in the future as used in this frame, and returns
-- the units in use.
local function settle(window)
  local first = window[FIRST]
  local size = #window
  local frame = frame_of(window[LENGTH])
  local kept, used, future = FIRST, 0, 0
  for i = FIRST + 1, size, 2 do
    local at, units = first + window[i], window[i + 1]
    if at > frame then
      future = min(future + units, MAX)
    elseif at >= frame - FRAMES then
      window[kept + 1], window[kept + 2] = window[i], units
      kept = kept + 2
      used = min(used + units, MAX)
    end
  end
  for i = size, kept + 1, -1 do
    window[i] = nil
  end
  return used, future
end

-- Counts units in the frame of this time.
local function add(window, units)
  if units == 0 then
    return
  end
  local frame = frame_of(window[LENGTH])
  local last = #window
  if last == FIRST then
    window[FIRST] = frame
  end
  local distance = frame - window[FIRST]
  if last > FIRST and window[last - 1] == distance then
    window[last] = min(window[last] + units, MAX)
  else
    window[last + 1], window[last + 2] = distance, units
  end
end

-- Returns how long it takes until so many further units fit.
local function wait(window, used, most, units)
  if units <= most - used then
    return 0
  end
  local length = window[LENGTH]
  for i = FIRST + 1, #window, 2 do
    used = used - window[i + 1]
    if units <= most - used then
      local free = window[FIRST] + window[i] + FRAMES + 1
      return max(math.ceil(free * length / FRAMES) - now, 0)
    end
  end
  return length
end

-- An account is {windows = list, used = units in use by window}.
local function unpacked(raw)
  local account = { windows = cmsgpack.unpack(raw), used = {} }
  for _, window in ipairs(account.windows) do
    local used, future = settle(window)
    add(window, future)
    account.used[window] = min(used + future, MAX)
  end
  return account
end

-- What is no account, because something else has written there, counts as none.
local function load(raw)
  if raw then
    local is_account, account = pcall(unpacked, raw)
    if is_account then
      return account
    end
  end
  return { windows = {}, used = {} }
end

local function window_of(account, length)
  for _, window in ipairs(account.windows) do
    if window[LENGTH] == length then
      return window
    end
  end
  local window = { length, -1, 0, 0 }
  account.windows[#account.windows + 1] = window
  account.used[window] = 0
  return window
end

local function store(key, account)
  local longest = 0
  for _, window in ipairs(account.windows) do
    longest = max(longest, window[LENGTH])
    local shift = window[FIRST + 1]
    if shift and shift ~= 0 then
      window[FIRST] = window[FIRST] + shift
      for i = FIRST + 1, #window, 2 do
        window[i] = window[i] - shift
      end
    end
  end
  -- A frame more than the window, for the oldest frame that is partly outside.
  local lifetime = longest + floor(longest / FRAMES) + 1
  redis.call('SET', key, cmsgpack.pack(account.windows), 'PX', lifetime)
end

local function usage()
  local answer = {}
  for i, raw in ipairs(redis.call('MGET', unpack(KEYS))) do
    local account = load(raw)
    local count = #answer + 1
    answer[count] = 0
    for _, window in ipairs(account.windows) do
      local used, most = account.used[window], window[MOST]
      if used > 0 then
        answer[count] = answer[count] + 1
        local size = #answer
        answer[size + 1], answer[size + 2], answer[size + 3] = window[LENGTH], used, most
        answer[size + 4] = most < 0 and 0 or wait(window, used, most, 1)
      end
    end
  end
  return answer
end

local mode, digest, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
if mode == 'usage' then
  return usage()
end
local is_charging = mode == 'decide' or mode == 'charge'

local parts = {}
local next_argument = 4
local function argument()
  local value = ARGV[next_argument]
  next_argument = next_argument + 1
  return value
end
for number = 1, count do
  local part = { key = KEYS[number], limit = argument(), account = argument() }
  part.is_add, part.units = argument() == 'add', tonumber(argument())
  part.charges_refused, part.is_dry_run = argument() == '1', argument() == '1'
  part.rates = {}
  for rate = 1, tonumber(argument()) do
    part.rates[rate] = { tonumber(argument()), tonumber(argument()) }
  end
  parts[number] = part
end

-- A message is {time of its last request, digest of that or "", refusing limit or "", length, most,
-- used, wait, and of each charge: limit, account, passed, refused}.
local SEEN, DIGEST, LIMIT, CHARGES = 1, 2, 3, 8
local message_key = KEYS[count + 1]
local raw = redis.call('MGET', unpack(KEYS))

local function known_message(raw)
  local message = cmsgpack.unpack(raw)
  return now - message[SEEN] <= MESSAGE_LIFETIME and message
end

local message
if message_key and raw[count + 1] then
  local is_message, found = pcall(known_message, raw[count + 1])
  message = is_message and found
end

local has_written = false
local function store_message()
  message[SEEN] = now
  redis.call('SET', message_key, cmsgpack.pack(message), 'PX', MESSAGE_LIFETIME + 1)
  has_written = true
end

-- Returns the answer to the last request, if this is the same request again.
local function repetition()
  if digest == '' or message[DIGEST] ~= digest then
    return nil
  end
  if message[LIMIT] == '' then
    return { -1, 0, 0, 0, 0, 0 }
  end
  for number, part in ipairs(parts) do
    if part.limit == message[LIMIT] then
      return { -1, number, message[4], message[5], message[6], message[7] }
    end
  end
end

if message then
  local answer = repetition()
  if answer then
    if is_charging then
      store_message()
    end
    return answer
  end
end
local was_known = message and true
message = message or { now, '', '', 0, 0, 0, 0 }

-- Returns where the charge of a part begins, if there is one.
local function charge_of(part)
  for i = CHARGES, #message, 4 do
    if message[i] == part.limit and message[i + 1] == part.account then
      return i
    end
  end
end

-- Returns the window without room that lasts longest, if there is one.
local function judge(part)
  local account = part.state
  local worst
  for _, rate in ipairs(part.rates) do
    local length, most = rate[1], rate[2]
    local window = window_of(account, length)
    window[MOST] = most or -1
    local used = account.used[window]
    if most and part.pays > most - used then
      local free_in = wait(window, used, most, part.pays)
      if not worst or free_in > worst[4] then
        local is_old = window[NEWS] <= now and now < window[NEWS] + length
        worst = { length, most, used, free_in, is_old and 0 or 1 }
      end
    end
  end
  return worst
end

local refusal = 0
for number, part in ipairs(parts) do
  part.charge = charge_of(part)
  part.lacks, part.pays = part.units, part.units
  if not part.is_add and part.charge then
    part.lacks = max(part.units - message[part.charge + 2], 0)
    -- What was refused and charged is paid, and still may not pass.
    part.pays = max(part.lacks - message[part.charge + 3], 0)
  end
  -- A message that needs no more passes, even where the limit has been lowered since.
  if part.lacks > 0 then
    part.state = load(raw[number])
    part.exceeded = judge(part)
    if part.exceeded and refusal == 0 and not part.is_dry_run and mode ~= 'charge' then
      refusal = number
    end
  end
end

local function note(part, has_passed)
  if not part.charge then
    part.charge = max(#message + 1, CHARGES)
    message[part.charge], message[part.charge + 1] = part.limit, part.account
    message[part.charge + 2], message[part.charge + 3] = 0, 0
  end
  local passed, refused = part.charge + 2, part.charge + 3
  if not has_passed then
    message[refused] = min(message[refused] + part.pays, MAX)
  else
    message[passed] = min(message[passed] + part.lacks, MAX)
    message[refused] = message[refused] - (part.lacks - part.pays)
  end
end

for _, part in ipairs(parts) do
  if part.lacks > 0 then
    local has_passed = is_charging and refusal == 0
    local is_charged = is_charging and (refusal == 0 or part.charges_refused)
    local has_changed = is_charged and part.pays > 0
    if is_charged then
      for _, rate in ipairs(part.rates) do
        add(window_of(part.state, rate[1]), part.pays)
      end
    end
    local exceeded = part.exceeded
    if exceeded and mode == 'peek' then
      exceeded[5] = 0
    elseif exceeded and exceeded[5] == 1 then
      window_of(part.state, exceeded[1])[NEWS] = now
      has_changed = true
    end
    if has_changed then
      store(part.key, part.state)
      has_written = true
    end
    if is_charged and message_key then
      note(part, has_passed)
    end
  end
end

if message_key and is_charging then
  message[DIGEST] = digest
  local part = parts[refusal]
  message[LIMIT] = part and part.limit or ''
  for i = 1, 4 do
    message[LIMIT + i] = part and part.exceeded[i] or 0
  end
  -- A message without a charge is as good as unknown.
  if was_known or digest ~= '' or #message >= CHARGES then
    store_message()
  end
end
if not has_written and mode ~= 'peek' then
  -- Changes nothing, and fails where nothing can be written: a replica must not answer.
  redis.call('SETRANGE', KEYS[1], 0, '')
end

local answer = { refusal }
for _, part in ipairs(parts) do
  local size = #answer
  local exceeded = part.exceeded
  answer[size + 1] = exceeded and 1 or 0
  for i = 1, exceeded and 5 or 0 do
    answer[size + 1 + i] = exceeded[i]
  end
end
return answer
