/* --- vectors ---------------------------------------------------------------------------------------------------------------
 * The layout is padded to SIMD reals; a vector holds LANES of them, as many as the compiler's target has.  LANES = 1 is plain C. */
#define SIMD ${lanes}
#if defined(__GNUC__) && !defined(__TINYC__) && SIMD > 1
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES (SIMD * ${real_size} < VECTOR_BYTES ? SIMD : VECTOR_BYTES / ${real_size})
#define KERNEL static inline __attribute__((always_inline, unused))
typedef real vec __attribute__((vector_size(LANES * ${real_size})));
typedef ${bits_type} bits __attribute__((vector_size(LANES * ${real_size})));
typedef ${int_type} mask __attribute__((vector_size(LANES * ${real_size})));
typedef real unaligned_vec __attribute__((vector_size(LANES * ${real_size}), aligned(${real_size}), may_alias));

KERNEL vec load(const real *p)
{
    return *(const unaligned_vec *)p;
}

KERNEL void store(real *p, vec v)
{
    *(unaligned_vec *)p = v;
}

KERNEL vec splat(real x)
{
    return x - (vec){0};
}

KERNEL bits bits_of(vec v)
{
    return (bits)v;
}

KERNEL vec from_bits(bits b)
{
    return (vec)b;
}

/* a < b ? yes : no; not a number is less than nothing. */
KERNEL vec if_less(vec a, vec b, vec yes, vec no)
{
    const mask less = a < b;
    return (vec)(((mask)yes & less) | ((mask)no & ~less));
}

/* Lanes of a, then of b, by number. */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

