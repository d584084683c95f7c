-- The statements that do an action: calls of its function or of a kernel, at a step, on a block of rows or on all rows.

return function(H)
local common = include("common.lua")
local at, plus = common.at, common.plus
local B = streams
local spelled, parted, block_mode = H.spelled, H.parted, H.block_mode
local row_name, gather_name, down_name, numbered_name = H.row_name, H.gather_name, H.down_name, H.numbered_name
local in_time, starts_block, padded, reads_turned = H.in_time, H.starts_block, H.padded, H.reads_turned
local chain_places, is_flat, is_kernel, number_of = H.chain_places, H.is_flat, H.is_kernel, H.number_of

-- Where a value lies.  time: number or text (regions step and back); "row": a block of HEAD or TAIL; nil: all rows.
local function place(ref, time)
  if ref.param then return params[ref.param].variable end
  local slot = slots[ref.slot]
  local size = B * slot.stride
  if slot.kind == "block" or slot.kind == "step" or slot.kind == "one" then return slot.variable end
  if time == "row" then
    local base = slot.variable .. " + row * " .. slot.stride
    return ref.shift == 0 and base or base .. " + " .. ref.shift * size
  end
  return plus(slot.variable, at(time or 0, ref.shift, size))
end

-- Reals from a row to the next.
local function stride(ref) return H.is_row(ref) and 0 or slots[ref.slot].stride end

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

-- Where a part begins, or the next one, of n things in units.
function H.begin(n, unit, next) return string.format("begin(%d, %d, part%s)", n, unit, next and " + 1" or "") end

-- Whether a sum begins: with the first block, and where it is cut, with the rows of the first part.
local function begins(action)
  return action.cut and (action.region == "head" and "row == 0 && " or "") .. "other == 0" or "row == 0"
end

-- The range of a cut sum that a part adds up.
local function range(action, n)
  local unit = action.kind == "gradient" and action.tile.rows or lanes
  return H.begin(n, unit), H.begin(n, unit, true)
end

