-- Answers a question about limits in Redis, as limits::decide does in the program. All that it
-- reads and writes is in one script, so that no other question comes between.
--
-- KEYS: the accounts in the order of the parts, then the message, if there is one. ARGV: the question
-- in MessagePack: {mode, digest of a request that may be repeated (or ""), parts, the id of a
-- reservation (or 0)}. A part is {name of the limit, account, whether the units are
-- added (or what the message needs in all), the units, whether a refused request is charged, whether
-- the limit only counts, and of each window: its length in milliseconds, the most units (or -1)}.
--
-- The answer is a list of integers. {number of the refusing part or 0, and of each part: 0, or 1,
-- length, most, used, wait, news}; of a repetition {-1, number of the refusing part or 0, length,
-- most, used, wait}. In the mode "usage", whose KEYS are accounts: for each the number of windows in
-- use, and of each window: length, used, most (or -1), wait. In the mode "try", which only shows
-- whether a question would be answered: nothing.
--
-- Numbers are doubles, which are exact up to 2^53. Times in milliseconds times 60 stay below that
-- until the year 6700, and there a quotient that is rounded never reaches the next integer: with
-- a < 2^53 it lies at least 1/b below it, which is more than the error of a/b. Units are cut at
-- 2^53, and compared by differences of numbers below that, so that no sum is rounded.

local MAX = 9007199254740992
local FRAMES = 60
local MESSAGE_LIFETIME = 3600000
local HELD_FOR = 15000
local LONGEST = 31 * 86400000
local floor, min, max = math.floor, math.min, math.max

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)

-- What a part of the question is made of.
local NAME, ACCOUNT, IS_ADD, UNITS, CHARGES_REFUSED, IS_DRY_RUN, RATES = 1, 2, 3, 4, 5, 6, 7

-- A window is {length, most (or -1), time of the last news, units in use, first frame, and of each
-- frame with units, the oldest first: its distance to the first frame, its units}.
local LENGTH, MOST, NEWS, USED, FIRST = 1, 2, 3, 4, 5

local function frame_of(length)
  return floor(now * FRAMES / length)
end

-- Returns the units of all frames, which is what USED is, but where that was cut.
local function sum(window)
  local used = 0
  for i = FIRST + 2, #window, 2 do
    used = min(used + window[i], MAX)
  end
  return used
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
  window[USED] = min(window[USED] + units, MAX)
end

-- Drops what has left the window, and counts what lies in the future as used in this frame.
local function settle(window)
  local first, size = window[FIRST], #window
  local newest = frame_of(window[LENGTH]) - first
  local future, gone = 0, 0
  while size > FIRST and window[size - 1] > newest do
    future = min(future + window[size], MAX)
    window[size - 1], window[size] = nil, nil
    size = size - 2
  end
  local kept = FIRST + 1
  while kept < size and window[kept] < newest - FRAMES do
    gone = gone + window[kept + 1]
    kept = kept + 2
  end
  local dropped = kept - FIRST - 1
  if dropped > 0 then
    local shift = window[kept] or 0
    window[FIRST] = first + shift
    for i = kept, size, 2 do
      window[i - dropped], window[i + 1 - dropped] = window[i] - shift, window[i + 1]
    end
    for i = size, size - dropped + 1, -1 do
      window[i] = nil
    end
  end
  window[USED] = window[USED] < MAX and window[USED] - gone - future or sum(window)
  add(window, future)
end

-- Returns how long it takes until so many further units fit.
local function wait(window, most, units)
  local length, used = window[LENGTH], window[USED]
  if units <= most - used then
    return 0
  end
  for i = FIRST + 1, #window, 2 do
    used = used - window[i + 1]
    if units <= most - used then
      local free = window[FIRST] + window[i] + FRAMES + 1
      return max(math.ceil(free * length / FRAMES) - now, 0)
    end
  end
  return length
end