% local function numbers(n, number) -- of lanes
%   local list = {}
%   for i = 0, n - 1 do list[#list + 1] = number(i) end
%   return table.concat(list, ", ")
% end
% for n = 2, lanes do
% if n & n - 1 == 0 then
#${n == 2 and "if" or "elif"} LANES == ${n}
KERNEL vec lane_numbers(void)
{
    return (vec){${numbers(n, function(i) return i end)}};
}

KERNEL real sum_lanes(vec v)
{
% local distance = n // 2
% while distance > 0 do
    v += SHUFFLE(v, v, ${numbers(n, function(i) return (i + distance) % n end)});
% distance = distance // 2
% end
    return v[0];
}

KERNEL real largest_lane(vec v)
{
    vec other;
% distance = n // 2
% while distance > 0 do
    other = SHUFFLE(v, v, ${numbers(n, function(i) return (i + distance) % n end)});
    v = if_less(v, other, other, v);
% distance = distance // 2
% end
    return v[0];
}

KERNEL vec zip_low(vec a, vec b)
{
    return SHUFFLE(a, b, ${numbers(n, function(i) return i // 2 + i % 2 * n end)});
}

KERNEL vec zip_high(vec a, vec b)
{
    return SHUFFLE(a, b, ${numbers(n, function(i) return n // 2 + i // 2 + i % 2 * n end)});
}
% end
% end
${lanes > 1 and "#endif" or ""}
#else
#define LANES 1
#if defined(__GNUC__) && !defined(__TINYC__)
#define KERNEL static inline __attribute__((unused))
#else
#define KERNEL static
#endif
typedef real vec;
typedef ${bits_type} bits;

KERNEL vec load(const real *p)
{
    return *p;
}

KERNEL void store(real *p, vec v)
{
    *p = v;
}

KERNEL vec splat(real x)
{
    return x;
}

KERNEL bits bits_of(vec v)
{
    bits b;
    memcpy(&b, &v, sizeof b);
    return b;
}

KERNEL vec from_bits(bits b)
{
    vec v;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* a < b ? yes : no; not a number is less than nothing. */
KERNEL vec if_less(vec a, vec b, vec yes, vec no)
{
    return a < b ? yes : no;
}

KERNEL vec lane_numbers(void)
{
    return (real)0;
}

KERNEL real sum_lanes(vec v)
{
    return v;
}

KERNEL real largest_lane(vec v)
{
    return v;
}
#endif

#define LARGEST ((real)${f32 and "0x1.fffffep127" or "0x1.fffffffffffffp1023"})
#define sqrt_of ${f32 and "sqrtf" or "sqrt"}

/* --- exp, tanh, sigmoid ------------------------------------------------------------------------------------------------------
 * x = n ln 2 + r with |r| <= ln 2 / 2: exp(x) = 2^n exp(r).  Adding ROUND leaves n in the low bits of the sum. */
#define ROUND ((real)${f32 and "0x1.8p23" or "0x1.8p52"})

KERNEL vec low_limit(vec x, real limit)
{
    return if_less(x, splat(limit), splat(limit), x);
}

KERNEL vec high_limit(vec x, real limit)
{
    return if_less(splat(limit), x, splat(limit), x);
}

/* 2^n from ROUND + n, for a normal result. */
KERNEL vec power_of_two(vec round_n)
{
    return from_bits((bits_of(round_n) + ${f32 and "127u" or "1023u"}) << ${f32 and 23 or 52});
}

/* exp(x) = 1 + r + r^2 P(r) up to 2^n: returns r and r^2 P(r) in *tail, ROUND + n in *round_n. */
KERNEL vec reduce(vec x, vec *round_n, vec *tail)
{
    *round_n = x * splat((real)0x1.71547652b82fep0) + splat(ROUND);
    const vec n = *round_n - splat(ROUND);
% if f32 then
    const vec r = (x - n * splat(0x1.63p-1f)) - n * splat(-0x1.bd0106p-13f);
    vec p = splat(0x1.a0d2cep-13f);
    p = p * r + splat(0x1.6e879cp-10f);
    p = p * r + splat(0x1.1112bap-7f);
    p = p * r + splat(0x1.5554eep-5f);
    p = p * r + splat(0x1.555554p-3f);
    p = p * r + splat(0x1p-1f);
% else
    const vec r = (x - n * splat(0x1.62e42feep-1)) - n * splat(0x1.a39ef35793c76p-33);
    vec p = splat(0x1.6124613a86d09p-33);
% for _, c in ipairs {"0x1.1eed8eff8d898p-29", "0x1.ae64567f544e4p-26", "0x1.27e4fb7789f5cp-22", "0x1.71de3a556c734p-19",
%   "0x1.a01a01a01a01ap-16", "0x1.a01a01a01a01ap-13", "0x1.6c16c16c16c17p-10", "0x1.1111111111111p-7", "0x1.5555555555555p-5",
%   "0x1.5555555555555p-3", "0x1p-1"} do
    p = p * r + splat(${c});
% end
% end
    *tail = r * r * p;
    return r;
}

/* In two factors, so that results down to the smallest subnormal and up to infinity come out right. */
KERNEL vec exp_of(vec x)
{
    vec round_n, tail;
    const vec r = reduce(high_limit(low_limit(x, (real)${f32 and "-104" or "-746"}), (real)${f32 and "89" or "710"}), &round_n, &tail);
    const vec n = round_n - splat(ROUND);
    const vec round_half = n * splat((real)0.5) + splat(ROUND);
    const vec rest = n - (round_half - splat(ROUND));
    return (splat((real)1) + (r + tail)) * power_of_two(round_half) * power_of_two(rest + splat(ROUND));
}

/* tanh|x| = e / (e + 2) with e = exp(2|x|) - 1, which keeps its relative accuracy near 0. */
KERNEL vec tanh_of(vec x)
{
    const bits sign = bits_of(x) & bits_of(splat((real)-0.0));
    const vec magnitude = from_bits(bits_of(x) ^ sign);
    vec round_n, tail;
    const vec r = reduce(high_limit(magnitude + magnitude, (real)${f32 and "24" or "48"}), &round_n, &tail);
    const vec scale = power_of_two(round_n);
    const vec e = scale * tail + (scale * r + (scale - splat((real)1)));
    return from_bits(bits_of(e / (e + splat((real)2))) | sign);
}

/* exp(x) / (1 + exp(x)) for x < 0, else 1 / (1 + exp(-x)): neither overflows, both keep their relative accuracy. */
KERNEL vec sigmoid_of(vec x)
{
    const vec zero = splat((real)0), e = exp_of(if_less(x, zero, x, -x));
    return if_less(x, zero, e, splat((real)1)) / (splat((real)1) + e);
}
