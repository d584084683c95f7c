/* peer.h: one way to train the same network, so that many can be timed side by side.
 *
 * A task is sizes, first weights and tokens; a peer is a system that trains on it.  Every step of every peer is one chunk of T
 * steps of B sequences, from a zero state: forward, backward, clip, update.  Step i (from 0) reads chunk i mod `chunks`.  For `make
 * bench-peers` alone; no part of bptt.  Depends on gen/spec.h.
 */
#ifndef BPTT_PEER_H
#define BPTT_PEER_H

#include "../../gen/spec.h"

typedef struct peer_task {
    const char *name;
    bptt_spec spec;                             /* one layer, tanh, f32, adagrad, clip by norm, carry = false, K = T */
    size_t hidden, vocab, steps, batch, chunks; /* H V T B */
    size_t gates;                               /* G: 1, gru 3, lstm 4; a row holds them side by side, in PyTorch's order */
    size_t biases;                              /* of H values each: one a gate, and gru's candidate has a second one */
    float *W_xh, *W_hh, *W_hy;                  /* first weights [V][G H], [H][G H], [H][V]; the biases start at 0 */
    uint32_t *x, *y;                            /* tokens and labels [chunks][T][B] */
    double flop, bytes;                         /* of one step, counted by our plan */
} peer_task;

typedef struct peer_result {
    double seconds; /* of all steps that were asked for */
    double loss;    /* of the last one: mean per token, nats */
} peer_result;

typedef struct peer_kind peer_kind;

/* How a system is driven. */
typedef struct peer_system {
    /* *self is NULL before; afterwards it is the peer, to be closed even after a failure.  The task outlives it. */
    bptt_status (*open)(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error);
    bptt_status (*run)(void *self, long steps, peer_result *result, bptt_error *error);
    /* How the peer arranged its work, in a few words; NULL: there is but one way. */
    const char *(*arrangement)(const void *self);
    void (*close)(void *self);
} peer_system;

struct peer_kind {
    const char *name;
    const char *what; /* for the legend under the table */
    const peer_system *system;
    const char *argument; /* peer_gemm: whose; peer_process: its script */
    int backend;          /* peer_bptt: a bptt_backend */
    bool gated;           /* takes part in rows of cells gru and lstm too */
};

/* All there are, ended by a NULL name; the first one that runs is the reference for losses. */
extern const peer_kind peer_kinds[];

extern const peer_system peer_bptt, peer_onednn, peer_gemm, peer_process;

#endif
