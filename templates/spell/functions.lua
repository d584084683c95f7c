-- Names of variables, and which functions and kernels a model has: what every other file of this folder goes by.

return function(H)
local common = include("common.lua")
local kernels = common.kernels
local B = streams -- of a part of the work; all sequences where there is one
local looped, spelled, parted = unroll == "none", unroll == "full", threads > 1
local block_mode, uniform = spec.truncation == "block", spec.truncation == "uniform"

-- --- names ---------------------------------------------------------------------------------------------------------------------

-- A number for a comment.
function H.decimal(x) return (string.format("%.9g", x):gsub(",", ".")) end

-- A value, parameter or function of a name that is reserved, or another's, gets a tail: so what functions with values in them call their own.
local taken = {}
for word in ([[t i n row rows steps loss scale first past lag own other from to probabilities outputs masks restart]]):gmatch("%S+") do
  taken[word] = true
end
local function claim(word)
  while taken[word] or reserved(word) do word = word .. "_" end
  taken[word] = true
  return word
end
-- The same for a name of the spec: words in capitals are macros', those with the stem bptt kernels'.
local function claim_foreign(word) return claim((word:find("^%u[%u%d_]+$") or word:find("^bptt")) and word .. "_" or word) end
for _, action in ipairs(actions) do
  if action.name ~= "" then action.name = claim(action.name) end
  for i = 1, action.temps do taken["t" .. i] = true end
end
for _, p in ipairs(params) do
  p.variable = claim_foreign(p.name)
  p.turned_variable = claim(p.variable .. "_turned")
  p.gradient_variable = claim("g_" .. p.variable)
end
for _, slot in ipairs(slots) do
  slot.variable = claim_foreign(slot.name)
  slot.before = claim(slot.variable .. "_before") -- of the step before
end

-- The parameter that a state starts from, by the state's slot, where that is learned.
H.h0 = {}
for _, action in ipairs(actions) do
  for _, e in ipairs(action.elements) do
    if e.op == "restart" then H.h0[e.a.slot] = params[e.b.param] end
  end
end

-- --- which functions and kernels there are ----------------------------------------------------------------------------------------

H.step_counts = looped and {0} or rest > 0 and {chunk_steps, rest} or {chunk_steps}
H.steps_parameter = looped and ", ptrdiff_t steps" or ""
local partial = spec.loss_steps -- not every step has a loss
local chunk_rows = {0}
H.head_rows = {0} -- what the output layer's functions are made for; 0: any number, told when called
if spelled then chunk_rows = rest > 0 and {chunk_steps * B, rest * B} or {chunk_steps * B} end
if spelled then H.head_rows = partial and {B} or chunk_rows end
H.needs_rows = partial or not spelled
H.rows_parameter = spelled and (partial and ", ptrdiff_t row" or "") or ", ptrdiff_t row, ptrdiff_t rows"
local made = {}
local function for_rows(name, rows) -- the function's name for a number of rows
  local key = name .. "_of_" .. rows
  made[key] = made[key] or claim(key)
  return made[key]
