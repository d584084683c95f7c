/* peer.h: one way to train the same network, so that many can be timed side by side.
 *
 * A task is sizes, first weights and tokens; a peer is a system that trains on it.  Every step of every peer is one chunk of T steps
 * of B sequences, from a zero state: forward, backward, clip, update.  Step i (from 0) reads chunk i mod `chunks`.  For `make
 * bench-peers` alone; no part of bptt.  Depends on gen/spec.h.
 */
#ifndef BPTT_PEER_H
#define BPTT_PEER_H

#include "../../gen/spec.h"

typedef struct peer_task {
    const char *name;
    bptt_spec spec;                             /* rnn, tanh, f32, adagrad, clip by norm, carry = false, K = T */
    size_t hidden, vocab, steps, batch, chunks; /* H V T B */
    float *W_xh, *W_hh, *W_hy;                  /* first weights [V][H], [H][H], [H][V]; the biases start at 0 */
    uint32_t *x, *y;                            /* tokens and labels [chunks][T][B] */
    double flop, bytes;                         /* of one step, counted by our plan */
} peer_task;

typedef struct peer_result {
    double seconds; /* of all steps that were asked for */
    double loss;    /* of the last one: mean per token, nats */
} peer_result;

typedef struct peer_kind peer_kind;
struct peer_kind {
    const char *name;
    const char *what;     /* for the legend under the table */
    const char *argument; /* peer_gemm: whose sgemm; peer_process: its script */
    int backend;          /* peer_bptt: a bptt_backend */
    /* *self is NULL before, and afterwards the peer, to be closed even after a failure.  The task outlives it. */
    bptt_status (*open)(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error);
    bptt_status (*run)(void *self, long steps, peer_result *result, bptt_error *error);
    /* How the peer arranged its work, in a few words, or NULL. */
    const char *(*arrangement)(const void *self);
    void (*close)(void *self);
};

/* All there are, ended by a NULL name; the first is the reference for losses. */
extern const peer_kind peer_kinds[];

#define PEER_ENTRIES(name)                                                                                                       \
    bptt_status name##_open(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error);                       \
    bptt_status name##_run(void *self, long steps, peer_result *result, bptt_error *error);                                      \
    const char *name##_arrangement(const void *self);                                                                            \
    void name##_close(void *self)

PEER_ENTRIES(peer_bptt);
PEER_ENTRIES(peer_onednn);
PEER_ENTRIES(peer_gemm);
PEER_ENTRIES(peer_process);

#endif
