% local function each(f) for i = 0, k.rows - 1 do for v = 0, k.vectors - 1 do f(i, v) end end end
/* c[i][j] = from[i][j] + sum over p of a[p][i] d[p][j]: ${k.rows} rows of ${k.vectors} x SIMD columns kept in registers.  What a later term
 * reads is asked for AHEAD terms before, and what the sum is added to at once: rows far apart are not fetched unasked. */
${signature(k)}
{
    enum { AHEAD = 12 };
    for (ptrdiff_t j = 0; j < SIMD; j += LANES) {
        const real *pa = a, *pd = d + j;
        size_t far_a = (size_t)a + AHEAD * (size_t)lda * sizeof(real), far_d = (size_t)(d + j) + AHEAD * (size_t)ldd * sizeof(real);
% each(function(i, v)
        PREFETCH(from + ${i} * ldf + ${v} * SIMD + j);
        vec c${i}_${v} = splat((real)0);
% end)
        for (ptrdiff_t p = 0; p < depth; p++, pa += lda, pd += ldd) {
            PREFETCH((const real *)far_a);
% for v = 0, k.vectors - 1 do
            PREFETCH((const real *)far_d + ${v} * SIMD);
% end
            far_a += (size_t)lda * sizeof(real);
            far_d += (size_t)ldd * sizeof(real);
% for v = 0, k.vectors - 1 do
            const vec d${v} = load(pd + ${v} * SIMD);
% end
% for i = 0, k.rows - 1 do
            const vec a${i} = splat(pa[${i}]);
% for v = 0, k.vectors - 1 do
            c${i}_${v} += a${i} * d${v};
% end
% end
        }
% each(function(i, v)
        store(c + ${i} * ldc + ${v} * SIMD + j, load(from + ${i} * ldf + ${v} * SIMD + j) + c${i}_${v});
% end)
    }
}
