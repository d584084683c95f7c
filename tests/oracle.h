/* oracle.h: what a trained network must compute, written straight from the formulas of design.md section 1.
 *
 * Naive loops in double with run-time sizes.  Knows the spec and the bptt_model interface; knows nothing of graph, plan, text or
 * the generic loops, so that a mistake there cannot be repeated here.  Tests only: when memory runs out it aborts.
 *
 * Parameters, gradients and moments are flat vectors of net->count doubles, the tensors one after the other in the order of
 * net->tensors.  Tokens are x[steps][B], labels y[steps][B] (y >= V: no loss there), states h[B][H].
 */
#ifndef BPTT_TESTS_ORACLE_H
#define BPTT_TESTS_ORACLE_H

#include "../gen/spec.h"
#include "../templates/abi.h"

enum { ORACLE_TENSORS = 5 };

typedef struct oracle_tensor {
    const char *name;
    size_t rows, cols, offset; /* element (row, col) at offset + row * cols + col */
} oracle_tensor;

typedef struct oracle_net {
    size_t hidden, vocab, batch;
    bptt_activation activation;
    bptt_reduction reduction;
    bool cut; /* forget the edge h_t -> h_{t-1} in backward: deliberately wrong */
    oracle_tensor tensors[ORACLE_TENSORS];
    size_t count;   /* parameters */
    double *params; /* owned */
} oracle_net;

/* A net of the spec's sizes, activation and reduction; parameters zero. */
oracle_net *oracle_net_new(const bptt_spec *spec);
void oracle_net_free(oracle_net *net);
/* Zeroed doubles, freed with free(). */
double *oracle_doubles(size_t count);
/* Position of an element in a flat vector. */
size_t oracle_index(const oracle_net *net, const char *tensor, size_t row, size_t col);

/* ---- the gradient, four ways.  h0 and h_end may be NULL (zero; not wanted).  All return or differentiate the chunk's loss. ---- */

/* Forward alone. */
double oracle_loss(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0, double *h_end);
/* The smallest |a| of a relu net's chunk (infinite for the others): nearer to 0 than rounding or a difference reaches, relu' is
 * not defined well enough to be compared. */
double oracle_nearest_kink(const oracle_net *net, size_t steps, const uint32_t *x, const double *h0);
/* Textbook BPTT: one backward sweep. */
double oracle_bptt(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0, double *gradient,
                   double *h_end);
/* Central differences of oracle_loss. */
void oracle_central(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0,
                    double *gradient);
/* The sum over all paths: for every loss step t and weight step s <= t the explicit product of the Jacobians between. */
void oracle_path_sum(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0,
                     double *gradient);
/* The definition of truncation.  Each of the T steps has its own copy of the weights; every loss term is differenced with respect
 * to every copy, and the pairs (loss step, weight step) within one chunk of K are summed.  gradients: [ceil(T / K)][count]. */
void oracle_untied(const oracle_net *net, size_t T, size_t K, const uint32_t *x, const uint32_t *y, const double *h0,
                   double *gradients);

/* Probabilities [B][V] of one step from the state h[B][H], which advances. */
void oracle_predict(const oracle_net *net, const uint32_t *x, double *h, double *probabilities);

/* ---- training ---- */

/* The parameters that the spec's init draws from a seed. */
void oracle_init(const oracle_net *net, const bptt_spec *spec, uint64_t seed, double *params);
/* What the spec's schedule multiplies the rate of the n-th update (from 1) with; plateau: while it has not reduced anything. */
double oracle_schedule(const bptt_spec *spec, uint64_t n);
/* The n-th update (from 1): clips g, changes params and the moments m[0], m[1].  Returns the norm before clipping. */
double oracle_update(const bptt_spec *spec, uint64_t n, size_t count, double *params, double *g, double *const m[2]);

/* ---- any bptt_model ---- */

/* Zeroed memory for the model, 64-byte aligned; not yet init-ed; free with free(). */
void *oracle_memory_new(const bptt_model *model);
/* Between a flat vector and the parameter-shaped block at byte `block` (model->param, ->grad, ->moment[i]), through the model's
 * tensor table.  False when that table is not the net's.  Writing parameters ends with model->refresh. */
