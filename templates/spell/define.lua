-- The functions that actions call, each for its shapes: products of tiles, chains of element-wise operations, a spelled-out loss.

return function(H)
local common = include("common.lua")
local plus = common.plus
local B = streams
local looped, spelled, parted, block_mode, uniform = H.looped, H.spelled, H.parted, H.block_mode, H.uniform
local for_rows, down_name, row_counts = H.for_rows, H.down_name, H.row_counts
local in_time, is_product, is_tiled = H.in_time, H.is_product, H.is_tiled
local starts_block, padded, out_stride = H.starts_block, H.padded, H.out_stride

-- --- products --------------------------------------------------------------------------------------------------------------------------

local function describe(action, count)
  local shape
  local rows = count > 0 and count or in_time(action) and B or "rows"
  if action.kind == "gradient" then
    local p = params[action.param]
    shape = string.format("c[%d][%d] from a[%s][%d], d[%s][%d]", p.rows, p.cols, rows, p.rows, rows, p.cols)
  else
    local w = action.turned and action.packed and {action.cols, action.depth} or {action.depth, action.cols}
    shape = string.format("c[%s][%d] from a[%s][%d], w[%d][%d]", rows, action.cols, rows, action.depth, w[1], w[2])
  end
  return common.comment("", action.note .. ":  " .. shape)
end

local function product_parameters(action)
  local keep = spelled and "restrict " or "" -- sums that follow each other may then become vectors
  local text = string.format("real *%sc, const real *%sa, const real *%s", keep, keep, keep)
  if action.kind == "gradient" then
    return text .. "d" .. (spelled and "" or ", ptrdiff_t rows") .. (starts_block(action) and ", int first" or "") ..
      (action.cut and ", ptrdiff_t from, ptrdiff_t to" or "")
  end
  return text .. "w" .. (action.fill == "bias" and ", const real *" .. keep .. "bias" or "") .. ((in_time(action) or spelled) and "" or ", ptrdiff_t rows")
end

-- Where a panel begins, and the reals from one of its terms to the next.
local function panel_at(action, j)
  if action.kind == "gradient" then return plus("d", j), slots[action.adjoint.slot].stride end
  local p = params[action.param]
  return plus("w", j), action.turned and p.turned_stride or p.stride
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
  local lda, a_step = slots[action.input.slot].stride, 1
  local b, ldb = panel_at(action, j)
  if action.packed then b, ldb = "packed", vectors * lanes end
  if action.kind == "gradient" then
    return string.format("bptt_outer_%dx%d(%s, %d, %s, %s, %s, %d, %s, %d, %s);", rows, vectors, where, ldc, from, ldf, plus("a", i), lda,
      b, ldb, action.terms > 0 and "depth" or "rows")
  end
  local a = i and plus("a", i == "0" and "0" or i .. " * " .. lda) or "in"
  local depth = action.terms > 0 and "depth" or action.depth
  if down then a, a_step, b, ldb = plus(a, tostring(depth - 1)), -1, plus(b, tostring((depth - 1) * ldb)), -ldb end
  return string.format("bptt_tile_%dx%d(%s, %d, %s, %s, %s, %d, %d, %s, %d, %s);", rows, vectors, where, ldc, from, ldf, a, lda,
    a_step, b, ldb, depth)
end

-- Copies a stretch of a panel of `width` columns.  Columns of a panel that is turned first are rows of the matrix; behind the last one is 0.
local function pack_panel(action, width, j, line)
  local b, ldb = panel_at(action, j)
  if not action.turned then return line(string.format("bptt_pack(packed, %s, %d, depth, %d);", b, ldb, width)) end
  local p, rows = params[action.param], tostring(width)
  if action.cols % lanes > 0 then
    line(string.format("memset(packed, 0, (size_t)depth * %d);", width * real_size))
    local left = j == "j" and action.cols .. " - j" or tostring(action.cols - tonumber(j))
    rows = j == "j" and left .. " < " .. width .. " ? " .. left .. " : " .. width or tostring(math.min(action.cols - tonumber(j), width))
  end
  line(string.format("bptt_transpose(packed, %d, %s, %d, %s, depth);", width, plus("w", j == "0" and "0" or j .. " * " .. p.stride), p.stride, rows))
end

-- All rows of the columns from j on; rows: how many, 0: the usual number.
local function panel(action, rows, vectors, j, indent, down)
  local tile = action.tile
  local function line(text) write(common.statement(indent, text)) end
  if action.packed then pack_panel(action, vectors * lanes, j, line) end
  if action.cut then
    local rest = params[action.param].rows % tile.rows
    if rest > 0 then line("ptrdiff_t i = from;") end
    line(string.format(rest > 0 and "for (; i + %d <= to; i += %d) {" or "for (ptrdiff_t i = from; i < to; i += %d) {", tile.rows, tile.rows))
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
  local a, b, stride = 1, panel_at(action, "0")
  if action.kind == "gradient" then n, a = "rows", slots[action.input.slot].stride end
  if action.turned and action.packed then stride = 1 end
  if action.packed then
    write("    real room[", terms * action.tile.vectors * lanes + line, "];\n")
    write("    real *const packed = room + ((size_t)0 - (size_t)room) % ", line * real_size, " / sizeof(real); /* begins a line */\n")
  end
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
  local rest = action.cut and params[action.param].rows % tile.rows > 0
  local scoped = rest or action.kind == "product" and not in_time(action) -- a panel declares names of its own
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
      write(common.wrap("    " .. c .. " = ", terms, " + ", "        "), ";\n")
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
    write(common.statement("", (H.apart(action) and "APART " or "static ") .. "void " .. name .. "(" .. parameters .. ")"), "{\n")
    if spelled then spell_rows(action, rows > 0 and rows or B) else tiled_body(action, rows) end
    write("}\n\n")
    if action.alternates then
      write("/* The same from the last term to the first: begins with what the step before left in the cache. */\n")
      write(common.statement("", "static void " .. down_name(name) .. "(" .. parameters .. ")"), "{\n")
      tiled_body(action, rows, true)
      write("}\n\n")
    end
  end
