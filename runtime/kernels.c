/* kernels.c: the list of precompiled kernel libraries, and which of them this CPU can run.  See kernels.h. */
#include "kernels.h"

#include <stdbool.h>

/* One library for each size of reals and each layout: bptt_kernels_4_16[] and so on, rendered from templates/library.c. */
#define LIBRARIES(X) X(4, 1) X(4, 4) X(4, 8) X(4, 16) X(8, 1) X(8, 4) X(8, 8) X(8, 16)
#define DECLARE(real_size, simd)                                                                                                 \
    extern const bptt_kernel bptt_kernels_##real_size##_##simd[];                                                                \
    extern const size_t bptt_kernels_##real_size##_##simd##_count;
LIBRARIES(DECLARE)

static bool cpu_has(int simd)
{
#if defined(__x86_64__)
    switch (simd) {
    case 8:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case 16:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw");
    default:
        return true; /* SSE2 is part of x86-64 */
    }
#else
    return simd <= 4; /* plain C and the compiler's own 16-byte vectors */
#endif
}

int bptt_kernels_simd(void)
{
    return cpu_has(16) ? 16 : cpu_has(8) ? 8 : 4;
}

const bptt_kernel *bptt_kernels(int real_size, int simd, size_t *count)
{
    if (!cpu_has(simd)) { return NULL; }
#define FIND(size, lanes)                                                                                                        \
    if (real_size == (size) && simd == (lanes)) {                                                                                \
        *count = bptt_kernels_##size##_##lanes##_count;                                                                          \
        return bptt_kernels_##size##_##lanes;                                                                                    \
    }
    LIBRARIES(FIND)
    return NULL;
}