local function product_call(action, p, weight, rows, down)
  local list = action.kind == "gradient" and {weight, p(action.input), p(action.adjoint)} or {p(action.out), p(action.input), weight}
  if action.fill == "bias" then list[#list + 1] = params[action.bias].variable end
  local outside = not in_time(action)
  if outside and not spelled then list[#list + 1] = tostring(rows) end
  if action.kind == "gradient" and starts_block(action) then list[#list + 1] = begins(action) end
  if action.cut then
    list[#list + 1], list[#list + 2] = range(action, params[action.param].rows)
  end
  local name = numbered_name(action, rows)
  return {(down and down_name(name) or name) .. "(" .. table.concat(list, ", ") .. ");"}
end

local function chain_call(action, p, rows)
  local flat, width = is_flat(action), padded(action.cols)
  local function called(at, count) -- at: offset of row and column in a place
    local function argument(ref) return plus(p(ref), at(ref)) .. ", " end
    if is_kernel(action) then
      local e = action.elements[1]
      local text = "bptt_" .. e.op .. "(" .. argument(e.out) .. argument(e.a)
      return text .. (e.b and argument(e.b) or "") .. number_of(e) .. count .. ");"
    end
    local text = action.name .. "("
    for _, one in ipairs(chain_places(action)) do text = text .. argument(one.ref) end
    return text .. count .. ");"
  end
  if not spelled then
    local count = not flat and rows or type(rows) == "number" and rows * width or rows .. " * " .. width
    return {called(function() return "0" end, count)}
  end
  return by_rows(rows, width, function(r, j, _, n)
    return called(function(ref) return H.is_row(ref) and j or tostring(r * slots[ref.slot].stride + j) end, n)
  end)
end

H.by_restart = {keep = true, start = true, restart = true} -- operations that ask where sequences start

-- A call of a kernel that knows where rows end.
local function row_call(action, p, rows, time)
  local e = action.elements[1]
  local text = string.format("bptt_%s(%s, %d, ", row_name(action), p(e.out), stride(e.out))
  if e.op == "slice" then
    text = text .. string.format("0, %s, %d, %s, %d);", plus(p(e.a), string.format("%d", e.value)), stride(e.a), rows, action.cols)
  elseif e.op == "dropout" then
    local before = (block_mode and "past" or "0") .. (parted and " + first_stream(m, own)" or "")
    local row = (time == "row" and "row" or at(time or 0, 0, B)) .. (block_mode and " + first" or "")
    text = text .. string.format("%s, %d, (real)%s, m->progress[BPTT_MASKS], %s_SEED, %d, %s, %s, %s, %s_BATCH, %s, %d);", p(e.a), stride(e.a),
      hex(e.value), common.NAME, action.site, (before:gsub("^0 %+ ", "")), (row:gsub("^0 %+ ", "")), H.rows_of_step, common.NAME, rows,
      action.cols)
  elseif e.op == "place" then
    text = text .. string.format("%d, %s, %d, %s, %d);", e.value, p(e.a), stride(e.a), rows, action.depth)
  else
    text = text .. string.format("%s, %d%s%s, %s, %d);", p(e.a), stride(e.a), e.b and string.format(", %s, %d", p(e.b), stride(e.b)) or "",
      H.by_restart[e.op] and ", " .. plus("restart", time == "row" and "row" or at(time or 0, 0, B)) or "", rows, action.cols)
  end
  return {text}
end

-- Clears the gradients of a gather or of a bias: whole rows, or those columns of a matrix.  from, count: of a range of the columns.
local function cleared(action, from, count)
  local lines, width = {}, padded(action.cols)
  for _, param in ipairs {params[action.param], action.kind == "scatter" and params[action.bias] or nil} do
    local sum = param.gradient_variable
    local function clear(to, reals) return string.format("memset(%s, 0, %s);", to, reals) end
    if not from and width == param.stride then
      lines[#lines + 1] = clear(sum, param.rows * param.stride * real_size)
    else
      local at, reals = from or "", count or width * real_size
      lines[#lines + 1] = param.rows == 1 and clear(sum .. at, reals) or
        string.format("for (ptrdiff_t i = 0; i < %d; i++) { %s }", param.rows, clear(sum .. " + i * " .. param.stride .. at, reals))
    end
  end
  return lines
end

-- Adds up columns of rows, or of products with other rows, or rows by their tokens.  r: the first row; j, n: the columns.
local function row_sum(action, p, x, r, rows, j, n)
  local function from(ref) return string.format("%s, %d", plus(plus(p(ref), tostring(r * stride(ref))), j), stride(ref)) end
  local function sum(i) return plus(params[i].gradient_variable, j) end
  if action.kind == "column_sum" then
    return string.format("bptt_column_%s(%s, %s%s, %s, %s);", action.input and "dot" or "sum", sum(action.param), from(action.adjoint),
      action.input and ", " .. from(action.input) or "", rows, n)
  end
  return string.format("bptt_scatter%s(%s, %d, %s%s, %s, %s, %s);", action.bias > 0 and "_sum" or "", sum(action.param),
    params[action.param].stride, action.bias > 0 and sum(action.bias) .. ", " or "", from(action.adjoint), plus(x, tostring(r)), rows, n)
end

-- The columns of a part: each adds up its own.
local function column_sums(action, p, rows)
  local lines = {"{", "    const ptrdiff_t from = %s, to = %s;"}
  lines[2] = lines[2]:format(range(action, padded(action.cols)))
  if action.fill == "zero" then
    lines[#lines + 1] = "    if (" .. begins(action) .. ") {"
    for _, clear in ipairs(cleared(action, " + from", "(size_t)(to - from) * " .. real_size)) do lines[#lines + 1] = "        " .. clear end
    lines[#lines + 1] = "    }"
  end
  lines[#lines + 1] = "    " .. row_sum(action, p, "x", 0, rows, "from", "to - from")
  lines[#lines + 1] = "}"
  return lines
end

-- The gradient of a gather or of a bias: rows of the adjoint added up.
local function row_sums(action, p, rows, time)
  if action.cut then return column_sums(action, p, rows) end
  local lines = {}
  if action.fill == "zero" then
    for _, clear in ipairs(cleared(action)) do
      lines[#lines + 1] = starts_block(action) and "if (row == 0) { " .. clear .. " }" or clear
    end
  end
  local sums = by_rows(rows, padded(action.cols), function(r, j, count, n)
    return row_sum(action, p, time == "row" and "x + row" or "x", r, count, j, n)
  end)
  return table.move(sums, 1, #sums, #lines + 1, lines)
end

-- time: see place; rows: a number, or the name of one; backward: a loss hands its gradient back; down: a product that alternates sums
-- from the last term.
local function calls(action, time, rows, backward, down)
  local function p(ref) return place(ref, time) end
  local function times(n) return type(rows) == "number" and tostring(rows * n) or rows .. " * " .. n end
  local param = action.param > 0 and params[action.param] or nil
  local weight = param and (reads_turned(action) and param.turned_variable or param.variable)
  if action.kind == "product" then return product_call(action, p, weight, rows, down) end
  if action.kind == "gradient" then return product_call(action, p, param.gradient_variable, rows) end
  if action.kind == "row" then return row_call(action, p, rows, time) end
  if action.kind == "chain" then return chain_call(action, p, rows) end
  if action.kind == "scatter" or action.kind == "column_sum" then return row_sums(action, p, rows, time) end
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
    return {common.wrap("const double loss = ", terms, " + ", "        ") .. ";"}
  elseif action.kind == "loss" and spelled then
    local terms = {}
    for r = 0, rows - 1 do
      terms[#terms + 1] = string.format("cross_entropy(%s, y[%d], %s)", plus(p(action.input), tostring(r * stride(action.input))), r,
        backward and "scale, 1" or "(real)1, 0")
    end
    return {common.wrap("const double loss = ", terms, " + ", "        ") .. ";"}
  elseif action.kind == "loss" then
    local smoothing = action.smoothing > 0 and string.format("(real)%s /* %s */, ", hex(action.smoothing), H.decimal(action.smoothing)) or ""
    return {string.format("const double loss = bptt_%scross_entropy(%s, %d, y, %s, %d, %s%s);", smoothing ~= "" and "smoothed_" or "",
      p(action.input), stride(action.input), rows, action.cols, smoothing, backward and "scale, 1" or "(real)1, 0")}
  end
  error("no spelling for " .. action.kind)
end

-- What the model gives for a step, in place of its loss.
local function write_outputs(action)
  local from, size = place(action.input, 0), stride(action.input)
  local lines = {}
  if action.loss == "binary_cross_entropy" then
    lines = by_vectors(tostring(B * size), function(j, n) return string.format("bptt_sigmoid(%s, %s, %s);", plus(from, j), plus(from, j), n) end)
  end
  for _, line in ipairs(row_by_row(B, function(r, rows)
    return string.format("bptt_copy(%s, %d, %s, %d, %d, %d);", plus("outputs", tostring(r * action.cols)), action.cols,
      plus(from, tostring(r * size)), size, rows, action.cols)
  end)) do lines[#lines + 1] = line end
  return lines
end

H.place, H.by_vectors, H.calls, H.write_outputs = place, by_vectors, calls, write_outputs
end
