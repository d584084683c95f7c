/* bench.h: what `bptt bench` is made of: the machine's limits, the backends' times on a spec, the specs of the suite.
 *
 *   roofline.c       what this core can do at most, and the time a chunk needs at least
 *   bench_measure.c  the backends side by side on one spec
 *   bench_suite.c    the default specs, by name
 *   bench.c          the command, which prints
 *
 * Depends on spec.h and compile.h (counts).
 */
#ifndef BPTT_BENCH_H
#define BPTT_BENCH_H

#include "../gen/compile.h"

/* --- roofline.c ------------------------------------------------------------------------------------------------------------------ */

enum { BPTT_LEVELS = 4 };

typedef struct bptt_level {
    const char *name; /* "L1", "L2", "L3", "memory" */
    double bytes;     /* that it holds for this core; infinite for memory */
    double bandwidth; /* bytes per second, read in order */
} bptt_level;

/* What one core can do at most, measured. */
typedef struct bptt_limits {
    double peak;                    /* FLOP per second */
    bptt_level levels[BPTT_LEVELS]; /* nearest first */
} bptt_limits;

/* FLOP per second of nothing but independent multiply-adds on reals of `real_size` bytes, this core's widest vectors. */
double bptt_peak_flops(int real_size);

/* Measures peak and bandwidths for reals of `real_size` bytes; takes about half a second.  Errors: no memory for its buffer. */
bptt_status bptt_limits_measure(int real_size, bptt_limits *limits, bptt_error *error);

/* Seconds that a chunk needs at least by this model: its works run one after the other, and each call of a work takes the longer of
 *   its FLOP at the peak
 *   its bytes at the bandwidths, where the first bytes come from L1 as many as L1 holds, the next ones from L2, and so on
 * A recurrence of one sequence is bound by the caches that hold W_hh, which every step reads again; products of many rows by the
 * peak.  The model is kind: it counts a division as one FLOP of a multiply-add, lets any operand be where it fits, and knows no
 * latency.  So it is a bound from below, and far below for networks as small as a few vectors. */
double bptt_roofline_seconds(const bptt_limits *limits, const bptt_counts *counts);

/* --- bench_measure.c ------------------------------------------------------------------------------------------------------------- */

enum { BPTT_TIMED_GENERIC, BPTT_TIMED_TCC, BPTT_TIMED_CC, BPTT_TIMINGS };

typedef struct bptt_timing {
    double seconds;     /* of a step: forward, backward, clip, update of a chunk; median; 0: not timed */
    double compile_ms;  /* 0: generic */
    size_t code_bytes;  /* 0: not known */
    bptt_error missing; /* why it was not timed; "" when it was */
} bptt_timing;

typedef struct bptt_bench {
    bptt_spec spec; /* owned by the caller of bptt_bench_measure, who fills it in */
    bptt_counts counts;
    bptt_timing timings[BPTT_TIMINGS];
    double cores; /* CPU time by time of the clock while it was timed; below 1: others used the core */
} bptt_bench;

/* Times bench->spec on every backend with random tokens of `seed`, about `seconds` on each.  Errors: the backends do not agree on
 * loss and gradient of the first step; what opening tcc says.  That cc cannot compile, or generic has no loops for this cell, is
 * none: see `missing`. */
bptt_status bptt_bench_measure(bptt_bench *bench, uint64_t seed, double seconds, bptt_error *error);

/* --- bench_suite.c --------------------------------------------------------------------------------------------------------------- */

/* Names of the suite's rows in order, ended by NULL. */
extern const char *const bptt_suite_words[];

/* The spec of row `row` (its place in bptt_suite_words) with overrides; the caller frees it. */
bptt_status bptt_suite_spec(size_t row, const bptt_override *overrides, size_t count, bptt_spec *spec, bptt_error *error);

/* Reads "tiny,default" (NULL: all rows) into a set, bit r for row r.  Errors: BPTT_USAGE, an unknown name. */
bptt_status bptt_suite_choose(const char *names, unsigned *rows, bptt_error *error);

#endif
