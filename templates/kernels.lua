-- The kernels: what each is called, what it takes, and which file spells it.  Emitted files and the precompiled kernels of runtime/
-- are both rendered from this table.  A kernel's file ends in its family's name: templates/kernels/FAMILY.c.

local kernels = {}

-- Register tiles: every rows x vectors that the plan may choose (gen/tile.c).
local MOST_ROWS, MOST_VECTORS, MOST_ACCUMULATORS = 14, 8, 28
local TILE = "real *c, ptrdiff_t ldc, const real *from, ptrdiff_t ldf, const real *a, ptrdiff_t a_row, ptrdiff_t a_step, " ..
             "const real *b, ptrdiff_t ldb, ptrdiff_t depth"
local OUTER = "real *c, ptrdiff_t ldc, const real *from, ptrdiff_t ldf, const real *a, ptrdiff_t lda, const real *d, ptrdiff_t ldd, " ..
              "ptrdiff_t depth"

-- Element-wise operations: name of the op in gen/graph.h -> operands, C over vectors of the operands a and b and of the number c
-- (`number`: it takes one); `each`: C over single reals instead.  What is not a number goes into the result.
kernels.elements = {
  add = {2, "a + b"},
  sub = {2, "a - b"},
  mul = {2, "a * b"},
  div = {2, "a / b"},
  min = {2, "if_less(a, b, a, if_less(b, a, b, from_bits(bits_of(a) | bits_of(b))))"}, -- equal, or not numbers
  max = {2, "if_less(a, b, b, if_less(b, a, a, from_bits(bits_of(a) | bits_of(b))))"},
  at_least = {2, "if_less(a, b, splat((real)0), splat((real)1))"},
  scale = {1, "splat(c) * a", number = true},
  shift = {1, "a + splat(c)", number = true},
  over = {1, "splat(c) / a", number = true},
  floor = {1, "if_less(a, splat(c), splat(c), a)", number = true},
  step = {1, "if_less(a, splat(c), splat((real)0), splat((real)1))", number = true},
  neg = {1, "-a"},
  abs = {1, "from_bits(bits_of(a) & ~bits_of(splat((real)-0.0)))"},
  abs_adjoint = {2, "if_less(splat((real)0), b, a, if_less(b, splat((real)0), -a, a * b))"},
  sqrt = {1, "sqrt_of(a)", each = true},
  log = {1, "LOG(a)", each = true},
  exp = {1, "exp_of(a)"},
  tanh = {1, "tanh_of(a)"},
  tanh_adjoint = {2, "a * (splat((real)1) - b * b)"},
  sigmoid = {1, "sigmoid_of(a)"},
  sigmoid_adjoint = {2, "a * (b * (splat((real)1) - b))"},
  relu = {1, "if_less(a, splat((real)0), splat((real)0), a)"},
  relu_adjoint = {2, "if_less(splat((real)0), b, a, splat((real)0))"},
}

