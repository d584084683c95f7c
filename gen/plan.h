/* plan.h: fourth stage.  Both graphs, T, K and B become a flat list of actions over slots of known size and place.
 *
 * Everything about order and memory is decided here, nothing about spelling.  Depends on graph.h.  The passes:
 *   hoist, gather   lower*.c   which action runs in which region, with which operands, and where its result lies
 *   stack           stack.c    which products become one
 *   overlay         overlay.c  which adjoints lie where their gates lay
 *   fuse            fuse.c     which chains become one, which of their values need no memory, which sums one pass over rows makes
 *   truncate        truncate.c what outlives a chunk, where adjoints begin, which gradients wait for all lags
 *   clear           clear.c    which chains' results need their padding cleared
 *   place           place.c    which slot holds a value, in which rows, where; which sums the parts of the work (threads) share
 *   accumulate      plan.c     whether gradients are added to those of the chunks before
 *   tile            tile.c     register tiles of every product, how much of a panel at a time, which products of a step take turns
 *   count           count.c    FLOP and bytes of what came out
 *
 * Regions of one chunk, in order.  A slot row is one step of one sequence; a chunk has steps x B of them.
 *   REFRESH one row for all: what depends on the weights alone; not in the chunk but whenever they change
 *   INPUT   all rows at once: what does not depend on the states of the level
 *   STEP    t = 0, 1, ...: the recurrence
 *   HEAD    blocks of rows: what the recurrence does not wait for (logits, loss), forward and back
 *   BACK    t = ..., 1, 0: the adjoint of the recurrence
 *   TAIL    all rows at once, or in blocks: gradients of what the recurrence used, adjoints of what it was given
 * States that depend on each other have one level, and depend otherwise on lower levels alone: a layer of cells is a level.  A level
 * runs over all steps before the next one begins: INPUT 0, STEP 0, INPUT 1, STEP 1, ..., HEAD, ..., BACK 1, TAIL 1, BACK 0, TAIL 0.
 * A place in that order is a phase.
 *
 * Threads.  Each part of the work has sequences of its own, its streams, and does with them what a plan of so many sequences says:
 * rows, blocks and slots are those of a part, and each part has a workspace.  What is left are the sums over the rows of all parts.
 * Either each part has sums of its own, which are added up when all are done, or the sum is cut: each part adds up a range of the
 * parameter over everybody's rows.  All parts have as many streams; where they cannot, a part that lacks one does the first of the
 * next part again, in which no loss counts.
 *
 * Truncation.  A gradient keeps the pairs of a loss at step s and a state or parameter at step t <= s (h_0: if t starts from it) with
 *   chunk     s and t in one chunk of K steps
 *   block     end of s' block - K < t; blocks of `stride` steps are the chunks, and what BACK and TAIL read of the last K steps (the
 *             window) stays from chunk to chunk: INPUT, STEP and HEAD work on the window's last rows, BACK and TAIL on all that are
 *             filled, with nothing from HEAD in the older ones
 *   uniform   s - t < K; the chunk is the sequence.  BACK and TAIL run once a lag, 0 .. K - 1, over all rows at once: row t holds the
 *             adjoint of the loss at t + lag, and lag + 1 of step t - 1 begins with what step t hands on, so that K adjoints of a
 *             step share the recurrent matrices in one product.  SUM: gradients, from the adjoints summed over lags.
 */
#ifndef BPTT_PLAN_H
#define BPTT_PLAN_H

#include "compile.h"
#include "graph.h"

enum { BPTT_MAX_SLOTS = 384, BPTT_MAX_ACTIONS = 768, BPTT_MAX_ELEMENTS = 32, BPTT_MAX_LEVELS = 15 };
enum { BPTT_EQUATION_MAX = 160, BPTT_NOTE_MAX = BPTT_MAX_ELEMENTS * BPTT_EQUATION_MAX };

typedef enum {
    BPTT_REGION_REFRESH,
    BPTT_REGION_INPUT,
    BPTT_REGION_STEP,
    BPTT_REGION_HEAD,
    BPTT_REGION_BACK,
    BPTT_REGION_TAIL,
    BPTT_REGION_SUM,
} bptt_region;

