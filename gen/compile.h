/* compile.h: the compiler as one call: spec -> graph -> adjoint -> plan -> C text.
 *
 * Depends on every stage; decides nothing itself.
 */
#ifndef BPTT_COMPILE_H
#define BPTT_COMPILE_H

#include "spec.h"

#define BPTT_VERSION "0.1.0"

typedef struct bptt_part {
    const char *name; /* "parameters", "gradients", "moments", "states", "workspace", ... */
    size_t bytes;
} bptt_part;

/* One kind of work in a chunk, done `calls` times: each time `flop` FLOP on operands of `bytes` bytes.  An operand counts once a call,
 * read, written or both, with its padding; of a table that tokens point into only as many rows as there are tokens. */
typedef struct bptt_work {
    double calls, flop, bytes;
} bptt_work;

enum { BPTT_MAX_WORKS = 772 };

/* Exact counts of one chunk of K steps x B streams.  A multiply-add is two FLOP; one element of tanh, exp, ... counts as one. */
typedef struct bptt_counts {
    size_t parameters; /* logical, without padding */
    size_t struct_bytes;
    bptt_part parts[12];
    size_t part_count;
    double flop_forward, flop_backward, flop_update;
    double bytes_moved; /* sum over the works */
    bptt_work works[BPTT_MAX_WORKS];
    size_t work_count;
} bptt_counts;

enum { BPTT_PRODUCT_MAX = 72, BPTT_MAX_PRODUCTS = 256, BPTT_MAX_TILES = 16 };

/* Register tile of a matrix product: rows x vectors accumulators. */
typedef struct bptt_tile_size {
    int rows, vectors;
} bptt_tile_size;

/* Tiles for spec.tuning: what was measured on a machine.  A product that is not named keeps the plan's own tile.  A tile shapes
 * the order of a sum, so other tiles may give other last bits. */
typedef struct bptt_tuning {
    size_t count;
    struct {
        char product[BPTT_PRODUCT_MAX];
        bptt_tile_size tile;
    } of[BPTT_MAX_PRODUCTS];
} bptt_tuning;

/* A product of the plan that has a tile. */
typedef struct bptt_product {
    char name[BPTT_PRODUCT_MAX]; /* of its function in the emitted text */
    int64_t rows, cols, depth;   /* of a call, most of the time */
    double flop;                 /* of a chunk */
    int tile_count;
    bptt_tile_size tiles[BPTT_MAX_TILES]; /* the best of those that it may have; the first is the plan's own */
} bptt_product;

/* The emitted files as text, each ended by NUL; owned. */
typedef struct bptt_unit {
    char *header;   /* NAME.h */
    char *source;   /* NAME.c; compiles after `header` in one string too, with no file read when BPTT_HOSTED is defined */
    char *example;  /* NAME_main.c */
    char *makefile; /* Makefile */
    bptt_counts counts;
} bptt_unit;

/* `simd`: 32-bit lanes for a spec that leaves it open (simd = 0).  `memory_limit`: bytes the struct may take.
 * Errors: BPTT_FAILED, with the spec's or the cell's file and line; a tile of spec.tuning that its product cannot have. */
bptt_status bptt_compile(const bptt_spec *spec, int simd, size_t memory_limit, bptt_unit *unit, bptt_error *error);
void bptt_unit_free(bptt_unit *unit);

/* Lists the products of the plan, BPTT_MAX_PRODUCTS at most; none under unroll = "full".  Does not look at spec.tuning. */
bptt_status bptt_products(const bptt_spec *spec, int simd, size_t memory_limit, bptt_product *products, size_t *count,
                          bptt_error *error);

/* Whether an update may follow several chunks, whose gradients are added up. */
bool bptt_accumulates(const bptt_spec *spec);
/* How many of the doubles of templates/abi.h's progress a spec's training keeps. */
int bptt_progress_count(const bptt_spec *spec);

/* Prints one stage: "spec", "graph", "adjoint" or "plan". */
bptt_status bptt_dump(const bptt_spec *spec, int simd, size_t memory_limit, const char *stage, FILE *out, bptt_error *error);

#endif
