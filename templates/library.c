% local common = {kernels = include("kernels.lua")}
% function common.kernel_text(kernel) k = kernel; include("kernels/" .. kernel.family .. ".c") end
% local real = real_size == 8 and "double" or "float"
/* Precompiled kernels for reals of ${real_size} bytes and layouts of ${simd} 32-bit lanes; rendered by the build from templates/kernels. */
#include "../runtime/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef ${real} real;

% include("kernels/library.lua")(common, common.kernels.all)
/* n rounds of 14 independent multiply-adds of SIMD reals each: what the core can do at most.  c[14 SIMD] keeps them from being
 * optimised away. */
static void bptt_peak(real *c, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < SIMD; j += LANES) {
        const vec a = splat((real)0.999), b = splat((real)0.001);
% for i = 0, 13 do
        vec c${i} = load(c + ${i} * SIMD + j);
% end
        for (ptrdiff_t i = 0; i < n; i++) {
% for i = 0, 13 do
            c${i} = c${i} * a + b;
% end
        }
% for i = 0, 13 do
        store(c + ${i} * SIMD + j, c${i});
% end
    }
}

/* Reads a[n], n a multiple of 8 SIMD, `rounds` times and does no more with it than it must: what a cache can deliver at most.
 * sums[8 SIMD] keeps the loads from being optimised away. */
static void bptt_stream(real *sums, const real *a, ptrdiff_t n, ptrdiff_t rounds)
{
% for i = 0, 7 do
    vec s${i} = splat((real)0);
% end
    for (ptrdiff_t r = 0; r < rounds; r++) {
        for (ptrdiff_t i = 0; i < n; i += 8 * LANES) {
% for i = 0, 7 do
            s${i} += load(a + i + ${i} * LANES);
% end
        }
    }
% for i = 0, 7 do
    store(sums + ${i} * LANES, s${i});
% end
}

const bptt_kernel bptt_kernels_${real_size}_${simd}[] = {
    {"bptt_peak", (void (*)(void))bptt_peak},
    {"bptt_stream", (void (*)(void))bptt_stream},
% for _, kernel in ipairs(common.kernels.all) do
    {"${kernel.name}", (void (*)(void))${kernel.name}},
% end
};
const size_t bptt_kernels_${real_size}_${simd}_count = ${#common.kernels.all + 2};
