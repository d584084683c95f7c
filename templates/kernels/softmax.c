% local smooth = k.what == "smoothed_cross_entropy"
% local loss = smooth or k.what == "cross_entropy"
% local function each(n, f) for i = 0, n - 1 do f(i) end end
% local function row(i) return i == 0 and "o" or "o + " .. (i == 1 and "" or i .. " * ") .. "ldo" end
% local function group(n)
%   each(n, function(i)
        real *const o${i} = ${row(i)};
%   end)
        for (ptrdiff_t j = padded - SIMD; j < padded; j += LANES) { /* padding: never the largest, and exp gives exactly 0 */
            const vec inside = splat((real)(cols - j)) - lane_numbers();
%   each(n, function(i)
            store(o${i} + j, if_less(splat((real)0), inside, load(o${i} + j), splat(-LARGEST)));
%   end)
        }
%   each(n, function(i)
        vec most${i} = load(o${i});
%   end)
        for (ptrdiff_t j = LANES; j < padded; j += LANES) {
%   each(n, function(i)
            const vec v${i} = load(o${i} + j);
            most${i} = if_less(most${i}, v${i}, v${i}, most${i});
%   end)
        }
%   each(n, function(i)
        const real max${i} = largest_lane(most${i});
%   end)
%   if loss then
%   each(n, function(i)
        const int counts${i} = y[${i}] < (uint32_t)cols;
        const ptrdiff_t label${i} = counts${i} ? (ptrdiff_t)y[${i}] : 0;
        const double above${i} = (double)max${i} - (double)o${i}[label${i}];
%   end)
%   end
%   each(n, function(i)
        vec sums${i} = splat((real)0);
%   end)
%   if smooth then
%   each(n, function(i)
        vec depths${i} = splat((real)0); /* below the largest */
%   end)
%   end
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
%   if smooth then
            const vec inside = splat((real)(cols - j)) - lane_numbers();
%   each(n, function(i)
            depths${i} += if_less(splat((real)0), inside, splat(max${i}) - load(o${i} + j), splat((real)0));
%   end)
%   end
%   each(n, function(i)
            const vec e${i} = exp_down(load(o${i} + j) - splat(max${i}));
%   end)
%   each(n, function(i)
            sums${i} += e${i};
            store(o${i} + j, e${i});
%   end)
        }
%   each(n, function(i)
        const real sum${i} = sum_lanes(sums${i});
%   end)
%   if loss then
%   each(n, function(i)
%   if smooth then
        loss += counts${i} ? keep * above${i} + even * (double)sum_lanes(depths${i}) : 0;
%   else
        loss += counts${i} ? above${i} : 0;
%   end
        product *= counts${i} ? (double)sum${i} : 1;
%   end)
        if (product > 0x1p800) { /* a sum lies between 1 and 2^31 */
            loss += log(product);
            product = 1;
        }
        if (!backward) { continue; }
%   each(n, function(i)
        const vec factor${i} = splat(counts${i} ? scale / sum${i} : (real)0);
%   end)
        for (ptrdiff_t j = 0; j < padded; j += LANES) {
%   if smooth then
            const vec inside = splat((real)(cols - j)) - lane_numbers();
%   each(n, function(i)
            const vec less${i} = splat(counts${i} ? (real)even * scale : (real)0);
            store(o${i} + j, if_less(splat((real)0), inside, load(o${i} + j) * factor${i} - less${i}, splat((real)0)));
%   end)
%   else
%   each(n, function(i)
            store(o${i} + j, load(o${i} + j) * factor${i});
%   end)
%   end
        }
%   each(n, function(i)
        o${i}[label${i}] -= counts${i} ? ${smooth and "(real)keep * scale" or "scale"} : (real)0;
%   end)
%   else
        for (ptrdiff_t j = 0; j < cols; j++) {
%   each(n, function(i)
            out[${i > 0 and i .. " * cols + " or ""}j] = o${i}[j] / sum${i};
%   end)
        }
%   end
% end
% if smooth then
/* As bptt_cross_entropy, against (1 - smoothing) onehot(y[r]) + smoothing / cols in place of onehot(y[r]). */
% elseif loss then
/* Sum over the rows of -log softmax(o[r])[y[r]].  backward: o[r] becomes scale (softmax(o[r]) - onehot(y[r])).  A row whose label
 * is not below cols has neither loss nor gradient.  Four rows at a time, since one row's steps wait for each other. */
% else
/* out[r] = softmax(o[r]), without padding. */
% end
${signature(k)}
{
    const ptrdiff_t padded = (cols + SIMD - 1) / SIMD * SIMD;
% if smooth then
    const double keep = 1 - (double)smoothing, even = (double)smoothing / (double)cols;
% end
% if loss then
    double loss = 0, product = 1; /* of the rows' sums: one logarithm for many */
    for (; rows >= 4; rows -= 4, o += 4 * ldo, y += 4) {
% group(4)
    }
    for (; rows > 0; rows--, o += ldo, y++) {
% group(1)
    }
    return loss + log(product);
% else
    for (; rows > 0; rows--, o += ldo, out += cols) {
% group(1)
    }
% end
}
