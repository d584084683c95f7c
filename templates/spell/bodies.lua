-- Bodies of the functions that run a part of the plan: steps forward and backward, rows of the output layer, one step for use.

return function(H)
local common = include("common.lua")
local plus = common.plus
local B = streams
local looped, spelled, parted, block_mode = H.looped, H.spelled, H.parted, H.block_mode
local uniform, partial, past = H.uniform, H.partial, H.past
local is_made, place, calls, write_outputs = H.is_made, H.place, H.calls, H.write_outputs

local function in_regions(list)
  local set = {}
  for _, region in ipairs(list) do set[region] = true end
  return set
end

-- Where the bytes that say where sequences start lie.
function H.starts() return "(" .. plus(H.work, tostring(restart_offset)) .. ")" end

-- Declares what the actions of some regions touch: where blocks overlap, from row `first` of the window on.  forward: no gradient is
-- handed back.  Returns whether any of it lies in the model and not in a part.
local function declare(chosen, forward, indent)
  local seen, shared = {}, false
  local function once(key, ...)
    if seen[key] then return end
    local text = table.concat {...}
    seen[key], shared = true, shared or text:find("m->", 1, true) ~= nil
    write(indent or "    ", text, "\n")
  end
  local function read_param(p)
    once(p.variable, "const real *const ", p.variable, " = ", plus("m->param", tostring(p.offset)), "; /* [", p.rows > 1 and p.rows .. "][" or "",
      p.stride, "] */")
  end
  local function write_gradient(p)
    once(p.gradient_variable, "real *const ", p.gradient_variable, " = ", H.gradient_of(p), "; /* d", p.name, " [", p.rows, "][", p.stride,
      "] */")
  end
  local function slot(ref)
    if ref and ref.param then read_param(params[ref.param]) end
    if not ref or not ref.slot then return end
    local s = slots[ref.slot]
    local from = plus(s.kind == "one" and "m->turned" or H.work, tostring(s.offset))
    if block_mode and (s.kind == "state" or s.kind == "chunk") then from = from .. " + first * " .. s.stride end
    once(s.variable, "real *const ", s.variable, " = ", from, "; /* ", s.name,
      s.later ~= "" and ", then " .. s.later or "", " [", s.rows, "][", s.stride, "] */")
  end
  for _, action in ipairs(chosen) do
    local p = params[action.param]
    if p and (action.kind == "product" or action.kind == "gather") and H.reads_turned(action) then
      once(p.turned_variable, "const real *const ", p.turned_variable, " = ", plus("m->turned", tostring(p.turned_offset)), "; /* [",
        action.depth, "][", p.turned_stride, "] */")
    elseif p and (action.kind == "product" or action.kind == "gather") then
      once(p.variable, "const real *const ", p.variable, " = ", plus("m->param", tostring(p.offset)), "; /* [", p.rows, "][", p.stride, "] */")
    elseif p then
      write_gradient(p)
    end
    if action.bias > 0 and action.kind == "scatter" then
      write_gradient(params[action.bias])
    elseif action.bias > 0 and action.fill == "bias" then
      read_param(params[action.bias])
    end
    if not (forward and action.kind == "loss") then slot(action.out) end
    slot(action.input)
    slot(action.adjoint)
    for _, e in ipairs(action.elements) do
      slot(e.a)
      slot(e.b)
      slot(e.out)
      if H.by_restart[e.op] then
        once("restart", "const uint8_t *const restart = (const uint8_t *)", H.starts(), block_mode and " + first" or "",
          "; /* where sequences start [", window * B, "] */")
      end
    end
  end
  return shared
end

