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
% elseif k.what == "gather_add" then
/* As bptt_gather, added to c. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(c + r * ldc + j, load(c + r * ldc + j) + load(from + j)); }
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
% elseif k.what == "copy" then
/* Rows of cols reals; what c has more of them, its padding, becomes 0. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < ldc; j++) { c[r * ldc + j] = j < cols ? a[r * lda + j] : (real)0; }
    }
}
% elseif k.what == "clear" then
/* 0 in the padding of the rows, columns `from` up to `to`. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) { memset(c + r * ldc + from, 0, (size_t)(to - from) * sizeof(real)); }
}
% elseif k.what == "transpose" then
#if LANES > 1
/* The same for LANES x LANES.  Half of the rows zipped with the other half, log2(LANES) times. */
KERNEL void transpose_square(real *out, ptrdiff_t ldo, const real *a, ptrdiff_t lda)
{
    vec r[LANES], z[LANES];
    for (int i = 0; i < LANES; i++) { r[i] = load(a + i * lda); }
    for (int times = 1; times < LANES; times *= 2) {
        for (int i = 0; i < LANES / 2; i++) {
            z[2 * i] = zip_low(r[i], r[i + LANES / 2]);
            z[2 * i + 1] = zip_high(r[i], r[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; i++) { r[i] = z[i]; }
    }
    for (int i = 0; i < LANES; i++) { store(out + i * ldo, r[i]); }
}
#else
KERNEL void transpose_square(real *out, ptrdiff_t ldo, const real *a, ptrdiff_t lda)
{
    (void)ldo;
    (void)lda;
    *out = *a;
}
#endif

/* out[j][i] = a[i][j]. */
${signature(k)}
{
    const ptrdiff_t whole_rows = rows / LANES * LANES, whole_cols = cols / LANES * LANES;
    for (ptrdiff_t j = 0; j < whole_cols; j += LANES) {
        for (ptrdiff_t i = 0; i < whole_rows; i += LANES) { transpose_square(out + j * ldo + i, ldo, a + i * lda + j, lda); }
    }
    for (ptrdiff_t j = 0; j < cols; j++) {
        for (ptrdiff_t i = j < whole_cols ? whole_rows : 0; i < rows; i++) { out[j * ldo + i] = a[i * lda + j]; }
    }
}
% end
