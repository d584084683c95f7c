% local bce = k.what == "binary_cross_entropy"
% if bce then
/* Sum over rows and columns of log(1 + exp(o)) - d o; backward: out, which may be o, = scale (sigmoid(o) - d).  Where d
 * is not a number there is neither loss nor gradient. */
% else
/* Sum over rows and columns of (o - d)^2; backward: out, which may be o, = 2 scale (o - d).  Where d is not a number
 * there is neither loss nor gradient. */
% end
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
% if bce then
    double loss = 0, product = 1; /* of 1 + exp(-|o|): one logarithm for many */
% else
    double loss = 0;
% end
    for (; rows > 0; rows--, o += ldo, out += ldo, d += cols) {
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            real target[LANES]; /* d has no padding */
            for (int i = 0; i < LANES; i++) { target[i] = j + i < cols ? d[j + i] : (real)NAN; }
            const vec wanted = load(target), given = load(o + j), zero = splat((real)0), limit = splat((real)INFINITY);
% if bce then
            const vec down = exp_down(from_bits(bits_of(given) | bits_of(splat((real)-0.0)))), one = splat((real)1);
            const vec above = if_less(zero, given, given, zero) - wanted * given;
            real terms[LANES];
            store(terms, if_less(wanted, limit, down, zero));
            for (int i = 0; i < LANES; i++) { product *= 1 + (double)terms[i]; }
            store(terms, if_less(wanted, limit, above, zero));
            for (int i = 0; i < LANES; i++) { loss += (double)terms[i]; }
            if (product > 0x1p800) { /* a term lies between 1 and 2 */
                loss += log(product);
                product = 1;
            }
            const vec error = if_less(wanted, limit, if_less(given, zero, down, one) / (one + down) - wanted, zero);
            if (backward) { store(out + j, splat(scale) * error); }
% else
            const vec error = if_less(wanted, limit, given - wanted, zero);
            loss += (double)sum_lanes(error * error);
            if (backward) { store(out + j, splat(2 * scale) * error); }
% end
        }
    }
    return loss${bce and " + log(product)" or ""};
}