bool oracle_read(const oracle_net *net, const bptt_model *model, const void *memory, size_t block, double *flat);
bool oracle_write(const oracle_net *net, const bptt_model *model, void *memory, size_t block, const double *flat);
bool oracle_read_state(const oracle_net *net, const bptt_model *model, const void *memory, double *h);
bool oracle_write_state(const oracle_net *net, const bptt_model *model, void *memory, const double *h);
/* True when every real of the block outside its tensors is 0. */
bool oracle_padding_clean(const bptt_model *model, const void *memory, size_t block);

/* Worst error of each tensor: |a - b| / (|a| + |b| + scale), scale = the tensor's largest expected value, yet at least a
 * thousandth of the largest of all.  Infinite for a NaN or for a table that does not match. */
typedef struct oracle_report {
    double error[ORACLE_TENSORS];
    double worst;
    const char *tensor; /* where the worst is */
} oracle_report;
oracle_report oracle_compare_flat(const oracle_net *net, const double *expected, const double *actual);
oracle_report oracle_compare(const oracle_net *net, const double *expected, const bptt_model *model, const void *memory,
                             size_t block);

/* Drives a fresh model of `spec` through init and `sequences` sequences of random data (some labels ignored), chunk by chunk, and
 * compares everything that the interface shows with the oracle: parameters drawn, loss, gradients, state, norm, update, moments,
 * progress, padding, probabilities.  Each comparison starts from the model's own values, so rounding does not add up and
 * one tolerance fits: 1e-11 for f64, 2e-4 for f32. */
typedef struct oracle_verdict {
    double worst;
    unsigned chunks, skipped; /* f32 relu: gradients not compared because an |a| was within rounding of 0 */
    char where[96];           /* "sequence 0 chunk 2: gradient of W_hh" */
} oracle_verdict;
oracle_verdict oracle_follow(const bptt_spec *spec, const bptt_model *model, void *memory, uint64_t seed, unsigned sequences);

/* ---- random cases, the same for the same seed everywhere ---- */

/* BPTT_TEST_SEED of the environment, else a constant. */
uint64_t oracle_seed(void);
uint64_t oracle_random(uint64_t *state);
/* Random tokens and labels; about one label in `ignore_every` is V or UINT32_MAX (0: none). */
void oracle_tokens(uint64_t *state, size_t count, size_t vocab, unsigned ignore_every, uint32_t *x, uint32_t *y);
/* Case i of the random specs of `seed`: the edges first, then sizes at random.  `text` and `source` are NULL. */
void oracle_random_spec(uint64_t seed, unsigned i, bptt_spec *spec);
/* Number of edge cases at the start. */
unsigned oracle_edge_count(void);

/* Whether a text of unroll = "full" has no loop from the first step of the network to its start, but that over a sequence's chunks. */
bool oracle_is_spelled_out(const char *source);
/* One of each kind, at working rates. */
enum { ORACLE_OPTIMIZERS = BPTT_ADAMW + 1 };
extern const bptt_optimizer oracle_optimizers[ORACLE_OPTIMIZERS];
/* The forms of these that a rate makes: nesterov, and every rule with weight decay. */
enum { ORACLE_FORMS = 8 };
extern const bptt_optimizer oracle_forms[ORACLE_FORMS];

/* ---- the textbook example of a vanishing gradient ----
 * One unit, h held at sqrt(0.2) so that phi' = 0.8, recurrent weight 0.9; 100 steps, step t reads token t, one label at the end.
 * The gradient's row W_xh[99 - k] over its row W_xh[99] is then 0.72^k. */
enum { ORACLE_VANISHING_STEPS = 100 };
void oracle_vanishing_spec(bptt_spec *spec);
void oracle_vanishing_case(oracle_net *net, uint32_t *x, uint32_t *y);
/* That ratio, k steps back, from a gradient (flat). */
double oracle_vanishing_ratio(const oracle_net *net, const double *gradient, size_t k);

#endif
