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
/* Row x[r] of the table and a bias to row r of c: a matrix times a one-hot vector, plus the bias. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(c + r * ldc + j, load(from + j) + load(bias + j)); }
    }
}
% elseif k.what == "gather_add" then
/* Row x[r] of the table is added to row r of c: a matrix times a one-hot vector. */
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
% elseif k.what == "scatter_sum" then
/* Row r of d is added to row x[r] of the table, and to sum: the gradients of a gather and of its bias. */
${signature(k)}
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *to = table + (ptrdiff_t)x[r] * ldt;
        for (ptrdiff_t j = 0; j < cols; j += LANES) {
            const vec v = load(d + r * ldd + j);
            store(to + j, load(to + j) + v);
            store(sum + j, load(sum + j) + v);
        }
    }
}
% elseif k.what == "column_sum" or k.what == "column_dot" then
% local side, dot = 8, k.what == "column_dot"
% if dot then
/* sum += the rows of d times those of a, element by element: the gradient of a vector that a was multiplied with.
 * ${side} vectors side by side, since rows may lie far apart. */
% else
/* sum += the rows of d: the gradient of a bias.  ${side} vectors side by side, since rows may lie far apart. */
% end
${signature(k)}
{
    const ptrdiff_t whole = cols / (${side} * LANES) * (${side} * LANES);
    for (ptrdiff_t j = 0; j < whole; j += ${side} * LANES) {
% for i = 0, side - 1 do
        vec s${i} = load(sum + j + ${i} * LANES);
% end
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *row = d + r * ldd + j${dot and ", *with = a + r * lda + j" or ""};
% for i = 0, side - 1 do
            s${i} += load(row + ${i} * LANES)${dot and " * load(with + " .. i .. " * LANES)" or ""};
% end
        }
% for i = 0, side - 1 do
        store(sum + j + ${i} * LANES, s${i});
% end
    }
    for (ptrdiff_t j = whole; j < cols; j += LANES) {
        vec total = load(sum + j);
        for (ptrdiff_t r = 0; r < rows; r++) { total += load(d + r * ldd + j)${dot and " * load(a + r * lda + j)" or ""}; }
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
% elseif k.what == "pack" then
/* Rows of b, cols reals of each in whole vectors, side by side.  What lies far apart is asked for AHEAD rows before. */
${signature(k)}
{
    enum { AHEAD = 16 };
    for (ptrdiff_t r = 0; r < rows; r++, out += cols, b += ldb) {
        const size_t far = (size_t)b + AHEAD * (size_t)ldb * sizeof(real);
        for (ptrdiff_t j = 0; j < cols; j += LANES) {
            PREFETCH((const real *)far + j);
            store(out + j, load(b + j));
        }
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
/* out[j][i] = a[i][j] for rows i and columns j up to LANES, and 0 in the padding of out: half of the rows zipped with the
 * other half, log2(LANES) times. */
KERNEL void transpose_square(real *out, ptrdiff_t ldo, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols)
{
    vec r[LANES], z[LANES];
    for (int i = 0; i < LANES; i++) { r[i] = i < rows ? load(a + i * lda) : splat((real)0); }
    for (int times = 1; times < LANES; times *= 2) {
        for (int i = 0; i < LANES / 2; i++) {
            z[2 * i] = zip_low(r[i], r[i + LANES / 2]);
            z[2 * i + 1] = zip_high(r[i], r[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; i++) { r[i] = z[i]; }
    }
    for (int i = 0; i < LANES; i++) {
        if (i < cols) { store(out + i * ldo, r[i]); }
    }
}
#else
KERNEL void transpose_square(real *out, ptrdiff_t ldo, const real *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t cols)
{
    (void)ldo;
    (void)lda;
    (void)rows;
    (void)cols;
    *out = *a;
}
#endif

/* out[j][i] = a[i][j], for rows of a and of out in whole vectors. */
${signature(k)}
{
    const ptrdiff_t whole_rows = rows / LANES * LANES, whole_cols = cols / LANES * LANES;
    for (ptrdiff_t j = 0; j < whole_cols; j += LANES) {
        for (ptrdiff_t i = 0; i < whole_rows; i += LANES) {
            transpose_square(out + j * ldo + i, ldo, a + i * lda + j, lda, LANES, LANES);
        }
    }
    for (ptrdiff_t i = 0; i < rows; i += LANES) {
        const ptrdiff_t some = rows - i < LANES ? rows - i : LANES;
        for (ptrdiff_t j = i < whole_rows ? whole_cols : 0; j < cols; j += LANES) {
            transpose_square(out + j * ldo + i, ldo, a + i * lda + j, lda, some, cols - j < LANES ? cols - j : LANES);
        }
    }
}
% end
