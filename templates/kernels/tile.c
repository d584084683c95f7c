% local chains = math.max(1, math.min(4, 8 // (k.rows * k.vectors)))
% local function each(f) for i = 0, k.rows - 1 do for v = 0, k.vectors - 1 do f(i, v) end end end
% local function reg(i, v, chain) return "c" .. i .. "_" .. v .. string.sub("abc", chain, chain) end
/* c[i][j] = from[i][j] + sum over p of a(i, p) b[p][j]: ${k.rows} rows of ${k.vectors} x SIMD columns kept in registers.  a(i, p) is
 * a[i * a_row + p * a_step]; with a_step -1 and a negative ldb the sum runs from the last term to the first. */
${signature(k)}
{
    for (ptrdiff_t j = 0; j < SIMD; j += LANES) {
        const real *pa = a, *pb = b + j;
% if k.rows > 1 then
        const real *start = from + j;
% for i = 0, k.rows - 1 do
% for v = 0, k.vectors - 1 do
        PREFETCH(start + ${v} * SIMD);
% end
% if i + 1 < k.rows then
        start += ldf;
% end
% end
% end
% for chain = 0, chains - 1 do
% each(function(i, v)
        vec ${reg(i, v, chain)} = splat((real)0);
% end)
% end
        ptrdiff_t p = 0;
% if chains > 1 then
        for (; p + ${chains} <= depth; p += ${chains}, pa += ${chains} * a_step, pb += ${chains} * ldb) {
% for chain = 0, chains - 1 do
% for v = 0, k.vectors - 1 do
            const vec b${v}_${chain} = load(pb + ${chain} * ldb + ${v} * SIMD);
% end
% each(function(i, v)
            ${reg(i, v, chain)} += splat(pa[${i} * a_row + ${chain} * a_step]) * b${v}_${chain};
% end)
% end
        }
% end
        for (; p < depth; p++, pa += a_step, pb += ldb) {
% for v = 0, k.vectors - 1 do
            const vec b${v} = load(pb + ${v} * SIMD);
% end
% for i = 0, k.rows - 1 do
            const vec a${i} = splat(pa[${i} * a_row]);
% for v = 0, k.vectors - 1 do
            c${i}_${v} += a${i} * b${v};
% end
% end
        }
        const real *add = from + j;
        real *to = c + j;
% if k.rows == 1 then
        (void)ldc;
        (void)ldf;
% end
% for i = 0, k.rows - 1 do
% if i > 0 then
        add += ldf;
        to += ldc;
% end
% for v = 0, k.vectors - 1 do
%   local sum = reg(i, v, 0)
%   for chain = 1, chains - 1 do sum = sum .. " + " .. reg(i, v, chain) end
        store(to + ${v} * SIMD, load(add + ${v} * SIMD) + ${chains > 1 and "(" .. sum .. ")" or sum});
% end
% end
    }
}
