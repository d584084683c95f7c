/* ulp.h: how far the kernels' tanh, exp, sigmoid, log and sqrt are from the truth, in units in the last place of the truth.
 *
 * Depends on kernels.h and libm, whose functions of double are the truth for f32, those of long double for f64.
 */
#ifndef BPTT_TEST_ULP_H
#define BPTT_TEST_ULP_H

#include "../runtime/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef void ulp_kernel(void *out, const void *in, ptrdiff_t n);

enum { ULP_TANH, ULP_EXP, ULP_SIGMOID, ULP_LOG, ULP_SQRT, ULP_FUNCTIONS };
/* `limit` is what is promised. */
static const struct {
    const char *name, *kernel;
    double limit;
} ulp_functions[ULP_FUNCTIONS] = {{"tanh", "bptt_tanh", 2},
                                  {"exp", "bptt_exp", 2},
                                  {"sigmoid", "bptt_sigmoid", 2.25},
                                  {"log", "bptt_log", 1}, /* libm's, which promises as much */
                                  {"sqrt", "bptt_sqrt", 0.5}};

enum { ULP_LIBRARIES = 4 };
static const int ulp_simd[ULP_LIBRARIES] = {1, 4, 8, 16};

/* NULL: this CPU cannot run the library. */
static inline void (*ulp_kernel_named(const char *name, int real_size, int simd))(void)
{
    size_t count = 0;
    const bptt_kernel *kernels = bptt_kernels(real_size, simd, &count);
    for (size_t i = 0; kernels != NULL && i < count; i++) {
        if (strcmp(kernels[i].name, name) == 0) { return (void (*)(void))kernels[i].function; }
    }
    return NULL;
}

static inline ulp_kernel *ulp_find(int function, int real_size, int simd)
{
    return (ulp_kernel *)ulp_kernel_named(ulp_functions[function].kernel, real_size, simd);
}

static inline double ulp_truth(int function, double x)
{
    switch (function) {
    case ULP_TANH:
        return tanh(x);
    case ULP_EXP:
        return exp(x);
    case ULP_LOG:
        return log(x);
    case ULP_SQRT:
        return sqrt(x);
    default:
        return 1 / (1 + exp(-x));
    }
}

static inline long double ulp_truth_long(int function, double at)
{
    const long double x = (long double)at;
    switch (function) {
    case ULP_TANH:
        return tanhl(x);
    case ULP_EXP:
        return expl(x);
    case ULP_LOG:
        return logl(x);
    case ULP_SQRT:
        return sqrtl(x);
    default:
        return 1 / (1 + expl(-x));
    }
}

/* Infinity where only one of the two is a number.  Above the largest number comes 2^128, which stands for infinity. */
static inline double ulp_error_f32(float got, double truth)
{
    if (isnan(got) || isnan(truth)) { return isnan(got) && isnan(truth) ? 0 : (double)INFINITY; }
    uint64_t bits;
    memcpy(&bits, &truth, sizeof bits);
    const uint64_t exponent = bits >> 52 & 2047, least = 1023 - 126;
    bits = ((exponent > least ? exponent : least) - 23) << 52;
    double ulp;
    memcpy(&ulp, &bits, sizeof ulp);
    if (truth > 0x1p128) { return isinf(got) && got > 0 ? 0 : (double)INFINITY; }
    return fabs((isinf(got) ? copysign(0x1p128, (double)got) : (double)got) - truth) / ulp;
}

/* As above. */
static inline double ulp_error_f64(double got, long double truth)
{
    if (isnan(got) || isnan(truth)) { return isnan(got) && isnan(truth) ? 0 : (double)INFINITY; }
    if (truth > 0x1p1024L) { return isinf(got) && got > 0 ? 0 : (double)INFINITY; }
    int exponent = 0;
    (void)frexpl(truth, &exponent);
    const long double ulp = ldexpl(1, truth == 0 || exponent < -1021 ? -1074 : exponent - 53);
    return (double)(fabsl((isinf(got) ? copysignl(0x1p1024L, (long double)got) : (long double)got) - truth) / ulp);
}

#endif
