/* c[i][j] = from[i][j] + sum over p of a[p][i] d[p][j]: ${k.rows} rows of ${k.vectors} x SIMD columns kept in registers.  What a later term
 * reads is asked for AHEAD terms before, and what the sum is added to at once: rows far apart are not fetched unasked. */
${signature(k)}
{
    enum { AHEAD = 12 };
    for (ptrdiff_t j = 0; j < SIMD; j += LANES) {
        const real *pa = a, *pd = d + j;
        size_t far_a = (size_t)pa + AHEAD * (size_t)lda * sizeof(real);
        size_t far_d = (size_t)pd + AHEAD * (size_t)ldd * sizeof(real);
        const real *start = from + j;
% for i = 0, k.rows - 1 do
% if i > 0 then
        start += ldf;
% end
% for v = 0, k.vectors - 1 do
        PREFETCH(start + ${v} * SIMD);
        vec c${i}_${v} = splat((real)0);
% end
% end
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
        store(to + ${v} * SIMD, load(add + ${v} * SIMD) + c${i}_${v});
% end
% end
    }
}