-- level: of the states, nil: all.
local function choose(regions, level, forward_only)
  local set, chosen = in_regions(regions), {}
  for _, action in ipairs(actions) do
    if set[action.region] and not action.cut and action.level == (level or action.level) and (action.forward or not forward_only) then
      chosen[#chosen + 1] = action
    end
  end
  return chosen
end

-- Whether the actions read tokens, "x", or real inputs, "v".
local function reads(chosen, what)
  for _, action in ipairs(chosen) do
    if what == "x" and (action.kind == "gather" or action.kind == "scatter") or what == "v" and action.kind == "copy" then return true end
  end
  return false
end

-- What a function for a number of steps works with.
function H.locals(regions, steps)
  local chosen = {}
  for _, action in ipairs(choose(regions)) do
    if is_made(action, steps) then chosen[#chosen + 1] = action end
  end
  local shared = declare(chosen)
  for _, action in ipairs(chosen) do shared = shared or H.draws(action) end
  if parted and not shared then write("    (void)m;\n") end
  for _, read in ipairs(common.data) do
    local passed = read.role == "input" and (read.name == "x" or regions[1] == "input")
    if passed and not reads(chosen, read.name) then write("    (void)", read.name, ";\n") end
  end
end

local function put(indent, lines)
  for _, line in ipairs(lines) do write(common.statement(indent, line)) end
end

-- The equation of an action at a step: time counts from 1, h[0] is the state before the chunk.
local function note_at(action, t)
  return (action.note:gsub("t%-1", t - 1):gsub("%[t%]", "[" .. t .. "]"))
end

local function rows_region(region, level, steps)
  local chosen, all = choose({region}, level), steps == 0 and "steps * " .. B or steps * B
  local blocks = region == "tail" and tail_block > 0 and #chosen > 0
  local indent = blocks and "        " or "    "
  if blocks then
    write("    /* So many rows at a time as the cache holds from one sum to the next. */\n")
    write("    for (ptrdiff_t row = 0; row < ", all, "; row += ", tail_block, ") {\n")
    write("        const ptrdiff_t rows = ", all, " - row < ", tail_block, " ? ", all, " - row : ", tail_block, ";\n")
  end
  for _, action in ipairs(chosen) do
    write(common.comment(indent, "all t: " .. action.note))
    put(indent, calls(action, blocks and "row" or nil, blocks and "rows" or all))
  end
  if blocks then write("    }\n") end
end

-- The calls of an action, or of products that stand together: these sum in every second step from the last term of the last one on.
local function run_calls(run, t)
  if not run[1].alternates then return calls(run[1], t, B) end
  local lines = {}
  local function add(indent, down)
    for i = 1, #run do lines[#lines + 1] = indent .. calls(run[down and #run + 1 - i or i], t, B, false, down)[1] end
  end
  if type(t) == "number" then
    add("", t % 2 == 1)
    return lines
  end
  lines[1] = "if (" .. t .. " % 2 == 1) {"
  add("    ", true)
  lines[#lines + 1] = "} else {"
  add("    ", false)
  lines[#lines + 1] = "}"
  return lines
end

local function one_step(chosen, t, indent)
  local from = 1
  while from <= #chosen do
    local to = from
    while to < #chosen and chosen[to + 1].follows do to = to + 1 end
    local action, lines = chosen[from], run_calls(table.move(chosen, from, to, 1, {}), t)
    if not action.into_previous then
      put(indent, lines)
    elseif type(t) == "number" then
      if t > 0 then put(indent, lines) end
    else
      write(indent, "if (t > 0) {\n")
      put(indent .. "    ", lines)
      write(indent, "}\n")
    end
    from = to + 1
  end
end

local function steps_regions(region, level, steps)
  local chosen, ahead = {}, region == "step"
  for _, action in ipairs(choose({region}, level)) do
    if action.begins then
      write(common.comment("    ", action.note))
      put("    ", calls(action, nil, B))
    else
      chosen[#chosen + 1] = action
    end
  end
  if #chosen == 0 then return end
  local notes = {}
  if steps == 0 then
    for _, action in ipairs(chosen) do notes[#notes + 1] = action.note end
    write("    for (ptrdiff_t t = ", ahead and "0; t < steps; t++" or "steps - 1; t >= 0; t--", ") {\n")
    write(common.comment("        ", table.concat(notes, ", ")))
    one_step(chosen, "t", "        ")
    write("    }\n")
    return
  end
  local from, to, by = 0, steps - 1, 1
  if not ahead then from, to, by = to, from, -1 end
  for t = from, to, by do
    notes = {}
    for _, action in ipairs(chosen) do
      if t > 0 or not action.into_previous then notes[#notes + 1] = note_at(action, t + 1) end
    end
    write(common.comment("    ", "t = " .. t + 1 .. ": " .. table.concat(notes, ", ")))
    one_step(chosen, t, "    ")
  end
end

function H.forward(steps)
  H.locals({"input", "step"}, steps)
  for level = 0, levels - 1 do
    rows_region("input", level, steps)
    steps_regions("step", level, steps)
  end
end

-- The same, spelled out.
local function spelled_lags()
  for lag = 0, spec.K - 1 do
    local rows = (spec.T - lag) * B
    write("    /* lag ", lag, ": row t of an adjoint: of the loss at t + ", lag, " */\n")
    for level = levels - 1, 0, -1 do
      for _, action in ipairs(choose({"back", "tail"}, level)) do
        local hands_on = action.into_previous
        if not (action.later and lag == 0) and not (hands_on and (lag + 1 == spec.K or rows == B)) then
          write(common.comment("    ", action.note))
          put("    ", calls(action, hands_on and 1 or nil, hands_on and rows - B or rows))
        end
      end
    end
  end
end

-- Every lag of all steps at once: row t of an adjoint is that of the loss at t + lag.
local function lags(steps)
  if spelled then return spelled_lags() end
  write("    for (ptrdiff_t lag = 0; lag < ", spec.K, "; lag++) { /* row t of an adjoint: of the loss at t + lag */\n")
  write("        const ptrdiff_t rows = (", steps == 0 and "steps" or steps, " - lag) * ", B, ";\n")
  for level = levels - 1, 0, -1 do
    for _, action in ipairs(choose({"back", "tail"}, level)) do
      if is_made(action, steps) then
        local condition = action.later and "lag > 0" or action.into_previous and "lag + 1 < " .. spec.K
        write(common.comment("        ", action.note))
        if condition then write("        if (", condition, ") {\n") end
        put(condition and "            " or "        ",
          calls(action, action.into_previous and 1 or nil, action.into_previous and "(rows - " .. B .. ")" or "rows"))
        if condition then write("        }\n") end
      end
    end
  end
  write("    }\n")
end

function H.backward(steps)
  if uniform then
    H.locals({"back", "tail", "sum"}, steps)
    lags(steps)
    return rows_region("sum", 0, steps)
  end
  H.locals({"back", "tail"}, steps)
  for level = levels - 1, 0, -1 do
    steps_regions("back", level, steps)
    rows_region("tail", level, steps)
  end
end

function H.head(backward, rows)
  local chosen = choose({"head"}, nil, not backward)
  declare(chosen, not backward)
  for _, action in ipairs(chosen) do
    write(common.comment("    ", action.note))
    put("    ", calls(action, (not spelled or partial) and "row" or nil, spelled and rows or "rows", backward))
  end
  write("    return loss;\n")
end

-- A part's range of the sums over the rows of all parts that a region has.
function H.sums(regions)
  local set, chosen = in_regions(regions), {}
  for _, action in ipairs(actions) do
    if set[action.region] and action.cut then chosen[#chosen + 1] = action end
  end
  local from_row = regions[1] == "head" -- a block of them
  local lists, text = {}, ""
  for i, action in ipairs(chosen) do
    lists[i] = calls(action, from_row and "row" or nil, "rows")
    text = text .. table.concat(lists[i], "\n")
  end
  local function used(word) return text:find("%f[%w_]" .. word .. "%f[^%w_]") end
  write("    ", common.name, " *const m = j->m;\n    const ptrdiff_t ", used("row") and "row = j->row, " or "", "rows = j->rows;\n")
  local kept = false -- whether they read rows of the whole window
  for _, action in ipairs(chosen) do
    for _, ref in pairs {action.adjoint, action.input} do
      local kind = ref.slot and slots[ref.slot].kind
      kept = kept or kind == "state" or kind == "chunk"
    end
  end
  if block_mode and (kept or used("x")) then write("    const ptrdiff_t first = j->first;\n") end
  write("    for (int other = 0; other < ", common.NAME, "_THREADS; other++) {\n")
  write("        ", common.name, "_share *const own = &m->parts[other];\n")
  if used("x") then
    local window = token_slot > 1 and not from_row
    write("        const ", common.name, "_token *const x = own->", window and "tokens + first" or "x", ";\n")
  end
  declare(chosen, false, "        ")
  for i, action in ipairs(chosen) do
    write(common.comment("        ", action.note))
    put("        ", lists[i])
  end
  write("    }\n")
end

function H.predict()
  local chosen = choose({"input", "step", "head"}, nil, true)
  if block_mode then
    write("    const ptrdiff_t first = ", (spec.K - 1) * B, ";\n    move_window(", H.own, common.data_arguments("x"), ", 1);\n")
  end
  write(past("    const ptrdiff_t past = 0; /* no masks, so no rows of theirs */\n", "input", "step", "head"))
  declare(chosen, true)
  for _, action in ipairs(chosen) do
    if action.kind == "loss" and action.loss ~= "cross_entropy" then
      put("    ", write_outputs(action))
    elseif action.kind == "loss" and spelled then
      for b = 0, B - 1 do
        write("    softmax(", plus(place(action.input, 0), tostring(b * slots[action.input.slot].stride)), ", ",
          plus("probabilities", tostring(b * action.cols)), ");\n")
      end
    elseif action.kind == "loss" then
      write(string.format("    bptt_softmax(%s, %d, probabilities, %d, %d);\n", place(action.input, 0), slots[action.input.slot].stride, B,
        action.cols))
    else
      put("    ", calls(action, 0, B))
    end
  end
end

-- What depends on the weights alone.
function H.derive()
  local chosen = choose {"refresh"}
  declare(chosen)
  for _, action in ipairs(chosen) do
    write(common.comment("    ", action.note))
    put("    ", calls(action, nil, 1))
  end
end
H.derives = #choose {"refresh"} > 0

H.put, H.choose = put, choose
end