end

-- --- chains ------------------------------------------------------------------------------------------------------------------------------

local function place_key(ref) return ref.param and "param " .. ref.param or ref.slot .. "/" .. ref.shift end

-- What a chain calls a place.
local function parameter_name(ref)
  if ref.param then return params[ref.param].variable end
  local slot = slots[ref.slot]
  local step = slot.kind == "state" and ref.shift - 1 or ref.shift -- row 0 of a state is what the first step starts from
  if step ~= 0 and step ~= -1 then error(slot.name .. ": a chain reaches " .. step .. " steps ahead") end
  return step == 0 and slot.variable or slot.before
end

-- The places outside that a chain reads and writes, in order of first use, each once; by key, too.
local chain_places = H.once(function(action)
  local places = {}
  local function visit(ref, written)
    if not ref or ref.temp then return end
    local key = place_key(ref)
    if not places[key] then
      places[key] = {ref = ref, variable = parameter_name(ref), written = false}
      places[#places + 1] = places[key]
    end
    places[key].written = places[key].written or written
  end
  for _, e in ipairs(action.elements) do
    visit(e.a)
    visit(e.b)
    visit(e.out, true)
  end
  return places
end)

-- Do the rows of all that the chain touches follow each other without a gap?  One row always does; a parameter, which is the same
-- for all rows, does not.
local is_flat = H.once(function(action)
  if action.region == "refresh" or in_time(action) and B == 1 then return true end
  for _, one in ipairs(chain_places(action)) do
    if H.is_row(one.ref) or slots[one.ref.slot].stride ~= padded(action.cols) then return false end
  end
  return true
end)

-- A kernel serves by itself for one operation on rows without gaps.
local function is_kernel(action) return #action.elements == 1 and (is_flat(action) or spelled) end

local function number_of(e) return e.value and "(real)" .. hex(e.value) .. ", " or "" end

local function define_chain(action)
  local places = chain_places(action)
  local by_row = not spelled and not is_flat(action)
  local single = #action.elements == 1
  local function operand(ref)
    if ref.temp then return "t" .. ref.temp end
    return places[place_key(ref)].variable .. ((spelled or single) and "" or " + j")
  end
  local list, steps = {}, {}
  for _, place in ipairs(places) do
    list[#list + 1] = (place.written and "real *" or "const real *") .. place.variable .. ","
    if not H.is_row(place.ref) then
      steps[#steps + 1] = place.variable .. " += " .. slots[place.ref.slot].stride
    end
  end
  list[#list + 1] = by_row and "ptrdiff_t rows)" or "ptrdiff_t n)"
  write(common.comment("", action.note), common.wrap("static void " .. action.name .. "(", list, " ", "    "), "\n{\n")
  for i = 1, action.temps do write("    real t", i, spelled and "[" .. lanes .. "];\n" or "[CHAIN_RUN];\n") end
  local indent, n = "    ", by_row and padded(action.cols) or "n"
  local run = n
  if by_row then
    write(common.wrap("    for (; rows > 0; rows--, ", steps, ", ", "        "), ") {\n")
    indent = indent .. "    "
  end
  if not spelled and not single then
    write(indent, "for (ptrdiff_t j = 0; j < ", n, "; j += CHAIN_RUN) {\n")
    indent, run = indent .. "    ", "run"
    write(indent, "const ptrdiff_t run = ", n, " - j < CHAIN_RUN ? ", n, " - j : CHAIN_RUN;\n")
  end
  for _, e in ipairs(action.elements) do
    write(common.statement(indent, string.format("bptt_%s(%s, %s%s, %s%s);", e.op, operand(e.out), operand(e.a),
      e.b and ", " .. operand(e.b) or "", number_of(e), run)))
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
    write(common.wrap("    const real sum = ", terms, " + ", "        "), ";\n")
  end
  write(common.comment("", "-log softmax(o)[label]; backward: o becomes scale (softmax(o) - onehot(label)).  No label below " ..
    action.cols .. ": neither loss nor gradient."))
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
    write(common.wrap("    const double depth = " .. action.cols .. " * (double)max - (double)(", terms, " + ", "        "), ");\n")
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

H.numbered_name, H.chain_places, H.is_flat, H.is_kernel, H.number_of, H.is_made =
  numbered_name, chain_places, is_flat, is_kernel, number_of, is_made
end
