% if k.what == "sum_squares" then
/* Sum of a[i]^2, n a multiple of SIMD: partial sums in reals, then in double. */
${signature(k)}
{
    enum { RUN = 64 * SIMD };
    double total = 0;
    for (; n > 0; n -= RUN, a += RUN) {
        const ptrdiff_t run = n < RUN ? n : RUN, fours = run / (4 * LANES) * (4 * LANES);
        vec s0 = splat((real)0), s1 = s0, s2 = s0, s3 = s0;
        for (ptrdiff_t j = 0; j < fours; j += 4 * LANES) {
            const vec v0 = load(a + j), v1 = load(a + j + LANES), v2 = load(a + j + 2 * LANES), v3 = load(a + j + 3 * LANES);
            s0 += v0 * v0;
            s1 += v1 * v1;
            s2 += v2 * v2;
            s3 += v3 * v3;
        }
        for (ptrdiff_t j = fours; j < run; j += LANES) {
            const vec v = load(a + j);
            s0 += v * v;
        }
        total += (double)sum_lanes((s0 + s1) + (s2 + s3));
    }
    return total;
}
% elseif k.what:find("_rows$") then
% local rule = k.what:gsub("_rows$", "")
/* bptt_${rule} over rows of `cols` reals, but for those whose gradient is 0 throughout: the rule leaves them as they are. */
${signature(k)}
{
    const bits sign = bits_of(splat((real)-0.0));
    for (ptrdiff_t r = 0; r < rows; r++, param += cols, grad += cols${rule:find("^sgd") and "" or ", moment1 += cols"}) {
        bits any = bits_of(load(grad));
        for (ptrdiff_t j = LANES; j < cols; j += LANES) { any |= bits_of(load(grad + j)); }
        if (sum_lanes(from_bits(any & ~sign)) == (real)0) { continue; }
        bptt_${rule}(param, grad, moment1, 0, cols, with);
    }
}
% else
% local rule = {
%   sgd = {"param -= rate g", 0, {"rate"}, {}, "rate * g"},
%   momentum = {"v = momentum v + g, param -= rate v", 1, {"rate", "momentum"},
%     {"const vec v = momentum * load(moment1 + i) + g;", "store(moment1 + i, v);"}, "rate * v"},
%   nesterov = {"v = momentum v + g, param -= rate (g + momentum v)", 1, {"rate", "momentum"},
%     {"const vec v = momentum * load(moment1 + i) + g;", "store(moment1 + i, v);"}, "rate * (g + momentum * v)"},
%   adagrad = {"s += g g, param -= rate g / (sqrt(s) + epsilon)", 1, {"rate", "epsilon"},
%     {"const vec s = load(moment1 + i) + g * g;", "store(moment1 + i, s);"}, "quotient(rate * g, roots_of(s) + epsilon)"},
%   rmsprop = {"s = decay s + (1 - decay) g g, param -= rate g / (sqrt(s) + epsilon)", 1, {"rate", "epsilon", "decay", "rest"},
%     {"const vec s = decay * load(moment1 + i) + rest * (g * g);", "store(moment1 + i, s);"}, "quotient(rate * g, roots_of(s) + epsilon)"},
%   adam = {"m = beta1 m + (1 - beta1) g, s = beta2 s + (1 - beta2) g g, param -= rate m / (sqrt(s / c) + epsilon);\n * rate holds 1 / (1 - beta1^n), c is 1 - beta2^n, rest1 is 1 - beta1", 2,
%     {"rate", "epsilon", "beta1", "rest1", "beta2", "rest2", "c"},
%     {"const vec m = beta1 * load(moment1 + i) + rest1 * g;", "const vec s = beta2 * load(moment2 + i) + rest2 * (g * g);",
%      "store(moment1 + i, m);", "store(moment2 + i, s);"}, "quotient(rate * m, roots_of(quotient(s, c)) + epsilon)"},
% }
% local adam = rule.adam
% rule.adamw = {adam[1]:gsub("param %-= ", "param = keep param - ") .. ",\n * keep 1 - rate weight_decay", 2,
%   {"rate", "epsilon", "beta1", "rest1", "beta2", "rest2", "c", "keep"}, adam[4], adam[5]}
% local decays, cuts = k.what:find("_decay") ~= nil, k.what:find("_cut") ~= nil
% local kind = k.what:match("^%a+")
% local r = rule[kind]
% local names = {}
% for i, name in ipairs(r[3]) do names[i] = name end
% if decays then names[#names + 1] = "weight_decay" end
/* ${r[1]};
 * g is the gradient times with[0]${cuts and ", cut to +-with[1]" or ""}${decays and ", plus weight_decay param" or ""}. */
${signature(k)}
{
    const vec ${cuts and "scale = splat(with[0]), limit = splat(with[1])" or "scale = splat(with[0])"};
% for i, name in ipairs(names) do
    const vec ${name} = splat(with[${i + (cuts and 1 or 0)}]);
% end
% for i = r[2] + 1, 2 do
    (void)moment${i};
% end
    for (ptrdiff_t i = 0; i < n; i += LANES) {
% local decay = decays and " + weight_decay * old" or ""
% if cuts then
        const vec old = load(param + i), scaled = load(grad + i) * scale;
        const vec g = if_less(limit, scaled, limit, if_less(scaled, -limit, -limit, scaled))${decay};
% else
        const vec old = load(param + i), g = load(grad + i) * scale${decay};
% end
% for _, line in ipairs(r[4]) do
        ${line}
% end
        store(param + i, ${kind == "adamw" and "keep * old" or "old"} - ${r[5]});
    }
}
% end