/* How many rows a slot has. */
typedef enum {
    BPTT_ROWS_STATE, /* (window + 1) B: row block 0 is the carried state, the last one where chunks are blocks */
    BPTT_ROWS_CHUNK, /* window B */
    BPTT_ROWS_BLOCK, /* one block of HEAD */
    BPTT_ROWS_STEP,  /* B: dead when the step is over */
    BPTT_ROWS_ONE,   /* 1, for all steps and sequences, as of a parameter */
} bptt_slot_rows;

typedef struct bptt_slot {
    char name[BPTT_SYMBOL_MAX];  /* of the first value that lies here */
    char later[BPTT_SYMBOL_MAX]; /* of the last one, when it is another */
    bptt_slot_rows kind;
    int64_t cols, stride; /* reals of a row, without and with padding */
    size_t size, offset;  /* reals, in the workspace; a single row: with the turned copies */
    size_t carried;       /* threads: where what stays from chunk to chunk lies meanwhile, in rows of all B sequences */
    int host;             /* it is columns of this slot, from `column` on; -1: it stands alone */
    int64_t column;
    bool linear;     /* holds adjoints: linear in those of the losses and of the step after */
    bool kept;       /* block: for the chunks to come */
    bool fed;        /* HEAD writes it for BACK or TAIL: elsewhere than in HEAD's rows, and at later lags, it is 0 */
    int first, last; /* phases */
} bptt_slot;

typedef enum { BPTT_REF_NONE, BPTT_REF_SLOT, BPTT_REF_TEMP, BPTT_REF_PARAM } bptt_ref_kind;

/* Where a value of step t lies: row block t + shift of a slot, a temporary of a chain, or a parameter, one row for all. */
typedef struct bptt_ref {
    bptt_ref_kind kind;
    int index, shift;
} bptt_ref;

typedef enum {
    BPTT_COPY,       /* out[r] = v[r] */
    BPTT_GATHER,     /* out[r] (=, +=, bias +) W'[x[r]] */
    BPTT_PRODUCT,    /* out[r] (=, +=, bias +) in[r] W' or in[r] W */
    BPTT_CHAIN,      /* element-wise operations, fused */
    BPTT_ROW,        /* one operation on whole rows, elements[0] */
    BPTT_LOSS,       /* loss of `in`; backward: out (NONE: in) = d loss / d in */
    BPTT_ZERO,       /* out = 0 */
    BPTT_CLEAR,      /* padding of out = 0 */
    BPTT_GRADIENT,   /* dW' = sum over rows in[r]' adjoint[r] */
    BPTT_SCATTER,    /* dW'[x[r]] += adjoint[r], and with a bias db = sum over rows adjoint[r] */
    BPTT_COLUMN_SUM, /* db = sum over rows adjoint[r], or of adjoint[r] in[r] */
} bptt_action_kind;

/* What a product's sums begin with. */
typedef enum { BPTT_FILL_ZERO, BPTT_FILL_BIAS, BPTT_FILL_ADD } bptt_fill;

/* Register tile: `rows` x `vectors` accumulators; `rest_rows`, `rest_vectors` (0: none) for what does not divide. */
typedef struct bptt_tile {
    int rows, rest_rows, vectors, rest_vectors;
} bptt_tile;

typedef struct bptt_element {
    bptt_op op;
    bptt_ref out, a, b;
    double value; /* the number in the op */
} bptt_element;