-- Fails if values from this place on are of other types than these, again and again.
local function check_types(values, from, types)
  for i = from, #values do
    assert(type(values[i]) == types[(i - from) % #types + 1])
  end
end

-- Returns whether a window is kept: one that a reload has removed would be kept for as long as the
-- account sends.
local function is_kept(window)
  return #window > FIRST or now < window[NEWS] + window[LENGTH]
end

-- An account is a list of windows, and of units that are reserved: {id, until when, units, or 0 once
-- they are charged}. Here these are apart.
local ID, UNTIL, HELD = 1, 2, 3

local function hold(account, held)
  if held[UNTIL] > now then
    -- Later than that it cannot be, unless the clock was set back.
    held[UNTIL] = min(held[UNTIL], now + HELD_FOR)
    account.held[#account.held + 1] = held
  end
end

local function add_window(account, window)
  assert(#window >= FIRST and (#window - FIRST) % 2 == 0)
  for i = LENGTH, FIRST do
    assert(type(window[i]) == 'number')
  end
  assert(window[LENGTH] >= 1 and window[LENGTH] <= LONGEST and window[LENGTH] % 1 == 0)
  -- Fails if one of them is no number: in one call, since a window may have a hundred.
  max(unpack(window))
  settle(window)
  if is_kept(window) then
    account[#account + 1] = window
  end
end

local function unpacked(raw)
  local account = { held = {} }
  for _, entry in ipairs(cmsgpack.unpack(raw)) do
    if #entry == HELD then
      check_types(entry, 1, { 'number' })
      assert(entry[HELD] >= 0)
      hold(account, entry)
    else
      add_window(account, entry)
    end
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
  return { held = {} }
end

local function window_of(account, length)
  for _, window in ipairs(account) do
    if window[LENGTH] == length then
      return window
    end
  end
  local window = { length, -1, 0, 0, 0 }
  account[#account + 1] = window
  return window
end

-- Charges units in the windows of a part.
local function charge(account, part, units)
  for i = RATES, #part, 2 do
    local window = window_of(account, part[i])
    window[MOST] = part[i + 1]
    add(window, units)
  end
end

-- Ends a reservation, and returns whether it was there.
local function let_go(account, id)
  for i, held in ipairs(account.held) do
    if held[ID] == id then
      table.remove(account.held, i)
      return true
    end
  end
  return false
end

-- Ends a reservation whose units are charged, and returns whether they are not charged yet.
local function keep(account, id)
  for _, held in ipairs(account.held) do
    if held[ID] == id and held[HELD] == 0 then
      return false
    end
  end
  let_go(account, id)
  hold(account, { id, now + HELD_FOR, 0 })
  return true
end

-- Returns the units that are reserved, and how long it takes until the last of them has expired.
local function held_of(account)
  local units, last = 0, now
  for _, held in ipairs(account.held) do
    if held[HELD] > 0 then
      units, last = min(units + held[HELD], MAX), max(last, held[UNTIL])
    end
  end
  return units, last - now
end

local function store(key, account)
  local entries, longest = {}, 0
  for _, window in ipairs(account) do
    if is_kept(window) then
      entries[#entries + 1] = window
      longest = max(longest, window[LENGTH])
    end
  end
  for _, held in ipairs(account.held) do
    entries[#entries + 1] = held
  end
  if #entries == 0 then
    redis.call('UNLINK', key)
    return
  end
  -- A frame more than the window, for the oldest frame that is partly outside.
  local lifetime = longest + floor(longest / FRAMES) + 1
  redis.call('SET', key, cmsgpack.pack(entries), 'PX', max(lifetime, HELD_FOR))
end

-- Changes nothing, and fails where nothing can be written: a replica must not answer.
local function check_writable()
  redis.call('SETRANGE', KEYS[1], 0, '')
end

local function usage()
  local answer = {}
  for _, raw in ipairs(redis.call('MGET', unpack(KEYS))) do
    local count = #answer + 1
    answer[count] = 0
    for _, window in ipairs(load(raw)) do
      local used, most = window[USED], window[MOST]
      if used > 0 then
        answer[count] = answer[count] + 1
        local size = #answer
        answer[size + 1], answer[size + 2], answer[size + 3] = window[LENGTH], used, most
        answer[size + 4] = most < 0 and 0 or wait(window, most, 1)
      end
    end
  end
  return answer
end

local question = cmsgpack.unpack(ARGV[1])
local mode, digest, parts, id = question[1], question[2], question[3], question[4]
if mode == 'usage' then
  return usage()
end
if mode == 'try' then
  redis.call('MGET', KEYS[1])
  redis.call('SET', KEYS[1], '', 'PX', 1)
  redis.call('SETRANGE', KEYS[1], 0, '')
  redis.call('UNLINK', KEYS[1])
  return {}
end
local is_charging = mode == 'decide'

-- A message is {time of its last request, digest of that or "", refusing limit or "", length, most,
-- used, wait, and of each charge: limit, account, passed, refused}.
local SEEN, DIGEST, LIMIT, CHARGES = 1, 2, 3, 8
local message_key = KEYS[#parts + 1]
local raw = redis.call('MGET', unpack(KEYS))

local function known_message(raw)
  local message = cmsgpack.unpack(raw)
  local state = { 'number', 'string', 'string', 'number', 'number', 'number', 'number' }
  assert(#message >= #state and (#message - #state) % 4 == 0)
  check_types({ unpack(message, 1, #state) }, 1, state)
  check_types(message, CHARGES, { 'string', 'string', 'number', 'number' })
  return now - message[SEEN] <= MESSAGE_LIFETIME and message
end

-- Returns the window without room that lasts longest, if there is one.
local function judge(part)
  local worst
  local held, held_for = held_of(part.state)
  if part[IS_DRY_RUN] then
    -- A limit that refuses nobody need not wait for what becomes of reserved units.
    held, held_for = 0, 0
  end
  for i = RATES, #part, 2 do
    local length, most = part[i], part[i + 1]
    local window = window_of(part.state, length)
    window[MOST] = most
    local used = min(window[USED] + held, MAX)
    if most >= 0 and part.pays > most - used then
      -- Too long by what is released before it expires.
      local free_in = max(wait(window, most, part.pays), held_for)
      if not worst or free_in > worst[4] then
        local is_old = window[NEWS] <= now and now < window[NEWS] + length
        worst = { length, most, used, free_in, is_old and 0 or 1 }
      end
    end
  end
  return worst
end

-- Notes that an account has reached its limit, and returns whether that is news.
local function note_news(part)
  if part.exceeded and part.exceeded[5] == 1 then
    window_of(part.state, part.exceeded[1])[NEWS] = now
    return true
  end
  return false
end

local function put_result(answer, exceeded)
  local size = #answer
  answer[size + 1] = exceeded and 1 or 0
  for i = 1, exceeded and 5 or 0 do
    answer[size + 1 + i] = exceeded[i]
  end
end

-- Keeps or releases what is reserved under an id.
local function conclude()
  local answer = { 0 }
  local has_written = false
  for number, part in ipairs(parts) do
    local has_changed
    part.state, part.pays = load(raw[number]), part[UNITS]
    if mode == 'release' then
      has_changed = let_go(part.state, id)
    elseif part.pays > 0 and keep(part.state, id) then
      if part[IS_DRY_RUN] then
        part.exceeded = judge(part)
        note_news(part)
      end
      charge(part.state, part, part.pays)
      has_changed = true
    end
    if has_changed then
      store(KEYS[number], part.state)
      has_written = true
    end
    put_result(answer, part.exceeded)
  end
  if not has_written then
    check_writable()
  end
  return answer
end

if mode == 'keep' or mode == 'release' then
  return conclude()
end

local message
if message_key and raw[#parts + 1] then
  local is_message, found = pcall(known_message, raw[#parts + 1])
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
    if part[NAME] == message[LIMIT] then
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
    if message[i] == part[NAME] and message[i + 1] == part[ACCOUNT] then
      return i
    end
  end
end

local refusal = 0
for number, part in ipairs(parts) do
  part.charge = charge_of(part)
  part.lacks, part.pays = part[UNITS], part[UNITS]
  if not part[IS_ADD] and part.charge then
    part.lacks = max(part[UNITS] - message[part.charge + 2], 0)
    -- What was refused and charged is paid, and still may not pass.
    part.pays = max(part.lacks - message[part.charge + 3], 0)
  end
  -- A message that needs no more passes, even where the limit has been lowered since.
  if part.lacks > 0 then
    part.state = load(raw[number])
    if mode == 'reserve' then
      -- The same question again, whose first answer was lost.
      let_go(part.state, id)
    end
    -- Nobody waits for a limit that only counts: it is judged by what is kept.
    part.exceeded = not (mode == 'reserve' and part[IS_DRY_RUN]) and judge(part) or nil
    if part.exceeded and refusal == 0 and not part[IS_DRY_RUN] then
      refusal = number
    end
  end
end

local function note(part, has_passed)
  if not part.charge then
    part.charge = max(#message + 1, CHARGES)
    message[part.charge], message[part.charge + 1] = part[NAME], part[ACCOUNT]
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

for number, part in ipairs(parts) do
  if part.lacks > 0 then
    local has_passed = is_charging and refusal == 0
    local is_charged = is_charging and (refusal == 0 or part[CHARGES_REFUSED])
    local has_changed = is_charged and part.pays > 0
    if is_charged then
      charge(part.state, part, part.pays)
    end
    local exceeded = part.exceeded
    if exceeded and (mode == 'peek' or mode == 'reserve') then
      exceeded[5] = 0
    end
    has_changed = note_news(part) or has_changed
    if mode == 'reserve' and refusal == 0 and not part[IS_DRY_RUN] then
      hold(part.state, { id, now + HELD_FOR, part.pays })
      has_changed = true
    end
    if has_changed then
      store(KEYS[number], part.state)
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
  message[LIMIT] = part and part[NAME] or ''
  for i = 1, 4 do
    message[LIMIT + i] = part and part.exceeded[i] or 0
  end
  -- A message without a charge is as good as unknown.
  if was_known or digest ~= '' or #message >= CHARGES then
    store_message()
  end
end
if not has_written and mode ~= 'peek' then
  check_writable()
end

local answer = { refusal }
for _, part in ipairs(parts) do
  put_result(answer, part.exceeded)
end
return answer
