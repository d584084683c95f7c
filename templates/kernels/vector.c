/* --- vectors ---------------------------------------------------------------------------------------------------------------
 * The layout is padded to SIMD reals; a vector holds LANES of them, as many as the compiler's target has.  LANES = 1 is
 * plain C. */
#define SIMD ${lanes}
#define sqrt_of ${f32 and "sqrtf" or "sqrt"}
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
#define PREFETCH(p) __builtin_prefetch(p)
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
% local least = math.max(2, math.min(16 // real_size, lanes)) -- a vector has 16 bytes or more
% for n = least, lanes do
% if n & n - 1 == 0 then
#${n == least and "if" or "elif"} LANES == ${n}
KERNEL vec lane_numbers(void)
{
    return (vec){${numbers(n, function(i) return i end)}};
}

KERNEL vec roots_of(vec v)
{
    for (int i = 0; i < ${n}; i++) { v[i] = sqrt_of(v[i]); } /* one instruction, where sqrt need not report an error */
    return v;
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
#define PREFETCH(p) ((void)(p))
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

KERNEL vec roots_of(vec v)
{
    return sqrt_of(v);
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

% if f32 and lanes == 16 then
/* a / b for b of 0 and more, to 2 ulp.  The divider takes a vector of 512 bits in 16 cycles, the multipliers two in one: 1 / b
 * by Newton's iteration from a guess that is 12 % off at most, then what is missing of the quotient. */
KERNEL vec quotient(vec a, vec b)
{
#if LANES == 16
    const vec one = splat((real)1), most = splat(0x1p100f);
    const vec bounded = if_less(most, b, most, b); /* the guess fails for more */
    vec r = from_bits(0x7ef311c7u - bits_of(bounded));
    r += r * (one - bounded * r);
    r += r * (one - bounded * r);
    r += r * (one - bounded * r);
    const vec q = a * r;
    return q + r * (a - bounded * q);
#else
    return a / b;
#endif
}
% else
#define quotient(a, b) ((a) / (b))
% end

/* --- exp, tanh, sigmoid ------------------------------------------------------------------------------------------------------
 * At most 2 ulp from the truth (sigmoid: 2.25); bptt's tests try every float.  No sum has two products, so a compiler
 * can fuse it in one way only.  The polynomials are minimax (Remez, then rounded) and are evaluated as trees, since a
 * recurrence waits for their latency.  What is out of range is settled by the last selections, which wait for nothing
 * else.  Adding ROUND rounds to an integer and leaves it in the low bits of the sum. */
#define ROUND ((real)${f32 and "0x1.8p23" or "0x1.8p52"})

/* 2^n for a normal result; only the low bits of n count. */
KERNEL vec power_of_two(bits n)
{
    return from_bits((n + ${f32 and "127u" or "1023u"}) << ${f32 and 23 or 52});
}

/* exp(r) - 1 = r + r^2 p(r), where x = n ln 2 + r with |r| <= ln 2 / 2; n is in the low bits of *round_n. */
KERNEL vec growth(vec x, vec *round_n)
{
    *round_n = x * splat((real)0x1.71547652b82fep0) + splat(ROUND);
    const vec n = *round_n - splat(ROUND);
% if f32 then
    const vec r = (x - n * splat(0x1.62e4p-1f)) - n * splat(0x1.7f7d1cp-20f), r2 = r * r;
    const vec p = (splat(0x1.fffffcp-2f) + r * splat(0x1.55548cp-3f)) +
        r2 * ((splat(0x1.555858p-5f) + r * splat(0x1.123dep-7f)) + r2 * splat(0x1.6ac76p-10f));
% else
    const vec r = (x - n * splat(0x1.62e42feep-1)) - n * splat(0x1.a39ef35793c76p-33), r2 = r * r, r4 = r2 * r2;
    const vec low = (splat(0x1.000000000000ap-1) + r * splat(0x1.55555555554fap-3)) +
        r2 * (splat(0x1.5555555550833p-5) + r * splat(0x1.11111111278b8p-7));
    const vec middle = (splat(0x1.6c16c1843aeap-10) + r * splat(0x1.a01a012bb7f4ep-13)) +
        r2 * (splat(0x1.a01999dcdb11ap-16) + r * splat(0x1.71df2193b8b44p-19));
    const vec p = low + r4 * (middle + r4 * (splat(0x1.28ada0730c044p-22) + r * splat(0x1.ad866cc1deef9p-26)));
% end
    return r + r2 * p;
}

/* exp(x) for x up to 0; 0 below ${f32 and "1e-30" or "1e-299"}: what a loss hands back is this times a scale, and with numbers below the
 * normal ones a product takes many times as long. */
KERNEL vec exp_down(vec x)
{
    vec round_n;
    const vec more = growth(x, &round_n), scale = power_of_two(bits_of(round_n));
    return if_less(x, splat((real)${f32 and "-69" or "-688"}), splat((real)0), scale + scale * more);
}

% local exp_limit = f32 and "104" or "746"
/* c exp(x) for x up to ${exp_limit}.  2^n is applied in two factors, so that results down to the smallest subnormal and up to
 * infinity come out right. */
KERNEL vec scaled_exp(vec x, real c)
{
    vec round_n;
    const vec more = growth(x, &round_n);
    const bits half = bits_of(round_n) >> 1;
    const vec scale = splat(c) * power_of_two(half), y = (scale + scale * more) * power_of_two(bits_of(round_n) - half);
    return if_less(x, splat((real)-${exp_limit}), splat((real)0), y);
}

KERNEL vec exp_of(vec x)
{
    return if_less(splat((real)${exp_limit}), x, splat((real)INFINITY), scaled_exp(x, (real)1));
}

% -- f32: steps of ln 2 / 2, n = 0 up to 3/4 of one; f64: steps of ln 2, n = 0 up to 13/16 of one (fewer operations and more accuracy
% -- do not go together).  p of f32 is the best of its neighbours over all floats.
% local fraction = f32 and 1 or 3
/* tanh|x| by the addition theorem.  |x| = n step + r, s = exp(2 n step) is a power of two, tanh r = r / q with
 * q = 1 + t p(t), t = r^2:
 *     tanh|x| = up / down,   up = ((s - 1) q + (s + 1) r) / 2,   down = ((s + 1) q + (s - 1) r) / 2 = up + q - r.
 * So an error of up is one of down too, and cancels where tanh is close to 1.  For n = 0, up is r and down is q, rounded
 * once; n is 0 until tanh has passed ${f32 and "1/4" or "1/2"}, since just below a power of two an error counts most.  n comes from rounding
 * to ${f32 and "halves" or "eighths"} and clearing ${f32 and "that bit" or "those bits"}. */
KERNEL vec tanh_of(vec x)
{
    const vec zero = splat((real)0), one = splat((real)1), half = splat((real)0.5), grid = splat(ROUND / (real)${1 << fraction});
    const bits sign = bits_of(x) & bits_of(splat((real)-0.0));
    const vec magnitude = from_bits(bits_of(x) ^ sign);
% if f32 then
    const vec steps = magnitude * splat(0x1.715476p1f) + grid;
% else
    const vec steps = magnitude * splat(0x1.71547652b82fep0) + (grid + splat(0.125));
% end
    const vec grid_n = from_bits(bits_of(steps) & ~(${bits_type})${(1 << fraction) - 1}), n = grid_n - grid;
% if f32 then
    const vec half_s = from_bits((bits_of(grid_n) + 252u) << 22), less = half_s - half, more = half_s + half;
    const vec r = magnitude - n * splat(0x1.62e43p-2f), t = r * r; /* n times it is exact where it matters, up to 8 */
    const vec p = splat(0x1.55543ap-2f) + t * splat(-0x1.68e4c8p-6f);
% else
    const vec half_s = from_bits((bits_of(grid_n) + 4088u) << 50), less = half_s - half, more = half_s + half;
    const vec close = magnitude - n * splat(0x1.62e42fefa39fp-1), t = close * close, t2 = t * t; /* close enough for p */
    const vec r = close + n * splat(0x1.950d871319ffp-54);
    const vec low = (splat(0x1.5555555555552p-2) + t * splat(-0x1.6c16c16c156fp-6)) +
        t2 * (splat(0x1.1566abbea2c6p-9) + t * splat(-0x1.bbd777b36bd4ep-13));
    const vec high = (splat(0x1.66a8837ab6b2ep-16) + t * splat(-0x1.226d888cd7118p-19)) +
        t2 * (splat(0x1.d323d70e5989p-23) + t * splat(-0x1.4a7b6badb3af5p-26));
    const vec p = low + (t2 * t2) * high;
% end
    const vec up = (less + more * r) + (less * t) * p;
    const vec down = ((one - if_less(zero, n, r, zero)) + t * p) + if_less(zero, n, up, zero);
    return from_bits(bits_of(if_less(splat((real)${f32 and "10" or "20"}), magnitude, one, up / down)) | sign);
}

/* With e = exp(-|x|): e / (1 + e) for x < 0, else 1 / (1 + e); neither overflows.  All times 1.5, where 1 + e rounds better than
 * just above 1. */
KERNEL vec sigmoid_of(vec x)
{
    const vec c = splat((real)1.5), e = scaled_exp(from_bits(bits_of(x) | bits_of(splat((real)-0.0))), (real)1.5);
    return if_less(x, splat((real)0), e, c) / (c + e);
}