typedef struct bptt_action {
    bptt_action_kind kind;
    bptt_region region;
    int level;          /* of STEP and BACK, and of what prepares or ends them; 0 in HEAD */
    bool forward;       /* also part of a pass without gradients */
    bool into_previous; /* writes step t-1: not done at t = 0 */
    bool begins;        /* BACK of a level begins with it; uniform: a lag does */
    bool later;         /* uniform: it is not done at lag 0 */
    int param;          /* matrix or bias that it reads, or whose gradient it writes; -1: none */
    bool turned;        /* reads the [outputs][inputs] copy of the matrix */
    bool alternates;    /* in STEP and BACK: every second step sums from the last term to the first */
    bool follows;       /* in such a step it comes before the product that it stands behind, which alternates too */
    bptt_op loss;       /* of BPTT_LOSS */
    double smoothing;   /* the same */
    bptt_fill fill;
    int bias; /* param, for FILL_BIAS and of a scatter; -1: none */
    bptt_ref out, in, adjoint;
    int64_t cols, depth; /* of a product: columns written, terms of a sum (-1: rows of the chunk) */
    int64_t terms;       /* of a sum, added up before the next tile: what a cache holds of the panel; 0: all */
    bool packed;         /* so many terms of a panel are copied side by side before its tiles read them, turned if need be */
    bptt_tile tile;
    bool cut; /* a sum of which each part has a range of the parameter: of its rows, of its columns for a scatter or a bias */
    int site; /* of a dropout */
    bptt_element elements[BPTT_MAX_ELEMENTS];
    int element_count, temp_count;
    double flop;                         /* per row */
    char name[2 * BPTT_SYMBOL_MAX + 16]; /* of its function in the emitted text */
    char note[BPTT_NOTE_MAX];            /* its equations */
} bptt_action;

/* A parameter's place in a parameter-shaped block, stored [inputs][outputs].  Parameters that were stacked are columns of one matrix,
 * whose first is their leader. */
typedef struct bptt_tensor_plan {
    int leader;     /* itself where it stands alone */
    int64_t column; /* of the leader's matrix */
    int64_t rows, cols, stride;
    int64_t width; /* of the leader's matrix, up to its last column that is not padding */
    size_t offset;
    bptt_init init;
    bool sparse; /* rows of tokens that did not occur have gradient 0, and the optimizer's rule then leaves them unchanged */
    bool turned; /* a second copy, [outputs][inputs], is kept for the backward pass */
    int64_t turned_stride;
    size_t turned_offset;
    bool own; /* threads: each part has a gradient of its own, at own_offset of what it has */
    size_t own_offset;
} bptt_tensor_plan;

typedef struct bptt_plan {
    const bptt_spec *spec;
    const bptt_graph *graph;
    int levels;
    int real_size, simd, lanes; /* lanes: reals in a vector */
    int64_t steps, window;      /* of a chunk, at most; whose values are there when it runs back */
    int64_t chunks, rest;       /* chunks of a sequence; steps of the last one when not `steps`, else 0 */
    int next[BPTT_MAX_SLOTS];   /* uniform: the slot that gathers a slot's carries for the next lag; 0: none */
    int64_t block, tail_block;  /* rows of a block of HEAD; of TAIL, 0: all at once */
    int threads;                /* parts of the work */
    int64_t streams;            /* sequences of a part */
    int64_t given;              /* threads: rows of a chunk that a part has copies of, with padding to whole lines; else 0 */
    int token_slot, start_slot; /* block: the window's tokens, and where sequences start in it, as reals; 0: not kept */
    int64_t tokens;             /* room for them as tokens */
    int line;                   /* reals that ranges do not divide: a line of a cache, whole vectors */
    bptt_unroll unroll;         /* never AUTO */
    bptt_tensor_plan params[BPTT_MAX_PARAMS];
    size_t block_size, turned_size, work_size; /* reals; the workspace: of a part */
    size_t own_size, carried_size; /* reals: a part's own gradients; what stays from chunk to chunk beside the parts */
    size_t restart;                /* reals of the workspace before the bytes [window][B]: where sequences start */
    int moments;
    bool accumulates;             /* gradients of several chunks are added up before an update */
    int progress_count, progress; /* doubles in use (abi.h), and with padding to whole vectors */
    bptt_slot slots[BPTT_MAX_SLOTS];
    int slot_count;
    bptt_action actions[BPTT_MAX_ACTIONS]; /* in order of execution */
    int action_count;
    bptt_ref *refs; /* per graph node: where its value lies; owned */
    bptt_counts counts;
} bptt_plan;