local ROWS = "const uint32_t *x, ptrdiff_t rows, ptrdiff_t cols"
local UPDATE = "real *param, const real *grad, real *moment1, real *moment2, ptrdiff_t n, const real *with"
local UPDATE_ROWS = "real *param, const real *grad, real *moment1, ptrdiff_t rows, ptrdiff_t cols, const real *with"
local LOSS = "real *out, const real *o, ptrdiff_t ldo, const real *d, ptrdiff_t rows, ptrdiff_t cols, real scale, int backward"
local RESTART = "real *c, ptrdiff_t ldc, const real *a, ptrdiff_t lda, "
local list = {
  {"copy", "void", "rows", "real *c, ptrdiff_t ldc, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols"},
  {"gather", "void", "rows", "real *c, ptrdiff_t ldc, const real *table, ptrdiff_t ldt, " .. ROWS},
  {"gather_bias", "void", "rows", "real *c, ptrdiff_t ldc, const real *table, ptrdiff_t ldt, const real *bias, " .. ROWS},
  {"gather_add", "void", "rows", "real *c, ptrdiff_t ldc, const real *table, ptrdiff_t ldt, " .. ROWS},
  {"scatter", "void", "rows", "real *table, ptrdiff_t ldt, const real *d, ptrdiff_t ldd, " .. ROWS},
  {"scatter_sum", "void", "rows", "real *table, ptrdiff_t ldt, real *sum, const real *d, ptrdiff_t ldd, " .. ROWS},
  {"column_sum", "void", "rows", "real *sum, const real *d, ptrdiff_t ldd, ptrdiff_t rows, ptrdiff_t cols"},
  {"column_dot", "void", "rows",
   "real *sum, const real *d, ptrdiff_t ldd, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_softmax", "void", "row", "real *c, ptrdiff_t ldc, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_softmax_adjoint", "void", "row",
   "real *c, ptrdiff_t ldc, const real *d, ptrdiff_t ldd, const real *y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_place", "void", "row",
   "real *c, ptrdiff_t ldc, ptrdiff_t first, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_keep", "void", "row", RESTART .. "const uint8_t *restart, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_start", "void", "row", RESTART .. "const uint8_t *restart, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_restart", "void", "row",
   RESTART .. "const real *with, ptrdiff_t ldw, const uint8_t *restart, ptrdiff_t rows, ptrdiff_t cols"},
  {"row_dropout", "void", "row",
   "real *c, ptrdiff_t ldc, const real *a, ptrdiff_t lda, real p, double masks, uint64_t seed, uint32_t site, " ..
   "ptrdiff_t before, ptrdiff_t row, ptrdiff_t streams, ptrdiff_t batch, ptrdiff_t rows, ptrdiff_t cols"},
  {"transpose", "void", "rows", "real *out, ptrdiff_t ldo, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols"},
  {"pack", "void", "rows", "real *out, const real *b, ptrdiff_t ldb, ptrdiff_t rows, ptrdiff_t cols"},
  {"clear", "void", "rows", "real *c, ptrdiff_t ldc, ptrdiff_t rows, ptrdiff_t from, ptrdiff_t to"},
  {"cross_entropy", "double", "softmax",
   "real *o, ptrdiff_t ldo, const uint32_t *y, ptrdiff_t rows, ptrdiff_t cols, real scale, int backward"},
  {"smoothed_cross_entropy", "double", "softmax",
   "real *o, ptrdiff_t ldo, const uint32_t *y, ptrdiff_t rows, ptrdiff_t cols, real smoothing, real scale, int backward"},
  {"softmax", "void", "softmax", "real *o, ptrdiff_t ldo, real *out, ptrdiff_t rows, ptrdiff_t cols"},
  {"squared_error", "double", "loss", LOSS},
  {"binary_cross_entropy", "double", "loss", LOSS},
  {"sum_squares", "double", "update", "const real *a, ptrdiff_t n"},
}
-- An update, which may decay weights and cut the gradient to a largest size; sparse ones go by rows.
for _, rule in ipairs {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"} do
  for _, cut in ipairs {"", "_cut"} do
    list[#list + 1] = {rule .. cut, "void", "update", UPDATE}
    if rule ~= "adamw" then list[#list + 1] = {rule .. "_decay" .. cut, "void", "update", UPDATE} end
    if rule == "sgd" or rule == "adagrad" then list[#list + 1] = {rule .. cut .. "_rows", "void", "update", UPDATE_ROWS} end
  end
end

kernels.all = {}    -- in order
kernels.named = {}  -- by name
local function add(kernel)
  kernels.all[#kernels.all + 1] = kernel
  kernels.named[kernel.name] = kernel
end
for _, family in ipairs {{"tile", TILE}, {"outer", OUTER}} do
  for rows = 1, MOST_ROWS do
    for vectors = 1, MOST_VECTORS do
      if rows * vectors <= MOST_ACCUMULATORS then
        add {name = "bptt_" .. family[1] .. "_" .. rows .. "x" .. vectors, result = "void", family = family[1], arguments = family[2],
             rows = rows, vectors = vectors}
      end
    end
  end
end
local ops = {}
for op in pairs(kernels.elements) do ops[#ops + 1] = op end
table.sort(ops)
for _, op in ipairs(ops) do
  local arity, number = kernels.elements[op][1], kernels.elements[op].number
  add {name = "bptt_" .. op, result = "void", family = "element", op = op,
       arguments = "real *out, const real *in, " .. (arity == 2 and "const real *with, " or "") .. (number and "real c, " or "") .. "ptrdiff_t n"}
end
for _, k in ipairs(list) do
  add {name = "bptt_" .. k[1], result = k[2], family = k[3], arguments = k[4], what = k[1]}
end

-- The kernel's declaration, in lines of at most `width` columns.
function kernels.signature(kernel, width)
  local text, rest = "", kernel.result .. " " .. kernel.name .. "(" .. kernel.arguments
  while #rest > width do
    local line = rest:sub(1, width + 1):match("^(.*,) ")
    text, rest = text .. line .. "\n", "    " .. rest:sub(#line + 2)
  end
  return text .. rest .. ")"
end

return kernels