end
function H.head_name(name, rows) return spelled and for_rows(name, rows) or name end
H.back_counts = block_mode and {0} or H.step_counts -- a window has any number of steps
H.back_parameter = block_mode and not spelled and ", ptrdiff_t steps" or H.steps_parameter
local back_rows = chunk_rows
if block_mode and spelled then -- each that a window has, as it fills
  H.back_counts, back_rows = {}, {}
  for chunk = 1, chunks do
    local seen = math.min(chunk * chunk_steps, spec.T)
    local window = math.min(seen, spec.K)
    if window ~= H.back_counts[#H.back_counts] then
      H.back_counts[#H.back_counts + 1], back_rows[#back_rows + 1] = window, window * B
    end
  end
elseif uniform and spelled then -- a step less each lag
  back_rows = {}
  for lag = 0, spec.K - 1 do back_rows[#back_rows + 1] = (spec.T - lag) * B end
end
local function of(name, steps) return name .. "_" .. (steps == 0 and "steps" or steps) end
function H.forward_name(steps) return of("forward", steps) end
function H.backward_name(steps) return of("backward", steps) end
function H.count_words(steps)
  return (steps == 0 and "The steps" or steps == 1 and "One step" or steps .. " steps") .. (parted and " of a part's streams" or "")
end
if block_mode then -- what they work on begins at row `first`
  H.steps_parameter, H.back_parameter = H.steps_parameter .. ", ptrdiff_t first", H.back_parameter .. ", ptrdiff_t first"
end
-- Does it draw masks of dropout?
function H.draws(action) return action.kind == "row" and action.elements[1].op == "dropout" end
H.drops = false
for _, action in ipairs(actions) do H.drops = H.drops or H.draws(action) end
-- Where blocks overlap, masks of dropout go by rows of the sequence, `past` of which lie before the window: ", past_rows(chunk)", or what
-- else is asked for, where some region needs it.
local function past(text, ...)
  for _, region in ipairs {...} do
    for _, action in ipairs(actions) do
      if block_mode and action.region == region and H.draws(action) then return text end
    end
  end
  return ""
end
H.steps_parameter = H.steps_parameter .. past(", ptrdiff_t past", "input", "step")
H.back_parameter = H.back_parameter .. past(", ptrdiff_t past", "back", "tail")
H.rows_parameter = (block_mode and past(", ptrdiff_t past", "head") .. ", ptrdiff_t first" or "") .. H.rows_parameter
H.head_window = block_mode and past(", past_rows(chunk)", "head") .. ", first" or ""

-- What a function works on, and where that lies: a model, or what a part of the work has of its own.
H.self, H.self_parameter = parted and "m, own" or "m", common.name .. " *m" .. (parted and ", " .. common.name .. "_share *own" or "")
H.own, H.own_parameter = parted and "own" or "m", common.name .. (parted and "_share *own" or " *m")
H.work = H.own .. "->work"
H.rows_of_step = common.NAME .. (parted and "_STREAMS" or "_BATCH")
function H.gradient_of(p) return p.own and common.plus("own->grad", tostring(p.own_offset)) or common.plus("m->grad", tostring(p.offset)) end

-- Sums over the rows of all parts: which regions have some.
H.cuts = {}
for _, action in ipairs(actions) do
  if action.cut then H.cuts[action.region == "head" and "head" or "tail"] = true end
end

-- Is it one row for all steps and sequences?
function H.is_row(ref) return ref.param or slots[ref.slot].kind == "one" end
local function in_time(action) return action.in_time end
local function is_product(action) return action.kind == "product" or action.kind == "gradient" end
local function is_tiled(action) return is_product(action) and not spelled end
local down_names = {}
local function down_name(name)
  down_names[name] = down_names[name] or claim(name .. "_down")
  return down_names[name]
end
local function starts_block(action) -- is it told whether its sum begins?
  return (action.region == "head" or action.region == "tail" and tail_block > 0 or action.cut) and action.fill == "zero" and not spelled
end
function H.reads_turned(action) return action.turned and not action.packed end -- the copy of the matrix; what is packed is turned then
local function padded(n) return (n + lanes - 1) // lanes * lanes end
local function out_stride(action)
  return action.kind == "gradient" and params[action.param].stride or slots[action.out.slot].stride
end

-- What `find` finds of an action, which every step asks for: found once.
function H.once(find)
  local found = {}
  return function(action)
    if found[action] == nil then found[action] = find(action) end
    return found[action]
  end
end

-- The numbers of rows that a product is made for; 0: any.
local row_counts = H.once(function(action)
  local counts, seen = {}, {}
  local function add(list)
    for _, rows in ipairs(list) do
      if not seen[rows] then counts[#counts + 1], seen[rows] = rows, true end
    end
  end
  if spelled and not in_time(action) then
    local back = action.region == "back" or action.region == "tail"
    local hands_on = uniform and action.into_previous and 2 or 1 -- not from the first step
    add(action.region == "head" and H.head_rows or back and table.move(back_rows, hands_on, #back_rows, 1, {}) or chunk_rows)
  else return {0} end
  if action.forward then add {B} end -- predict
  return counts
end)

-- The rows of its tiles.
local function tile_rows(action)
  local list = {action.tile.rows}
  local function add(rows)
    if rows > 0 then list[#list + 1] = rows end
  end
  add(action.cut and params[action.param].rows % action.tile.rows or action.tile.rest_rows)
  return list
end

local use = {}
local function need(kernel)
  assert(kernels.named["bptt_" .. kernel], "no kernel " .. kernel)
  use["bptt_" .. kernel] = true
end
H.needs_zeros = 0
local function need_zeros(n) H.needs_zeros = math.max(H.needs_zeros, n) end
H.has_chain_function = false
local function row_name(action)
  local op = action.elements[1].op
  return (op == "slice" or op == "place") and "row_place" or "row_" .. op
end
local function gather_name(action) return action.fill == "zero" and "gather" or "gather_" .. action.fill end
for _, action in ipairs(actions) do
  local tile = action.tile
  if is_tiled(action) then
    for _, v in ipairs {tile.vectors, tile.rest_vectors} do
      if v > 0 then
        local family = action.kind == "gradient" and "outer" or "tile"
        for _, rows in ipairs(tile_rows(action)) do need(family .. "_" .. rows .. "x" .. v) end
        if action.kind == "product" and not in_time(action) then need("tile_1x" .. v) end
      end
    end
    if action.packed then need(action.turned and "transpose" or "pack") end
    if action.fill == "zero" then need_zeros(tile.vectors * lanes) end
  elseif action.kind == "gather" then need(gather_name(action))
  elseif action.kind == "scatter" then need(action.bias > 0 and "scatter_sum" or "scatter")
  elseif action.kind == "row" then need(row_name(action))
  elseif action.kind == "column_sum" then need(action.input and "column_dot" or "column_sum")
  elseif action.kind == "clear" or action.kind == "copy" then
    need(action.kind)
  elseif action.kind == "loss" and action.loss ~= "cross_entropy" then
    need(action.loss)
    need("copy")
    if action.loss == "binary_cross_entropy" then need("sigmoid") end
  elseif action.kind == "loss" and spelled then need("exp")
  elseif action.kind == "loss" then
    need(action.smoothing > 0 and "smoothed_cross_entropy" or "cross_entropy")
    need("softmax")
  elseif action.kind == "chain" then
    for _, e in ipairs(action.elements) do need(e.op) end
    if #action.elements > 1 and not spelled then H.has_chain_function = true end -- of CHAIN_RUN reals at a time
  end
end
H.turns = false -- are there second copies of matrices?
for _, p in ipairs(params) do H.turns = H.turns or p.turned end
if H.turns and not spelled then need("transpose") end
need("sum_squares")
if own_size > 0 then need("add") end
local o = spec.optimizer
H.penalised = o.weight_decay and o.kind ~= "adamw" -- weight decay as an L2 penalty
local cut = spec.clip == "value" and "_cut" or ""
H.rule = (o.nesterov and "nesterov" or o.kind) .. (H.penalised and "_decay" or "") .. cut -- the update's kernel
H.rows_rule = o.kind .. cut .. "_rows"
need(H.rule)
for _, p in ipairs(params) do
  if p.sparse then need(H.rows_rule) end
end
H.used = {}
for _, kernel in ipairs(kernels.all) do
  if use[kernel.name] then H.used[#H.used + 1] = kernel end
end

H.looped, H.spelled, H.parted, H.block_mode, H.uniform, H.partial = looped, spelled, parted, block_mode, uniform, partial
H.for_rows, H.down_name, H.row_counts, H.row_name, H.gather_name = for_rows, down_name, row_counts, row_name, gather_name
H.in_time, H.is_product, H.is_tiled = in_time, is_product, is_tiled
H.past, H.starts_block, H.padded, H.out_stride = past, starts_block, padded, out_stride
end
