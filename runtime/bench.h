/* bench.h: the clock and the yardstick that benchmarks share.  Depends on kernels.h. */
#ifndef BPTT_BENCH_H
#define BPTT_BENCH_H

/* Seconds of a clock that never goes back. */
double bptt_seconds(void);
/* FLOP per second of nothing but independent multiply-adds on reals of `real_size` bytes, this core's widest vectors. */
double bptt_peak_flops(int real_size);

#endif
