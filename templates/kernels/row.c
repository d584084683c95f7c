% if k.what == "row_softmax" then
/* c[r] = softmax(a[r]), and 0 in the padding. */
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
    const vec zero = splat((real)0);
    for (ptrdiff_t r = 0; r < rows; r++, c += ldc, a += lda) {
        vec most = splat(-LARGEST), sums = zero;
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            const vec inside = splat((real)(cols - j)) - lane_numbers(), v = load(a + j);
            most = if_less(zero, inside, if_less(most, v, v, most), most);
        }
        const vec max = splat(largest_lane(most));
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            const vec inside = splat((real)(cols - j)) - lane_numbers();
            const vec e = if_less(zero, inside, exp_down(load(a + j) - max), zero);
            store(c + j, e);
            sums += e;
        }
        const vec sum = splat(sum_lanes(sums));
        for (ptrdiff_t j = 0; j < padded; j += LANES) { store(c + j, load(c + j) / sum); }
    }
}
% elseif k.what == "row_softmax_adjoint" then
/* c[r] = y[r] (d[r] - the sum of d[r] y[r]); y = softmax.  The padding of all is 0. */
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
    for (ptrdiff_t r = 0; r < rows; r++, c += ldc, d += ldd, y += ldy) {
        vec sums = splat((real)0);
        for (ptrdiff_t j = 0; j < cols; j += LANES) { sums += load(d + j) * load(y + j); }
        const vec sum = splat(sum_lanes(sums));
        for (ptrdiff_t j = 0; j < padded; j += LANES) { store(c + j, load(y + j) * (load(d + j) - sum)); }
    }
}
% elseif k.what == "row_keep" or k.what == "row_start" or k.what == "row_restart" then
% local there, here = k.what == "row_start" and "load(a + j)" or k.what == "row_keep" and "zero" or "load(with + j)", k.what == "row_start" and "zero" or "load(a + j)"
/* c[r] = restart[r] ? ${k.what == "row_start" and "a[r] : 0" or k.what == "row_keep" and "0 : a[r]" or "with[r] : a[r]"}, a selection: what is not taken may be anything.  0 in the padding. */
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
    const vec zero = splat((real)0);
    for (ptrdiff_t r = 0; r < rows; r++, c += ldc, a += lda${k.what == "row_restart" and ", with += ldw" or ""}) {
        const vec starts = splat((real)(restart[r] != 0));
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            const vec inside = splat((real)(cols - j)) - lane_numbers();
            store(c + j, if_less(zero, inside, if_less(zero, starts, ${there}, ${here}), zero));
        }
    }
}
% else
/* `cols` reals of each row of a go into a row of c from column `first` on; the rest of that row, with its padding, is 0. */
${signature(k)}
{
    const ptrdiff_t end = first + cols;
    for (ptrdiff_t r = 0; r < rows; r++, c += ldc, a += lda) {
        memset(c, 0, (size_t)first * sizeof(real));
        memcpy(c + first, a, (size_t)cols * sizeof(real));
        memset(c + end, 0, (size_t)(ldc - end) * sizeof(real));
    }
}
% end
