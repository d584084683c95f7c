/* compile.h: the compiler as one call: spec -> graph -> adjoint -> plan -> C text.
 *
 * What runtime/ may include of the generator, beside spec.h.  Depends on every stage; decides nothing itself.
 */
#ifndef BPTT_COMPILE_H
#define BPTT_COMPILE_H

#include "spec.h"

#define BPTT_VERSION "0.1.0"

typedef struct bptt_part {
    const char *name; /* "parameters", "gradients", "moments", "states", "workspace", ... */
    size_t bytes;
} bptt_part;

/* Exact counts of one chunk of K steps x B streams.  A multiply-add is two FLOP; one element of tanh, exp, ... counts as one. */
typedef struct bptt_counts {
    size_t parameters; /* logical, without padding */
    size_t struct_bytes;
    bptt_part parts[12];
    size_t part_count;
    double flop_forward, flop_backward, flop_update;
    double bytes_moved; /* parameters, gradients, moments and states read or written once each per chunk */
} bptt_counts;

/* The emitted files as text, each ended by NUL; owned. */
typedef struct bptt_unit {
    char *header;   /* NAME.h */
    char *source;   /* NAME.c; compiles after `header` in one string too, with no file read when BPTT_HOSTED is defined */
    char *example;  /* NAME_main.c */
    char *makefile; /* Makefile */
    bptt_counts counts;
} bptt_unit;

/* `simd`: 32-bit lanes for a spec that leaves it open (simd = 0).  `memory_limit`: bytes the struct may take.
 * Errors: BPTT_FAILED, with the spec's or the cell's file and line. */
bptt_status bptt_compile(const bptt_spec *spec, int simd, size_t memory_limit, bptt_unit *unit, bptt_error *error);
void bptt_unit_free(bptt_unit *unit);

/* Prints one stage: "spec", "graph", "adjoint" or "plan". */
bptt_status bptt_dump(const bptt_spec *spec, int simd, size_t memory_limit, const char *stage, FILE *out, bptt_error *error);

#endif
