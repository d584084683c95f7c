/* bench.h: the yardstick that benchmarks share.  Depends on kernels.h. */
#ifndef BPTT_BENCH_H
#define BPTT_BENCH_H

/* FLOP per second of nothing but independent multiply-adds on reals of `real_size` bytes, this core's widest vectors. */
double bptt_peak_flops(int real_size);

#endif
