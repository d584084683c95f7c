/* kernels.h: the precompiled kernels, rendered at build time from the same templates that are emitted, for several vector widths.
 *
 * Depends on nothing.  Chooses by what the CPU can do; refuses to run an instruction it does not have.
 */
#ifndef BPTT_KERNELS_H
#define BPTT_KERNELS_H

#include <stddef.h>

typedef struct bptt_kernel {
    const char *name;       /* as the emitted text calls it: "bptt_tile_4x5" */
    void (*function)(void); /* cast to its type by the emitted text's declaration */
} bptt_kernel;

/* The widest layout that this CPU has kernels for, in 32-bit lanes: 4, 8 or 16. */
int bptt_kernels_simd(void);
/* The kernels for reals of `real_size` bytes and a layout of `simd` lanes; NULL when this CPU cannot run them. */
const bptt_kernel *bptt_kernels(int real_size, int simd, size_t *count);

#endif
