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
const bptt_kernel bptt_kernels_${real_size}_${simd}[] = {
% for _, kernel in ipairs(common.kernels.all) do
    {"${kernel.name}", (void (*)(void))${kernel.name}},
% end
};
const size_t bptt_kernels_${real_size}_${simd}_count = ${#common.kernels.all};
