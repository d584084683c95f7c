-- Parameters: the first ones, the optimizer's rule and its numbers, the update and second copies of weights.

return function(H)
local common = include("common.lua")
local plus = common.plus
local spelled, parted = H.spelled, H.parted
local by_vectors, put = H.by_vectors, H.put

H.largest = real_size == 4 and 0x1.fffffep127 or 0x1.fffffffffffffp1023

local o = spec.optimizer
local function number(name) return {hex(o[name] or 0), name .. " " .. H.decimal(o[name] or 0)} end
local rate = {common.scheduled and "rate" or hex(o.rate), "rate " .. H.decimal(o.rate) .. (common.scheduled and ", scheduled" or "")}
local function complement(name) return {hex(1 - (o[name] or 0)), "1 - " .. name} end
local adam = {{"(" .. rate[1] .. " / (1 - m->progress[BPTT_POWER1]))", rate[2]}, number("epsilon"), {hex(o.beta1 or 0), "beta1"}, complement("beta1"),
  {hex(o.beta2 or 0), "beta2"}, complement("beta2"), {"(1 - m->progress[BPTT_POWER2])", "1 - beta2^n"}}
local constants = { -- in the order of templates/kernels/update.c
  sgd = {rate},
  momentum = {rate, number("momentum")},
  adagrad = {rate, number("epsilon")},
  rmsprop = {rate, number("epsilon"), number("decay"), complement("decay")},
  adam = adam,
  adamw = adam,
}
H.constants = constants[o.kind]
if o.kind == "adamw" then
  H.constants[#H.constants + 1] = {"(1 - " .. rate[1] .. " * " .. hex(o.weight_decay or 0) .. ")", "1 - rate weight_decay"}
end
if H.penalised then H.constants[#H.constants + 1] = number("weight_decay") end

-- --- the first weights ------------------------------------------------------------------------------------------------------------

-- Which functions draw them.
H.inits = {}
for _, p in ipairs(params) do
  if p.rank == 2 then H.inits[p.init == "xavier" and "uniform" or p.init] = true end
end

function H.first_weights(p)
  local w, note = plus("m->param", tostring(p.offset)), string.format("/* %s: %s, %s */", p.name, p.init, H.decimal(p.init_scale))
  if p.init == "identity" then
    return string.format("identity_weights(%s, %d, %d, %s); %s", w, math.min(p.rows, p.cols), p.stride, hex(p.init_scale), note)
  end
  local scale = p.init == "xavier" and p.init_scale * math.sqrt(6 / (p.rows + p.cols)) or p.init_scale
  return string.format("%s_weights(%s, %d, %d, %d, %s, &seed); %s", p.init == "xavier" and "uniform" or p.init, w, p.rows, p.cols,
    p.stride, hex(scale), note)
end

-- --- the update -----------------------------------------------------------------------------------------------------------------

-- Writes `head`, the sum of squares of all gradients, and `tail`.
function H.sum_squares(head, tail)
  if parted then return write("    ", head, "squares(m)", tail, "\n") end
  local lines = by_vectors(block_size, function(j, n) return string.format("bptt_sum_squares(%s, %d)", plus("m->grad", j), n) end)
  write(common.wrap("    " .. head, lines, " + ", "        "), tail, "\n")
end

-- What the update does: offset and reals of parameters side by side, or {p}, whose rows of tokens that did not occur stay.
local function update_pieces()
  local pieces, done = {}, 0
  local function whole(to)
    if to > done then pieces[#pieces + 1] = {offset = done, count = to - done} end
  end
  for _, p in ipairs(params) do
    if p.sparse and p.leads then
      whole(p.offset)
      pieces[#pieces + 1] = {offset = p.offset, param = p}
      done = p.offset + p.rows * p.stride
    end
  end
  whole(block_size)
  return pieces
end

local function update_call(at, n)
  return string.format("bptt_%s(%s, %s, %s, %s, %s, with);", H.rule, plus("m->param", at), plus("m->grad", at),
    moments > 0 and plus("m->moment1", at) or "0", moments > 1 and plus("m->moment2", at) or "0", n)
end

local function update_rows_call(at, rows, p)
  return string.format("bptt_%s(%s, %s, %s, %s, %d, with);", H.rows_rule, plus("m->param", at), plus("m->grad", at),
    moments > 0 and plus("m->moment1", at) or "0", rows, p.stride)
end

function H.update()
  if parted then return write("    update_parts(m, with);\n") end
  for _, piece in ipairs(update_pieces()) do
    local p = piece.param
    if p then
      write("    ", update_rows_call(tostring(piece.offset), p.rows, p), " /* ", p.name, ": rows of tokens that did not occur stay */\n")
    else
      put("    ", by_vectors(piece.count, function(j, n) return update_call(tostring(piece.offset + tonumber(j)), n) end))
    end
  end
end

-- A part's share of the update.
function H.update_part()
  for _, piece in ipairs(update_pieces()) do
    local p, at = piece.param, plus("from", tostring(piece.offset))
    local count, unit = piece.count, line
    if p then count, unit, at = p.rows, 1, plus("from * " .. p.stride, tostring(piece.offset)) end
    write("    {", p and " /* " .. p.name .. ": rows of tokens that did not occur stay */" or "", "\n")
    write("        const ptrdiff_t from = ", H.begin(count, unit), ", to = ", H.begin(count, unit, true), ";\n        ")
    write(p and update_rows_call(at, "to - from", p) or update_call(at, "to - from"), "\n    }\n")
  end
end

-- A part's range of what each part has summed up for itself, in the gradient's runs of such parameters.
function H.add_own()
  local runs = {}
  for _, p in ipairs(params) do
    if p.leads and p.own then
      local last, reals = runs[#runs], p.rows * p.stride
      if last and last.offset + last.count == p.offset then
        last.count = last.count + reals
      else
        runs[#runs + 1] = {offset = p.offset, from = p.own_offset, count = reals}
      end
    end
  end
  for _, run in ipairs(runs) do
    local grad = plus("m->grad + from", tostring(run.offset))
    local function of(part) return plus("m->parts[" .. part .. "].grad + from", tostring(run.from)) end
    write("    {\n        const ptrdiff_t from = ", H.begin(run.count, line), ", to = ", H.begin(run.count, line, true), ";\n")
    local first = accumulates and 0 or 2 -- a sum of two begins
    if first == 2 then write("        bptt_add(", grad, ", ", of(0), ", ", of(1), ", to - from);\n") end
    if first < threads then
      write("        for (int i = ", first, "; i < ", common.NAME, "_THREADS; i++) {\n            bptt_add(", grad, ", ", grad, ", ", of("i"),
        ", to - from);\n        }\n")
    end
    write("    }\n")
  end
end

function H.refresh()
  for _, p in ipairs(params) do
    if not p.leads then -- its leader does it
    elseif p.turned and spelled then
      for i = 0, p.rows - 1 do
        for j = 0, p.width - 1 do
          write(string.format("    m->turned[%d] = m->param[%d];\n", p.turned_offset + j * p.turned_stride + i, p.offset + i * p.stride + j))
        end
      end
    elseif p.turned and parted then
      local from = H.begin(p.rows, line)
      write("    {\n")
      write("        const ptrdiff_t from = ", from, ", to = ", H.begin(p.rows, line, true), "; /* ", p.name, " */\n")
      write(string.format("        bptt_transpose(%s + from, %d, %s + from * %d, %d, to - from, %d);\n", plus("m->turned", tostring(p.turned_offset)),
        p.turned_stride, plus("m->param", tostring(p.offset)), p.stride, p.stride, p.width))
      write("    }\n")
    elseif p.turned then
      write(string.format("    bptt_transpose(%s, %d, %s, %d, %d, %d); /* %s */\n", plus("m->turned", tostring(p.turned_offset)),
        p.turned_stride, plus("m->param", tostring(p.offset)), p.stride, p.rows, p.width, p.name))
    end
  end
  if not H.turns and not H.derives then write("    (void)m;\n") end
end
end
