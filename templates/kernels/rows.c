% if k.what == "gather" then
/* Row x[r] of the table to row r of c: a matrix times a one-hot vector. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(c + r * ldc + j, load(from + j)); }
    }
}
% elseif k.what == "gather_bias" then
/* As bptt_gather, plus a bias. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(c + r * ldc + j, load(from + j) + load(bias + j)); }
    }
}
% elseif k.what == "scatter" then
/* Row r of d is added to row x[r] of the table: the gradient of a gather. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *to = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(to + j, load(to + j) + load(d + r * ldd + j)); }
    }
}
% elseif k.what == "column_sum" then
/* sum += the rows of d: the gradient of a bias. */
${signature(k)}
{
    for (ptrdiff_t j = 0; j < cols; j += LANES) {
        vec total = load(sum + j);
        for (ptrdiff_t r = 0; r < rows; r++) { total += load(d + r * ldd + j); }
        store(sum + j, total);
    }
}
% elseif k.what == "transpose" then
/* out[j][i] = a[i][j], in squares that stay in the first-level cache. */
${signature(k)}
{
    enum { SQUARE = 16 };
    for (ptrdiff_t i0 = 0; i0 < rows; i0 += SQUARE) {
        const ptrdiff_t i1 = i0 + SQUARE < rows ? i0 + SQUARE : rows;
        for (ptrdiff_t j0 = 0; j0 < cols; j0 += SQUARE) {
            const ptrdiff_t j1 = j0 + SQUARE < cols ? j0 + SQUARE : cols;
            for (ptrdiff_t j = j0; j < j1; j++) {
                for (ptrdiff_t i = i0; i < i1; i++) { out[j * ldo + i] = a[i * lda + j]; }
            }
        }
    }
}
% end
