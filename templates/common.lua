-- What the skeletons share: names derived from the plan, and the spelling of calls.  Decides nothing.

local common = {}
common.kernels = include("kernels.lua")
common.real = real_size == 8 and "double" or "float"
common.name = spec.name
common.NAME = string.upper(spec.name)

common.scheduled = spec and (spec.schedule.kind ~= "constant" or spec.schedule.warmup ~= nil)

-- Everything a kernel's template may use beside the plan.
function common.kernel_text(kernel)
  k = kernel
  include("kernels/" .. kernel.family .. ".c")
end

-- "12", "t * 128", "(t + 1) * 128": where row block t + shift of something with `size` reals a block begins.
function common.at(t, shift, size)
  if type(t) == "number" then return tostring((t + shift) * size) end
  if shift == 0 then return string.format("%s * %d", t, size) end
  return string.format("(%s %s %d) * %d", t, shift < 0 and "-" or "+", math.abs(shift), size)
end

function common.plus(pointer, offset)
  if offset == "0" then return pointer end
  return pointer .. " + " .. offset
end

-- Breaks a long list of pieces into lines of at most 120 columns.
function common.wrap(indent, pieces, separator)
  local lines, line = {}, ""
  for i, piece in ipairs(pieces) do
    local part = (i > 1 and separator or "") .. piece
    if #line + #part + indent > 120 and line ~= "" then
      lines[#lines + 1] = line
      line = part:gsub("^ ", "")
    else
      line = line .. part
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. string.rep(" ", indent))
end

return common