/* Makes the plan of a traced and derived graph; spec and graph must outlive it.  Free with bptt_plan_free. */
bptt_status bptt_plan_make(const bptt_spec *spec, const bptt_graph *graph, int simd, size_t memory_limit, bptt_plan **plan,
                           bptt_error *error);
void bptt_plan_free(bptt_plan *plan);
void bptt_plan_print(const bptt_plan *plan, FILE *out);

/* The passes, in order; each reads what the ones before it wrote. */
bptt_status bptt_plan_lower(bptt_plan *plan, bptt_error *error);
bptt_status bptt_plan_stack(bptt_plan *plan, bptt_error *error);
bptt_status bptt_plan_overlay(bptt_plan *plan, bptt_error *error);
void bptt_plan_fuse(bptt_plan *plan);
bptt_status bptt_plan_truncate(bptt_plan *plan, bptt_error *error);
bptt_status bptt_plan_clear(bptt_plan *plan, bptt_error *error);
bptt_status bptt_plan_place(bptt_plan *plan, size_t memory_limit, bptt_error *error);
bptt_status bptt_plan_tile(bptt_plan *plan, bptt_error *error); /* obeys spec.tuning */
void bptt_plan_count(bptt_plan *plan);

/* Whether the emitted text runs the action as calls of a tile. */
bool bptt_has_tile(const bptt_plan *plan, const bptt_action *action);
/* Whether its panels are packed: known once blocks and the strides of slots and parameters are. */
bool bptt_should_pack(const bptt_plan *plan, const bptt_action *action);
/* Rows of C that a call of a product has, most of the time. */
int64_t bptt_product_rows(const bptt_plan *plan, const bptt_action *action);
/* The cheapest tiles of a product by the model of tile.c, at most `room` of them, in order; returns how many. */
int bptt_plan_tiles(const bptt_plan *plan, const bptt_action *action, bptt_tile *tiles, int room);

/* Bytes of what each part of the work has of its own; all of the workspace where there is one part. */
size_t bptt_part_bytes(const bptt_plan *plan);
/* Whether an action runs step by step. */
bool bptt_in_time(const bptt_plan *plan, const bptt_action *action);
/* Whether it sums over rows into a parameter's gradient. */
bool bptt_sums_over_rows(const bptt_action *action);
/* Rows of the slots that a call of an action works on, most of the time. */
int64_t bptt_call_rows(const bptt_plan *plan, const bptt_action *action);
/* `cols` and its padding, in whole vectors. */
int64_t bptt_padded(const bptt_plan *plan, int64_t cols);
/* Do other slots lie in columns of it? */
bool bptt_is_host(const bptt_plan *plan, int slot);
/* Is it a place in that very slot; is one of an element's? */
bool bptt_is_slot(const bptt_ref *ref, int slot);
bool bptt_has_slot(const bptt_element *element, int slot);
/* Puts an action of a phase at index `at`; NULL: there are too many.  Takes one away. */
bptt_action *bptt_insert_action(bptt_plan *plan, int at, bptt_action_kind kind, bptt_region region, int level, bptt_error *error);
void bptt_remove_action(bptt_plan *plan, int at);
/* Does the action write columns of a slot, or of one that shares columns with it; does it write or read some? */
bool bptt_writes(const bptt_plan *plan, const bptt_action *action, int slot);
bool bptt_touches(const bptt_plan *plan, const bptt_action *action, int slot);
/* Rows of a slot. */
int64_t bptt_slot_row_count(const bptt_plan *plan, const bptt_slot *slot);
const char *bptt_region_name(bptt_region region);
/* Where a region of a level comes in the order of execution, from 0; and back. */
int bptt_phase(const bptt_plan *plan, bptt_region region, int level);
bptt_region bptt_phase_region(const bptt_plan *plan, int phase);
int bptt_phase_level(const bptt_plan *plan, int phase);
int bptt_phase_count(const bptt_plan *plan);
const char *bptt_action_name(bptt_action_kind kind);

#endif
