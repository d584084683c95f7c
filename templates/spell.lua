-- How the plan's actions are spelled in C: functions with a fixed shape, and calls of them.  Takes no decision: order, places, tiles
-- and fills are the plan's.  unroll = "full" knows every number of rows, so a call of a kernel is one vector of one row.

return function(common)
local H = {}
local kernels, at, plus, name = common.kernels, common.at, common.plus, common.name
local B = spec.batch
local looped, spelled, parted = unroll == "none", unroll == "full", threads > 1
local block_mode, uniform = spec.truncation == "block", spec.truncation == "uniform"

H.largest = real_size == 4 and 0x1.fffffep127 or 0x1.fffffffffffffp1023
function H.decimal(x) return (string.format("%.9g", x):gsub(",", ".")) end

local o = spec.optimizer
local decays = o.weight_decay and o.kind ~= "adamw" -- as an L2 penalty
H.rule = (o.nesterov and "nesterov" or o.kind) .. (decays and "_decay" or "") -- its kernel
local function number(name) return {hex(o[name] or 0), name .. " " .. H.decimal(o[name] or 0)} end
local rate = {common.scheduled and "rate" or hex(o.rate), "rate " .. H.decimal(o.rate) .. (common.scheduled and ", scheduled" or "")}
local function complement(name) return {hex(1 - (o[name] or 0)), "1 - " .. name} end
local adam = {{"(" .. rate[1] .. " / (1 - m->progress[1]))", rate[2]}, number("epsilon"), {hex(o.beta1 or 0), "beta1"}, complement("beta1"),
  {hex(o.beta2 or 0), "beta2"}, complement("beta2"), {"(1 - m->progress[2])", "1 - beta2^n"}}
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
if decays then H.constants[#H.constants + 1] = number("weight_decay") end

-- --- the first weights ------------------------------------------------------------------------------------------------------------

-- Which functions draw them, and a matrix whose way of drawing all share, when that is a number of a distribution for each weight.
H.inits = {}
for _, p in ipairs(params) do
  if p.rank == 2 then
    H.inits[p.init == "xavier" and "uniform" or p.init] = true
    if H.init == nil then H.init = (p.init == "uniform" or p.init == "normal") and p end
    if H.init and (p.init ~= H.init.init or p.init_scale ~= H.init.init_scale) then H.init = false end
  end
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

-- --- names ---------------------------------------------------------------------------------------------------------------------

-- What the emitted functions call something else, and the words of C.  A value or parameter of such a name, or of another's, gets a tail.
local taken = {}
for word in ([[auto break case char const continue default do double else enum extern float for goto if inline int long register
  restrict return short signed sizeof static struct switch typedef union unsigned void volatile while m x v y d t row rows steps loss scale
  first probabilities outputs real zeros forward head head_loss backward squares uniform cross_entropy softmax job all begin each part skip
  streams from to vec bits mask size_t ptrdiff_t memset memcpy NULL SIMD LANES KERNEL
  lag oldest window stay past move_window back_window past_rows begin_lag lag_rows hand_on memmove CHAIN_RUN ROUND VECTOR_BYTES]]):gmatch("%S+") do
  taken[word] = true
end
for _, action in ipairs(actions) do taken[action.name] = true end
if spec.restarts then taken.restart, taken.reset, taken.starts = true, true, true end
local function claim(word)
  while taken[word] do word = word .. "_" end
  taken[word] = true
  return word
end
for _, p in ipairs(params) do
  p.variable = claim(p.name)
  p.turned_variable = claim(p.variable .. "_turned")
  p.gradient_variable = claim("g_" .. p.variable)
end
for _, slot in ipairs(slots) do slot.variable = claim(slot.name) end

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
H.needs_rows = partial or not spelled or spec.reduction == "mean"
H.rows_parameter = spelled and (partial and ", ptrdiff_t row" or "") or parted and ", ptrdiff_t row, ptrdiff_t skip, ptrdiff_t rows" or ", ptrdiff_t row, ptrdiff_t rows"
local made = {}
local function for_rows(name, rows) -- the function's name for a number of rows
  local key = name .. "_of_" .. rows
  made[key] = made[key] or claim(key)
  return made[key]
end
function H.head_name(name, rows) return spelled and for_rows(name, rows) or parted and name .. "_rows" or name end
H.stream_counts = {B // threads} -- sequences that a part of the work has
if B % threads > 0 then table.insert(H.stream_counts, 1, B // threads + 1) end
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
local function of(name, steps, streams)
  return name .. "_" .. (steps == 0 and "steps" or steps) .. (parted and "_of_" .. streams or "")
end
function H.forward_name(steps, streams) return of("forward", steps, streams) end
function H.backward_name(steps, streams) return of("backward", steps, streams) end
function H.count_words(steps, streams)
  return (steps == 0 and "The steps" or steps == 1 and "One step" or steps .. " steps") ..
    (parted and " of " .. streams .. (streams > 1 and " streams" or " stream") .. ", from `first` on," or "")
end
if parted or block_mode then -- what they work on begins at row `first`
  H.steps_parameter, H.back_parameter = H.steps_parameter .. ", ptrdiff_t first", H.back_parameter .. ", ptrdiff_t first"
end
-- Where blocks overlap, masks of dropout go by rows of the sequence, `past` of which lie before the window: ", past_rows(chunk)", or what
-- else is asked for, where some region needs it.
local function past(text, ...)
  for _, region in ipairs {...} do
    for _, action in ipairs(actions) do
      local drops = action.region == region and action.kind == "row" and action.elements[1].op == "dropout"
      if block_mode and drops then return text end
    end
  end
  return ""
end
H.steps_parameter = H.steps_parameter .. past(", ptrdiff_t past", "input", "step")
H.back_parameter = H.back_parameter .. past(", ptrdiff_t past", "back", "tail")
H.window_parameter = block_mode and past(", ptrdiff_t past", "head") .. ", ptrdiff_t first" or ""
H.rows_parameter = H.window_parameter .. H.rows_parameter
H.head_window = block_mode and past(", past_rows(chunk)", "head") .. ", first" or ""
H.forward_window = block_mode and ", ptrdiff_t first" .. past(", ptrdiff_t past", "input", "step") or ""
H.backward_window = block_mode and ", ptrdiff_t first" .. past(", ptrdiff_t past", "back", "tail") or ""
function H.initializers(parameters) return (parameters:gsub("ptrdiff_t (%a+)", ".%1 = %1")) end
function H.arguments(parameters) return (parameters:gsub("ptrdiff_t ", "j->")) end
H.drops_out = past("yes", "input", "step", "head", "back", "tail") ~= ""

local function in_time(action) return action.in_time end
local function is_product(action) return action.kind == "product" or action.kind == "gradient" end
local function is_tiled(action) return is_product(action) and not spelled end
local down_names = {}
local function down_name(name)
  down_names[name] = down_names[name] or claim(name .. "_down")
  return down_names[name]
end
local function starts_block(action) return action.region == "head" and action.fill == "zero" and not spelled end
local function padded(n) return (n + lanes - 1) // lanes * lanes end
local function out_stride(action)
  return action.kind == "gradient" and params[action.param].stride or slots[action.out.slot].stride
end

-- The numbers of rows that a product is made for; 0: any.
local function row_counts(action)
  local counts, seen = {}, {}
  local function add(list)
    for _, rows in ipairs(list) do
      if not seen[rows] then counts[#counts + 1], seen[rows] = rows, true end
    end
  end
  if parted and action.cut == "streams" then add(H.stream_counts)
  elseif spelled and not in_time(action) then
    local back = action.region == "back" or action.region == "tail"
    local hands_on = uniform and action.into_previous and 2 or 1 -- not from the first step
    add(action.region == "head" and H.head_rows or back and table.move(back_rows, hands_on, #back_rows, 1, {}) or chunk_rows)
  else return {0} end
  if action.forward then add {B} end -- predict
  return counts
end

-- The rows of its tiles.
local function tile_rows(action)
  local list = {action.tile.rows}
  local function add(rows)
    if rows > 0 then list[#list + 1] = rows end
  end
  if action.cut == "streams" then
    for _, rows in ipairs(row_counts(action)) do add(rows % action.tile.rows) end
  elseif action.cut == "tensor" then add(params[action.param].rows % action.tile.rows)
  else add(action.tile.rest_rows) end
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
        for _, rows in ipairs(tile_rows(action)) do need("tile_" .. rows .. "x" .. v) end
        if action.kind == "product" and not in_time(action) then need("tile_1x" .. v) end
      end
    end
    if action.fill == "zero" then need_zeros(tile.vectors * lanes) end
  elseif action.kind == "gather" then need(gather_name(action))
  elseif action.kind == "scatter" then need("scatter")
  elseif action.kind == "row" then need(row_name(action))
  elseif action.kind == "column_sum" or action.kind == "clear" or action.kind == "copy" then
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
if turned_size > 0 and not spelled then need("transpose") end
need("sum_squares")
need(H.rule)
for _, p in ipairs(params) do
  if p.sparse then need(o.kind .. "_rows") end
end
H.used = {}
for _, kernel in ipairs(kernels.all) do
  if use[kernel.name] then H.used[#H.used + 1] = kernel end
end

-- --- functions: products ---------------------------------------------------------------------------------------------------------------

local function describe(action, count)
  local shape
  local rows = count > 0 and count or in_time(action) and B or "rows"
  if action.kind == "gradient" then
    local p = params[action.param]
    shape = string.format("c[%d][%d] from a[%s][%d], d[%s][%d]", p.rows, p.cols, rows, p.rows, rows, p.cols)
  else
    shape = string.format("c[%s][%d] from a[%s][%d], w[%d][%d]", rows, action.cols, rows, action.depth, action.depth, action.cols)
  end
  return "/* " .. action.note .. ":  " .. shape .. " */\n"
end

local function product_parameters(action)
  local keep = spelled and "restrict " or "" -- sums that follow each other may then become vectors
  local text = string.format("real *%sc, const real *%sa, const real *%s", keep, keep, keep)
  if action.kind == "gradient" then
    return text .. "d" .. (spelled and "" or ", ptrdiff_t rows") .. (starts_block(action) and ", int first" or "") ..
      (parted and ", ptrdiff_t from, ptrdiff_t to" or "")
  end
  return text .. "w" .. (action.fill == "bias" and ", const real *" .. keep .. "bias" or "") .. ((in_time(action) or spelled) and "" or ", ptrdiff_t rows")
end

-- One call of a tile at row i (text; nil: at the pointers `to` and `in`), column j (text); down: from the last term to the first.
local function tile_call(action, rows, vectors, i, j, down)
  local ldc = out_stride(action)
  local where = i and plus(plus("c", i == "0" and "0" or i .. " * " .. ldc), j) or "to"
  local from, ldf = where, ldc
  if action.fill ~= "add" then
    from, ldf = action.fill == "bias" and plus("bias", j) or "zeros", 0
    local once = {} -- when the sum begins here
    if starts_block(action) and action.kind == "gradient" then once[#once + 1] = "first" end
    if action.terms > 0 then once[#once + 1] = "p == 0" end
    local condition = table.concat(once, " && ")
    if condition ~= "" then from, ldf = condition .. " ? " .. from .. " : " .. where, condition .. " ? 0 : " .. ldc end
  end
  local a, b, a_row, a_step, ldb, depth
  if action.kind == "gradient" then
    a, a_row, a_step = plus("a", i), 1, slots[action.input.slot].stride
    b, ldb, depth = plus("d", j), slots[action.adjoint.slot].stride, action.terms > 0 and "depth" or "rows"
  else
    local p, lda = params[action.param], slots[action.input.slot].stride
    a, a_row, a_step = i and plus("a", i == "0" and "0" or i .. " * " .. lda) or "in", lda, 1
    b, ldb, depth = plus("w", j), action.turned and p.turned_stride or p.stride, action.terms > 0 and "depth" or action.depth
    if down then a, a_step, b, ldb = plus(a, tostring(depth - 1)), -1, plus(b, tostring((depth - 1) * ldb)), -ldb end
  end
  return string.format("bptt_tile_%dx%d(%s, %d, %s, %s, %s, %d, %d, %s, %d, %s);", rows, vectors, where, ldc, from, ldf, a, a_row,
    a_step, b, ldb, depth)
end

-- All rows of the columns from j on; rows: how many, 0: the usual number.
local function panel(action, rows, vectors, j, indent, down)
  local tile = action.tile
  local function line(text) write(indent, text, "\n") end
  if action.cut == "tensor" then
    local rest = params[action.param].rows % tile.rows
    line("ptrdiff_t i = from;")
    line(string.format("for (; i + %d <= to; i += %d) {", tile.rows, tile.rows))
    line("    " .. tile_call(action, tile.rows, vectors, "i", j))
    line("}")
    if rest > 0 then line("if (i < to) { " .. tile_call(action, rest, vectors, "i", j) .. " }") end
    return
  end
  local fixed = action.kind == "gradient" and params[action.param].rows or in_time(action) and (rows > 0 and rows or B) or nil
  if fixed then
    local whole = fixed - fixed % tile.rows
    if whole == 0 then -- fewer than a tile
    elseif whole == tile.rows then
      line(tile_call(action, tile.rows, vectors, "0", j, down))
    else
      line(string.format("for (ptrdiff_t i = 0; i < %d; i += %d) {", whole, tile.rows))
      line("    " .. tile_call(action, tile.rows, vectors, "i", j, down))
      line("}")
    end
    if fixed > whole then line(tile_call(action, fixed - whole, vectors, tostring(whole), j, down)) end
    return
  end
  local ldc, lda, done = out_stride(action), slots[action.input.slot].stride, {}
  line("real *to = " .. plus("c", j) .. ";")
  line("const real *in = a;")
  line("ptrdiff_t left = rows;")
  for _, rows in ipairs {tile.rows, tile.rest_rows, 1} do
    if rows > 0 and not done[rows] then
      done[rows] = true
      line(string.format("for (; left >= %d; left -= %d, to += %d, in += %d) {", rows, rows, rows * ldc, rows * lda))
      line("    " .. tile_call(action, rows, vectors, nil, j))
      line("}")
    end
  end
end

-- Opens the loop over stretches of the sums, if there is one; returns the indent of what is inside.
local function open_stretches(action)
  if action.terms == 0 then return "    " end
  local n, terms = action.depth, action.terms
  local a, b, stride = 1, "w", params[action.param].stride
  if action.kind == "gradient" then
    n, a, b, stride = "rows", slots[action.input.slot].stride, "d", slots[action.adjoint.slot].stride
  elseif action.turned then stride = params[action.param].turned_stride end
  write("    /* So many terms at a time as the cache holds of ", b, ". */\n")
  write(string.format("    for (ptrdiff_t p = 0; p < %s; p += %d, a += %d, %s += %d) {\n", n, terms, terms * a, b, terms * stride))
  write(string.format("        const ptrdiff_t depth = %s - p < %d ? %s - p : %d;\n", n, terms, n, terms))
  return "        "
end

local function tiled_body(action, rows, down)
  local tile = action.tile
  local width = tile.vectors * lanes
  local vectors = (action.cols + lanes - 1) // lanes
  local whole = vectors // tile.vectors * width
  local scoped = action.cut == "tensor" or action.kind == "product" and not in_time(action) -- a panel declares names of its own
  local indent = open_stretches(action)
  local function most()
    if whole > width then
      write(indent, down and string.format("for (ptrdiff_t j = %d; j >= 0; j -= %d) {\n", whole - width, width)
        or string.format("for (ptrdiff_t j = 0; j < %d; j += %d) {\n", whole, width))
      panel(action, rows, tile.vectors, "j", indent .. "    ", down)
      write(indent, "}\n")
    elseif scoped and tile.rest_vectors > 0 then
      write(indent, "{\n")
      panel(action, rows, tile.vectors, "0", indent .. "    ", down)
      write(indent, "}\n")
    else
      panel(action, rows, tile.vectors, "0", indent, down)
    end
  end
  local function remaining()
    if tile.rest_vectors == 0 then return end
    if scoped then write(indent, "{\n") end
    panel(action, rows, tile.rest_vectors, tostring(whole), scoped and indent .. "    " or indent, down)
    if scoped then write(indent, "}\n") end
  end
  if down then remaining() end
  most()
  if not down then remaining() end
  if action.terms > 0 then write("    }\n") end
end

-- unroll = "full": every multiply-add of `rows` rows spelled out, a sum a statement.
local function spell_rows(action, rows)
  local ldc = out_stride(action)
  local gradient = action.kind == "gradient"
  local lda = slots[action.input.slot].stride
  local p = params[action.param]
  local ldb = gradient and slots[action.adjoint.slot].stride or action.turned and p.turned_stride or p.stride
  local count, depth = gradient and p.rows or rows, gradient and rows or action.depth
  for i = 0, count - 1 do
    for j = 0, action.cols - 1 do
      local c = string.format("c[%d]", i * ldc + j)
      local terms = {}
      if action.fill == "add" then terms[1] = c
      elseif action.fill == "bias" then terms[1] = string.format("bias[%d]", j) end
      for q = 0, depth - 1 do
        terms[#terms + 1] = string.format("a[%d] * %s[%d]", gradient and q * lda + i or i * lda + q, gradient and "d" or "w", q * ldb + j)
      end
      write("    ", c, " = ", common.wrap(8, terms, " + "), ";\n")
    end
  end
end

local function numbered_name(action, rows)
  return row_counts(action)[1] > 0 and for_rows(action.name, rows) or action.name
end

-- A product over many rows is a function of its own: compilers that inline it into a large one spill its accumulators.
function H.apart(action) return is_tiled(action) and not in_time(action) end

local function define_product(action)
  for _, rows in ipairs(row_counts(action)) do
    local name, parameters = numbered_name(action, rows), product_parameters(action)
    write(describe(action, rows))
    write(H.apart(action) and "APART " or "static ", "void ", name, "(", parameters, ")\n{\n")
    if spelled then spell_rows(action, rows > 0 and rows or B) else tiled_body(action, rows) end
    write("}\n\n")
    if action.alternates and (not parted or rows ~= B) then -- predict has one step
      write("/* The same from the last term to the first: begins with what the step before left in the cache. */\n")
      write("static void ", down_name(name), "(", parameters, ")\n{\n")
      tiled_body(action, rows, true)
      write("}\n\n")
    end
  end
end

-- --- functions: chains -------------------------------------------------------------------------------------------------------------------

local function place_key(ref) return ref.param and "param " .. ref.param or ref.slot .. "/" .. ref.shift end

-- The places outside that a chain reads and writes, in order of first use, each once.
local function chain_places(action)
  local places, index = {}, {}
  local function visit(ref, written)
    if not ref or ref.temp then return end
    local key = place_key(ref)
    if not index[key] then
      places[#places + 1] = {ref = ref, variable = "v" .. #places, written = false}
      index[key] = places[#places]
    end
    index[key].written = index[key].written or written
  end
  for _, e in ipairs(action.elements) do
    visit(e.a)
    visit(e.b)
    visit(e.out, true)
  end
  return places, index
end

-- Do the rows of all that the chain touches follow each other without a gap?  One row always does; a parameter, which is the same
-- for all rows, does not.
local function is_flat(action)
  if in_time(action) and B == 1 then return true end
  for _, one in ipairs((chain_places(action))) do
    if one.ref.param or slots[one.ref.slot].stride ~= padded(action.cols) then return false end
  end
  return true
end

-- A kernel serves by itself for one operation on rows without gaps.
local function is_kernel(action) return #action.elements == 1 and (is_flat(action) or spelled) end

local function number_of(e) return e.value and ", (real)" .. hex(e.value) or "" end

local function define_chain(action)
  local places, index = chain_places(action)
  local by_row = not spelled and not is_flat(action)
  local single = #action.elements == 1
  local function operand(ref)
    if ref.temp then return "t" .. ref.temp end
    return index[place_key(ref)].variable .. ((spelled or single) and "" or " + j")
  end
  local list, steps = {}, {}
  for _, place in ipairs(places) do
    list[#list + 1] = (place.written and "real *" or "const real *") .. place.variable .. ","
    if not place.ref.param then
      steps[#steps + 1] = (#steps > 0 and ", " or "") .. place.variable .. " += " .. slots[place.ref.slot].stride
    end
  end
  write("/* ", action.note, " */\nstatic void ", action.name, "(", common.wrap(4, list, " "), by_row and " ptrdiff_t rows)\n{\n" or " ptrdiff_t n)\n{\n")
  for i = 1, action.temps do write("    real t", i, spelled and "[" .. lanes .. "];\n" or "[CHAIN_RUN];\n") end
  local indent, n = "    ", by_row and padded(action.cols) or "n"
  local run = n
  if by_row then
    write("    for (; rows > 0; rows--, ", common.wrap(8, steps, ""), ") {\n")
    indent = indent .. "    "
  end
  if not spelled and not single then
    write(indent, "for (ptrdiff_t j = 0; j < ", n, "; j += CHAIN_RUN) {\n")
    indent, run = indent .. "    ", "run"
    write(indent, "const ptrdiff_t run = ", n, " - j < CHAIN_RUN ? ", n, " - j : CHAIN_RUN;\n")
  end
  for _, e in ipairs(action.elements) do
    write(indent, "bptt_", e.op, "(", operand(e.out), ", ", operand(e.a), e.b and ", " .. operand(e.b) or "", number_of(e), ", ", run, ");\n")
  end
  while #indent > 4 do
    indent = indent:sub(5)
    write(indent, "}\n")
  end
  write("}\n\n")
end

-- unroll = "full": a row of the output layer.
local function define_loss(action)
  local stride = slots[action.input.slot].stride
  local function each(text, from, to)
    for j = from or 0, (to or action.cols) - 1 do write("    ", (text:gsub("#", tostring(j))), "\n") end
  end
  local function sum_of_exponentials()
    each("o[#] -= max;")
    for j = 0, stride - lanes, lanes do write("    bptt_exp(", plus("o", tostring(j)), ", ", plus("o", tostring(j)), ", ", lanes, ");\n") end
    local terms = {}
    for j = 0, action.cols - 1 do terms[#terms + 1] = "o[" .. j .. "]" end
    write("    const real sum = ", common.wrap(8, terms, " + "), ";\n")
  end
  write("/* -log softmax(o)[label]; backward: o becomes scale (softmax(o) - onehot(label)).  No label below ", action.cols,
    ": neither loss nor gradient. */\n")
  write("static double cross_entropy(real *o, uint32_t label, real scale, int backward)\n{\n")
  write("    if (label >= ", action.cols, ") {\n        memset(o, 0, ", stride * real_size, ");\n        return 0;\n    }\n")
  write("    real max = o[0];\n")
  each("if (max < o[#]) { max = o[#]; }", 1)
  write("    const double above = (double)max - (double)o[label];\n")
  local loss, keep, even = "log((double)sum) + above", "scale"
  if action.smoothing > 0 then -- against (1 - smoothing) onehot(label) + smoothing / cols
    even = action.smoothing / action.cols
    local terms = {}
    for j = 0, action.cols - 1 do terms[#terms + 1] = "o[" .. j .. "]" end
    write("    const double depth = ", action.cols, " * (double)max - (double)(", common.wrap(8, terms, " + "), ");\n")
    loss = string.format("log((double)sum) + %s * above + %s * depth", hex(1 - action.smoothing), hex(even))
    keep = "(real)" .. hex(1 - action.smoothing) .. " * scale"
  end
  sum_of_exponentials()
  write("    if (!backward) { return ", loss, "; }\n    const real factor = scale / sum;\n")
  if even then write("    const real less = (real)", hex(even), " * scale;\n") end
  each(even and "o[#] = o[#] * factor - less;" or "o[#] *= factor;")
  each("o[#] = 0; /* padding */", action.cols, stride)
  write("    o[label] -= ", keep, ";\n    return ", loss, ";\n}\n\n")
  write("/* out = softmax(o) */\nstatic void softmax(real *o, real *out)\n{\n    real max = o[0];\n")
  each("if (max < o[#]) { max = o[#]; }", 1)
  sum_of_exponentials()
  each("out[#] = o[#] / sum;")
  write("}\n\n")
end

-- Whether a straight line of so many steps has this action: the first step hands nothing back.
local function is_made(action, steps)
  if uniform then steps = spec.K end -- the last lag hands nothing on
  return (looped or block_mode and not spelled) and not uniform or steps > 1 or not action.into_previous
end

function H.define(action)
  if not is_made(action, block_mode and spec.K or chunk_steps) then return end
  if is_product(action) then define_product(action) end
  if action.kind == "chain" and not is_kernel(action) then define_chain(action) end
  if action.loss == "cross_entropy" and spelled then define_loss(action) end
end

-- --- calls ---------------------------------------------------------------------------------------------------------------------------------

-- Where a value lies.  time: number or text (regions step and back); "row": a block of HEAD; nil: all rows.
local function place(ref, time)
  if ref.param then return params[ref.param].variable end
  local slot = slots[ref.slot]
  local size = B * slot.stride
  if slot.kind == "block" or slot.kind == "step" then return slot.variable end
  if time == "row" then
    local base = slot.variable .. " + row * " .. slot.stride
    return ref.shift == 0 and base or base .. " + " .. ref.shift * size
  end
  return plus(slot.variable, at(time or 0, ref.shift, size))
end

-- `count` calls of a kernel on one vector each, or one call on all of it.  write_call(offset, n): the text.
local function by_vectors(count, write_call)
  if not spelled then return {write_call("0", count)} end
  local lines = {}
  for j = 0, tonumber(count) - lanes, lanes do lines[#lines + 1] = write_call(tostring(j), lanes) end
  return lines
end

-- Row by row and vector by vector, or all at once.  write_call(row, j, rows, cols).
local function by_rows(rows, cols, write_call)
  if not spelled then return {write_call(0, "0", rows, cols)} end
  local lines = {}
  for r = 0, rows - 1 do
    for _, line in ipairs(by_vectors(cols, function(j, n) return write_call(r, j, 1, n) end)) do lines[#lines + 1] = line end
  end
  return lines
end

-- One call a row, or one for all.  write_call(row, rows).
local function row_by_row(rows, write_call)
  if not spelled then return {write_call(0, rows)} end
  local lines = {}
  for r = 0, rows - 1 do lines[#lines + 1] = write_call(r, 1) end
  return lines
end

local function product_call(action, p, weight, rows, time)
  local list = action.kind == "gradient" and {weight, p(action.input), p(action.adjoint)} or {p(action.out), p(action.input), weight}
  if action.fill == "bias" then list[#list + 1] = params[action.bias].variable end
  local outside = not in_time(action)
  if outside and not spelled then list[#list + 1] = tostring(rows) end
  if action.kind == "gradient" and starts_block(action) then list[#list + 1] = "row == 0" end
  if action.cut == "tensor" then
    list[#list + 1] = H.begin(params[action.param].rows, action.unit)
    list[#list + 1] = H.begin(params[action.param].rows, action.unit, 1)
  end
  local name, arguments = numbered_name(action, rows), "(" .. table.concat(list, ", ") .. ");"
  if not action.alternates then return {name .. arguments} end
  local down = down_name(name)
  if type(time) == "number" then return {(time % 2 == 1 and down or name) .. arguments} end
  return {"if (" .. time .. " % 2 == 1) {", "    " .. down .. arguments, "} else {", "    " .. name .. arguments, "}"}
end

local function chain_call(action, p, rows)
  local flat, width = is_flat(action), padded(action.cols)
  local function called(at, count) -- at: offset of row and column in a place
    local list = {}
    if is_kernel(action) then
      local e = action.elements[1]
      for _, ref in ipairs {e.out, e.a, e.b} do list[#list + 1] = plus(p(ref), at(ref)) end
      return string.format("bptt_%s(%s%s, %s);", e.op, table.concat(list, ", "), number_of(e), count)
    end
    for _, one in ipairs((chain_places(action))) do list[#list + 1] = plus(p(one.ref), at(one.ref)) end
    return string.format("%s(%s, %s);", action.name, table.concat(list, ", "), count)
  end
  if not spelled then
    local count = not flat and rows or type(rows) == "number" and rows * width or rows .. " * " .. width
    return {called(function() return "0" end, count)}
  end
  return by_rows(rows, width, function(r, j, _, n)
    return called(function(ref) return ref.param and j or tostring(r * slots[ref.slot].stride + j) end, n)
  end)
end

local from_first = false -- does the function that is written work on a part's streams, from `first` on?
local by_restart = {keep = true, start = true, restart = true} -- operations that ask where sequences start

-- A call of a kernel that knows where rows end; a parameter is one row for all.
local function row_call(action, p, rows, time)
  local e = action.elements[1]
  local function stride(ref) return ref.param and 0 or slots[ref.slot].stride end
  local text = string.format("bptt_%s(%s, %d, ", row_name(action), p(e.out), stride(e.out))
  if e.op == "slice" then
    text = text .. string.format("0, %s, %d, %s, %d);", plus(p(e.a), string.format("%d", e.value)), stride(e.a), rows, action.cols)
  elseif e.op == "dropout" then
    local row = (time == "row" and "row" or at(time or 0, 0, B)) .. (from_first and (block_mode or time ~= "row") and " + first" or "") ..
      (block_mode and " + past" or "")
    text = text .. string.format("%s, %d, (real)%s, m->progress[BPTT_MASKS], %s_SEED, %d, %s, %s, %d);", p(e.a), stride(e.a), hex(e.value),
      common.NAME, action.site, (row:gsub("^0 %+ ", "")), rows, action.cols)
  elseif e.op == "place" then
    text = text .. string.format("%d, %s, %d, %s, %d);", e.value, p(e.a), stride(e.a), rows, action.depth)
  else
    text = text .. string.format("%s, %d%s%s, %s, %d);", p(e.a), stride(e.a), e.b and string.format(", %s, %d", p(e.b), stride(e.b)) or "",
      by_restart[e.op] and ", " .. plus("restart", time == "row" and "row" or at(time or 0, 0, B)) or "", rows, action.cols)
  end
  return {text}
end

-- Where a part begins, or the next one, of n things in units.
function H.begin(n, unit, next) return string.format("begin(%d, %d, part%s)", n, unit, next and " + 1" or "") end

-- Clears the gradient of a gather or of a bias: whole rows, or those columns of a matrix.  indent, offset: of the columns from `from` on.
local function cleared(action, sum, from, count)
  local param = params[action.param]
  local function clear(to, reals) return string.format("memset(%s, 0, %s);", to, reals) end
  if not from and padded(action.cols) == param.stride then return clear(sum, param.rows * param.stride * real_size) end
  from = from or ""
  count = count or padded(action.cols) * real_size
  if param.rows == 1 then return clear(sum .. from, count) end
  return string.format("for (ptrdiff_t i = 0; i < %d; i++) { %s }", param.rows, clear(sum .. " + i * " .. param.stride .. from, count))
end

-- The columns of a part: each adds up its own.
local function column_sums(action, sum, p, rows)
  local param, d, ldd = params[action.param], p(action.adjoint), slots[action.adjoint.slot].stride
  local width = padded(action.cols)
  local lines = {"{", "    const ptrdiff_t from = " .. H.begin(width, action.unit) .. ", to = " .. H.begin(width, action.unit, 1) .. ";"}
  if action.fill == "zero" then
    local clear = cleared(action, sum, " + from", "(size_t)(to - from) * " .. real_size)
    lines[#lines + 1] = "    " .. (starts_block(action) and "if (row == 0) { " .. clear .. " }" or clear)
  end
  lines[#lines + 1] = "    " .. (action.kind == "column_sum" and
    string.format("bptt_column_sum(%s + from, %s + from, %d, %s, to - from);", sum, d, ldd, rows) or
    string.format("bptt_scatter(%s + from, %d, %s + from, %d, x, %s, to - from);", sum, param.stride, d, ldd, rows))
  lines[#lines + 1] = "}"
  return lines
end

-- The gradient of a gather or of a bias: rows of the adjoint added up.
local function row_sums(action, sum, p, rows)
  if action.cut == "tensor" then return column_sums(action, sum, p, rows) end
  local param, d, ldd = params[action.param], p(action.adjoint), slots[action.adjoint.slot].stride
  local lines = by_rows(rows, padded(action.cols), function(r, j, count, n)
    local from = plus(plus(d, tostring(r * ldd)), j)
    if action.kind == "column_sum" then
      return string.format("bptt_column_sum(%s, %s, %d, %s, %d);", plus(sum, j), from, ldd, count, n)
    end
    return string.format("bptt_scatter(%s, %d, %s, %d, %s, %s, %d);", plus(sum, j), param.stride, from, ldd, plus("x", tostring(r)),
      count, n)
  end)
  if action.fill == "zero" then
    local clear = cleared(action, sum)
    table.insert(lines, 1, starts_block(action) and "if (row == 0) { " .. clear .. " }" or clear)
  end
  return lines
end

-- time: see place; rows: a number, or the name of one; backward: a loss hands its gradient back.
local function calls(action, time, rows, backward)
  local function p(ref) return place(ref, time) end
  local function stride(ref) return slots[ref.slot].stride end
  local function times(n) return type(rows) == "number" and tostring(rows * n) or rows .. " * " .. n end
  local param = action.param > 0 and params[action.param] or nil
  local weight = param and (action.turned and param.turned_variable or param.variable)
  if action.kind == "product" then return product_call(action, p, weight, rows, time) end
  if action.kind == "gradient" then return product_call(action, p, param.gradient_variable, rows, time) end
  if action.kind == "row" then return row_call(action, p, rows, time) end
  if action.kind == "chain" then return chain_call(action, p, rows) end
  if action.kind == "scatter" or action.kind == "column_sum" then return row_sums(action, param.gradient_variable, p, rows) end
  if action.kind == "zero" then
    return {string.format("memset(%s, 0, (size_t)(%s));", p(action.out), times(stride(action.out) * real_size))}
  elseif action.kind == "clear" then
    return {string.format("bptt_clear(%s, %d, %s, %d, %d);", p(action.out), stride(action.out), rows, action.cols, padded(action.cols))}
  elseif action.kind == "gather" then
    local bias = action.fill == "bias" and params[action.bias].variable
    return by_rows(rows, padded(action.cols), function(r, j, count, n)
      return string.format("bptt_%s(%s, %d, %s, %d, %s%s, %s, %d);", gather_name(action),
        plus(plus(p(action.out), tostring(r * stride(action.out))), j), stride(action.out), plus(weight, j), param.stride,
        bias and plus(bias, j) .. ", " or "", plus(plus("x", at(time or 0, 0, B)), tostring(r)), count, n)
    end)
  elseif action.kind == "copy" then
    return row_by_row(rows, function(r, count)
      return string.format("bptt_copy(%s, %d, %s, %d, %s, %d);", plus(p(action.out), tostring(r * stride(action.out))), stride(action.out),
        plus(plus("v", at(time or 0, 0, B * action.cols)), tostring(r * action.cols)), action.cols, count, action.cols)
    end)
  elseif action.kind == "loss" and action.loss ~= "cross_entropy" then
    local size = stride(action.input)
    local terms = row_by_row(rows, function(r, count)
      return string.format("bptt_%s(%s, %s, %d, %s, %s, %d, %s)", action.loss, plus(p(backward and action.out or action.input), tostring(r * size)),
        plus(p(action.input), tostring(r * size)), size, plus("d", tostring(r * action.cols)), count, action.cols,
        backward and "scale, 1" or "(real)1, 0")
    end)
    return {"const double loss = " .. common.wrap(8, terms, " + ") .. ";"}
  elseif action.kind == "loss" and spelled then
    local terms = {}
    for r = 0, rows - 1 do
      terms[#terms + 1] = string.format("cross_entropy(%s, y[%d], %s)", plus(p(action.input), tostring(r * stride(action.input))), r,
        backward and "scale, 1" or "(real)1, 0")
    end
    return {"const double loss = " .. common.wrap(8, terms, " + ") .. ";"}
  elseif action.kind == "loss" then
    local smoothing = action.smoothing > 0 and string.format("(real)%s /* %s */, ", hex(action.smoothing), H.decimal(action.smoothing)) or ""
    return {string.format("const double loss = bptt_%scross_entropy(%s, %d, y, %s, %d, %s%s);", smoothing ~= "" and "smoothed_" or "",
      p(action.input), stride(action.input), rows, action.cols, smoothing, backward and "scale, 1" or "(real)1, 0")}
  end
  error("no spelling for " .. action.kind)
end

-- --- bodies ----------------------------------------------------------------------------------------------------------------------------------

local function in_regions(list)
  local set = {}
  for _, region in ipairs(list) do set[region] = true end
  return set
end

-- Where the bytes that say where sequences start lie.
function H.starts() return "(" .. plus("m->work", tostring(restart_offset)) .. ")" end

-- Declares what the actions of some regions touch.  A part of the work has rows of its own: from stream `first` on of every slot,
-- or from row `skip` on of what holds a block.  Where blocks overlap, `first` is a row of the window.  forward: no gradient is handed back.
local function declare(chosen, begin, forward)
  from_first = begin == "first" or block_mode and begin
  local seen = {}
  local function once(key, ...)
    if not seen[key] then write("    ", table.concat {...}, "\n") end
    seen[key] = true
  end
  local function read_param(p)
    once(p.variable, "const real *const ", p.variable, " = ", plus("m->param", tostring(p.offset)), "; /* [", p.rows > 1 and p.rows .. "][" or "",
      p.stride, "] */")
  end
  local function slot(ref)
    if ref and ref.param then read_param(params[ref.param]) end
    if not ref or not ref.slot then return end
    local s = slots[ref.slot]
    local from = plus("m->work", tostring(s.offset))
    local rows_kept = s.kind == "state" or s.kind == "chunk"
    local skipped = begin == "skip" and s.kind == "block" and "skip"
    if block_mode and begin then
      skipped = skipped or rows_kept and "first" or parted and s.kind == "step" and "first % " .. B
    elseif begin == "first" then
      skipped = parted and "first"
    end
    if skipped then from = from .. " + " .. skipped .. " * " .. s.stride end
    once(s.variable, "real *const ", s.variable, " = ", from, "; /* ", s.name,
      s.later ~= "" and ", then " .. s.later or "", " [", s.rows, "][", s.stride, "] */")
  end
  for _, action in ipairs(chosen) do
    local p = params[action.param]
    if p and (action.kind == "product" or action.kind == "gather") and action.turned then
      once(p.turned_variable, "const real *const ", p.turned_variable, " = ", plus("m->turned", tostring(p.turned_offset)), "; /* [",
        action.depth, "][", p.turned_stride, "] */")
    elseif p and (action.kind == "product" or action.kind == "gather") then
      once(p.variable, "const real *const ", p.variable, " = ", plus("m->param", tostring(p.offset)), "; /* [", p.rows, "][", p.stride, "] */")
    elseif p then
      once(p.gradient_variable, "real *const ", p.gradient_variable, " = ", plus("m->grad", tostring(p.offset)), "; /* d", p.name, " [",
        p.rows, "][", p.stride, "] */")
    end
    if action.bias > 0 and action.fill == "bias" then
      read_param(params[action.bias])
    end
    if not (forward and action.kind == "loss") then slot(action.out) end
    slot(action.input)
    slot(action.adjoint)
    for _, e in ipairs(action.elements) do
      slot(e.a)
      slot(e.b)
      slot(e.out)
      if by_restart[e.op] then
        once("restart", "const uint8_t *const restart = (const uint8_t *)", H.starts(), from_first and " + first" or "",
          "; /* where sequences start [", window * B, "] */")
      end
    end
  end
end

-- level: of the states, nil: all.
local function choose(regions, level, forward_only)
  local set, chosen = in_regions(regions), {}
  for _, action in ipairs(actions) do
    if set[action.region] and action.cut ~= "tensor" and action.level == (level or action.level) and (action.forward or not forward_only) then
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
  declare(chosen, (parted or block_mode) and "first")
  for _, read in ipairs(common.data) do
    local passed = read.role == "input" and (read.name == "x" or regions[1] == "input")
    if passed and (not parted or read.name ~= "x") and not reads(chosen, read.name) then write("    (void)", read.name, ";\n") end
  end
end

local function put(indent, lines)
  for _, line in ipairs(lines) do write(indent, line, "\n") end
end

-- The equation of an action at a step: time counts from 1, h[0] is the state before the chunk.
local function note_at(action, t)
  return (action.note:gsub("%[t%-1%]", "[" .. t - 1 .. "]"):gsub("%[t%]", "[" .. t .. "]"):gsub("t%-1", tostring(t - 1)))
end

local function rows_region(region, level, steps)
  for _, action in ipairs(choose({region}, level)) do
    write("    /* all t: ", action.note, " */\n")
    put("    ", calls(action, nil, steps == 0 and "steps * " .. B or steps * B))
  end
end

local function one_step(chosen, t, streams, indent)
  for _, action in ipairs(chosen) do
    local lines = calls(action, t, streams)
    if not action.into_previous then
      put(indent, lines)
    elseif type(t) == "number" then
      if t > 0 then put(indent, lines) end
    else
      write(indent, "if (t > 0) {\n")
      put(indent .. "    ", lines)
      write(indent, "}\n")
    end
  end
end

local function steps_regions(regions, level, steps, streams)
  local chosen = choose(regions, level)
  local ahead = regions[#regions] == "step"
  if #chosen == 0 then return end
  local notes = {}
  if steps == 0 then
    for _, action in ipairs(chosen) do notes[#notes + 1] = action.note end
    write("    for (ptrdiff_t t = ", ahead and "0; t < steps; t++" or "steps - 1; t >= 0; t--", ") {\n")
    write("        /* ", table.concat(notes, ", "), " */\n")
    one_step(chosen, "t", streams, "        ")
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
    write("    /* t = ", t + 1, ": ", table.concat(notes, ", "), " */\n")
    one_step(chosen, t, streams, "    ")
  end
end

function H.forward(steps, streams)
  H.locals({"input", "step"}, steps)
  for level = 0, levels - 1 do
    if parted then -- a part needs its own rows of the input alone
      steps_regions({"input", "step"}, level, steps, streams)
    else
      rows_region("input", level, steps)
      steps_regions({"step"}, level, steps, streams)
    end
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
          write("    /* ", action.note, " */\n")
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
        write("        /* ", action.note, " */\n")
        if condition then write("        if (", condition, ") {\n") end
        put(condition and "            " or "        ",
          calls(action, action.into_previous and 1 or nil, action.into_previous and "(rows - " .. B .. ")" or "rows"))
        if condition then write("        }\n") end
      end
    end
  end
  write("    }\n")
end

-- The parts of a lag, for ranges of its rows: what it begins with, all else, and what is handed on to the steps before, a step less.
-- Parts begin together: what one hands on, another one's beginning reads.
local function lag_actions(which)
  local chosen = {}
  for level = levels - 1, 0, -1 do
    for _, action in ipairs(choose({"back", "tail"}, level)) do
      local own = action.into_previous and "hand_on" or action.begins and "begin_lag" or "lag_rows"
      if own == which and is_made(action, chunk_steps) then chosen[#chosen + 1] = action end
    end
  end
  return chosen
end
function H.has_lag(which) return #lag_actions(which) > 0 end
function H.lag(which)
  local chosen = lag_actions(which)
  declare(chosen)
  for _, action in ipairs(chosen) do
    write("    /* ", action.note, " */\n")
    if action.later then write("    if (lag > 0) {\n") end
    put(action.later and "        " or "    ", calls(action, "row", "rows"))
    if action.later then write("    }\n") end
  end
end

function H.backward(steps, streams)
  if uniform then
    H.locals({"back", "tail", "sum"}, steps)
    lags(steps)
    return rows_region("sum", 0, steps)
  end
  H.locals({"back", "tail"}, steps)
  for level = levels - 1, 0, -1 do
    steps_regions({"back"}, level, steps, streams)
    if parted then steps_regions({"tail"}, level, steps, streams) else rows_region("tail", level, steps) end
  end
end

function H.head(backward, rows)
  local chosen = choose({"head"}, nil, not backward)
  declare(chosen, parted and "skip" or block_mode and "first", not backward)
  for _, action in ipairs(chosen) do
    write("    /* ", action.note, " */\n")
    put("    ", calls(action, (not spelled or partial) and "row" or nil, spelled and rows or "rows", backward))
  end
  write("    return loss;\n")
end

-- A part's share of the gradients that a region sums up.
function H.sums(region)
  local chosen = {}
  for _, action in ipairs(actions) do
    if action.region == region and action.cut == "tensor" then chosen[#chosen + 1] = action end
  end
  write("    ", common.name, " *const m = j->m;\n")
  if reads(chosen, "x") then write("    const ", common.name, "_token *const x = j->x;\n") end
  local kept, begins = false, false -- whether they read rows of the whole chunk, and are told the first one
  for _, action in ipairs(chosen) do
    begins = begins or starts_block(action)
    for _, ref in pairs {action.adjoint, action.input} do
      local kind = ref.slot and slots[ref.slot].kind
      kept = kept or kind == "state" or kind == "chunk"
    end
  end
  local window = block_mode and kept
  write("    const ptrdiff_t ", window and "first = j->first, " or "", region == "head" and (kept or begins) and "row = j->row, " or "", "rows = j->rows;\n")
  declare(chosen, window and "first")
  for _, action in ipairs(chosen) do
    write("    /* ", action.note, " */\n")
    put("    ", calls(action, region == "head" and "row" or nil, "rows"))
  end
end

-- Labels that count, or targets: a number is one.
H.counted = spec.labels and "labels" or "targets"
H.partial = partial
H.chunk_argument = partial and ", chunk" or ""
function H.count_labels()
  local function counts(i)
    return spec.labels and string.format("y[%s] < %s_VOCAB", i, common.NAME) or string.format("d[%s] == d[%s]", i, i)
  end
  local width = spec.labels and 1 or spec.targets
  if partial then
    write("    ptrdiff_t count = 0;\n    for (int s = 0; s < STRETCHES; s++) {\n        ptrdiff_t to = 0;\n")
    write("        const ptrdiff_t from = stretch(s, chunk, n, &to);\n")
    local times = width > 1 and " * " .. width or ""
    write("        for (ptrdiff_t i = from", times, "; i < to", times, "; i++) { count += ", counts("i"), "; }\n    }\n    return count;\n")
    return
  end
  if not spelled then
    local values = width == 1 and "n" or "n * " .. width
    write("    ptrdiff_t count = 0;\n    for (ptrdiff_t i = 0; i < ", values, "; i++) { count += ", counts("i"), "; }\n    return count;\n")
    return
  end
  local function sum(from, to)
    local terms = {}
    for i = from, to do terms[#terms + 1] = "(" .. counts(i) .. ")" end
    return common.wrap(8, terms, " + ")
  end
  if rest > 0 then write("    if (n == ", rest * B, ") {\n        return ", sum(0, rest * B * width - 1), ";\n    }\n") else write("    (void)n;\n") end
  write("    return ", sum(0, chunk_steps * B * width - 1), ";\n")
end

-- Where there is no loss, rows of what HEAD hands on are 0.
function H.clear_rows()
  local seen, any = {}, false
  local function clear(ref)
    local s = ref and ref.slot and slots[slots[ref.slot].host or ref.slot] -- whole rows, in which columns of others lie
    if not s or seen[s] or s.kind ~= "chunk" or not s.linear then return end
    seen[s], any = true, true
    write("    memset(", plus("m->work", tostring(s.offset)), " + row * ", s.stride, ", 0, (size_t)rows * ", s.stride * real_size, "); /* ", s.name, " */\n")
  end
  for _, action in ipairs(choose {"head"}) do
    clear(action.out)
    if action.kind == "loss" and not action.out then clear(action.input) end
    for _, e in ipairs(action.elements) do clear(e.out) end
  end
  if not any then write("    (void)m;\n    (void)row;\n    (void)rows;\n") end
end

-- Gradients that HEAD adds to.
function H.clear_gradients()
  local seen = {}
  for _, action in ipairs(actions) do
    local p = params[action.param]
    if action.region == "head" and (action.kind == "gradient" or action.kind == "column_sum") and not seen[p.name] then
      seen[p.name] = true
      write("    memset(", plus("m->grad", tostring(p.offset)), ", 0, ", p.rows * p.stride * real_size, "); /* d", p.name, " */\n")
    end
  end
end

-- Adds up the loss of the chunk's rows, all at once or in blocks.
function H.call_heads(name, scale)
  local function targets(rows) return common.data_arguments("target", rows) end
  if partial then
    local step = spelled and B or block
    write("    for (int i = 0; i < STRETCHES; i++) {\n        ptrdiff_t to = 0;\n        const ptrdiff_t from = stretch(i, chunk, rows, &to);\n")
    if scale ~= "" then write("        clear_rows(m, ", block_mode and "first + " or "", "done, from - done);\n") end
    write("        for (ptrdiff_t row = from; row < to; row += ", step, ") {\n            loss += ", spelled and for_rows(name, B) or name, "(m",
      targets("row"), H.head_window, ", row", spelled and "" or ", to - row < " .. block .. " ? to - row : " .. block, scale, ");\n        }\n")
    if scale ~= "" then write("        done = to;\n") end
    write("    }\n")
    if scale ~= "" then write("    clear_rows(m, ", block_mode and "first + " or "", "done, rows - done);\n") end
    return
  end
  if spelled and rest > 0 then
    write("    loss = chunk + 1 < ", common.NAME, "_CHUNKS ? ", for_rows(name, H.head_rows[1]), "(m", targets(), H.head_window, scale, ") : ",
      for_rows(name, H.head_rows[2]), "(m", targets(), H.head_window, scale, ");\n")
  elseif spelled then
    write("    loss = ", for_rows(name, H.head_rows[1]), "(m", targets(), H.head_window, scale, ");\n")
  else
    write("    for (ptrdiff_t row = 0; row < rows; row += ", block, ") {\n        loss += ", name, "(m", targets("row"), H.head_window, ", row, rows - row < ", block,
      " ? rows - row : ", block, scale, ");\n    }\n")
  end
end

-- Calls a part's forward or backward function for the chunk's number of steps and the part's number of streams.
function H.dispatch_part(which, tokens)
  local forward = which == "forward"
  local named, step_counts = forward and H.forward_name or H.backward_name, forward and H.step_counts or H.back_counts
  write("    const ptrdiff_t first = ", H.begin(B, 1), #H.stream_counts > 1 and ", streams = " .. H.begin(B, 1, true) .. " - first" or "", ";\n")
  local rows = (step_counts[1] == 0 and ", j->steps" or "") .. (block_mode and ", j->first + first" or ", first") ..
    past(", j->past", table.unpack(forward and {"input", "step"} or {"back", "tail"}))
  for _, streams in ipairs(H.stream_counts) do
    for _, steps in ipairs(step_counts) do
      local condition = {}
      if #H.stream_counts > 1 then condition[1] = "streams == " .. streams end
      if #step_counts > 1 then condition[#condition + 1] = "j->steps == " .. steps end
      local call = named(steps, streams) .. "(j->m" .. tokens .. rows .. ");"
      write("    ", #condition > 0 and "if (" .. table.concat(condition, " && ") .. ") { " .. call .. " }" or call, "\n")
    end
  end
end

-- Reals from the workspace's start to where the state lies between chunks: row block 0, or the window's end.
function H.state_offset(s) return slots[s].offset + (block_mode and spec.K * B * slots[s].stride or 0) end

-- What goes on from chunk to chunk: the states, and where blocks overlap all that the window keeps, as {name, rows, cols, stride, offset}.
function H.carried()
  local list, first = {}, block_mode and 0 or H.state_offset(states[1])
  for _, s in ipairs(states) do list[#list + 1] = {slots[s].name, B, slots[s].cols, slots[s].stride, H.state_offset(s) - first} end
  for _, slot in ipairs(slots) do
    if slot.carried then list[#list + 1] = {"window." .. slot.variable, spec.K * B, slot.cols, slot.stride, slot.offset} end
  end
  return list, first
end

-- The window moves on by `steps`.
function H.move_window()
  write("    const ptrdiff_t rows = steps * ", B, ", stay = ", spec.K * B, " - rows;\n")
  for i, slot in ipairs(slots) do
    if slot.kept then
      local from = plus("m->work", tostring(slot.offset))
      write("    memmove(", from, ", ", from, " + rows * ", slot.stride, ", (size_t)", slot.kind == "state" and "(stay + " .. B .. ")" or "stay", " * ",
        slot.stride * real_size, "); /* ", slot.name, " */\n")
    end
  end
  if token_slot > 1 then
    local slot = slots[token_slot]
    write("    for (ptrdiff_t i = 0; i < rows; i++) { m->work[", slot.offset, " + (stay + i) * ", slot.stride, "] = (real)x[i]; }\n")
  else
    if spec.tokens then write("    (void)x;\n") end
  end
  if start_slot > 1 then
    local slot = slots[start_slot]
    write("    const uint8_t *const starts = (const uint8_t *)", H.starts(), ";\n")
    write("    for (ptrdiff_t i = stay; i < ", spec.K * B, "; i++) { m->work[", slot.offset, " + i * ", slot.stride, "] = (real)(starts[i] != 0); }\n")
  end
end

-- Back over all steps of the window, in whose older ones the losses of this block have no term of their own.
function H.back_window()
  for _, slot in ipairs(slots) do
    if slot.fed then
      write(string.format("    memset(%s + oldest * %d, 0, (size_t)(%d - oldest - steps * %d) * %d); /* %s */\n", plus("m->work", tostring(slot.offset)),
        slot.stride, spec.K * B, B, slot.stride * real_size, slot.name))
    end
  end
  if token_slot > 1 then
    local slot = slots[token_slot]
    write("    for (ptrdiff_t i = oldest; i < ", spec.K * B, "; i++) { /* in bounds, whatever a checkpoint put there */\n")
    write("        const real token = m->work[", slot.offset, " + i * ", slot.stride, "];\n")
    write("        m->tokens[i] = token >= 0 && token < ", spec.vocab, " ? (", name, "_token)token : 0;\n    }\n")
  end
  if start_slot > 1 then
    local slot = slots[start_slot]
    write("    uint8_t *const starts = (uint8_t *)", H.starts(), ";\n")
    write("    for (ptrdiff_t i = oldest; i < ", spec.K * B, "; i++) { starts[i] = m->work[", slot.offset, " + i * ", slot.stride, "] > 0; }\n")
  end
  local x = spec.tokens and (token_slot > 1 and ", m->tokens + oldest" or ", 0") or ""
  local masks = past(", past_rows(chunk)", "back", "tail")
  if spelled then
    for _, steps in ipairs(H.back_counts) do
      write("    if (window == ", steps, ") { ", H.backward_name(steps), "(m", x, ", oldest", masks, "); }\n")
    end
  else
    write("    ", parted and "backward_parts" or H.backward_name(0), "(m", x, ", window, oldest", masks, ");\n")
  end
end

-- Calls the forward or backward function for the chunk's number of steps.
function H.dispatch(which)
  local named = which == "forward" and H.forward_name or H.backward_name
  local data = common.data_arguments(which == "forward" and "input" or "x")
  local before = past(", past_rows(chunk)", "input", "step") -- the one that is asked for here
  local first = block_mode and ", " .. (spec.K - chunk_steps) * B .. before or ""
  if block_mode and which == "backward" then
    write("    back_window(m, chunk, steps);\n")
  elseif parted then
    write("    ", which, "_parts(m", data, ", ", which == "forward" and "steps_of(chunk)" or "steps",
      block_mode and string.format(", (%d - steps_of(chunk)) * %d%s", spec.K, B, before) or "", ");\n")
  elseif looped then
    write("    ", named(0), "(m", data, ", ", which == "forward" and "steps_of(chunk)" or "steps",
      block_mode and string.format(", (%d - steps_of(chunk)) * %d%s", spec.K, B, before) or "", ");\n")
  elseif rest == 0 then
    if which == "forward" and (spec.carry or spec.h0 == "given") and not block_mode then write("    (void)chunk;\n") end
    write("    ", named(chunk_steps), "(m", data, first, ");\n")
  else
    write("    if (chunk + 1 < ", common.NAME, "_CHUNKS) {\n        ", named(chunk_steps), "(m", data, first, ");\n    } else {\n        ", named(rest),
      "(m", data, block_mode and ", " .. (spec.K - rest) * B .. before or "", ");\n    }\n")
  end
end

-- What the model gives for a step, in place of its loss.
local function write_outputs(action)
  local from, stride = place(action.input, 0), slots[action.input.slot].stride
  local lines = {}
  if action.loss == "binary_cross_entropy" then
    lines = by_vectors(tostring(B * stride), function(j, n) return string.format("bptt_sigmoid(%s, %s, %s);", plus(from, j), plus(from, j), n) end)
  end
  for _, line in ipairs(row_by_row(B, function(r, rows)
    return string.format("bptt_copy(%s, %d, %s, %d, %d, %d);", plus("outputs", tostring(r * action.cols)), action.cols,
      plus(from, tostring(r * stride)), stride, rows, action.cols)
  end)) do lines[#lines + 1] = line end
  return lines
end

function H.predict()
  local chosen = choose({"input", "step", "head"}, nil, true)
  if block_mode then write("    const ptrdiff_t first = ", (spec.K - 1) * B, ";\n    move_window(m", common.data_arguments("x"), ", 1);\n") end
  write(past("    const ptrdiff_t past = 0; /* no masks, so no rows of theirs */\n", "input", "step", "head"))
  declare(chosen, block_mode and "first", true)
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

-- Sum of squares of all gradients, update of all parameters, second copies of weights.
function H.sum_squares()
  if parted then return "squares(m)" end
  local lines = by_vectors(block_size, function(j, n) return string.format("bptt_sum_squares(%s, %d)", plus("m->grad", j), n) end)
  return common.wrap(8, lines, " + ")
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
  return string.format("bptt_%s_rows(%s, %s, %s, %s, %d, with);", o.kind, plus("m->param", at), plus("m->grad", at),
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
    write("    {\n        const ptrdiff_t from = ", H.begin(count, unit), ", to = ", H.begin(count, unit, true), ";")
    write(p and " /* " .. p.name .. ": rows of tokens that did not occur stay */" or "", "\n        ")
    write(p and update_rows_call(at, "to - from", p) or update_call(at, "to - from"), "\n    }\n")
  end
end

-- Columns of the matrix that a parameter leads: up to the end of the last one that is in it.
local function width(leader)
  local last = leader.cols
  for _, p in ipairs(params) do
    local column = p.offset - leader.offset
    if 0 <= column and column < leader.stride then last = math.max(last, column + p.cols) end
  end
  return last
end

function H.refresh()
  for _, p in ipairs(params) do
    if not p.leads then -- its leader does it
    elseif p.turned and spelled then
      for i = 0, p.rows - 1 do
        for j = 0, width(p) - 1 do
          write(string.format("    m->turned[%d] = m->param[%d];\n", p.turned_offset + j * p.turned_stride + i, p.offset + i * p.stride + j))
        end
      end
    elseif p.turned and parted then
      local from = H.begin(p.rows, line)
      write("    {\n")
      write("        const ptrdiff_t from = ", from, ", to = ", H.begin(p.rows, line, true), "; /* ", p.name, " */\n")
      write(string.format("        bptt_transpose(%s + from, %d, %s + from * %d, %d, to - from, %d);\n", plus("m->turned", tostring(p.turned_offset)),
        p.turned_stride, plus("m->param", tostring(p.offset)), p.stride, p.stride, width(p)))
      write("    }\n")
    elseif p.turned then
      write(string.format("    bptt_transpose(%s, %d, %s, %d, %d, %d); /* %s */\n", plus("m->turned", tostring(p.turned_offset)),
        p.turned_stride, plus("m->param", tostring(p.offset)), p.stride, p.rows, width(p), p.name))
    end
  end
  if turned_size == 0 then write("    (void)m;\n") end
end

return H
end
