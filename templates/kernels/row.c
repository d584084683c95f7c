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
% elseif k.what == "row_dropout" then
% local word = f32 and "" or " & 0xffffffffu"
/* The last steps of SplitMix64 (Steele, Lea, Flood 2014). */
KERNEL uint64_t hash_of(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* c[r] = a[r] / (1 - p) but for elements that are dropped, each with probability p, which are 0; masks 0: c[r] = a[r].
 * Whether one is dropped is a hash of seed, masks, site, its row and its column: nothing is kept.  The row's number is
 * that among `batch` rows of each step, of which every step has `streams` here: row 0 is row `before`, and these begin
 * at `row`.  The column goes through a hash of 32 bits (Wellons' lowbias32, with a key before and in the middle), of
 * which 23 make a number in [1, 2). */
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
    const real drop = masks > 0 ? p : (real)0;
    const vec least = splat(1 + drop), scale = splat(1 / (1 - drop)), zero = splat((real)0);
    const uint64_t key = hash_of(hash_of(seed + 0x9E3779B97F4A7C15u) + (uint64_t)masks) + ((uint64_t)site << 40);
    ptrdiff_t stream = row % streams, number = before + row / streams * batch + stream;
    for (ptrdiff_t r = 0; r < rows; r++, c += ldc, a += lda) {
        const uint64_t z = hash_of(key + (uint64_t)number * 0x9E3779B97F4A7C15u);
        const ${bits_type} low = (${bits_type})(z & 0xffffffffu), high = (${bits_type})(z >> 32);
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
            const vec column = lane_numbers() + splat((real)j), inside = splat((real)cols) - column;
            bits x = bits_of(column + splat(ROUND)) & 0x3fffffu; /* the column as an integer */
            x = (x * 0x9E3779B1u + low)${word};
            x = ((x ^ (x >> 16)) * 0x7feb352du)${word};
            x ^= high;
            x = ((x ^ (x >> 15)) * 0x846ca68bu)${word};
            x ^= x >> 16;
            const vec u = from_bits((x >> 9)${f32 and " | 0x3f800000u" or " << 29 | 0x3ff0000000000000u"});
            store(c + j, if_less(zero, inside, if_less(u, least, zero, load(a + j) * scale), zero));
        }
        number++;
        if (++stream == streams) {
            stream = 0;
            number += batch - streams;
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
