% if k.what == "sum_squares" then
/* Sum of a[i]^2, n a multiple of SIMD: partial sums in reals, then in double. */
${signature(k)}
{
    enum { RUN = 64 * SIMD };
    double total = 0;
    for (ptrdiff_t i = 0; i < n; i += RUN) {
        const ptrdiff_t end = i + RUN < n ? i + RUN : n;
        vec sums = splat((real)0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            const vec v = load(a + j);
            sums += v * v;
        }
        for (int l = 0; l < LANES; l++) { total += (double)lane(sums, l); }
    }
    return total;
}
% else
% local rule = {
%   sgd = {"param -= rate g", 0, {"rate"}, {}, "rate * g"},
%   momentum = {"v = momentum v + g, param -= rate v", 1, {"rate", "momentum"},
%     {"const real v = momentum * moment1[i] + g;", "moment1[i] = v;"}, "rate * v"},
%   adagrad = {"s += g g, param -= rate g / (sqrt(s) + epsilon)", 1, {"rate", "epsilon"},
%     {"const real s = moment1[i] + g * g;", "moment1[i] = s;"}, "rate * g / (sqrt_of(s) + epsilon)"},
%   rmsprop = {"s = decay s + (1 - decay) g g, param -= rate g / (sqrt(s) + epsilon)", 1, {"rate", "epsilon", "decay", "rest"},
%     {"const real s = decay * moment1[i] + rest * (g * g);", "moment1[i] = s;"}, "rate * g / (sqrt_of(s) + epsilon)"},
%   adam = {"m = beta1 m + (1 - beta1) g, s = beta2 s + (1 - beta2) g g, param -= rate m / (sqrt(s / c) + epsilon);\n * rate holds 1 / (1 - beta1^n), c is 1 - beta2^n, rest1 is 1 - beta1", 2,
%     {"rate", "epsilon", "beta1", "rest1", "beta2", "rest2", "c"},
%     {"const real m = beta1 * moment1[i] + rest1 * g;", "const real s = beta2 * moment2[i] + rest2 * (g * g);",
%      "moment1[i] = m;", "moment2[i] = s;"}, "rate * m / (sqrt_of(s / c) + epsilon)"},
% }
% local r = rule[k.what]
/* ${r[1]}; g is the gradient times with[0], cut to +-with[1]. */
${signature(k)}
{
    const real scale = with[0], limit = with[1];
% for i, name in ipairs(r[3]) do
    const real ${name} = with[${i + 1}];
% end
% for i = r[2] + 1, 2 do
    (void)moment${i};
% end
    for (ptrdiff_t i = 0; i < n; i++) {
        const real scaled = grad[i] * scale;
        const real g = scaled > limit ? limit : scaled < -limit ? -limit : scaled;
% for _, line in ipairs(r[4]) do
        ${line}
% end
        param[i] -= ${r[5]};
    }
}
% end
