/* peer_net.h: what a library for matrices leaves to its user: weights, gather, tanh, softmax, clip, Adagrad.
 *
 * Plain C that the compiler vectorises (-O3 -march=native -fno-math-errno -fopenmp-simd; tanh and exp from libmvec), as a
 * competent user of oneDNN or OpenBLAS would write it.  All matrices are dense rows, weights are [inputs][outputs].
 */
#ifndef BPTT_PEER_NET_H
#define BPTT_PEER_NET_H

#include "peer.h"

/* A parameter-shaped block: pointers into one array of peer_net.count floats.  Gates are side by side, as in a task. */
typedef struct peer_block {
    float *W_xh, *W_hh, *W_hy, *b_h, *b_y; /* in this order in memory */
} peer_block;

typedef struct peer_net {
    const peer_task *task;
    size_t rows;  /* T B: one row is one step of one sequence, row t B + b */
    size_t width; /* G H: of a row of W_xh and W_hh */
    size_t count;
    peer_block param, grad, moment;
    float *h;          /* states [T + 1][B][H]; the first B rows are 0 */
    float *o;          /* logits, then their adjoint [T B][V] */
    float *d;          /* adjoints of h [T B][H]; peer_gemm: then of a */
    uint32_t *touched; /* tokens of the chunk, each once */
    size_t touched_count;
    uint64_t *last_seen; /* [V] step that met the token last */
    uint64_t step;       /* from 1 */
} peer_net;

/* False when there is no memory.  Close in any case. */
bool peer_net_open(peer_net *net, const peer_task *task);
void peer_net_close(peer_net *net);
/* 64-byte aligned zeros, for free(); NULL when there is no memory. */
float *peer_floats(size_t count);

/* Begins a step on x: finds the tokens that occur. */
void peer_net_begin(peer_net *net, const uint32_t *x);
/* Clips and updates.  With `sparse` only rows of W_xh whose token occurred: for Adagrad the others would not change. */
void peer_net_update(peer_net *net, bool sparse);
/* grad.W_xh: rows of tokens that occur become 0. */
void peer_net_zero_rows(peer_net *net);

/* out[r] = W[x[r]] + bias; without a bias when it is NULL */
void peer_gather(size_t rows, size_t width, const float *W, const float *bias, const uint32_t *x, float *out);
/* W[x[r]] += d[r] */
void peer_scatter(size_t rows, size_t width, const float *d, const uint32_t *x, float *W);
/* out[r] = row */
void peer_spread(size_t rows, size_t n, const float *row, float *out);
/* sums[j] = sum over r of a[r][j] */
void peer_column_sum(size_t rows, size_t n, const float *a, float *sums);
void peer_tanh(size_t n, float *a);
/* d *= 1 - h h */
void peer_tanh_backward(size_t n, const float *h, float *d);
/* Logits o[rows][V] become (softmax(o) - onehot(y)) / rows.  Returns the mean loss. */
double peer_softmax(size_t rows, size_t V, const uint32_t *y, float *o);

/* Runs `steps` steps of a peer in this process: `step` takes one chunk and returns its loss; *next is the number of the step. */
void peer_steps(const peer_task *task, uint64_t *next, long steps, double (*step)(void *, const uint32_t *, const uint32_t *),
                void *self, peer_result *result);

#endif
