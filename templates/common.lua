-- What the skeletons share: names derived from the plan, and the spelling of calls.  Decides nothing.

local common = {}
common.kernels = include("kernels.lua")
common.real = real_size == 8 and "double" or "float"
common.name = spec.name
common.NAME = string.upper(spec.name)

common.scheduled = spec and (spec.schedule.kind ~= "constant" or spec.schedule.warmup ~= nil)

-- Steps of a chunk, in words and as a macro; nothing while kernels alone are spelled.
local truncation = spec and spec.truncation
common.chunk_steps_word = truncation == "block" and "STRIDE" or truncation == "uniform" and "T" or "K"
common.chunk_macro = truncation == "block" and "STRIDE" or truncation == "uniform" and "STEPS" or "HORIZON"

-- Everything a kernel's template may use beside the plan.
function common.kernel_text(kernel)
  k = kernel
  include("kernels/" .. kernel.family .. ".c")
end

-- What a model reads of a step of a sequence, in the order of every argument list: variable, role, type, values in a row.
common.data = {}
for _, read in ipairs {{"x", "input", "token", spec.tokens and 1 or 0, "tokens", ""}, {"v", "input", "real", spec.inputs, "inputs", "[D]"},
  {"y", "target", "token", spec.labels and 1 or 0, "labels", ""}, {"d", "target", "real", spec.targets, "targets", "[Q]"}} do
  if read[4] > 0 then
    common.data[#common.data + 1] =
      {name = read[1], role = read[2], type = spec.name .. "_" .. read[3], width = read[4], what = read[5], row = read[6]}
  end
end

-- `write(read)` of what has the role, or the name, `which` (nil: of all), one after the other.
local function each_read(which, write)
  local pieces = {}
  for _, read in ipairs(common.data) do
    if not which or which == read.role or which == read.name then pieces[#pieces + 1] = write(read) end
  end
  return table.concat(pieces)
end

-- ", const net_token *x, ..."
function common.data_parameters(which)
  return each_read(which, function(read) return ", const " .. read.type .. " *" .. read.name end)
end

-- So many values of rows: "rows", "rows * 3", "(row + skip) * 3".
function common.values(read, rows)
  if read.width == 1 then return rows end
  return (rows:find(" ") and "(" .. rows .. ")" or rows) .. " * " .. read.width
end

-- ", x, ..." or, `rows` rows on and of the struct that `prefix` names, ", j->x + rows, ..."
function common.data_arguments(which, rows, prefix)
  return each_read(which, function(read)
    return ", " .. common.plus((prefix or "") .. read.name, rows and common.values(read, rows) or "0")
  end)
end

-- "tokens x[T][B], ...", where every row has the shape `rows`
function common.shapes(which, rows)
  return each_read(which, function(read) return ", " .. read.what .. " " .. read.name .. rows .. read.row end):sub(3)
end

-- ", .x = x, ..."
function common.data_initializers(which)
  return each_read(which, function(read) return ", ." .. read.name .. " = " .. read.name end)
end

-- ", const uint8_t *reset": where the caller says that documents start; and how it is handed on.
common.reset_parameter = spec.resets and ", const uint8_t *reset" or ""
function common.reset_argument(prefix) return spec.resets and ", " .. (prefix or "") .. "reset" or "" end

-- "12", "t * 128", "(t + 1) * 128": where row block t + shift of something with `size` reals a block begins.
function common.at(t, shift, size)
  if type(t) == "number" then return tostring((t + shift) * size) end
  if shift == 0 then return string.format("%s * %d", t, size) end
  return string.format("(%s %s %d) * %d", t, shift < 0 and "-" or "+", math.abs(shift), size)
end

-- "w + j", "w + 12" where "w + 8" gets 4 more.
function common.plus(pointer, offset)
  if offset == "0" then return pointer end
  local base, before = pointer:match("^(.*) %+ (%d+)$")
  if base and offset:find("^%d+$") then return base .. " + " .. math.tointeger(before) + math.tointeger(offset) end
  return pointer .. " + " .. offset
end

-- `head` and a list of pieces in lines of at most 120 columns, all but the first behind `indent`: broken behind a separator's comma,
-- or before its operator.
function common.wrap(head, pieces, separator, indent)
  local ends, begins = separator:match("^(%S*) ?(.*)$")
  local lines, line = {}, head .. pieces[1]
  for i = 2, #pieces do
    if #line + #separator + #pieces[i] + #ends > 120 then
      lines[#lines + 1] = line .. ends
      line = indent .. begins .. pieces[i]
    else
      line = line .. separator .. pieces[i]
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

-- The same for a text, in which a piece ends where `stop` (a class of characters) and blanks follow.
local function fill(head, text, stop, indent)
  local pieces, rest = {}, 1
  for piece, next in text:gmatch("(.-" .. stop .. " +)()") do pieces[#pieces + 1], rest = piece, next end
  pieces[#pieces + 1] = text:sub(rest)
  return (common.wrap(head, pieces, "", indent):gsub(" +\n", "\n"))
end

-- The words of a text, but what is in parentheses or on both sides of an = stays together.
function common.fill(head, text, indent)
  if #head + #text <= 120 then return head .. text end
  local function tied(part) return (part:gsub(" ", "\1")) end
  return (fill(head, text:gsub("%b()", tied):gsub(" [+-]?= ", tied), "%S", indent):gsub("\1", " "))
end

-- The arguments of a statement, or a declaration, unless that has its lines already.
function common.statement(indent, text)
  if #indent + #text <= 120 or text:find("\n") then return indent .. text .. "\n" end
  indent, text = indent .. text:match("^ *"), text:match("^ *(.*)$") -- a block's lines are indented
  local function tied(part) return (part:gsub(" ", "\1")) end
  local whole = text:gsub("%b()", function(part) return "(" .. part:sub(2, -2):gsub("%b()", tied) .. ")" end) -- a call within stays whole
  return (fill(indent, whole, "[,;]", indent .. "    "):gsub("\1", " ")) .. "\n"
end

function common.comment(indent, text) return common.fill(indent .. "/* ", text .. " */", indent .. " * ") .. "\n" end

return common
