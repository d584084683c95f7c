-- What happens in a chunk around the functions of bodies.lua: labels counted, the output layer called block by block, the window moved on.

return function(H)
local common = include("common.lua")
local plus, name = common.plus, common.name
local B = streams
local looped, spelled, parted, block_mode, partial = H.looped, H.spelled, H.parted, H.block_mode, H.partial
local for_rows, choose, past = H.for_rows, H.choose, H.past

-- Labels that count, or targets: a number is one.
H.counted = spec.labels and "labels" or "targets"
H.chunk_argument = partial and ", chunk" or ""
function H.count_labels()
  local function counts(i)
    return spec.labels and string.format("y[%s] < %s_VOCAB", i, common.NAME) or string.format("d[%s] == d[%s]", i, i)
  end
  local width = spec.labels and 1 or spec.targets
  if partial then
    write("    ptrdiff_t count = 0;\n    for (int s = 0; s < STRETCHES; s++) {\n        ptrdiff_t to = 0;\n")
    write("        const ptrdiff_t from = stretch(s, chunk, ", parted and common.NAME .. "_BATCH, " or "", "n, &to);\n")
    local times = width > 1 and " * " .. width or ""
    write("        for (ptrdiff_t i = from", times, "; i < to", times, "; i++) { count += ", counts("i"), "; }\n    }\n    return count;\n")
    return
  end
  if not spelled then
    local values = width == 1 and "n" or "n * " .. width
    write("    ptrdiff_t count = 0;\n    for (ptrdiff_t i = 0; i < ", values, "; i++) { count += ", counts("i"), "; }\n    return count;\n")
    return
  end
  local function write_sum(indent, rows)
    local terms = {}
    for i = 0, rows * width - 1 do terms[#terms + 1] = "(" .. counts(i) .. ")" end
    write(common.wrap(indent .. "return ", terms, " + ", indent .. "    "), ";\n")
  end
  if rest > 0 then
    write("    if (n == ", rest * B, ") {\n")
    write_sum("        ", rest * B)
    write("    }\n")
  else
    write("    (void)n;\n")
  end
  write_sum("    ", chunk_steps * B)
end

-- Where there is no loss, rows of what HEAD hands on are 0.
function H.clear_rows()
  local seen, any = {}, false
  local function clear(ref)
    local s = ref and ref.slot and slots[slots[ref.slot].host or ref.slot] -- whole rows, in which columns of others lie
    if not s or seen[s] or s.kind ~= "chunk" or not s.linear then return end
    seen[s], any = true, true
    write("    memset(", plus(H.work, tostring(s.offset)), " + row * ", s.stride, ", 0, (size_t)rows * ", s.stride * real_size, "); /* ",
      s.name, " */\n")
  end
  for _, action in ipairs(choose {"head"}) do
    clear(action.out)
    if action.kind == "loss" and not action.out then clear(action.input) end
    for _, e in ipairs(action.elements) do clear(e.out) end
  end
  if not any then write("    (void)", H.own, ";\n    (void)row;\n    (void)rows;\n") end
end

-- Gradients that HEAD adds to; own: those that each part has of its own.
function H.clear_gradients(own)
  local seen = {}
  for _, action in ipairs(actions) do
    local p = params[action.param]
    if action.region == "head" and (action.kind == "gradient" or action.kind == "column_sum") and p.own == own and not seen[p.name] then
      seen[p.name] = true
      write("    memset(", H.gradient_of(p), ", 0, ", p.rows * p.stride * real_size, "); /* d", p.name, " */\n")
    end
  end
end

-- Adds up the loss of the chunk's rows, all at once or in blocks.  rounds: called for all parts of the work, block by block.
function H.call_heads(name, scale, rounds)
  local self, window, backward = rounds and "&all" or H.self, rounds and "" or H.head_window, scale ~= "" or rounds
  local function targets(rows) return rounds and "" or common.data_arguments("target", rows, parted and "own->" or "") end
  local function block_call(size, to)
    local rows = spelled and "" or string.format(", %s - row < %d ? %s - row : %d", to, size, to, size)
    return "loss += " .. (spelled and for_rows(name, size) or name) .. "(" .. self .. targets("row") .. window .. ", row" .. rows .. scale .. ");\n"
  end
  if partial then
    local step = spelled and B or block
    local function clear(to)
      write(rounds and "clear_parts(&all, " or "clear_rows(" .. H.own .. ", ", block_mode and "first + " or "", "done, ", to, " - done);\n")
    end
    write("    for (int i = 0; i < STRETCHES; i++) {\n        ptrdiff_t to = 0;\n")
    write("        const ptrdiff_t from = stretch(i, chunk, ", parted and common.NAME .. "_STREAMS, " or "", "rows, &to);\n")
    if backward then
      write("        ")
      clear("from")
    end
    write("        for (ptrdiff_t row = from; row < to; row += ", step, ") {\n            ", block_call(step, "to"), "        }\n")
    if backward then write("        done = to;\n") end
    write("    }\n")
    if backward then
      write("    ")
      clear("rows")
    end
    return
  end
  local function all_of(rows) return for_rows(name, rows) .. "(m" .. targets() .. window .. scale .. ")" end
  if not spelled then
    write("    for (ptrdiff_t row = 0; row < rows; row += ", block, ") {\n        ", block_call(block, "rows"), "    }\n")
  elseif rest > 0 then
    write("    loss = chunk + 1 < ", common.NAME, "_CHUNKS ? ", all_of(H.head_rows[1]), " : ", all_of(H.head_rows[2]), ";\n")
  else
    write("    loss = ", all_of(H.head_rows[1]), ";\n")
  end
end

-- Where the state lies between chunks: row block 0, or the window's end; beside the parts of the work where there are some.
H.between = parted and "carried" or "work"
function H.state_offset(s)
  return (parted and slots[s].carried_offset or slots[s].offset) + (block_mode and spec.K * spec.batch * slots[s].stride or 0)
end

-- What goes on from chunk to chunk: the states, and where blocks overlap all that the window keeps, as {name, rows, cols, stride, offset}.
function H.carried()
  local list, first = {}, block_mode and 0 or H.state_offset(states[1])
  for _, s in ipairs(states) do list[#list + 1] = {slots[s].name, spec.batch, slots[s].cols, slots[s].stride, H.state_offset(s) - first} end
  local seen = {}
  for _, slot in ipairs(slots) do
    if slot.carried then
      local name = slot.name
      while seen[name] do name = name .. "_" end
      seen[name] = true
      list[#list + 1] = {"window." .. name, spec.K * spec.batch, slot.cols, slot.stride, parted and slot.carried_offset or slot.offset}
    end
  end
  return list, first
end

-- Rows of a part's streams, from what lies beside the parts or, of those that are its own, back.
function H.move_carried(back)
  local function copy(indent, slot, mine, theirs)
    local size = slot.stride * real_size
    mine, theirs = plus("own->work", tostring(slot.offset)) .. mine, plus("j->m->carried", tostring(slot.carried_offset)) .. theirs
    write(indent, "memcpy(", back and theirs or mine, ", ", back and mine or theirs, ", ", back and "(size_t)count * " .. size or B * size,
      "); /* ", slot.name, " */\n")
  end
  if not block_mode then
    for _, slot in ipairs(slots) do
      if slot.kind == "state" then copy("    ", slot, back and " + steps * " .. B * slot.stride or "", " + first * " .. slot.stride) end
    end
    return
  end
  write("    for (ptrdiff_t t = 0; t < ", spec.K, "; t++) {\n")
  for _, slot in ipairs(slots) do
    if slot.kept then copy("        ", slot, " + t * " .. B * slot.stride, string.format(" + (t * %d + first) * %d", spec.batch, slot.stride)) end
  end
  write("    }\n")
  for _, slot in ipairs(slots) do
    if slot.kind == "state" then -- a row block more
      copy("    ", slot, " + " .. spec.K * B * slot.stride, string.format(" + (%d + first) * %d", spec.K * spec.batch, slot.stride))
    end
  end
end

-- The window moves on by `steps`.
function H.move_window()
  write("    const ptrdiff_t rows = steps * ", B, ", stay = ", spec.K * B, " - rows;\n")
  for i, slot in ipairs(slots) do
    if slot.kept then
      local from = plus(H.work, tostring(slot.offset))
      local stay = slot.kind == "state" and "(stay + " .. B .. ")" or "stay"
      write("    memmove(", from, ", ", from, " + rows * ", slot.stride, ", (size_t)", stay, " * ", slot.stride * real_size, "); /* ", slot.name,
        " */\n")
    end
  end
  if token_slot > 1 then
    local slot = slots[token_slot]
    write("    for (ptrdiff_t i = 0; i < rows; i++) { ", H.work, "[", slot.offset, " + (stay + i) * ", slot.stride, "] = (real)x[i]; }\n")
  else
    if spec.tokens then write("    (void)x;\n") end
  end
  if start_slot > 1 then
    local slot = slots[start_slot]
    write("    const uint8_t *const starts = (const uint8_t *)", H.starts(), ";\n")
    write("    for (ptrdiff_t i = stay; i < ", spec.K * B, "; i++) { ", H.work, "[", slot.offset, " + i * ", slot.stride,
      "] = (real)(starts[i] != 0); }\n")
  end
end

-- Back over all steps of the window, in whose older ones the losses of this block have no term of their own.
function H.back_window()
  for _, slot in ipairs(slots) do
    if slot.fed then
      write(string.format("    memset(%s + oldest * %d, 0, (size_t)(%d - oldest - steps * %d) * %d); /* %s */\n", plus(H.work, tostring(slot.offset)),
        slot.stride, spec.K * B, B, slot.stride * real_size, slot.name))
    end
  end
  if token_slot > 1 then
    local slot = slots[token_slot]
    write("    for (ptrdiff_t i = oldest; i < ", spec.K * B, "; i++) { /* in bounds, whatever a checkpoint put there */\n")
    write("        const real token = ", H.work, "[", slot.offset, " + i * ", slot.stride, "];\n")
    write("        ", H.own, "->tokens[i] = token >= 0 && token < ", spec.vocab, " ? (", name, "_token)token : 0;\n    }\n")
  end
  if start_slot > 1 then
    local slot = slots[start_slot]
    write("    uint8_t *const starts = (uint8_t *)", H.starts(), ";\n")
    write("    for (ptrdiff_t i = oldest; i < ", spec.K * B, "; i++) { starts[i] = ", H.work, "[", slot.offset, " + i * ", slot.stride,
      "] > 0; }\n")
  end
  local x = spec.tokens and (token_slot > 1 and ", " .. H.own .. "->tokens + oldest" or ", 0") or ""
  local masks = past(", past_rows(chunk)", "back", "tail")
  if spelled then
    for _, steps in ipairs(H.back_counts) do
      write("    if (window == ", steps, ") { ", H.backward_name(steps), "(", H.self, x, ", oldest", masks, "); }\n")
    end
  else
    write("    ", H.backward_name(0), "(", H.self, x, ", window, oldest", masks, ");\n")
  end
end

-- Calls the forward or backward function for the chunk's number of steps.
function H.dispatch(which)
  local named = which == "forward" and H.forward_name or H.backward_name
  local data = common.data_arguments(which == "forward" and "input" or "x", nil, parted and which == "backward" and "own->" or "")
  local before = past(", past_rows(chunk)", "input", "step") -- the one that is asked for here
  local first = block_mode and ", " .. (spec.K - chunk_steps) * B .. before or ""
  if block_mode and which == "backward" then
    write("    back_window(", H.self, ", chunk, steps);\n")
  elseif looped then
    write("    ", named(0), "(", H.self, data, ", ", which == "forward" and "steps_of(chunk)" or "steps",
      block_mode and string.format(", (%d - steps_of(chunk)) * %d%s", spec.K, B, before) or "", ");\n")
  elseif rest == 0 then
    if which == "forward" and not spec.restarts and not block_mode then write("    (void)chunk;\n") end
    write("    ", named(chunk_steps), "(", H.self, data, first, ");\n")
  else
    local last = block_mode and ", " .. (spec.K - rest) * B .. before or ""
    write("    if (chunk + 1 < ", common.NAME, "_CHUNKS) {\n        ", named(chunk_steps), "(", H.self, data, first, ");\n    } else {\n")
    write("        ", named(rest), "(", H.self, data, last, ");\n    }\n")
  end
end
end
