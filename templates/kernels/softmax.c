% if k.what == "cross_entropy" then
/* Sum over the rows of -log softmax(o[r])[y[r]].  backward: o[r] becomes scale (softmax(o[r]) - onehot(y[r])).  A row whose label
 * is not below cols has neither loss nor gradient. */
% else
/* out[r] = softmax(o[r]), without padding. */
% end
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
% if k.what == "cross_entropy" then
    double loss = 0, product = 1; /* of the rows' sums: one logarithm for many */
    for (ptrdiff_t r = 0; r < rows; r++, o += ldo) {
        if (y[r] >= (uint32_t)cols) {
            for (ptrdiff_t j = 0; j < padded; j++) { o[j] = (real)0; }
            continue;
        }
% else
    for (ptrdiff_t r = 0; r < rows; r++, o += ldo, out += cols) {
% end
        for (ptrdiff_t j = cols; j < padded; j++) { o[j] = -LARGEST; } /* never the largest; exp gives exactly 0 */
        vec most = load(o);
        for (ptrdiff_t j = LANES; j < padded; j += LANES) {
            const vec v = load(o + j);
            most = if_less(most, v, v, most);
        }
        const real max = largest_lane(most);
% if k.what == "cross_entropy" then
        const real label = o[y[r]];
% end
        vec sums = splat((real)0);
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            const vec e = exp_of(load(o + j) - splat(max));
            sums += e;
            store(o + j, e);
        }
        const real sum = sum_lanes(sums);
% if k.what == "cross_entropy" then
        loss += (double)max - (double)label;
        product *= (double)sum;
        if (product > 0x1p900) { /* a sum lies between 1 and 2^31 */
            loss += log(product);
            product = 1;
        }
        if (!backward) { continue; }
        const vec factor = splat(scale / sum);
        for (ptrdiff_t j = 0; j < padded; j += LANES) { store(o + j, load(o + j) * factor); }
        o[y[r]] -= scale;
    }
    return loss + log(product);
% else
        for (ptrdiff_t j = 0; j < cols; j++) { out[j] = o[j] / sum; }
    }
% end
}
